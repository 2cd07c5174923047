"""Documents as a stream, from parquet, JSON lines, text files, folders of them, or a dataset on the Hub."""

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from tqdm.auto import tqdm

from shared.errors import InputError
from shared.files import sha256_of
from shared.rows import BATCH_BYTES, files_of, not_json_lines

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".ndjson", ".txt", ".txt.gz")
JSON_LINES_SUFFIXES = (".json", ".json.gz")  # read when named; in a folder they are more often manifests than text
TEXT_COLUMN = "text"
HELP = "Files or folders of text; in .txt files blank lines separate documents."
MAX_DOCUMENT_BYTES = 256 * 2**20  # a document is held in memory, two or three times
AT_ONCE = 2**20  # characters of a document that are encoded at once, or a copy of a long one would be made


class Documents:
    """The texts of all sources, in order, read as a stream that can be started again.

    Parquet and JSON lines give their `text` field; a text file gives one document per run of lines between blank
    lines. `skipped` counts what the last pass left out, by reason; a pass shows progress in bytes of input.
    """

    def __init__(
        self, sources: Sequence[str] = (), dataset_name: str | None = None, dataset_config_name: str | None = None
    ) -> None:
        """Resolve files and folders. Raises InputError for a path that is missing, empty or of an unknown kind."""
        if bool(sources) == bool(dataset_name):
            raise InputError("no text, or two kinds: name either files and folders, or one dataset (--dataset_name)")
        if dataset_config_name and not dataset_name:
            raise InputError(f"--dataset_config_name {dataset_config_name}: is for --dataset_name; remove the flag")
        if dataset_name and Path(dataset_name).exists():
            raise InputError(
                f"--dataset_name {dataset_name}: a path; give files and folders as such, not as a dataset"
            )
        self.files = [file for source in sources for file in _find_files(source)]
        self.dataset_name = dataset_name
        self.dataset_config_name = dataset_config_name
        self.skipped: Counter[str] = Counter()
        self._description: list[dict[str, Any]] = []

    def __iter__(self) -> Iterator[str]:
        """Yield the texts; silent. See `progress` for the same with a bar."""
        self.skipped = Counter()
        if self.dataset_name:
            yield from self._read_hub()
            return
        for file in self.files:
            for text, _ in self._read_file(file):
                yield text

    def progress(self, description: str, disable: bool = False) -> Iterator[str]:
        """Yield the texts under a progress bar in bytes of input, with rate and time left."""
        if self.dataset_name:  # a streamed dataset has no known end
            yield from tqdm(self, desc=description, unit=" documents", disable=disable)
            return
        self.skipped = Counter()
        total = sum(file.stat().st_size for file in self.files)
        with tqdm(total=total, desc=description, unit="B", unit_scale=True, disable=disable) as bar:
            done = 0
            for file in self.files:
                for text, position in self._read_file(file):
                    bar.update(done + position - bar.n)
                    yield text
                done += file.stat().st_size
            bar.update(total - bar.n)

    def describe(self) -> list[dict[str, Any]]:
        """What identifies the content: name, bytes and SHA-256 of each file, or the id and revision on the Hub.

        Raises InputError when the Hub does not know the dataset or cannot be reached.
        """
        if not self._description and self.dataset_name:
            from huggingface_hub import HfApi

            try:
                revision = HfApi().dataset_info(self.dataset_name).sha
            except Exception as error:
                raise InputError(f"--dataset_name {self.dataset_name}: not found on the Hub: {error}") from error
            self._description = [
                {"dataset": self.dataset_name, "config": self.dataset_config_name, "revision": revision}
            ]
        elif not self._description:
            self._description = [
                {"file": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in self.files
            ]
        return self._description

    def _read_hub(self) -> Iterator[str]:
        from datasets import load_dataset

        try:
            rows = load_dataset(self.dataset_name, self.dataset_config_name, split="train", streaming=True)
        except Exception as error:
            raise InputError(f"--dataset_name {self.dataset_name}: {error}") from error
        for row in rows:
            if TEXT_COLUMN not in row:
                raise InputError(f"--dataset_name {self.dataset_name}: no column 'text' among {', '.join(row)}")
            if (text := self._clean(row[TEXT_COLUMN])) is not None:
                yield text

    def _read_file(self, file: Path) -> Iterator[tuple[str, int]]:
        """Yield (text, bytes of the file read so far)."""
        is_text = file.name.endswith((".txt", ".txt.gz"))
        reader = _read_parquet if file.suffix == ".parquet" else _read_text if is_text else _read_json
        for value, position in reader(file, self.skipped):
            if (text := self._clean(value)) is not None:
                yield text, position

    def _clean(self, text: Any) -> str | None:
        if isinstance(text, bytes):
            try:
                return text.decode("utf-8") or self._clean("")
            except UnicodeDecodeError:
                self.skipped["not valid UTF-8"] += 1
                return None
        if text is None or text == "":
            self.skipped["empty text"] += 1
        elif not isinstance(text, str):
            self.skipped["text is not a string"] += 1
        else:
            try:
                utf8_bytes(text)
                return text
            except UnicodeEncodeError:
                self.skipped["lone surrogate in text"] += 1
        return None


def is_held_out(text: str, fraction: float) -> bool:
    """Whether a document is for validation: by a hash of its text, so that adding documents moves none."""
    digest = hashlib.blake2b(digest_size=8)
    for part in _utf8_parts(text):
        digest.update(part)
    return int.from_bytes(digest.digest(), "big") < fraction * 2**64


def utf8_bytes(text: str) -> int:
    """Bytes of a text in UTF-8. Raises UnicodeEncodeError for a lone surrogate."""
    return sum(map(len, _utf8_parts(text)))


def _utf8_parts(text: str) -> Iterator[bytes]:
    return (text[start : start + AT_ONCE].encode("utf-8") for start in range(0, len(text), AT_ONCE))


def _find_files(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        files = files_of(path, SUFFIXES)
        if not files:
            raise InputError(f"{source}: no file in this folder ends in {', '.join(SUFFIXES)}")
        return files
    if not path.is_file():
        raise InputError(f"{source}: no such file or folder")
    if not path.name.endswith(SUFFIXES + JSON_LINES_SUFFIXES):
        raise InputError(f"{source}: unknown kind of file; the ones read here end in {', '.join(SUFFIXES)}")
    return [path]


def _read_parquet(file: Path, _: Counter[str]) -> Iterator[tuple[Any, int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not a readable parquet file: {error}") from error
    with table:
        names = table.schema_arrow.names
        if TEXT_COLUMN not in names:
            raise InputError(f"{file}: no column 'text' among {', '.join(names)}")
        rows, size, read = max(table.metadata.num_rows, 1), file.stat().st_size, 0
        column = [TEXT_COLUMN]
        for group in range(table.num_row_groups):
            facts = table.metadata.row_group(group)
            at_once = max(min(256, BATCH_BYTES * facts.num_rows // max(facts.total_byte_size, 1)), 1)
            for batch in table.iter_batches(batch_size=at_once, row_groups=[group], columns=column):
                for text in batch.column(0):
                    read += 1
                    yield text.as_py(), size * read // rows


def _read_json(file: Path, skipped: Counter[str]) -> Iterator[tuple[Any, int]]:
    with _open(file) as (lines, raw):
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                if number == 1:
                    raise not_json_lines(file, line, error) from error
                skipped["line is not JSON"] += 1
                continue
            if not isinstance(row, dict) or TEXT_COLUMN not in row:
                if number == 1 and not isinstance(row, dict):
                    raise not_json_lines(file, line, type(row).__name__)
                if number == 1:
                    raise InputError(f"{file}, line 1: no field 'text' among {', '.join(row)}")
                skipped["no field 'text'"] += 1
                continue
            yield row[TEXT_COLUMN], raw.tell()


def _read_text(file: Path, _: Counter[str]) -> Iterator[tuple[bytes, int]]:
    with _open(file) as (lines, raw):
        paragraph = bytearray()
        while line := lines.readline(MAX_DOCUMENT_BYTES + 1):
            if not line.isspace():
                paragraph += line
            elif paragraph:
                document, paragraph = bytes(paragraph).strip(), bytearray()
                yield document, raw.tell()
            del line  # it may be all of the file
            if len(paragraph) > MAX_DOCUMENT_BYTES:
                raise InputError(
                    f"{file}: a document of more than {MAX_DOCUMENT_BYTES >> 20} MiB; blank lines separate documents "
                    "in a text file: put some in, or give JSON lines or parquet with a `text`"
                )
        if paragraph:
            document, paragraph = bytes(paragraph).strip(), bytearray()
            yield document, raw.tell()


@contextmanager
def _open(file: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a plain or gzipped file; gives its lines and the raw file, whose position is in bytes on disk."""
    with open(file, "rb") as raw:
        lines = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if file.suffix == ".gz" else raw
        try:
            yield lines, raw
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{file}: damaged gzip file: {error}") from error
