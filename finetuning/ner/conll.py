"""Files of columns, one word a line, as CoNLL has them: read and written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from finetuning.common.data import FORMATS
from finetuning.ner.tags import TAG, find_entities, write_tags
from shared.errors import InputError
from shared.files import atomic_file


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
        if at_start and line.startswith("# ") and not TAG.fullmatch(fields[-1]):
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
        if not TAG.fullmatch(tag):
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
