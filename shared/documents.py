"""Documents as a stream, from parquet, JSON lines, text files, folders of them, or a dataset on the Hub."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from shared.errors import InputError
from shared.files import check_new_folder, sha256_of
from shared.rows import DAMAGED, NAMED_ONLY, SUFFIXES, Source, check_apart, find_files, read_raw

TEXT_COLUMN = "text"
HELP = "Files or folders of text; in .txt files blank lines separate documents."


class Documents:
    """The texts of all sources, in order, read as a stream that can be started again.

    Parquet and JSON lines give their `text` field; a text file gives one document per run of lines between blank
    lines. `skipped` counts what the last pass left out, by reason; a pass shows progress in bytes of input.
    """

    def __init__(
        self, sources: Sequence[str] = (), dataset_name: str | None = None, dataset_config_name: str | None = None
    ) -> None:
        """Resolve files and folders. Raises InputError, as `find_files` does too."""
        if bool(sources) == bool(dataset_name):
            raise InputError("no text, or two kinds: name either files and folders, or one dataset (--dataset_name)")
        if dataset_config_name and not dataset_name:
            raise InputError(f"--dataset_config_name {dataset_config_name}: is for --dataset_name; remove the flag")
        if dataset_name and Path(dataset_name).exists():
            raise InputError(f"--dataset_name {dataset_name}: a path; give files and folders as such")
        self.files = find_files(sources, SUFFIXES + NAMED_ONLY)
        self.sources = sources
        self.dataset_name = dataset_name
        self.dataset_config_name = dataset_config_name
        self.skipped: Counter[str] = Counter()
        self._description: list[dict[str, Any]] = []

    def check_output(self, output_dir: str) -> None:
        """Raise InputError when an --output_dir is no new folder, or lies in a folder that is read."""
        check_new_folder(output_dir)
        check_apart(output_dir, self.sources)

    def __iter__(self) -> Iterator[str]:
        """Yield the texts; silent. See `progress` for the same with a bar."""
        return self.progress("", disable=True)

    def progress(self, description: str, disable: bool = False) -> Iterator[str]:
        """Yield the texts under a progress bar in bytes of input, with rate and time left."""
        self.skipped = Counter()
        if self.dataset_name:  # a streamed dataset has no known end
            yield from tqdm(self._read_hub(), desc=description, unit=" documents", disable=disable)
            return
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
            facts = {"dataset": self.dataset_name, "config": self.dataset_config_name, "revision": revision}
            self._description = [facts]
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
        source = Source(0, str(file), file.stat().st_size)
        for _, share, row, problem in read_raw(source, columns=[TEXT_COLUMN]):
            if problem == DAMAGED:
                raise InputError(
                    f"{file}: {problem}; get it again, or save what is left by filter_documents.py --max_bad_records 1"
                )
            if row is None or TEXT_COLUMN not in row:
                self.skipped[problem or "no field 'text'"] += 1
            elif (text := self._clean(row[TEXT_COLUMN])) is not None:
                yield text, round(share * source.bytes)

    def _clean(self, text: Any) -> str | None:
        try:
            if isinstance(text, bytes):
                text = text.decode()
            elif isinstance(text, str):
                text.encode()
            if text and isinstance(text, str):
                return text
            problem = "empty text" if text is None or text == "" else "text is not a string"
        except UnicodeDecodeError:
            problem = "not valid UTF-8"
        except UnicodeEncodeError:
            problem = "lone surrogate in text"
        self.skipped[problem] += 1
        return None


def hash_of_text(text: str) -> int:
    """A number below 2**64 that depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def is_held_out(text: str, fraction: float) -> bool:
    """Whether a document is for validation: by a hash of its text, so that adding documents moves none."""
    return hash_of_text(text) < fraction * 2**64


def utf8_bytes(text: str) -> int:
    """Bytes of a text in UTF-8. Raises UnicodeEncodeError for a lone surrogate."""
    return len(text.encode())
