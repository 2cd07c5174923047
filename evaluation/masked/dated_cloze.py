"""Dated cloze questions: a sentence with a gap, and as choices all answers of its kind.

An answer is worth its log-probability, piece by piece from left to right with the pieces to come masked: the sum of
log p(piece | sentence, pieces before it), in a gap of as many masks as the answer has pieces. It is a sum and no mean:
answers of one piece and of several compete as wholes. How likely a gap of that length is has no part in it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from evaluation.masked.dated_text import period_of
from evaluation.masked.scores import Checkpoint, batches_of_one_length
from finetuning.common.data import Split, check_columns
from shared.errors import InputError

COLUMNS = ("text", "answer", "kind", "date")
GAP = "[MASK]"
ROWS_AT_ONCE = 256  # in a forward pass: their log-probabilities are kept for all of the vocabulary


class Cloze(NamedTuple):
    """A question: the text on both sides of its gap, the place of the answer among those of its kind, its year."""

    left: str
    right: str
    kind: str
    answer: int
    year: str


def read_cloze(split: Split) -> tuple[list[Cloze], dict[str, list[str]]]:
    """The questions, and the choices of each kind: all answers of that kind in the file, in the order of the alphabet.

    Raises InputError that names the row of a text without exactly one gap, of an empty answer, a date that does not
    say the year, or a kind with a single answer.
    """
    check_columns(split, COLUMNS, "text")
    rows = split.rows.select_columns(list(COLUMNS)).to_list()
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(row["kind"], set()).add(row["answer"].strip())
    choices = {kind: sorted(found) for kind, found in sorted(answers.items())}
    questions = []
    for number, row in enumerate(rows, 1):
        where = f"{split.where}: row {number} (of {len(rows):,})"
        if row["text"].count(GAP) != 1:
            raise InputError(f"{where}: text holds {GAP} {row['text'].count(GAP)} times; it must hold it once")
        if not row["answer"].strip():
            raise InputError(f"{where}: answer is empty")
        if len(choices[row["kind"]]) < 2:
            raise InputError(f"{where}: the only answer of kind {row['kind']!r}; there must be two or more")
        try:
            year = period_of(row["date"], "year")
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error
        left, right = row["text"].split(GAP)
        if left[-1:].isalnum() or right[:1].isalnum():
            raise InputError(f"{where}: a letter or digit touches {GAP}, which must be a word of its own")
        answer = choices[row["kind"]].index(row["answer"].strip())
        questions.append(Cloze(left, right, row["kind"], answer, year))
    return questions, choices


def encode_choices(checkpoint: Checkpoint, before: str, after: str, choices: Sequence[str]) -> list[tuple[int, ...]]:
    """The pieces of each choice between two characters (or none); a space before it is theirs, as byte-level tokens
    have it.

    A choice that the tokenizer doesn't know is (), which is never chosen.
    """
    encodings = checkpoint.encoder.encode_batch([before + c + after for c in choices], add_special_tokens=False)
    found = []
    for choice, encoding in zip(choices, encodings, strict=True):
        pieces = tuple(encoding.ids[place] for place in places_of(encoding, before, choice))
        found.append(() if checkpoint.tokenizer.unk_token_id in pieces else pieces)
    return found


def places_of(encoding: Any, before: str, choice: str) -> list[int]:
    """The tokens of a choice behind the text `before`, and of one space between them: it may be a token of its own."""
    first = len(before) - before[-1:].isspace()
    end = len(before) + len(choice)
    return [place for place, (start, stop) in enumerate(encoding.offsets) if start < end and stop > first]


def encode_contexts(checkpoint: Checkpoint, questions: Sequence[Cloze], choices: dict[str, list[str]]) -> list[Any]:
    """For each question the ids before and behind its gap, special tokens included, and the pieces of its choices.

    Raises InputError for a text that is too long for the model with its longest choice.
    """
    pieces: dict[tuple[str, str, str], list[tuple[int, ...]]] = {}
    texts = [f"{q.left}{choices[q.kind][q.answer]}{q.right}" for q in questions]
    contexts = []
    for number, (question, encoding) in enumerate(zip(questions, checkpoint.encoder.encode_batch(texts), strict=True)):
        ids = np.array(encoding.ids, dtype=np.int64)
        inside = places_of(encoding, question.left, choices[question.kind][question.answer])
        if not inside:
            raise InputError(f"--cloze: question {number + 1}: {checkpoint.label} has no token for its answer")
        key = (question.left[-1:], question.right[:1], question.kind)
        if key not in pieces:
            pieces[key] = encode_choices(checkpoint, key[0], key[1], choices[question.kind])
        left, right = ids[: inside[0]], ids[inside[-1] + 1 :]
        longest = max(map(len, pieces[key]))
        if len(left) + longest + len(right) > checkpoint.most_tokens:
            raise InputError(f"--cloze: question {number + 1}: its text is longer than {checkpoint.label} takes")
        contexts.append((left, right, pieces[key]))
    return contexts


def score_choices(model: Any, contexts: Sequence[Any], mask_token_id: int) -> list[np.ndarray]:
    """The log-probability of each choice in each question, as at the top, (choices,) float64.

    A choice that after some of its pieces is less likely than another one as a whole is given up, -inf: it can only
    become less likely, and the best choice stays what it is. So a question takes a forward pass for each number of
    pieces, and a few more.
    """
    scores = [np.full(len(pieces), -np.inf) for _, _, pieces in contexts]
    begun = [{place: 0.0 for place, ids in enumerate(pieces) if ids} for _, _, pieces in contexts]
    depth = 0
    while any(begun):
        _extend(model, contexts, begun, depth, mask_token_id)
        depth += 1
        for found, partial, (_, _, pieces) in zip(scores, begun, contexts, strict=True):
            for place in [place for place in partial if len(pieces[place]) == depth]:
                found[place] = partial.pop(place)
            best = found.max()
            for place in [place for place, value in partial.items() if value < best]:
                del partial[place]
    return scores


@torch.inference_mode()
def _extend(
    model: Any, contexts: Sequence[Any], begun: list[dict[int, float]], depth: int, mask_token_id: int
) -> None:
    """Add to each choice that is begun the log-probability of its piece number `depth`, from 0 on."""
    wanted: dict[tuple[int, int, tuple[int, ...]], list[int]] = {}  # question, pieces, those before -> choices
    for question, partial in enumerate(begun):
        for place in partial:
            ids = contexts[question][2][place]
            wanted.setdefault((question, len(ids), ids[:depth]), []).append(place)
    keys, rows = [*wanted], []
    for question, count, known in keys:
        left, right, _ = contexts[question]
        rows.append(np.concatenate([left, known, np.full(count - depth, mask_token_id), right]).astype(np.int64))
    with tqdm(total=len(rows), desc=f"Piece {depth + 1} of answers", unit=" texts", leave=False) as bar:
        for numbers, ids in batches_of_one_length(rows, model.device, ROWS_AT_ONCE):
            gaps = torch.tensor([[len(contexts[keys[n][0]][0]) + depth] for n in numbers], device=ids.device)
            logits = model(input_ids=ids, masked_positions=gaps).logits[:, 0]
            values = logits.float().log_softmax(1).cpu().numpy()
            for row, number in enumerate(numbers):
                question = keys[number][0]
                for place in wanted[keys[number]]:
                    begun[question][place] += float(values[row, contexts[question][2][place][depth]])
            bar.update(len(numbers))


def answer_cloze(
    model: Any, checkpoint: Checkpoint, questions: Sequence[Cloze], choices: dict[str, list[str]]
) -> np.ndarray:
    """For each question 1 if the right answer is the likeliest, a share if several are; (questions,) float64."""
    contexts = encode_contexts(checkpoint, questions, choices)
    scores = score_choices(model, contexts, checkpoint.tokenizer.mask_token_id)
    right = np.zeros(len(questions))
    for number, (question, found) in enumerate(zip(questions, scores, strict=True)):
        best = found.max()
        if np.isfinite(best) and found[question.answer] == best:
            right[number] = 1 / (found == best).sum()
    return right


def baselines(questions: Sequence[Cloze], choices: dict[str, list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """For each question the chance of a blind guess, and 1 where the most frequent answer of its kind is right."""
    counts = Counter((question.kind, question.answer) for question in questions)
    most = {kind: max(range(len(found)), key=lambda i: counts[kind, i]) for kind, found in choices.items()}
    chance = np.array([1 / len(choices[question.kind]) for question in questions])
    return chance, np.array([float(question.answer == most[question.kind]) for question in questions])
