"""Tables with one word a row, as Kaggle has them: a column says to which sentence the word belongs."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from finetuning.common.data import Split, check_roles, check_there
from shared.errors import InputError

# What these columns are called, in any case.
WORD_NAMES = ("word", "token", "words", "tokens")
TAG_NAMES = ("ner_tags", "tags", "ner_tag", "tag", "labels", "label")
SENTENCE_NAMES = ("sentence #", "sentence_id", "sentence id", "sent_id", "sentence")


def find_name(columns: Sequence[str], wish: str | None, usual: Sequence[str]) -> str | None:
    """The wished-for column, or else the first of the usual ones that there is."""
    by_name = {name.lower(): name for name in reversed(columns)}
    return wish or next((by_name[name] for name in usual if name in by_name), None)


def has_header(line: str, columns: Sequence[str | None]) -> bool:
    """Whether the first line of a .tsv file names columns: a flag names one, which is no number, or usual ones."""
    fields = line.strip().split("\t")
    if any(name and not name.isdecimal() for name in columns):
        return True
    return all(find_name(fields, None, usual) for usual in (WORD_NAMES, SENTENCE_NAMES))


def group_words(
    path: str, rows: Dataset, word_column: str | None, tag_column: str | None, sentence_column: str | None
) -> Dataset:
    """The sentences of a table: `tokens`, `tags` unless there are none, and the `row` in which each begins. A sentence
    goes on while its id stays the same or is left out. Raises InputError, with the row."""
    split, names = Split(rows, path), rows.column_names
    words = find_name(names, word_column, WORD_NAMES)
    sentence = find_name(names, sentence_column, SENTENCE_NAMES)
    tag = find_name(names, tag_column, TAG_NAMES)
    check_there(split, {words or " or ".join(WORD_NAMES[:2]): "text_column"})
    check_there(split, {sentence or " or ".join(SENTENCE_NAMES[:2]): "sentence_column"})
    check_roles(("text_column", words), ("sentence_column", sentence), ("label_column", tag))
    tags = rows[tag][:] if tag in names else []
    tags = tags if any(tags) else []
    found: list[dict[str, Any]] = []
    first: dict[Any, int] = {}
    last = None
    for index, (word, key) in enumerate(zip(rows[words][:], rows[sentence][:], strict=True)):
        if key not in (None, last):
            if key in first:
                where = f"{split.name(index)}: column {sentence}: sentence {key}"
                raise InputError(f"{where} began in row {first[key]}, and another stands between; sort the rows")
            first[key], last = index + 1, key
            found.append({"tokens": [], "tags": [], "row": index + 1})
        for name, value in ((sentence, last), (words, word), (tag, tags[index] if tags else True)):
            if value is None:
                raise InputError(f"{split.name(index)}: column {name} is empty")
        found[-1]["tokens"].append(word)
        found[-1]["tags"] += tags[index : index + 1]
    kept = ("tokens", "tags", "row") if tags else ("tokens", "row")
    return Dataset.from_dict({name: [row[name] for row in found] for name in kept})
