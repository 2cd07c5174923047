"""The files by which the phases of deduplicate.py hand work to each other, all little-endian, none read whole.

A document is named by a number: its source, the part of the signatures it is in, its place there. Rows of 64-bit
numbers are kept in runs: files sorted by their first column, the key, with an index of where each of `SLOTS` equal
ranges of keys starts. Rows of equal key in many runs are found by reading one range of all of them, so nothing is ever
sorted that does not fit in memory, and nothing is sent from one task to another.
"""

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.files import atomic_file

U64 = NDArray[np.uint64]
ONE = np.uint64(1)
NONE: U64 = np.zeros(0, np.uint64)
SLOTS = 4096
MAX_PART = 2**16  # documents
DOCUMENT = np.dtype(
    [
        ("position", "<u8"),  # of the reader after this record
        ("order", "<u8"),  # lower survives; see `signatures.order_of`
        ("exact", "<u8"),  # hash of the normalised text
        ("start", "<u8"),  # of the URL in the file; the id follows
        ("url", "<u4"),  # bytes of it
        ("id", "<u4"),
        ("has_url", "<u4"),
        ("usable", "<u4"),  # 0: the record is damaged
    ]
)
DROP = np.dtype([("position", "<u8"), ("survivor", "<u8"), ("exact", "<u8")])  # exact: the texts are the same


def number_of(source: int, part: int) -> int:
    """The number of the first document of a part; the others follow."""
    return source << 40 | part << 16


def facts(path: Path, rows: int) -> dict[str, Any]:
    return {"rows": rows, "bytes": path.stat().st_size}


def listed(folder: Path, suffix: str) -> list[Path]:
    """The finished files of a kind, by source and part. What a killed run has left begins with a dot."""
    if not folder.is_dir():
        return []
    names = [name for name in os.listdir(folder) if name.endswith(suffix) and not name.startswith(".")]
    return [folder / name for name in sorted(names, key=lambda name: (*map(int, name.split(".")[0].split("-")),))]


def write_pairs(path: Path, pairs: U64) -> dict[str, Any]:
    """Write pairs of documents (n, 2)."""
    with atomic_file(path) as temporary:
        pairs.astype("<u8").tofile(temporary)
    return facts(path, len(pairs))


def write_run(path: Path, rows: U64) -> dict[str, Any]:
    """Write rows (n, columns) that are sorted by the first column."""
    edges = np.arange(SLOTS, dtype=np.uint64) << np.uint64(64 - 12)
    index = np.append(np.searchsorted(rows[:, 0], edges), len(rows))
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        file.write(index.astype("<u8").tobytes())
        file.write(np.ascontiguousarray(rows, "<u8").data)
    return facts(path, len(rows))


def read_run(path: Path, columns: int, first: int, last: int) -> U64:
    """The rows (n, columns) whose keys are in slots `first` up to `last`, which is not included."""
    with open(path, "rb") as file:
        file.seek(8 * first)
        index = np.fromfile(file, "<i8", last - first + 1)
        file.seek(8 * (SLOTS + 1 + columns * int(index[0])))
        size = columns * int(index[-1] - index[0])
        rows = np.fromfile(file, "<u8", size)
    if len(rows) < size:
        raise EOFError(f"{path}: is shorter than its index says; remove the output folder")
    return rows.reshape(-1, columns)


def read_ranges(runs: Sequence[Path], columns: int, first: int, last: int, limit: int) -> Iterator[tuple[int, U64]]:
    """Yield (slot after it, rows sorted by all columns) for consecutive ranges of keys in all runs.

    A range holds at most `limit` rows, unless one slot alone has more.
    """
    sizes = np.zeros(last - first, np.int64)
    for path in runs:
        sizes += np.diff(np.fromfile(path, "<i8", last - first + 1, offset=8 * first))
    while first < last:
        totals = np.cumsum(sizes[first - last :])
        end = first + max(int(np.searchsorted(totals, limit, "right")), 1)
        rows = np.concatenate([read_run(path, columns, first, end) for path in runs])
        yield end, rows[np.lexsort(rows.T[::-1])]
        first = end


def write_documents(path: Path, records: NDArray[Any], strings: bytes) -> dict[str, Any]:
    """Write what is known of a part's documents; `start` counts from the beginning of `strings`."""
    records = records.copy()
    records["start"] += 8 + records.nbytes
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        file.write(len(records).to_bytes(8, "little") + records.tobytes() + strings)
    return facts(path, len(records))


class Documents:
    """What is known of each document, read piece by piece."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[int, int] = {}

    def path(self, source: int, part: int) -> Path:
        return self.folder / f"{source:05d}-{part:05d}.docs"

    def part(self, source: int, part: int) -> NDArray[Any]:
        """The records of a part."""
        with open(self.path(source, part), "rb") as file:
            return np.fromfile(file, DOCUMENT, int.from_bytes(file.read(8), "little"))

    def parts_of(self, source: int) -> int:
        """The number of parts of a source."""
        return next(part for part in count() if not self.path(source, part).is_file())

    def record(self, document: int) -> NDArray[Any]:
        """One record, as an array of one."""
        data = os.pread(self._file(document), DOCUMENT.itemsize, 8 + DOCUMENT.itemsize * (document & (MAX_PART - 1)))
        return np.frombuffer(data, DOCUMENT)

    def strings(self, document: int) -> tuple[bytes | None, bytes]:
        """URL (or None) and id."""
        (record,) = self.record(document).tolist()
        _, _, _, start, url, name, has_url, _ = record
        data = os.pread(self._file(document), url + name, start)
        return (data[:url] if has_url else None), data[url:]

    def rank(self, document: int) -> tuple[Any, ...]:
        """Sorts documents: the lowest of a group survives. The order in which they are read decides only when
        everything else is the same."""
        (record,) = self.record(document).tolist()
        url, name = self.strings(document)
        return record[1], url is None, url or b"", name, record[2], document

    def _file(self, document: int) -> int:
        part = document >> 16
        if part not in self._open:
            if len(self._open) >= 64:
                self.close()
            self._open[part] = os.open(self.path(part >> 24, part & (2**24 - 1)), os.O_RDONLY)
        return self._open[part]

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


class Drops:
    """The dropped documents of one source, by the reader's position, which must not fall from call to call."""

    def __init__(self, path: Path) -> None:
        self.rows = np.memmap(path, DROP, "r") if path.stat().st_size else np.zeros(0, DROP)
        self.next = 0

    def at(self, position: int) -> tuple[int, bool] | None:
        """(survivor, whether its text is the same) if the record that ends at `position` is dropped."""
        positions = self.rows["position"]
        if self.next < len(positions) and positions[self.next] < position:
            self.next = bisect_left(positions, position, self.next)
        if self.next == len(positions) or positions[self.next] != position:
            return None
        _, survivor, exact = self.rows[self.next].tolist()
        return survivor, bool(exact)
