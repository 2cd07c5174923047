"""One file of rows as a Dataset: parquet as it is, JSON by its values, CSV and TSV as text.

What a column of a CSV file means is for those to decide who use it, from all its rows: `number_kind`. Encoding and
separator are told by flags, or found in the byte order mark and the header and then printed; nothing else is guessed.
"""

import codecs
import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetInfo, load_dataset
from datasets.exceptions import DatasetGenerationError

from shared.errors import InputError, one_line

FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv"}
FORMATS |= dict.fromkeys((".json", ".jsonl", ".ndjson"), "json")
SEPARATORS = {",": ",", ";": ";", "\t": "tab", "|": "|"}
MARKS = {  # the longer ones first: UTF-16's begins UTF-32's
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
NO_TEXT = {  # what files of other kinds begin with
    b"PK\x03\x04": "a workbook or another zip archive; save or unpack it",
    b"\xd0\xcf\x11\xe0": "an old workbook; save it",
    b"PAR1": "parquet; call it so, or save it",
    b"\x1f\x8b": "packed by gzip; let its name end in .gz, or unpack it",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it",
    b"\xfd7zXZ": "packed by xz; unpack it",
}
EXCEL_HINT = re.compile(r"sep=(.)(?=\r?\n)", re.IGNORECASE)  # a line before the header that names the separator
RULES = {  # where quotes hold a field together, and where they do not
    True: "a field that holds a separator or a line end stands in quotes; name another separator by --csv_separator",
    False: "quotes hold no field together here; if they should, say --csv_quotes true",
}
PROBED = 20  # rows that a separator must cut as it cuts the header
BATCH = 10_000  # rows that are Python's at once; those before them are Arrow's
WHOLE = re.compile(r"\s*[+-]?(0|[1-9][0-9]{0,17})\s*")  # no 007, which is a name, and at most an int64
NUMBER = re.compile(r"\s*[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
NOT_FINITE = re.compile(r"\s*[+-]?(nan|inf|infinity)\s*", re.IGNORECASE)  # as programs write numbers that are none
DECIMAL_COMMA = re.compile(r"\s*[+-]?[0-9]+,[0-9]+\s*")


@dataclass(frozen=True)
class TextFormat:
    """What flags say of text files; None and nothing where it is to be found."""

    encoding: str | None = None
    separator: str | None = None
    quotes: bool | None = None
    columns: Sequence[str] = ()


PLAIN = TextFormat()


def format_of(path: str | Path) -> str | None:
    """The format that a file's name says, one of the values of FORMATS; None for a name that says none."""
    name = Path(path).name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    return None if name.endswith(".parquet.gz") else FORMATS.get(suffix)


def say(text: str) -> None:
    """Print on one process only."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(text, flush=True)


def read_rows(path: str, form: TextFormat = PLAIN) -> Dataset:
    """The rows of one file. Raises InputError for a file that is missing, of another kind or damaged."""
    kind = format_of(path)
    if kind is None:
        known = ", ".join(FORMATS)
        raise InputError(f"{path}: unknown kind of file; the ones read here end in {known}, and as text also in .gz")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    if not Path(path).stat().st_size:
        raise InputError(f"{path}: the file is empty")
    if kind == "parquet":
        return _read_parquet(path)
    return _read_json(path, form) if kind == "json" else _read_csv(path, form, is_tsv=kind == "tsv")


def _read_parquet(path: str) -> Dataset:
    try:
        return load_dataset("parquet", data_files=[path], split="train")
    except (DatasetGenerationError, ValueError, OSError) as error:
        cause = one_line(error.__cause__ or error)
        if "BatchSize must be greater than 0" in cause or "corresponds to no data" in cause:
            raise InputError(f"{path}: holds no rows") from error
        raise InputError(f"{path}: not a readable .parquet file: {cause}") from error


def read_text(path: str, encoding: str | None = None) -> str:
    """The text of a file, unpacked if its name ends in .gz. Its encoding is the given one, else that of its byte order
    mark, which is printed, else UTF-8. Raises InputError, with the line."""
    is_packed = path.lower().endswith(".gz")
    try:
        with gzip.open(path) if is_packed else open(path, "rb") as file:
            data = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip file: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if kind := next((kind for start, kind in NO_TEXT.items() if data.startswith(start)), None):
        raise InputError(f"{path}: is no text but {kind} as text, in UTF-8")
    marked = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    try:
        name = codecs.lookup(encoding).name if encoding else marked or "utf-8"
        if marked and not marked.startswith(name.removesuffix("-sig")):
            raise InputError(f"{path}: begins with the byte order mark of {marked}: remove --file_encoding {encoding}")
        if marked and marked != "utf-8" and not encoding:
            say(f"{path}: read as {marked}, by its byte order mark")
        text = data.decode(name).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        shown = f"byte {error.start + 1:,} (0x{data[error.start]:02x}) is not {name}"
        way_out = "say by --file_encoding what is: cp1252 for most Western European text, utf-8, utf-16, ..."
        raise InputError(f"{path}: line {line}: {shown}; {way_out}") from error
    except LookupError as error:
        raise InputError(f"--file_encoding {encoding}: unknown; for example utf-8, utf-16, cp1252, latin-1") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        way_out = "if every other byte is one, say --file_encoding utf-16-le or utf-16-be, else remove it"
        raise InputError(f"{path}: line {line}: holds a NUL character; {way_out}")
    return text


def _find_separator(path: str, lines: io.StringIO) -> str:
    """The separator that cuts the first rows of a CSV file like its header. Raises InputError if several do."""
    found: dict[str, bool] = {}
    for separator in SEPARATORS:
        lines.seek(0)
        try:
            widths = [len(row) for row in islice(csv.reader(lines, delimiter=separator), PROBED) if row]
        except csv.Error:  # the real reading says where
            continue
        if widths and widths[0] > 1:
            found[separator] = len(set(widths)) == 1
    good = [separator for separator in found if found[separator] or not any(found.values())]
    if len(good) > 1:
        shown = " and ".join(SEPARATORS[separator] for separator in good)
        raise InputError(f"{path}: row 1, the header, holds {shown}: say by --csv_separator what separates columns")
    return good[0] if good else ","


def _read_csv(path: str, form: TextFormat, is_tsv: bool) -> Dataset:
    """All columns as text; an empty field is a missing one, while "NA" and "None" are words."""
    text = read_text(path, form.encoding)
    hint = EXCEL_HINT.match(text)
    lines = io.StringIO(text[hint.end() :] if hint else text, newline="")
    csv.field_size_limit(2**31 - 1)  # of a text; 128 KiB unless set
    separator = form.separator or (hint and hint[1]) or ("\t" if is_tsv else _find_separator(path, lines))
    if not form.separator and separator != ("\t" if is_tsv else ","):
        where = "its first line says" if hint else "in its header"
        say(f"{path}: columns are separated by {SEPARATORS.get(separator, separator)}, as {where}")
    quoted = not is_tsv if form.quotes is None else form.quotes  # in TSV files a quote is a quote
    lines.seek(0)
    quoting = {"quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE}
    reader = csv.reader(lines, delimiter=separator, strict=quoted, **quoting)  # type: ignore[arg-type]
    batches: list[pa.RecordBatch] = []
    rows: list[list[str | None]] = []
    header, number, begin = list(form.columns), 0, 1
    try:
        for row in reader:
            if row and not header:
                header = _check_header(path, row)
            elif row:
                number += 1
                if number == 1 and form.columns and [name.strip() for name in row] == header:
                    raise InputError(f"{path}: line {begin} is a header: remove --column_names")
                if len(row) != len(header):
                    found = f"row {number} (line {begin}): {len(row)} columns, where the header has {len(header)}"
                    raise InputError(f"{path}: {found}; {RULES[quoted]}")
                rows.append([value if value.strip(" \t\r\n") else None for value in row])
                if len(rows) == BATCH:
                    batches.append(_as_text(rows, header))
                    rows = []
            begin = reader.line_num + 1
    except csv.Error as error:
        way_out = "double a quote within quotes, or read quotes as text by --csv_quotes false"
        raise InputError(f"{path}: row {number + 1} (line {begin}): {error}; {way_out}") from error
    if not header:
        raise InputError(f"{path}: holds no rows")
    table = pa.Table.from_batches([*batches, _as_text(rows, header)])
    return Dataset(table, DatasetInfo(builder_name="csv"))


def _check_header(path: str, row: Sequence[str]) -> list[str]:
    """The names of columns, without white space around them; one without a name is called as pandas does."""
    names = [name.strip() or f"Unnamed: {number}" for number, name in enumerate(row)]
    if double := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise InputError(f"{path}: row 1, the header: two columns are called {double}; rename or remove one")
    return names


def _as_text(rows: Sequence[Sequence[str | None]], names: Sequence[str]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in columns], list(names))


def _read_json(path: str, form: TextFormat) -> Dataset:
    """JSON lines, or a list of objects."""
    text = read_text(path, form.encoding)
    try:
        content = json.loads(text)
    except ValueError:
        content = list(_json_lines(path, text))
    rows = [content] if isinstance(content, dict) else content
    if inner := _inner_rows(rows):
        raise InputError(f"{path}: is one object, and its rows stand in {inner}: write that list to a file of its own")
    if not isinstance(rows, list):
        raise InputError(f"{path}: not a readable .json file: one object for each row, not {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}: row {number}: is {type(row).__name__}, not an object")
    return rows_of_objects(path, rows)


def rows_of_objects(path: str, rows: Sequence[dict[str, Any]]) -> Dataset:
    """Objects of JSON as rows, null where one lacks a key of others; values of several types become text."""
    names = dict.fromkeys(name for row in rows for name in row)
    return Dataset(pa.table({name: _as_column(path, name, [row.get(name) for row in rows]) for name in names}))


def _inner_rows(rows: Any) -> str | None:
    """The name of the list of objects in a file that is one object around it."""
    values = rows[0] if isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], dict) else {}
    lists = (name for name, value in values.items() if isinstance(value, list) and len(value) > 1)
    return next((name for name in lists if all(isinstance(row, dict) for row in values[name])), None)


def _json_lines(path: str, text: str) -> Iterable[Any]:
    for number, line in enumerate(io.StringIO(text), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}: line {number}: not JSON: {getattr(error, 'msg', error)}") from error


def _as_column(path: str, name: str, values: list[Any]) -> pa.Array:
    """The values in the type that fits all of them, or else as text: numbers and "other", for one."""
    try:
        return pa.array(values)
    except UnicodeEncodeError as error:
        halves = re.compile("[\ud800-\udfff]")
        row = next(i for i, value in enumerate(values, 1) if halves.search(json.dumps(value, ensure_ascii=False)))
        raise InputError(f"{path}: row {row}: column {name}: holds half of a surrogate pair; correct it") from error
    except (pa.ArrowException, OverflowError):
        shown = (value if value is None or isinstance(value, str) else json.dumps(value) for value in values)
        return pa.array(shown, pa.string())


def number_kind(values: Iterable[str | None]) -> str:
    """What text of a CSV column is: "int64" if all of it are whole numbers, "float64" if all are numbers, or "string";
    "null" if there is none."""
    known = {value for value in values if value is not None}
    if not known:
        return "null"
    if all(map(WHOLE.fullmatch, known)):
        return "int64"
    return "float64" if all(map(NUMBER.fullmatch, known)) else "string"
