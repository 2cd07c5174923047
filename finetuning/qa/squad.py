"""Questions about contexts: SQuAD's own JSON, versions 1.1 and 2.0, and flat rows; checked before a model loads."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from finetuning.common.data import LabelledDataArguments, Split, check_columns, check_roles, check_there
from finetuning.common.tables import PLAIN, TextFormat, format_of, read_rows, read_text, rows_of_objects
from shared.errors import InputError

ANSWERS = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
COLUMNS = ("id", "question", "context")
FLAGS = ("id_column", "question_column", "context_column", "answer_column")
SHOWN = 5  # misplaced answers in an error message


@dataclass
class QuestionArguments(LabelledDataArguments):
    """The columns of flat rows; those that have another name in the data are renamed."""

    id_column: str = field(default="id", metadata={"help": "The column of the id of a question, in flat rows."})
    question_column: str = field(default="question", metadata={"help": "The column of the question."})
    context_column: str = field(default="context", metadata={"help": "The column of the text with the answer."})
    answer_column: str = field(default="answers", metadata={"help": "The column of the answers, as SQuAD has them."})
    drop_misplaced_answers: bool = field(
        default=False, metadata={"help": "Leave out answers that do not stand at their answer_start, and list them."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_roles(*((name, getattr(self, name)) for name in FLAGS))

    def rename_columns(self, split: Split, needs_answers: bool) -> Split:
        """The split with the columns called as in SQuAD. Raises InputError for one that is missing."""
        flags = {getattr(self, flag): flag for flag in FLAGS[:3]}
        check_there(split, flags | ({self.answer_column: "answer_column"} if needs_answers else {}))
        wanted = dict(zip((*flags, self.answer_column), (*COLUMNS, "answers"), strict=True))
        renamed = {name: new for name, new in wanted.items() if name != new and name in split.rows.column_names}
        others = set(split.rows.column_names) - set(renamed)  # of which some have the names that are wanted
        rows = split.rows.remove_columns([new for new in renamed.values() if new in others])
        return replace(split, rows=rows.rename_columns(renamed))


def read_questions(path: str, form: TextFormat = PLAIN) -> Dataset:
    """The rows of a file: SQuAD's nested JSON, or flat ones in any format that `read_rows` knows, or under "data"."""
    if format_of(path) != "json" or not Path(path).is_file():
        return read_rows(path, form)
    try:
        content = json.loads(read_text(path, form.encoding))
    except ValueError:  # JSON lines, or an error that read_rows explains
        return read_rows(path, form)
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        return read_rows(path, form)
    return rows_of_objects(path, list(_flatten(content["data"], path)))


def _flatten(data: list[Any], path: str) -> Iterator[dict[str, Any]]:
    """The questions of SQuAD's JSON: articles of paragraphs, which hold a context and its questions."""
    for number, article in enumerate(data, 1):
        where = f"{path}: data, entry {number}"
        if not isinstance(article, dict):
            raise InputError(f"{where}: is {type(article).__name__}, not an object")
        if "paragraphs" not in article:
            yield article
            continue
        try:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    row = {"id": question["id"], "question": question["question"], "context": paragraph["context"]}
                    for name, value in row.items():
                        if not isinstance(value, (str, int) if name == "id" else str):
                            raise InputError(f"{where}: question {row['id']}: its {name} is {value!r:.80}, not text")
                    if "answers" in question:
                        row["answers"] = as_answers(question["answers"], f"{where}: question {question['id']}")
                        if question.get("is_impossible", False) and row["answers"]["text"]:
                            raise InputError(f"{where}: question {question['id']}: is_impossible, but has answers")
                    yield row
        except (KeyError, TypeError) as error:
            raise InputError(f"{where}: not as in SQuAD: {error!r} in its paragraphs or questions") from error


def as_answers(value: Any, where: str) -> dict[str, list[Any]]:
    """Answers as two lists, text and answer_start, from those, from a list of pairs, or from the JSON of either.
    Raises InputError for anything else."""
    wanted = f'{where}: answers must be {{"text": [...], "answer_start": [...]}}, and empty lists for no answer'
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InputError(f"{wanted}; there is {value[:80]!r}") from error
    if isinstance(value, list) and all(isinstance(answer, dict) for answer in value):
        value = {name: [answer.get(name) for answer in value] for name in ANSWERS}
    if not isinstance(value, dict) or any(not isinstance(value.get(name), list) for name in ANSWERS):
        raise InputError(f"{wanted}; there is {str(value)[:80]}")
    texts, starts = value["text"], value["answer_start"]
    if len(texts) != len(starts):
        raise InputError(f"{where}: {len(texts)} answers, but {len(starts)} values of answer_start")
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{wanted}; there is the answer {text!r}")
        if not isinstance(start, int) or isinstance(start, bool):
            raise InputError(f"{where}: the answer_start of {text[:80]!r} is {start!r}, not a whole number")
    return {"text": texts, "answer_start": starts}


@dataclass(frozen=True)
class Questions(Split):
    """Checked rows: id, question, context and, where they are known, answers."""

    misplaced: list[dict[str, Any]] = field(default_factory=list)  # answers that were dropped
    dropped: int = 0  # questions that had no other


def check_questions(split: Split, with_answers: bool, with_negative: bool, drop_misplaced: bool) -> Questions:
    """The rows with what is needed of them.

    `with_answers`: answers are wanted, as for training; `with_negative`: a question may have none; `drop_misplaced`:
    an answer that is not at its offset is left out, and a question that has no other with it, instead of an error. Of
    a split that needs no answers they are kept only if some question has one. Raises InputError that names the row.
    """
    check_columns(split, COLUMNS + ("answers",) * with_answers)
    check_columns(split, ("question", "context"), "text")
    rows, where = split.rows, split.where
    ids = _read_ids(split)
    for column in ("question", "context"):
        for i, text in enumerate(_values(rows, column)):
            if not text.strip():
                raise InputError(f"{split.name(i)} (id {ids[i]}): its {column} is empty")
    plain = rows.select_columns(["question", "context"]).add_column("id", ids)
    if "answers" not in rows.column_names or (not with_answers and not _any_answers(rows)):
        return Questions(plain, where)

    answers, kept, misplaced = [], [], []
    for i, (value, context) in enumerate(zip(_values(rows, "answers"), _values(rows, "context"), strict=True)):
        name = f"{split.name(i)} (id {ids[i]})"
        found = as_answers(value, name)
        if not found["text"] and not with_negative:
            raise InputError(f"{name}: has no answer; sets with such questions need --version_2_with_negative")
        good = []
        for text, start in zip(found["text"], found["answer_start"], strict=True):
            there = context[start : start + len(text)] if start >= 0 else ""
            if there == text:
                good.append((text, start))
            else:
                line = {"where": where, "row": split.number(i), "id": ids[i], "answer": text}
                misplaced.append(line | {"answer_start": start, "there": there})
        if good or not found["text"]:
            kept.append(i)
            answers.append({"text": [text for text, _ in good], "answer_start": [start for _, start in good]})
    if misplaced and not drop_misplaced:
        shown = "; ".join(
            f"row {line['row']} (id {line['id']}): {line['answer'][:60]!r} at {line['answer_start']}, where "
            f"{line['there'][:60]!r} stands"
            for line in misplaced[:SHOWN]
        )
        raise InputError(
            f"{where}: {len(misplaced):,} answers are not at their answer_start, in characters: {shown}; correct "
            "them, or leave them out with --drop_misplaced_answers, which lists all"
        )
    if not kept:
        raise InputError(f"{where}: no answer is at its answer_start, so no question is left")
    plain = plain if len(kept) == len(plain) else plain.select(kept)
    plain = plain.add_column("answers", answers, feature=Features(ANSWERS))
    return Questions(plain, where, misplaced=misplaced, dropped=len(rows) - len(kept))


def _read_ids(split: Split) -> list[str]:
    ids = [str(name) for name in split.rows["id"][:]]
    first: dict[str, int] = {}
    for index, name in enumerate(ids):
        if first.setdefault(name, index) != index:
            other, count = split.number(first[name]), len(ids) - len(set(ids))
            raise InputError(f"{split.name(index)}: its id {name} is that of row {other} ({count:,} such rows)")
    return ids


def has_answers(rows: Dataset) -> np.ndarray:
    """Whether each of the checked questions has an answer, (questions,) bool."""
    return np.array([bool(texts) for texts in rows.flatten()["answers.text"][:]], dtype=bool)


def check_both_kinds(split: Split) -> None:
    """Raise InputError unless some of the checked questions have an answer and some have none."""
    has_answer = has_answers(split.rows)
    if has_answer.all() or not has_answer.any():
        every = "every question has an answer" if has_answer.all() else "no question has an answer"
        raise InputError(f"--version_2_with_negative: {split.where}: {every}: there is nothing to tell apart")


def _any_answers(rows: Dataset) -> bool:
    """Whether any question has an answer that is written down."""
    for value in _values(rows, "answers"):
        texts = value.get("text") if isinstance(value, dict) else value
        if texts not in (None, [], "", "[]"):
            return not isinstance(texts, str) or bool(as_answers(texts, "answers")["text"])
    return False


def _values(rows: Dataset, column: str) -> Iterable[Any]:
    """The values of a column, a thousand of them in memory at once."""
    for batch in rows.select_columns([column]).iter(1000):
        yield from batch[column]
