"""The files by which the phases of deduplicate.py hand work to each other, all little-endian, none read whole.

A document is named by a number: its source, the part of the signatures it is in, its place there. Rows of 64-bit
numbers are kept in runs: files sorted by their first column, the key, with an index of where each of `SLOTS` equal
ranges of keys starts. Rows of equal key in many runs are found by reading one range of all of them, so nothing is ever
sorted that does not fit in memory, and nothing is sent from one task to another.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
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
    file = os.open(path, os.O_RDONLY)
    try:
        start = int.from_bytes(os.pread(file, 8, 8 * first), "little")
        end = int.from_bytes(os.pread(file, 8, 8 * last), "little")
        data = _pread(file, 8 * columns * (end - start), 8 * (SLOTS + 1) + 8 * columns * start)
    finally:
        os.close(file)
    return np.frombuffer(data, "<u8").reshape(-1, columns)


def _pread(file: int, size: int, offset: int) -> bytes:
    """`os.pread` that reads all of it, however much that is."""
    data = os.pread(file, size, offset)
    while len(data) < size:
        more = os.pread(file, size - len(data), offset + len(data))
        if not more:
            raise EOFError("a file of an earlier phase is shorter than its index says; remove the output folder")
        data += more
    return data


def read_ranges(runs: Sequence[Path], columns: int, first: int, last: int, limit: int) -> Iterator[tuple[int, U64]]:
    """Yield (slot after it, rows sorted by all columns) for consecutive ranges of keys in all runs.

    A range holds at most `limit` rows, unless one slot alone has more.
    """
    sizes = np.zeros(last - first, np.int64)
    for path in runs:
        with open(path, "rb", buffering=0) as file:
            index = np.frombuffer(_pread(file.fileno(), 8 * (last - first + 1), 8 * first), "<u8")
        sizes += np.diff(index.astype(np.int64))
    while first < last:
        totals = np.cumsum(sizes[len(sizes) - (last - first) :])
        end = first + max(int(np.searchsorted(totals, limit, "right")), 1)
        rows = np.empty((int(totals[end - first - 1]), columns), np.uint64)
        filled = 0
        for path in runs:
            found = read_run(path, columns, first, end)
            rows[filled : filled + len(found)] = found
            filled += len(found)
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
        self._open: OrderedDict[int, int] = OrderedDict()

    def path(self, source: int, part: int) -> Path:
        return self.folder / f"{source:05d}-{part:05d}.docs"

    def part(self, source: int, part: int) -> NDArray[Any]:
        """The records of a part."""
        with open(self.path(source, part), "rb") as file:
            return np.fromfile(file, DOCUMENT, int.from_bytes(file.read(8), "little"))

    def parts_of(self, source: int) -> int:
        """The number of parts of a source."""
        count = 0
        while self.path(source, count).is_file():
            count += 1
        return count

    def record(self, document: int) -> NDArray[Any]:
        """One record, as an array of one."""
        data = os.pread(self._file(document), DOCUMENT.itemsize, 8 + DOCUMENT.itemsize * (document & (MAX_PART - 1)))
        return np.frombuffer(data, DOCUMENT)

    def strings(self, document: int) -> tuple[bytes | None, bytes]:
        """URL (or None) and id."""
        (record,) = self.record(document).tolist()
        _, _, _, start, url, name, has_url, _ = record
        data = _pread(self._file(document), url + name, start)
        return (data[:url] if has_url else None), data[url:]

    def rank(self, document: int) -> tuple[Any, ...]:
        """Sorts documents: the lowest of a group survives. The order in which they are read decides only when
        everything else is the same."""
        (record,) = self.record(document).tolist()
        url, name = self.strings(document)
        return record[1], url is None, url or b"", name, record[2], document

    def _file(self, document: int) -> int:
        part = document >> 16
        if part in self._open:
            self._open.move_to_end(part)
        else:
            if len(self._open) >= 64:
                os.close(self._open.popitem(last=False)[1])
            self._open[part] = os.open(self.path(part >> 24, part & (2**24 - 1)), os.O_RDONLY)
        return self._open[part]

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


class Drops:
    """The dropped documents of one source, by the reader's position, which must not fall from call to call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = path.stat().st_size // DROP.itemsize
        self.next = -1
        self.rows: list[tuple[int, int, int]] = []

    def at(self, position: int) -> tuple[int, bool] | None:
        """(survivor, whether its text is the same) if the record that ends at `position` is dropped."""
        if self.next < 0:
            self.next = self._first(position)
        while True:
            if not self.rows:
                if self.next >= self.count:
                    return None
                found = np.fromfile(self.path, DROP, 1024, offset=self.next * DROP.itemsize)
                self.next += len(found)
                self.rows = found[::-1].tolist()  # the next one last
            if self.rows[-1][0] > position:
                return None
            at, survivor, exact = self.rows.pop()
            if at == position:
                return survivor, bool(exact)

    def _first(self, position: int) -> int:
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if np.fromfile(self.path, DROP, 1, offset=middle * DROP.itemsize)["position"][0] < position:
                low = middle + 1
            else:
                high = middle
        return low
