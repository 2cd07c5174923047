"""Documents with their columns: the schema that the stages of data_prep share, and how rows are read and written.

A document is a dict with the keys of `SCHEMA`. `text` is always there; the rest is known or None.
"""

import codecs
import datetime
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from shared.errors import InputError
from shared.files import shown_path

SCHEMA = pa.schema(
    {
        "id": pa.string(),  # unique in its source: a WARC record's id, a Wikipedia page's number
        "url": pa.string(),
        "title": pa.string(),
        "text": pa.string(),
        "date": pa.string(),  # ISO 8601: when it was crawled, revised or published
        "last_modified": pa.string(),  # ISO 8601: what the server said
        "language": pa.string(),  # ISO 639-1
        "language_score": pa.float32(),
        "source": pa.string(),  # the snapshot or dump: CC-MAIN-2026-43, enwiki-20261101
        "warc_file": pa.string(),  # the file of the crawl or of the dump
        "offset": pa.int64(),  # where the record starts in it, in bytes
        "metadata": pa.string(),  # JSON: whatever else is known
    }
)
NAMES = tuple(SCHEMA.names)
STATE = ".state"  # in a stage's output folder: what is done; see data_prep/engine/stage.py
TEXT_SUFFIXES = (".txt", ".txt.gz")  # blank lines separate documents
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".ndjson", *TEXT_SUFFIXES)
NAMED_ONLY = (".json", ".json.gz")  # in a folder these are more often manifests
MAX_LINE_BYTES = 64 * 2**20
MAX_DOCUMENT_BYTES = 256 * 2**20  # of a text file
MAX_TEXT_CHARACTERS = 32 * 2**20  # of a document; a stage holds it and its words, and counts longer ones
BATCH_BYTES = 16 * 2**20  # of a parquet file, read at once
LOST = "the rest is lost"  # how the problem ends where a file does before it should
DAMAGED = f"damaged gzip file: {LOST}"
AGAIN = "the same command of the stage that wrote the folder makes it again"
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
# The position after a row, the share of the file read, the row or None, what is wrong with it or "".
Row = tuple[int, float, dict[str, Any] | None, str]


@dataclass(frozen=True)
class Source:
    """One file that a stage reads."""

    index: int  # its place among the inputs, which names its shards
    path: str
    bytes: int


def clean_text(text: str) -> str:
    """`text` without lone surrogates, NULs and other control characters (tab and line ends stay): valid UTF-8."""
    return _CONTROL.sub("", text)


def find_sources(inputs: Sequence[str], suffixes: Sequence[str] = SUFFIXES + NAMED_ONLY) -> list[Source]:
    """The files of `--input`, in the order given, those of a folder by name.

    Of the output folder of a stage, its documents alone. Raises InputError for a path that is missing, of another
    kind, given twice, or the folder of an unfinished stage.
    """
    if not inputs:
        raise InputError("--input: name files or folders")
    files = find_files(inputs, suffixes, "--input ")
    return [Source(index, str(file.absolute()), file.stat().st_size) for index, file in enumerate(files)]


def find_files(names: Sequence[str], suffixes: Sequence[str], flag: str = "") -> list[Path]:
    """The files that are named, and those of folders as `files_of` gives them. Raises InputError, also for a file that
    is named twice; it begins with `flag` and the name."""
    files = [file for name in names for file in _find(name, suffixes, f"{flag}{name}")]
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise InputError(f"{flag}{file}: is named twice, perhaps once by its folder; name it once")
        seen.add(file.resolve())
    if names and not files:
        raise InputError(f"{flag}{' '.join(names)}: its stage kept no document; its manifest.json says why")
    return files


def _find(name: str, suffixes: Sequence[str], shown: str) -> list[Path]:
    path = Path(name)
    if not path.exists():
        raise InputError(f"{shown}: no such file or folder")
    if not path.is_dir() and not path.name.endswith(tuple(suffixes)):
        raise InputError(f"{shown}: unknown kind of file; the ones read here end in {', '.join(suffixes)}")
    found = files_of(path, suffixes) if path.is_dir() else [path]
    if not found and not (path / STATE).is_dir():  # a stage may have kept nothing
        raise InputError(f"{shown}: no file in this folder ends in {', '.join(suffixes)}")
    return found


def files_of(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder that are input: all with one of the suffixes; of a stage's output, its documents alone.

    Raises InputError if the folder belongs to a stage that has not finished, or lies above the folders of stages: each
    would give the documents of the one before once more.
    """
    if (folder / STATE).is_dir():
        try:
            listed = list(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"])
        except OSError as error:
            raise InputError(f"{folder}: the stage that writes it has not finished; run it again") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder / 'manifest.json'}: damaged; {AGAIN}") from error
        # Documents stand at the top, downloads in files/; dropped/ and the like are not input.
        names = [name for name in listed if "/" not in name or name.startswith("files/")]
        files = [folder / name for name in names if name.endswith(tuple(suffixes))]
        for file in files:
            if not file.is_file():
                raise InputError(f"{file}: is gone, though manifest.json lists it; {AGAIN}")
        return files
    below = list(walk(folder))
    if stages := sorted(shown_path(state.parent) for state in below if state.name == STATE and state.is_dir()):
        raise InputError(
            f"{folder}: holds the output of stages, with what they dropped; name the folders to read instead: "
            f"{', '.join(stages[:5])}{' ...' if len(stages) > 5 else ''}"
        )
    in_folder = tuple(suffix for suffix in suffixes if suffix not in NAMED_ONLY)
    found = sorted(file for file in below if file.name.endswith(in_folder))
    broken = [file for file in found if file.is_symlink() and not file.exists()]
    if broken:
        raise InputError(
            f"{folder}: {len(broken)} symbolic links lead nowhere, the first {shown_path(broken[0])}; remove them"
        )
    return [file for file in found if file.is_file()]


def walk(folder: Path) -> Iterator[Path]:
    """What lies in a folder at any depth, also behind symbolic links to folders; each folder is walked once."""
    seen: set[str] = set()
    for at, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(at)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()  # or the order of the disk would say by which of two links a folder is known
        yield from (Path(at, name) for name in (*folders, *names))


def check_apart(output_dir: str, inputs: Sequence[str], flag: str = "--input") -> None:
    """Raise InputError for an output folder within a folder that is read: the next start would read what this one
    wrote. The folder of a stage gives the files of its manifest alone, so it may hold one."""
    above = Path(output_dir).resolve().parents
    for folder in map(Path, inputs):
        if folder.is_dir() and not (folder / STATE).is_dir() and folder.resolve() in above:
            raise InputError(
                f"--output_dir {output_dir}: lies in {flag} {folder}, so what is written would be read; name another"
            )


def read_rows(source: Source, start: int = 0) -> Iterator[Row]:
    """The documents of a file behind the position `start`. Columns that SCHEMA does not know go into `metadata`.

    Raises InputError for a file that cannot be read at all, or whose first row has no `text`.
    """
    for position, share, row, problem in read_raw(source, start):
        if row is not None:
            row, problem = _as_document(row, f"{Path(source.path).name}:{position - 1}")
        yield position, share, row, problem


def read_raw(source: Source, start: int = 0, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """What `read_rows` gives, of rows as they stand in the file: a row may lack any column, and text may be bytes.

    Of a parquet file `columns` alone are read.
    """
    if source.path.endswith(".parquet"):
        return _read_parquet(source, start, columns)
    return _read_text(source, start) if source.path.endswith(TEXT_SUFFIXES) else _read_json_lines(source, start)


def _as_document(row: dict[str, Any], default_id: str) -> tuple[dict[str, Any] | None, str]:
    row = {name: value for name, value in row.items() if value == value}  # nan is nothing
    text = row.get("text")
    if isinstance(text, bytes):  # a binary column
        try:
            text = row["text"] = text.decode("utf-8")
        except UnicodeDecodeError:
            return None, "not valid UTF-8"
    if isinstance(text, str) and len(text) > MAX_TEXT_CHARACTERS:
        return None, f"text longer than {MAX_TEXT_CHARACTERS:,} characters"
    if not isinstance(text, str):
        return None, "text is missing" if text is None else "text is not a string"
    document = dict.fromkeys(NAMES) | {name: row[name] for name in NAMES if name in row}
    unknown = {name: value for name, value in row.items() if name not in SCHEMA.names and value is not None}
    for name in ("id", "url", "title", "date", "last_modified", "language", "source", "warc_file", "metadata"):
        value = document[name]
        if isinstance(value, datetime.date | datetime.datetime):
            document[name] = value.isoformat()
        elif value is not None and not isinstance(value, str):
            nested = isinstance(value, dict | list)
            document[name] = json.dumps(value, ensure_ascii=False, default=str) if nested else str(value)
    if unknown:
        known = known_metadata(document["metadata"])
        document["metadata"] = json.dumps(known | unknown, ensure_ascii=False, sort_keys=True, default=str)
    document["id"] = document["id"] or default_id
    try:
        kinds: tuple[tuple[str, Any], ...] = (("language_score", float), ("offset", int))
        for name, kind in kinds:
            if document[name] is not None:
                document[name] = kind(document[name])
                pa.scalar(document[name], SCHEMA.field(name).type)
    except (TypeError, ValueError, OverflowError):  # no number, or one that the column cannot hold
        return None, f"{name} is not a number"
    for name, value in document.items():
        if isinstance(value, str) and _CONTROL.search(value):
            document[name] = clean_text(value)
    return document, ""


def known_metadata(metadata: str | None) -> dict[str, Any]:
    """A `metadata` column as a dict; what is no object stands in it under "metadata"."""
    try:
        known = json.loads(metadata or "{}")
    except (ValueError, RecursionError):
        known = metadata
    return known if isinstance(known, dict) else {"metadata": known}


def _read_parquet(source: Source, start: int, columns: Sequence[str] | None) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(source.path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{source.path}: not a readable parquet file: {error}") from error
    with file:
        if "text" not in file.schema_arrow.names:
            raise InputError(f"{source.path}: no column 'text' among {', '.join(file.schema_arrow.names)}")
        rows = file.metadata.num_rows
        position = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if position + size <= start:
                position += size
                continue
            try:
                average = file.metadata.row_group(group).total_byte_size // max(size, 1) + 1
                rows_at_once = max(min(256, BATCH_BYTES // average), 1)
                for batch in file.iter_batches(batch_size=rows_at_once, row_groups=[group], columns=columns):
                    if position + len(batch) <= start:
                        position += len(batch)
                        continue
                    for row, problem in batch_rows(batch):
                        position += 1
                        if position > start:
                            yield position, position / rows, row, problem
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{source.path}: damaged parquet file: {error}") from error


def batch_rows(batch: pa.RecordBatch) -> list[tuple[dict[str, Any] | None, str]]:
    """Each row of a batch, or None, and what is wrong with it or "".

    A time that Python cannot hold stands in its row as the file has it, as a number of its column's units.
    """
    try:
        return [(row, "") for row in batch.to_pylist()]
    except (ValueError, OverflowError, pa.ArrowException):  # one value is enough
        return [_batch_row(batch, index) for index in range(len(batch))]


def _batch_row(batch: pa.RecordBatch, index: int) -> tuple[dict[str, Any] | None, str]:
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[index].as_py()
        except UnicodeDecodeError:
            return None, "not valid UTF-8"
        except (ValueError, OverflowError, pa.ArrowException):
            if not pa.types.is_temporal(column.type):
                return None, f"{name} cannot be read"
            row[name] = column[index].value
    return row, ""


def _read_json_lines(source: Source, start: int) -> Iterator[Row]:
    """The position is the number of the line."""
    number = 0
    with open(source.path, "rb") as raw:
        lines = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if source.path.endswith(".gz") else raw
        while True:
            try:
                line = lines.readline(MAX_LINE_BYTES)
                too_long = len(line) == MAX_LINE_BYTES
                while too_long and not line.endswith(b"\n") and line:
                    line = lines.readline(MAX_LINE_BYTES)
            except (EOFError, OSError, zlib.error):
                if number >= start:  # or this has been said
                    yield number + 1, 1.0, None, DAMAGED
                return
            if not line:
                return
            number += 1
            if number <= start or (not too_long and not line.strip()):
                continue
            share = raw.tell() / max(source.bytes, 1)
            if too_long:
                yield number, share, None, f"line longer than {MAX_LINE_BYTES} bytes"
                continue
            found: object = None
            try:
                row = json.loads(line, parse_constant=lambda _: None)  # NaN and Infinity are no JSON
                problem = "" if isinstance(row, dict) else "line is not an object"
                found = type(row).__name__
            except (ValueError, RecursionError) as error:
                problem, found = "line is not JSON", error
            if number == 1 and problem:
                raise _not_json_lines(source.path, line, found)
            if number == 1 and "text" not in row:
                raise InputError(f"{source.path}, line 1: no field 'text' among {', '.join(row)}")
            yield number, share, None if problem else row, problem


def _read_text(source: Source, start: int) -> Iterator[Row]:
    """The position is the number of the document, a run of lines between blank ones."""
    number, document, first = 0, bytearray(), True
    with open(source.path, "rb") as raw:
        lines = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if source.path.endswith(".gz") else raw
        while True:
            try:
                line = lines.readline(MAX_DOCUMENT_BYTES + 1)
            except (EOFError, OSError, zlib.error):
                if number >= start:
                    yield number + 1, 1.0, None, DAMAGED
                return
            if first:
                line, first = line.removeprefix(codecs.BOM_UTF8), False
            if line and not line.isspace():
                document += line
                if len(document) > MAX_DOCUMENT_BYTES:
                    raise InputError(
                        f"{source.path}: a document of more than {MAX_DOCUMENT_BYTES >> 20} MiB; blank lines separate "
                        "documents in a text file: put some in, or give JSON lines or parquet with a `text`"
                    )
            elif document:
                number += 1
                text, document = bytes(document).strip(), bytearray()
                if number > start:
                    yield number, raw.tell() / max(source.bytes, 1), {"text": text}, ""
            if not line:
                return
            del line  # it may be all of the file


def _not_json_lines(path: str | Path, line: bytes, found: object) -> InputError:
    """What is wrong with a file that should be JSON lines, by its first line, and the way out where it is known."""
    way_out = ""
    if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
        way_out = "; it is in UTF-16: iconv -f utf-16 -t utf-8 OLD > NEW"
    elif line.lstrip()[:1] == b"[":
        way_out = "; it is a list: jq -c '.[]' OLD > NEW"
    return InputError(f"{path}, line 1: not JSON lines (one object a line): {found}{way_out}")


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Write one parquet file; the bytes depend on the rows alone."""
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path, compression="zstd", row_group_size=1000)
