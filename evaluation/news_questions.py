"""Dated multiple-choice questions, answered by a masked-language model that finds one choice the likeliest."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.dated_text import period_of
from evaluation.masked_scores import Checkpoint, encode_sentences, score_sentences
from shared.errors import InputError

BLANK = "___"  # a run of underscores in a question is where the answer belongs
NONE_OF = "none of the above"


class Question(NamedTuple):
    bucket: str
    text: str
    choices: tuple[str, ...]
    answer: int


def read_questions(inputs: Sequence[str], period: str, most: int | None) -> tuple[list[Question], dict[str, int]]:
    """The questions that can be measured, in the order of the files, and how many were left out for what reason.

    JSON lines with the question (`question` or `question_sentence`), `choices`, `answer` (the place of the right
    choice from 0 on, alone or in a list, or its text) and `date` (or `question_date`): the form of RealTime QA (Kasai
    et al., 2023). `most`: questions of a period. Raises InputError for a line that is not JSON, an answer that is no
    choice or a date that does not parse.
    """
    questions, left_out, taken = [], Counter[str](), Counter[str]()
    seen = set()
    for file, number, row in _read_lines(inputs):
        where = f"--questions {file}, line {number}"
        text, date = row.get("question", row.get("question_sentence")), row.get("date", row.get("question_date"))
        choices, answer = row.get("choices"), row.get("answer")
        if isinstance(answer, list):
            answer = answer[0] if len(answer) == 1 else None
        if not text or not choices:
            left_out["no question or no choices"] += 1
        elif answer is None:
            left_out["no answer"] += 1
        elif any(str(choice).strip().lower() == NONE_OF for choice in choices):
            left_out[f"a choice is {NONE_OF!r}"] += 1
        else:
            choices = tuple(str(choice).strip() for choice in choices)
            place = _place(answer, choices)
            if place is None or len(choices) < 2:
                raise InputError(f"{where}: answer {answer!r} is none of the choices, which count from 0")
            try:
                bucket = period_of(str(date), period)
            except ValueError as error:
                raise InputError(f"{where}: {error}; see also --period") from error
            question = Question(bucket, str(text).strip(), choices, place)
            if question[1:] in seen:
                left_out["repeated"] += 1
            elif most is not None and taken[bucket] >= most:
                left_out["more than --max_samples of a period"] += 1
            else:
                seen.add(question[1:])
                taken[bucket] += 1
                questions.append(question)
    if not questions:
        raise InputError(f"--questions: none has choices and an answer ({dict(left_out)})")
    return questions, dict(sorted(left_out.items()))


def _read_lines(inputs: Sequence[str]) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    for name in inputs:
        files = sorted(Path(name).rglob("*.jsonl")) if Path(name).is_dir() else [Path(name)]
        if not files:
            raise InputError(f"--questions {name}: no file in this folder ends in .jsonl")
        for file in files:
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"--questions {file}: not readable: {error}") from error
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise InputError(f"--questions {file}, line {number}: not JSON: {error}") from error
                    if not isinstance(row, dict):
                        raise InputError(f"--questions {file}, line {number}: not an object")
                    yield file, number, row


def _place(answer: Any, choices: tuple[str, ...]) -> int | None:
    if isinstance(answer, str) and answer.strip() in choices:
        return choices.index(answer.strip())
    try:
        place = int(answer)
    except (TypeError, ValueError):
        return None
    return place if 0 <= place < len(choices) else None


def as_cloze(question: str, choice: str) -> tuple[str, tuple[int, int]]:
    """The question with the choice in its blank or behind it, and the characters of the choice."""
    start = question.find(BLANK)
    if start < 0:
        text = f"{question} {choice}."
        return text, (len(text) - len(choice) - 1, len(text) - 1)
    rest = question[start:].lstrip("_")
    return f"{question[:start]}{choice}{rest}", (start, start + len(choice))


def answer_questions(model: Any, checkpoint: Checkpoint, questions: Sequence[Question]) -> tuple[np.ndarray, int]:
    """For each question 1 if the right choice is the likeliest, a share where several are, else 0; and how many
    questions were too long for the model, which counts as chance.

    A choice is worth the mean log-probability of its tokens, each hidden in turn with the question in sight.
    """
    clozes = [as_cloze(question.text, choice) for question in questions for choice in question.choices]
    sentences = encode_sentences(checkpoint, [text for text, _ in clozes], [span for _, span in clozes])
    scores = iter(score_sentences(model, [s for s in sentences if s], checkpoint.tokenizer.mask_token_id))
    worth = iter([next(scores).mean() if sentence else np.nan for sentence in sentences])
    right = np.zeros(len(questions))
    too_long = 0
    for number, question in enumerate(questions):
        values = np.array([next(worth) for _ in question.choices])
        if np.isnan(values).any():
            right[number], too_long = 1 / len(values), too_long + 1
        else:
            best = values == values.max()
            right[number] = best[question.answer] / best.sum()
    return right, too_long
