"""Sentences of tagged words: found among the columns of a data set, read and checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, LargeList, List

from finetuning.common.classes import ClassArguments
from finetuning.common.data import Split, check_roles
from finetuning.common.tables import TextFormat, format_of, read_rows, read_text
from finetuning.ner.conll import is_column_file, read_columns
from finetuning.ner.tags import (
    BARE,
    NO_TAG,
    as_tag,
    by_usual_letters,
    find_entities,
    find_scheme,
    is_label,
    types_of,
    write_tags,
)
from finetuning.ner.word_rows import group_words, has_header
from shared.errors import InputError

WORDS = ("tokens", "words")  # what these columns are called
TAGS = ("ner_tags", "tags")
UNKNOWN = -1  # the class number that says "not known" in sets whose test tags are withheld


@dataclass
class TagArguments(ClassArguments):
    text_column: str | None = field(
        default=None,
        metadata={"help": "The column of the words. Default: tokens or words; in a file of columns the first (1)."},
    )
    label_column: str | None = field(
        default=None,
        metadata={"help": "The column of the tags. Default: ner_tags or tags; in a file of columns the last."},
    )
    sentence_column: str | None = field(
        default=None, metadata={"help": "In CSV with a word in each row: the sentence's id. Default: sentence #, ..."}
    )
    tag_scheme: Literal["IOB1", "IOB2", "BIOES", "IO", "POS"] = field(
        default="IOB2",
        metadata={
            "help": "The scheme that the model learns, whatever that of the data. IO and POS read labels without "
            "prefixes: a run of equal ones is an entity, or each word has its own, as parts of speech."
        },
    )
    repair_tags: bool = field(
        default=False, metadata={"help": "Read tags of no scheme as the entities that they seem to mean; count them."}
    )


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


def read_file(
    path: str, form: TextFormat, columns: Sequence[str | None], sentence_column: str | None, scheme: str
) -> Dataset:
    """The sentences of a file: one of columns, a table with a word in each row, or one with lists of words and tags.
    `columns`: those of words and of tags, as flags name them. Raises InputError."""
    is_table = not is_column_file(path) or bool(form.columns)
    if not is_table and format_of(path) == "tsv":
        is_table = has_header(read_text(path, form.encoding).partition("\n")[0], [*columns, sentence_column])
    if not is_table and sentence_column:
        raise InputError(f"--sentence_column {sentence_column}: {path} has an empty line between sentences; remove it")
    if not is_table:
        return read_columns(path, *columns, scheme, form.encoding)
    rows = read_rows(path, form)
    return group_words(path, rows, *columns, sentence_column) if rows.info.builder_name == "csv" else rows


def find_columns(
    split: Split, word_column: str | None, tag_column: str | None, needs_tags: bool
) -> tuple[str, str | None]:
    """The names of the columns with words and tags; None where there are no tags. Raises InputError."""
    filled = [name for name, kind in split.rows.features.items() if getattr(kind, "dtype", "") != "null"]
    found = []
    for flag, wish, usual in (("text", word_column, WORDS), ("label", tag_column, TAGS)):
        # In files of one word a line or row the flags were followed when it was read.
        by_word = not {"line", "row"}.isdisjoint(filled)
        name = next((name for name in ([wish] if wish and not by_word else usual) if name in filled), None)
        if name is None and (needs_tags or flag == "text"):
            wanted, there = wish or " or ".join(usual), ", ".join(filled)
            raise InputError(
                f"{split.where}: has no column {wanted} (there are {there}); name it with --{flag}_column"
            )
        found.append(name)
    check_roles(("text_column", found[0]), ("label_column", found[1]))
    return found[0], found[1]


def find_types(split: Split, tag_column: str, scheme: str = "IOB2") -> list[str]:
    """The types of entities that a split declares (ClassLabel, in its order) or uses (sorted). Raises InputError."""
    names = _class_names(split, tag_column, scheme)
    if names is not None:
        return types_of([as_tag(name, scheme) for name in names])
    values = pc.unique(pc.list_flatten(split.rows.data.table.column(tag_column))).to_pylist()
    return sorted(types_of([as_tag(value, scheme) for value in values if value and is_label(value, scheme)]))


def _class_names(split: Split, tag_column: str, scheme: str) -> list[str] | None:
    feature = split.rows.features[tag_column]
    inner = getattr(feature, "feature", None)
    if isinstance(inner, ClassLabel):
        for name in inner.names:
            if not is_label(name, scheme):
                raise InputError(f"{split.where}: column {tag_column}: {name!r} {NO_TAG}")
        return list(inner.names)
    if inner is not None and inner.dtype not in ("string", "large_string", "null"):
        shown = f"column {tag_column} holds {inner.dtype} without names"
        raise InputError(f"{split.where}: {shown}; write tags as text, or give the column a ClassLabel feature")
    return None


def read_sentences(
    split: Split, word_column: str, tag_column: str | None, repair: bool, scheme: str = "IOB2"
) -> Sentences:
    """Read the rows of a split, check them, and turn their labels, of this scheme or another, into tags of IOB2. With
    `repair`, tags that are not in the scheme of the others are read as `find_entities` does. Raises InputError."""
    rows = split.rows
    for name in (word_column, tag_column):
        if name and not isinstance(rows.features[name], (List, LargeList)):
            raise InputError(f"{split.where}: column {name} holds {rows.features[name]}, not a list for each row")
    if getattr(rows.features[word_column].feature, "dtype", "") not in ("string", "large_string", "null"):
        raise InputError(f"{split.where}: column {word_column} holds {rows.features[word_column]}, not words")
    words = list(rows[word_column])
    for i, sentence in enumerate(words):
        if sentence is None or None in sentence:
            raise InputError(f"{name_row(split, i)}: column {word_column}: a word is missing")
    if not any(words):
        raise InputError(f"{split.where}: holds no words")
    tags = _read_tags(split, words, tag_column, scheme) if tag_column else None
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
            f"schemes are mixed in {len(wrong):,} of {len(tags):,} rows; correct them, or say --repair_tags"
        )
    return Sentences(words, tags, len(wrong)).in_scheme("IOB2")


def _read_tags(split: Split, words: list[list[str]], tag_column: str, scheme: str) -> list[list[str]] | None:
    names = _class_names(split, tag_column, scheme)
    tags = list(split.rows[tag_column])
    if all(row is None or all(tag in (None, UNKNOWN) for tag in row) for row in tags):
        return None
    for i, row in enumerate(tags):
        if row is None:
            raise InputError(f"{name_row(split, i)}: column {tag_column} is empty")
        if len(row) != len(words[i]):
            raise InputError(f"{name_row(split, i)}: {len(words[i])} words and {len(row)} tags")
        for tag in row:
            if tag is None or (tag < 0 if names else not is_label(tag, scheme)):
                raise InputError(f"{name_row(split, i)}: column {tag_column}: {tag!r} {NO_TAG}")
    return [[as_tag(names[tag] if names else tag, scheme) for tag in row] for row in tags]


def name_row(split: Split, i: int) -> str:
    """Where a row is: the file, or dataset and split, and the row or line."""
    for name in ("line", "row"):
        if name in split.rows.column_names:
            return f"{split.where}: sentence {split.number(i)}, from {name} {split.rows[i][name]}"
    return split.name(i)


def check_types(
    sentences: dict[str, Sentences], splits: dict[str, Split], types: Sequence[str], scheme: str = "IOB2"
) -> None:
    """Raise InputError for an entity of another type, and for a training split of one tag only."""
    for name, some in sentences.items():
        for i, row in enumerate(some.tags or []):
            for kind in types_of(row):
                if kind not in types:
                    where = f"{name_row(splits[name], i)}: an entity of type {kind}"
                    way_out = f"which training has not seen ({', '.join(types)}); train on it, or correct the tag"
                    raise InputError(f"{where}, {way_out}")
        used = {tag[2:] or tag if scheme in BARE else tag for row in some.tags or [] for tag in row}
        if name == "train" and len(used) < 2:
            shown = next(iter(used), "missing")
            way_out = "are the tags in another column, --label_column?"
            raise InputError(f"{splits[name].where}: every tag is {shown}; there is nothing to learn; {way_out}")


def count_repaired(splits: dict[str, Sentences]) -> dict[str, int]:
    """`train_repaired` and so on: tags that were mended, by split, where there are any."""
    return {f"{name}_repaired": some.repaired for name, some in splits.items() if some.repaired}
