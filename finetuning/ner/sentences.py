"""Sentences of tagged words: found among the columns of a data set, read and checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, LargeList, List

from finetuning.common.data import Split, read_rows
from finetuning.ner.conll import is_column_file, read_columns
from finetuning.ner.tags import TAG, by_usual_letters, find_entities, find_scheme, types_of, write_tags
from shared.errors import InputError

WORDS = ("tokens", "words")  # what these columns are called
TAGS = ("ner_tags", "tags")
UNKNOWN = -1  # the class number that says "not known" in sets whose test tags are withheld


@dataclass(frozen=True)
class Sentences:
    """Words, and their tags where they are known. `repaired` of the sentences were not tagged in a scheme."""

    words: list[list[str]]
    tags: list[list[str]] | None
    repaired: int = 0

    def in_scheme(self, scheme: str) -> "Sentences":
        """The same with tags of another scheme."""
        tags = self.tags and [write_tags(find_entities(row), len(row), scheme) for row in self.tags]
        return replace(self, tags=tags)

    def divide(self, share: float, seed: int) -> tuple["Sentences", "Sentences"]:
        """The sentences without a share of them, and this share, drawn by seed."""
        order = np.random.default_rng(seed).permutation(len(self.words))
        middle = min(max(1, round(share * len(order))), len(order) - 1)
        if middle < 1:
            raise InputError("--search_trials: one sentence cannot be divided")
        return self._take(sorted(order[middle:])), self._take(sorted(order[:middle]))

    def _take(self, rows: Sequence[int]) -> "Sentences":
        return Sentences([self.words[i] for i in rows], self.tags and [self.tags[i] for i in rows])


def read_file(path: str, word_column: str | None, tag_column: str | None) -> Dataset:
    """The rows of a file of columns, or of any other file of labelled data. Raises InputError."""
    return read_columns(path, word_column, tag_column) if is_column_file(path) else read_rows(path)


def find_columns(
    split: Split, word_column: str | None, tag_column: str | None, needs_tags: bool
) -> tuple[str, str | None]:
    """The names of the columns with words and tags; None where there are no tags. Raises InputError."""
    filled = [name for name, kind in split.rows.features.items() if getattr(kind, "dtype", "") != "null"]
    found = []
    for flag, wish, usual in (("text", word_column, WORDS), ("label", tag_column, TAGS)):
        # In a file of columns these were numbers, which read_columns has followed.
        name = next((name for name in ([wish] if wish and "line" not in filled else usual) if name in filled), None)
        if name is None and (needs_tags or flag == "text"):
            raise InputError(
                f"{split.where}: has no column {wish or ' or '.join(usual)} (there are {', '.join(filled)}); name it "
                f"with --{flag}_column_name"
            )
        found.append(name)
    return found[0], found[1]


def find_types(split: Split, tag_column: str) -> list[str]:
    """The types of entities that a split declares (ClassLabel, in its order) or uses (sorted). Raises InputError."""
    names = _class_names(split, tag_column)
    if names is not None:
        return types_of(names)
    values = pc.unique(pc.list_flatten(split.rows.data.table.column(tag_column)))
    return sorted(types_of([value for value in values.to_pylist() if value and TAG.fullmatch(value)]))


def _class_names(split: Split, tag_column: str) -> list[str] | None:
    feature = split.rows.features[tag_column]
    inner = getattr(feature, "feature", None)
    if isinstance(inner, ClassLabel):
        for name in inner.names:
            if not TAG.fullmatch(name):
                raise InputError(f"{split.where}: column {tag_column}: {name!r} is no tag (O, B-PER, I-PER, ...)")
        return list(inner.names)
    if inner is not None and inner.dtype not in ("string", "large_string", "null"):
        raise InputError(
            f"{split.where}: column {tag_column} holds {inner.dtype} without names; write tags as text, or give the "
            "column a ClassLabel feature"
        )
    return None


def read_sentences(split: Split, word_column: str, tag_column: str | None, repair: bool) -> Sentences:
    """Read the rows of a split, check them, and turn their tags into IOB2.

    With `repair`, tags that are not in the scheme of the others are read as `find_entities` does. Raises InputError,
    naming the row.
    """
    rows = split.rows
    for name in (word_column, tag_column):
        if name and not isinstance(rows.features[name], (List, LargeList)):
            raise InputError(
                f"{split.where}: column {name} holds {rows.features[name]}, not a list of each row's words"
            )
    if getattr(rows.features[word_column].feature, "dtype", "") not in ("string", "large_string", "null"):
        raise InputError(f"{split.where}: column {word_column} holds {rows.features[word_column]}, not words")
    words = list(rows[word_column])
    for i, sentence in enumerate(words):
        if sentence is None or None in sentence:
            raise InputError(f"{name_row(split, i)}: column {word_column}: a word is missing")
    if not any(words):
        raise InputError(f"{split.where}: holds no words")
    if "id" in rows.column_names:
        first: dict[Any, int] = {}
        for i, key in enumerate(rows["id"]):
            if first.setdefault(key, i) != i:
                raise InputError(f"{name_row(split, i)}: has the id {key!r}, as row {first[key] + 1}")
    tags = _read_tags(split, words, tag_column) if tag_column else None
    if tags is None:
        return Sentences(words, None)
    found, wrong = find_scheme(tags)
    if wrong and not repair:
        i, others = wrong[0], set(range(len(tags))) - set(wrong)
        right = write_tags(find_entities(tags[i]), len(tags[i]), found)
        pairs = zip(by_usual_letters(tags[i], found), right, strict=True)
        at = next(k for k, (tag, wanted) in enumerate(pairs) if tag != wanted)
        known = next((f", as those of row {k + 1} are" for k in sorted(others) if set(tags[k]) - {"O"}), "")
        raise InputError(
            f"{name_row(split, i)}: {tags[i][at]} of word {at + 1} ({words[i][at]!r}) is not {found}{known}: the "
            f"schemes are mixed in {len(wrong):,} of {len(tags):,} rows; correct them, or read such tags as the "
            "entities that they seem to mean, with --repair_tags"
        )
    return Sentences(words, tags, len(wrong)).in_scheme("IOB2")


def _read_tags(split: Split, words: list[list[str]], tag_column: str) -> list[list[str]] | None:
    names = _class_names(split, tag_column)
    tags = list(split.rows[tag_column])
    if all(row is None or all(tag in (None, UNKNOWN) for tag in row) for row in tags):
        return None
    for i, row in enumerate(tags):
        if row is None:
            raise InputError(f"{name_row(split, i)}: column {tag_column} is empty")
        if len(row) != len(words[i]):
            raise InputError(f"{name_row(split, i)}: {len(words[i])} words and {len(row)} tags")
        for tag in row:
            if tag is None or (tag < 0 if names else not TAG.fullmatch(tag)):
                raise InputError(
                    f"{name_row(split, i)}: column {tag_column}: {tag!r} is no tag (O, B-PER, I-PER, ...)"
                )
    return [[names[tag] for tag in row] for row in tags] if names else tags


def name_row(split: Split, i: int) -> str:
    """Where a row is: the file, or dataset and split, and the row or line."""
    if "line" in split.rows.column_names:
        return f"{split.where}: sentence {i + 1}, from line {split.rows[i]['line']}"
    return f"{split.where}: row {i + 1}"


def check_types(sentences: dict[str, Sentences], splits: dict[str, Split], types: Sequence[str]) -> None:
    """Raise InputError for an entity of another type, and for a training split without any entity."""
    for name, some in sentences.items():
        for i, row in enumerate(some.tags or []):
            for kind in types_of(row):
                if kind not in types:
                    raise InputError(
                        f"{name_row(splits[name], i)}: an entity of type {kind}, which training has not seen (it has "
                        f"{', '.join(types)}); train on data that has it, or correct the tag"
                    )
        if name == "train" and not any(map(types_of, some.tags or [])):
            raise InputError(f"{splits[name].where}: every tag is O; there is nothing to learn")
