"""Sentences of tagged words: read, checked, and their tags turned from one scheme into another.

A tag is `O`, or a prefix and the type of an entity: `B-PER`. The schemes differ in their prefixes. IOB1 writes `I-`
and needs `B-` only where an entity follows another of its type at once; IOB2 begins every entity with `B-`; BIOES also
ends it with `E-` and writes `S-` for one of a single word (BILOU is the same with `L-` and `U-`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, LargeList, List

from finetuning.common.data import FORMATS, Split
from shared.errors import InputError
from shared.files import atomic_file

SCHEMES = ("IOB2", "IOB1", "BIOES")
WORDS = ("tokens", "words")  # what these columns are called
TAGS = ("ner_tags", "tags")
UNKNOWN = -1  # the class number that says "not known" in sets whose test tags are withheld
PREFIXES = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIES"}
_TAG = re.compile(r"O|[BIESLU]-[^\s-](.*[^\s-])?")
_BILOU = str.maketrans("LU", "ES")

Entity = tuple[str, int, int]  # its type, its first word and the word behind its last


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


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence in any scheme, as the scorer of CoNLL 2000 reads them, for which no tag is wrong: one
    begins where the type changes, at `B-` and `S-`, and after `E-` and `S-`."""
    entities: list[Entity] = []
    last, begin = "O", 0
    for i, tag in enumerate([*tags, "O"]):
        prefix, kind = _parts(tag)
        goes_on = last != "O" and kind == _parts(last)[1] and prefix not in "BS" and _parts(last)[0] not in "ES"
        if not goes_on:
            if last != "O":
                entities.append((_parts(last)[1], begin, i))
            begin = i
        last = tag
    return entities


def _parts(tag: str) -> tuple[str, str]:
    return tag[0].translate(_BILOU), tag[2:]


def write_tags(entities: Sequence[Entity], words: int, scheme: str) -> list[str]:
    """The tags of a sentence of so many words, in IOB1, IOB2 or BIOES."""
    tags = ["O"] * words
    last: Entity = ("", -1, -1)
    for kind, begin, end in entities:
        prefixes = ["I"] * (end - begin)
        if scheme != "IOB1" or (last[0], last[2]) == (kind, begin):
            prefixes[0] = "B"
        if scheme == "BIOES":
            prefixes[-1] = "E" if len(prefixes) > 1 else "S"
        tags[begin:end] = [f"{prefix}-{kind}" for prefix in prefixes]
        last = (kind, begin, end)
    return tags


def is_legal(tags: Sequence[str], scheme: str) -> bool:
    """Whether the tags of a sentence are what this scheme writes for its entities."""
    return write_tags(find_entities(tags), len(tags), scheme) == _by_usual_letters(tags, scheme)


def _by_usual_letters(tags: Sequence[str], scheme: str) -> list[str]:
    return [tag[0].translate(_BILOU) + tag[1:] if scheme == "BIOES" else tag for tag in tags]


def find_scheme(sentences: Sequence[Sequence[str]]) -> tuple[str, list[int]]:
    """The scheme that most sentences with entities are written in, and the numbers of those that are not."""
    tagged = [i for i, tags in enumerate(sentences) if any(tag != "O" for tag in tags)]
    wrong: dict[str, list[int]] = {}
    for scheme in SCHEMES:
        wrong[scheme] = [i for i in tagged if not is_legal(sentences[i], scheme)]
        if not wrong[scheme]:  # an entity is legal in one of them only
            break
    best = min(wrong, key=lambda scheme: len(wrong[scheme]))
    return best, wrong[best]


def labels_of(types: Sequence[str], scheme: str) -> list[str]:
    """All tags of the given types in a scheme, `O` first: the classes of a model."""
    return ["O", *(f"{prefix}-{kind}" for kind in types for prefix in PREFIXES[scheme])]


def types_of(tags: Sequence[str]) -> list[str]:
    """The types of entities in some tags, in the order in which they come up."""
    return list(dict.fromkeys(tag[2:] for tag in tags if tag != "O"))


def check_labels(labels: Sequence[str], scheme: str | None) -> str:
    """The scheme of a model's classes, if it is not known already.

    IOB1 and IOB2 have the same; the latter is assumed. Raises InputError if they are not all tags of a scheme.
    """
    scheme = scheme or ("BIOES" if any(label[0] in "ES" for label in labels) else "IOB2")
    if not all(map(_TAG.fullmatch, labels)) or set(labels) != set(labels_of(types_of(labels), scheme)):
        raise InputError(
            f"--model_name_or_path: the labels of this model are not those of {scheme} ({', '.join(labels[:8])}); "
            "name another checkpoint, or train this one with a new head (--ignore_mismatched_sizes)"
        )
    return scheme


def read_columns(path: str, word_column: str | None = None, tag_column: str | None = None) -> Dataset:
    """Read a file of columns, one word a line and an empty line between sentences, as CoNLL 2003 and WNUT-17 have it.

    Columns stand between tabs if there are any, else between spaces. The first is the word and the last its tag, or
    those with the given numbers, from 1 on; a file of one column has no tags. Document marks (`-DOCSTART-`) are left
    out, and so are lines before a sentence that begin with `# ` and have no tag. Raises InputError, with the line.
    """
    try:
        with open(
            path, encoding="utf-8-sig", newline=""
        ) as file:  # a word may hold what str.splitlines takes for an end
            text = file.read()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start + 1}: not UTF-8; convert it first") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    word_at, tag_at = (_column_number(value) for value in (word_column, tag_column))
    separator = "\t" if "\t" in text else " "  # and nothing else: other white space may be a word
    rows: list[dict[str, Any]] = []
    width = 0
    at_start = True
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        fields = line.split("\t") if separator == "\t" else [field for field in line.split(" ") if field]
        if not line.strip(" \t") or fields[0] == "-DOCSTART-":
            at_start = True
            continue
        if at_start and line.startswith("# ") and not _TAG.fullmatch(fields[-1]):
            continue
        width = width or len(fields)
        if len(fields) != width:
            raise InputError(f"{path}: line {number}: {len(fields)} columns, where the lines before have {width}")
        if (word_at or 1) > width:
            raise InputError(f"{path}: line {number}: has only {width} columns: --text_column_name {word_column}")
        if at_start:
            rows.append({"tokens": [], "tags": [], "line": number})
            at_start = False
        rows[-1]["tokens"].append(fields[(word_at or 1) - 1])
        if not 1 < (tag_at or width) <= width:  # words alone
            continue
        tag = fields[(tag_at or width) - 1]
        if not _TAG.fullmatch(tag):
            raise InputError(
                f"{path}: line {number}: {tag!r} is no tag (O, B-PER, I-PER, ...); is it in another column, "
                "--label_column_name?"
            )
        rows[-1]["tags"].append(tag)
    names = ("tokens", "tags", "line") if any(row["tags"] for row in rows) else ("tokens", "line")
    return Dataset.from_dict({name: [row[name] for row in rows] for name in names})


def _column_number(name: str | None) -> int | None:
    if name is not None and not (name.isdecimal() and int(name) > 0):
        raise InputError(f"--text_column_name, --label_column_name {name}: columns of such a file are numbers, from 1")
    return int(name) if name else None


def is_column_file(path: str) -> bool:
    """Whether a file is one of columns: .conll, .txt, .tsv and whatever holds no table."""
    return Path(path).suffix not in FORMATS or Path(path).suffix == ".tsv"


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
    return sorted(types_of([value for value in values.to_pylist() if value and _TAG.fullmatch(value)]))


def _class_names(split: Split, tag_column: str) -> list[str] | None:
    feature = split.rows.features[tag_column]
    inner = getattr(feature, "feature", None)
    if isinstance(inner, ClassLabel):
        for name in inner.names:
            if not _TAG.fullmatch(name):
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
        pairs = zip(_by_usual_letters(tags[i], found), right, strict=True)
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
            if tag is None or (tag < 0 if names else not _TAG.fullmatch(tag)):
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


def write_predictions(
    path: Path, words: list[list[str]], tags: list[list[str]], shares: Sequence[Sequence[float]], scheme: str
) -> None:
    """Write a file of columns, one line for each word and an empty one behind each sentence.

    Between tabs: the word, its tag and the probability of it as the model gives them, and the tag in which its entity
    is written in the scheme (a model may say `O I-PER`, where IOB2 wants `O B-PER`). White space in a word becomes one
    space. `read_columns` reads the file.
    """
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for rows in zip(words, tags, shares, strict=True):
            entities = write_tags(find_entities(rows[1]), len(rows[1]), scheme)
            for word, tag, share, entity in zip(*rows, entities, strict=True):
                file.write(f"{' '.join(word.split())}\t{tag}\t{share:.4f}\t{entity}\n")
            file.write("\n")
