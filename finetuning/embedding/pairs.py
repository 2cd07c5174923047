"""Texts to compare, in the four forms that such data has, as the columns from which a sentence encoder learns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset

from finetuning.common.data import Split, check_columns, check_roles, check_there
from shared.errors import InputError

SCORES, PAIRS, TRIPLETS, NLI = "scores", "pairs", "triplets", "nli"
NLI_TEXTS = ("premise", "hypothesis")
# The columns of two texts that mean the same or are compared, as published sets name them.
TEXTS = (
    ("sentence1", "sentence2"),
    ("anchor", "positive"),
    NLI_TEXTS,
    ("query", "answer"),
    ("question", "answer"),
)
LABELS, NEGATIVE = ("label", "score"), "negative"
NLI_LABELS = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class Form:
    """What the data is, and its columns: the texts (two, in TRIPLETS three), and the label or None."""

    name: str
    texts: tuple[str, ...]
    label: str | None


def find_form(split: Split, name: str | None, chosen: Sequence[str | None]) -> Form:
    """The form of the data by its columns. `name`, and of the columns `chosen` (first text, second text, negative,
    label) those that are not None, were given by flags. Raises InputError."""
    first, second, negative, label = chosen
    columns = split.rows.column_names
    if not (first and second):
        known = [pair for pair in TEXTS if set(pair) <= set(columns)]
        if not known:
            shown, way_out = ", ".join(columns), "name them by --text_column and --text_pair_column"
            raise InputError(f"{split.where}: which columns hold the two texts? There are {shown}; {way_out}")
        first, second = first or known[0][0], second or known[0][1]
    check_there(split, {first: "text_column", second: "text_pair_column"})
    negative = negative or (NEGATIVE if NEGATIVE in columns else None)
    label = label or next((column for column in LABELS if column in columns), None)
    if label:
        check_there(split, {label: "label_column"})
    if name is None and negative:
        name = TRIPLETS
    elif name is None:
        name = PAIRS if label is None else NLI if _has_names(split, label) else SCORES
        if name == SCORES and (first, second) == NLI_TEXTS:
            way_out = "write the labels as these names, or say by --data_format scores that they are scores"
            raise InputError(f"{split.where}: column {label} does not hold {', '.join(NLI_LABELS)}: {way_out}")
    if name == TRIPLETS and not negative:
        raise InputError(f"{split.where}: has no column {NEGATIVE}; name the third text by --negative_column")
    if negative and name == TRIPLETS:
        check_there(split, {negative: "negative_column"})
    if name in (SCORES, NLI) and label is None:
        raise InputError(f"{split.where}: has no column {' or '.join(LABELS)}; name it by --label_column")
    texts = (first, second, negative) if name == TRIPLETS and negative else (first, second)
    form = Form(name, texts, label if name in (SCORES, NLI) else None)
    flags = ("text_column", "text_pair_column", "negative_column")
    check_roles(*zip(flags, form.texts, strict=False), ("label_column", form.label))
    return form


def _has_names(split: Split, label: str) -> bool:
    """Whether the labels are names of NLI, and not numbers, or words that should have been numbers."""
    feature = split.rows.features[label]
    values = feature.names if isinstance(feature, ClassLabel) else split.rows.unique(label)
    return any(value in NLI_LABELS for value in values)


def read_texts(split: Split, columns: Sequence[str]) -> dict[str, list[str]]:
    """The texts of each column. Raises InputError for a column or a text that is missing."""
    check_columns(split, columns, "text")
    texts: dict[str, list[str]] = {name: split.rows[name][:] for name in columns}
    for name, values in texts.items():
        for i, text in enumerate(values):
            if not text.strip():
                raise InputError(f"{split.name(i)}: column {name} is empty")
    return texts


def read_scores(split: Split, column: str, scale: Sequence[float] | None) -> list[float]:
    """The scores as they are. Raises InputError for one that is not a number or, if given, not on the scale."""
    check_columns(split, [column])
    scores = []
    for i, value in enumerate(split.rows[column][:]):
        try:
            score = float(value)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score) or isinstance(value, bool):
            raise InputError(f"{split.name(i)}: column {column} holds {value!r}, not a number")
        if scale and not scale[0] <= score <= scale[1]:
            shown = f"{score:g} is not between the {scale[0]:g} and {scale[1]:g} of --score_scale"
            raise InputError(f"{split.name(i)}: column {column}: {shown}")
        scores.append(score)
    if len(set(scores)) == 1:
        raise InputError(f"{split.where}: column {column}: every score is {scores[0]:g}; there is nothing to compare")
    return scores


def has_scores(split: Split, column: str) -> bool:
    """Whether a test set has its scores: GLUE's have -1 in every row."""
    values = split.rows.unique(column) if column in split.rows.column_names else []
    return any(str(value) not in ("None", "-1", "-1.0") for value in values)


def triplets_of_nli(split: Split, form: Form) -> tuple[list[list[str]], str]:
    """Each entailed hypothesis of a premise, with one that contradicts it as the negative; and what was left out.

    As AllNLI is made into triplets (Gao et al., SimCSE, 2021). A premise without one of the two gives none. Raises
    InputError for a label that is none of NLI's (-1 says that the annotators did not agree), and if no triplet is
    found.
    """
    first, second = form.texts
    texts = read_texts(split, form.texts)
    feature = split.rows.features[form.label]
    names = [*feature.names, None] if isinstance(feature, ClassLabel) else None
    by_premise: dict[str, dict[str, list[str]]] = {}
    counts = dict.fromkeys([*NLI_LABELS, "without a label"], 0)
    for i, value in enumerate(split.rows[form.label][:]):
        label = names[value] if names else value
        if label in (None, "-", "-1", -1):
            counts["without a label"] += 1
            continue
        if label not in NLI_LABELS:
            where = f"{split.name(i)}: column {form.label}"
            raise InputError(f"{where} holds {value!r}, which is none of {', '.join(NLI_LABELS)}")
        counts[label] += 1
        found = by_premise.setdefault(texts[first][i], {name: [] for name in NLI_LABELS})
        found[label].append(texts[second][i])
    triplets = [
        (premise, right, wrong)
        for premise, found in by_premise.items()
        for right, wrong in zip(found["entailment"], cycle(found["contradiction"]), strict=False)
    ]
    if not triplets:
        raise InputError(f"{split.where}: no premise has both an entailed and a contradicting hypothesis")
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    columns = [list(texts) for texts in zip(*triplets, strict=True)]
    return columns, f"{len(triplets):,} triplets of {len(split.rows):,} rows ({shown})"


def as_columns(split: Split, form: Form, scale: Sequence[float] | None) -> tuple[dict[str, list[Any]], str]:
    """The texts as `text_0`, `text_1` and, in triplets, `text_2`, the order of the losses; `labels`, scores as they
    are or 0; and a line that says what they are."""
    if form.name == NLI:
        texts, shown = triplets_of_nli(split, form)
    else:
        texts = list(read_texts(split, form.texts).values())
        shown = f"{len(split.rows):,} {'pairs with scores' if form.name == SCORES else form.name}"
    columns: dict[str, list[Any]] = {f"text_{i}": values for i, values in enumerate(texts)}
    with_scores = form.name == SCORES and form.label
    columns["labels"] = read_scores(split, form.label, scale) if with_scores else [0.0] * len(columns["text_0"])
    return columns, f"{Path(split.where).name}: {shown}"


def with_lengths(columns: dict[str, list[Any]], tokenizer: Any, most: int) -> Dataset:
    """The columns as rows, with the number of tokens of all texts of a row in `length`."""
    names = [name for name in columns if name != "labels"]

    def count(batch: dict[str, list[str]]) -> dict[str, list[int]]:
        texts = (tokenizer(batch[name], truncation=True, max_length=most)["input_ids"] for name in names)
        return {"length": [sum(map(len, row)) for row in zip(*texts, strict=True)]}

    return Dataset.from_dict(columns).map(count, batched=True, desc="counting tokens")
