"""The files of a run that finds entities: its tags, and where it errs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from finetuning.common.error_analysis import (
    MISTAKES,
    confusion_matrix,
    confusion_table,
    draw_reliability,
    label_table,
    score_by_length,
    worst_rows,
    write_json_lines,
    write_page,
)
from finetuning.ner.conll import write_predictions
from finetuning.ner.sentences import Sentences
from finetuning.ner.tags import Entity, as_label, find_entities
from shared.markdown import markdown_table

NONE = "(none)"  # the partner of an entity that was missed or made up


def write_report(
    folder: Path, prefix: str, sentences: Sentences, found: list[list[str]], confidence: list[np.ndarray], scheme: str
) -> None:
    """Write what a split gave: a test split (`prefix` "test") as predictions.conll, a validation split as an error
    analysis with the tags of each sentence in errors/predictions.jsonl, further ones of either under their own names.
    `found` are the predicted tags, `confidence` their probabilities, by sentence and word."""
    if prefix.startswith("test"):
        file = folder / f"{prefix}_predictions.conll".removeprefix("test_")
        write_predictions(file, sentences.words, found, confidence, scheme)
    else:
        errors = folder / prefix.replace("eval", "errors", 1)
        write_entity_errors(errors, sentences, found, confidence)
        pairs = [[[as_label(tag, scheme) for tag in row] for row in tags] for tags in (sentences.tags or [], found)]
        rows = ({"index": i, "gold": a, "prediction": b} for i, (a, b) in enumerate(zip(*pairs, strict=True)))
        write_json_lines(errors / "predictions.jsonl", rows)


def pair_entities(gold: Sequence[Entity], found: Sequence[Entity]) -> list[tuple[Entity | None, Entity | None]]:
    """Each entity of two readings of a sentence once: with the same one of the other reading, else with the first that
    shares a word with it and has no partner yet, else with None. In the order of words."""
    pairs: list[tuple[Entity | None, Entity | None]] = [(entity, entity) for entity in gold if entity in set(found)]
    left = [entity for entity in found if entity not in set(gold)]
    for entity in gold:
        if entity not in set(found):
            partner = next((other for other in left if other[1] < entity[2] and entity[1] < other[2]), None)
            pairs.append((entity, partner))
            if partner:
                left.remove(partner)
    pairs += [(None, entity) for entity in left]
    return sorted(pairs, key=lambda pair: (pair[0] or pair[1])[1])  # type: ignore[index]


def write_entity_errors(
    folder: Path, sentences: Sentences, found: list[list[str]], confidence: list[np.ndarray]
) -> None:
    """Write errors.md, worst_mistakes.jsonl and reliability.png into `folder`."""
    words, gold = sentences.words, sentences.tags or []
    entities = [(find_entities(a), find_entities(b)) for a, b in zip(gold, found, strict=True)]
    pairs = [pair_entities(*both) for both in entities]
    types = sorted({entity[0] for row in entities for reading in row for entity in reading})
    names = [*types, NONE]
    number = {name: i for i, name in enumerate(names)}
    kinds = np.asarray([[number[entity[0] if entity else NONE] for entity in pair] for row in pairs for pair in row])
    kinds = kinds.reshape(-1, 2).astype(np.int64)
    same = np.asarray([a == b for row in pairs for a, b in row], bool)
    matrix = confusion_matrix(kinds[:, 0], kinds[:, 1], len(names))
    shifted = int((~same & (kinds[:, 0] == kinds[:, 1])).sum())
    hits = np.bincount(kinds[same, 0], minlength=len(names))[:-1]

    right = [np.asarray(a) == np.asarray(b) for a, b in zip(gold, found, strict=True)]
    all_right = np.asarray([row.all() for row in right])
    draw_reliability(np.concatenate(confidence), np.concatenate(right), folder / "reliability.png")
    losses = np.asarray([float(share[~is_right].sum()) for share, is_right in zip(confidence, right, strict=True)])
    mistakes = [
        {
            "index": index,
            "gold": _shown(words[index], entities[index][0]),
            "predicted": _shown(words[index], entities[index][1]),
            "wrong_words": int((~right[index]).sum()),
            "loss": float(losses[index]),
            "text": {"words": " ".join(words[index])},
        }
        for index in worst_rows(losses, ~all_right)  # confidently wrong words first
    ]
    write_page(
        folder,
        {
            "Entities": label_table(hits, matrix.sum(1)[:-1], matrix.sum(0)[:-1], types),
            "Confusions": (
                "Every entity once, beside the predicted one that shares a word with it, or `(none)`: missed or made "
                f"up. {shifted:,} on the diagonal have the right type, but not the right words.\n\n"
                f"{confusion_table(matrix, names)}"
            ),
            "Scores by length": table_by_length(words, entities, all_right),
            "Calibration": "The probability of a word's tag, and how often it is right.\n\n"
            "![accuracy over confidence](reliability.png)",
            "Worst sentences": (
                f"{(~all_right).sum():,} of {len(words):,} sentences have a wrong tag, the surest errors first: "
                f"`loss` adds up the probabilities of wrong tags. The first {MISTAKES} are in `worst_mistakes.jsonl`."
            ),
        },
        mistakes,
    )


def table_by_length(
    words: list[list[str]], entities: list[tuple[list[Entity], list[Entity]]], all_right: np.ndarray
) -> str:
    """Sentences by their number of words: how many have no wrong tag, and the F1 of their entities."""
    lengths = np.asarray([len(row) for row in words])
    rows = []
    for part in score_by_length(lengths, all_right):
        chosen = [both for both, length in zip(entities, lengths, strict=True) if part["from"] <= length <= part["to"]]
        score = f"{part['score']:.3f} ± {part['error']:.3f}"
        rows.append([f"{part['from']} to {part['to']}", part["rows"], score, _f1(chosen)])
    return markdown_table(["words", "sentences", "all tags right", "F1"], rows)


def _f1(rows: list[tuple[list[Entity], list[Entity]]]) -> str:
    hits = sum(len(set(gold) & set(found)) for gold, found in rows)
    total = sum(len(gold) + len(found) for gold, found in rows)
    return f"{2 * hits / total:.3f}" if total else "–"


def _shown(words: list[str], entities: list[Entity]) -> list[str]:
    return [f"{kind}: {' '.join(words[begin:end])}" for kind, begin, end in entities]
