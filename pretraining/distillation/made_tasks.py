"""Tasks that plain text sets by itself: answers to find, names and edits to mark, praise and blame to tell apart."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from shared.command_line import check_ranges, refuse_flags
from shared.errors import InputError
from shared.loss import IGNORED
from shared.model_config import count_positions

READ_AT_ONCE = 8192  # rows, tokenized together
Columns = dict[str, list[Any]]
COLUMNS = {
    "question": ("question", "context", "answers"),
    "name": ("tokens", "ner_tags"),
    "edit": ("tokens", "ner_tags"),
    "opinion": ("sentence", "label"),
}


@dataclass
class MadeTaskArguments:
    question_dataset: str | None = field(
        default=None, metadata={"help": "Answers to find in a text: a folder of data_prep/make_questions.py."}
    )
    questions_per_group: int = field(default=8, metadata={"help": "Questions in a sample."})
    question_weight: float = field(default=1.0, metadata={"help": "Weight of the ends of their answers."})
    name_dataset: str | None = field(
        default=None, metadata={"help": "Names to mark: a folder of data_prep/make_names.py."}
    )
    names_per_group: int = field(default=32, metadata={"help": "Sentences with names to mark in a sample."})
    name_weight: float = field(default=1.0, metadata={"help": "Weight of the kinds of their words."})
    edit_dataset: str | None = field(
        default=None, metadata={"help": "Edits to mark: a folder of data_prep/make_edits.py."}
    )
    edits_per_group: int = field(default=32, metadata={"help": "Sentences with edits to mark in a sample."})
    edit_weight: float = field(default=1.0, metadata={"help": "Weight of the marks of their words."})
    opinion_dataset: str | None = field(
        default=None, metadata={"help": "Praise and blame to tell apart: a folder of data_prep/make_opinions.py."}
    )
    opinions_per_group: int = field(default=32, metadata={"help": "Sentences with an opinion in a sample."})
    opinion_weight: float = field(default=1.0, metadata={"help": "Weight of the labels of these sentences."})
    max_task_tokens: int = field(
        default=256, metadata={"help": "Tokens of a question with its text, or a sentence; longer ones are left out."}
    )

    def __post_init__(self) -> None:
        for task in COLUMNS:
            if not getattr(self, f"{task}_dataset"):
                refuse_flags(self, dict.fromkeys([f"{task}s_per_group", f"{task}_weight"], f"is for --{task}_dataset"))
            check_ranges(self, **{f"{task}s_per_group": ">= 1"})
        if not self.made_tasks:
            refuse_flags(self, {"max_task_tokens": f"is for {', '.join(f'--{task}_dataset' for task in COLUMNS)}"})

    @property
    def made_tasks(self) -> list[str]:
        """Those that are asked for, of "question", "name", "edit" and "opinion"."""
        return [task for task in COLUMNS if getattr(self, f"{task}_dataset")]

    @property
    def rows_per_group(self) -> dict[str, int]:
        """How many rows of each task are in a sample."""
        return {
            "question": self.questions_per_group,
            "name": self.names_per_group,
            "edit": self.edits_per_group,
            "opinion": self.opinions_per_group,
        }


@dataclass(frozen=True)
class MadeTask:
    """The rows of a task, in groups of like length.

    Token ids with special tokens, and labels: of a question the first and the last token of its answer, (2,); of words
    to mark the tag of each at its first token, (tokens,), IGNORED at the others; of an opinion its class, (1,).
    `classes`: how many there are, two for answers.
    """

    ids: list[np.ndarray]
    labels: list[np.ndarray]
    classes: int
    groups: np.ndarray

    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hash_of(*self.ids, *self.labels, self.groups)

    def batch(self, task: str, groups: np.ndarray, pad: int) -> dict[str, torch.Tensor]:
        """`question_ids`, `question_mask` and `question_labels` of these groups, or `name_...` and so on."""
        rows = self.groups[groups].ravel()
        batch = ids_and_mask(task, [self.ids[row] for row in rows], pad)
        return batch | {f"{task}_labels": _pad([self.labels[row] for row in rows], IGNORED)}


def hash_of(*arrays: np.ndarray) -> str:
    """SHA-256 of the content of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def ids_and_mask(name: str, rows: Sequence[Any], pad: int) -> dict[str, torch.Tensor]:
    """`{name}_ids` and `{name}_mask` of rows of token ids, each (rows, longest) int64."""
    return {f"{name}_ids": _pad(rows, pad), f"{name}_mask": _pad([np.ones(len(row)) for row in rows], 0)}


def _pad(rows: Sequence[Any], value: int) -> torch.Tensor:
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded)


def load_made_tasks(args: MadeTaskArguments, tokenizer: Any, say: Any) -> dict[str, dict[str, MadeTask]]:
    """The tasks that are asked for, of `train` and of `validation`. Raises InputError, naming the flag."""
    loaded: dict[str, dict[str, MadeTask]] = {"train": {}, "validation": {}}
    for task in args.made_tasks:
        folder, size = getattr(args, f"{task}_dataset"), args.rows_per_group[task]
        flag = f"--{task}_dataset {folder}"
        tables = {split: _read(Path(folder), split, task, flag) for split in loaded}
        if task == "question":
            read, classes = partial(_read_questions, tokenizer=tokenizer), 2
        elif task == "opinion":
            labels = sorted({label.as_py() for table in tables.values() for label in table["label"]})
            read, classes = partial(_read_classes, tokenizer=tokenizer, labels=labels), len(labels)
        else:
            tags = sorted({tag for table in tables.values() for row in table["ner_tags"] for tag in row.as_py()})
            read, classes = partial(_read_tags, tokenizer=tokenizer, tags=tags), len(tags)
        for split, table in tables.items():
            parts = (batch.to_pydict() for batch in table.to_batches(READ_AT_ONCE))
            rows = [row for part in parts for row in read(part) if len(row[0]) <= args.max_task_tokens]
            if len(rows) < size:
                raise InputError(
                    f"{flag}: {split} has {len(rows)} rows of at most --max_task_tokens {args.max_task_tokens}; a "
                    f"sample takes --{task}s_per_group {size}"
                )
            if len(rows) < len(table):
                lost = len(table) - len(rows)
                say(f"{flag}: {lost:,} of {len(table):,} rows of {split} left out, too long or unreadable")
            order = np.argsort([len(ids) for ids, _ in rows], kind="stable")
            groups = order[: len(order) // size * size].reshape(-1, size)
            loaded[split][task] = MadeTask([ids for ids, _ in rows], [labels for _, labels in rows], classes, groups)
    return loaded


def check_lengths(made: Mapping[str, Mapping[str, MadeTask]], config: Any) -> None:
    """Raise InputError unless the model has a position for each token of the longest row."""
    longest = max((len(ids) for tasks in made.values() for task in tasks.values() for ids in task.ids), default=0)
    positions = count_positions(config)
    if positions and longest > positions:
        raise InputError(
            f"--max_task_tokens: there are rows of {longest} tokens, and the model has only {positions} positions; "
            f"leave them out with --max_task_tokens {positions}"
        )


def _read(folder: Path, split: str, task: str, flag: str) -> pa.Table:
    """The columns of the task."""
    try:
        return pq.read_table(folder / f"{split}.parquet", columns=list(COLUMNS[task]))
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{flag}: no {split}.parquet with {' and '.join(COLUMNS[task])} in it; run data_prep/make_{task}s.py"
        ) from error


def _read_questions(part: Columns, tokenizer: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    encoded = tokenizer(part["question"], part["context"], verbose=False)
    for encoding, answers in zip(encoded.encodings, part["answers"], strict=True):
        begin, text = answers["answer_start"][0], answers["text"][0]
        ends = [encoding.char_to_token(place, 1) for place in (begin, begin + len(text) - 1)]
        if None not in ends:  # of characters that the tokenizer throws away
            yield np.array(encoding.ids), np.array(ends, dtype=np.int64)


def _read_tags(part: Columns, tokenizer: Any, tags: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    encoded = tokenizer([" ".join(words) for words in part["tokens"]], verbose=False)
    for encoding, words, found in zip(encoded.encodings, part["tokens"], part["ner_tags"], strict=True):
        labels = np.full(len(encoding.ids), IGNORED)
        begin = 0
        for word, tag in zip(words, found, strict=True):
            first = encoding.char_to_token(begin)
            if first is not None:
                labels[first] = tags.index(tag)
            begin += len(word) + 1
        yield np.array(encoding.ids), labels


def _read_classes(part: Columns, tokenizer: Any, labels: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    encoded = tokenizer(part["sentence"], verbose=False)
    for ids, label in zip(encoded["input_ids"], part["label"], strict=True):
        yield np.array(ids), np.array([labels.index(label)])
