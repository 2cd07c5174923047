"""Files of columns, one word a line, as CoNLL has them: read and written."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from finetuning.common.data import check_roles
from finetuning.common.tables import format_of, read_text, say
from finetuning.ner.tags import BARE, NO_TAG, TAG, as_label, find_entities, is_label, write_tags
from shared.errors import InputError
from shared.files import atomic_file

CONLL_U = 10  # columns
MARK = "-DOCSTART-"  # of a document, in a line of any width
NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")  # https://universaldependencies.org/format.html: ids of no single word


def read_columns(
    path: str,
    word_column: str | None = None,
    tag_column: str | None = None,
    scheme: str = "IOB2",
    encoding: str | None = None,
) -> Dataset:
    """Read a file of columns, one word a line and an empty line between sentences, as CoNLL 2003 and WNUT-17 have it.

    Columns stand between tabs if there are any, else between spaces. The first is the word and the last its tag, or
    those with the given numbers, from 1 on; of CoNLL-U, FORM and UPOS; a file of one column has no tags. Document
    marks (`-DOCSTART-`) are left out, and so are lines before a sentence that begin with `# ` and have no tag, and of
    CoNLL-U those of several words (`1-2`) and of none (`1.1`). Raises InputError, with the line.
    """
    text = read_text(path, encoding)
    word_at, tag_at = (_column_number(value) for value in (word_column, tag_column))
    separator = "\t" if "\t" in text else " "  # and nothing else: other white space may be a word
    rows: list[dict[str, Any]] = []
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    first = next((line for line in lines if line.strip() and not line.startswith(("# ", MARK))), "")
    width = len(_fields(first, separator)) if first else 0
    is_conll_u = width == CONLL_U and re.search(r"^1(-[0-9]+)?\t", text, re.MULTILINE) is not None
    if is_conll_u and not word_column and not tag_column:
        word_at, tag_at = 2, 4
        say(f"{path}: read as CoNLL-U, words and universal parts of speech; --text_column, --label_column: others")
    if 1 < (tag_at or width) <= width:  # there are tags
        check_roles(("text_column", str(word_at or 1)), ("label_column", str(tag_at or width)))
    at_start = True
    for number, line in enumerate(lines, start=1):
        fields = _fields(line, separator)
        if not line.strip(" \t") or fields[0] == MARK:
            at_start = True
            continue
        has_tag = len(fields) == width if scheme in BARE else TAG.fullmatch(fields[-1])
        if (at_start and line.startswith("# ") and not has_tag) or (is_conll_u and NO_WORD.fullmatch(fields[0])):
            continue
        width = width or len(fields)
        if len(fields) != width:
            raise InputError(f"{path}: line {number}: {len(fields)} columns, where the lines before have {width}")
        if (word_at or 1) > width:
            raise InputError(f"{path}: line {number}: has only {width} columns: --text_column {word_column}")
        if at_start:
            rows.append({"tokens": [], "tags": [], "line": number})
            at_start = False
        rows[-1]["tokens"].append(fields[(word_at or 1) - 1])
        if not 1 < (tag_at or width) <= width:  # words alone
            continue
        tag = fields[(tag_at or width) - 1]
        if not is_label(tag, scheme):
            raise InputError(f"{path}: line {number}: {tag!r} {NO_TAG}; or is it in another column, --label_column?")
        rows[-1]["tags"].append(tag)
    names = ("tokens", "tags", "line") if any(row["tags"] for row in rows) else ("tokens", "line")
    return Dataset.from_dict({name: [row[name] for row in rows] for name in names})


def _column_number(name: str | None) -> int | None:
    if name is not None and not (name.isdecimal() and int(name) > 0):
        raise InputError(f"--text_column, --label_column {name}: columns of such a file are numbers, from 1")
    return int(name) if name else None


def is_column_file(path: str) -> bool:
    """Whether a file is one of columns: .conll, .txt, .tsv and whatever holds no table."""
    return format_of(path) in (None, "tsv")


def _fields(line: str, separator: str) -> list[str]:
    return line.split("\t") if separator == "\t" else [field for field in line.split(" ") if field]


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
                both = (as_label(tag, scheme), f"{share:.4f}", as_label(entity, scheme))
                file.write("\t".join((" ".join(word.split()), *both)) + "\n")
            file.write("\n")
