"""Lines or paragraphs that stand in several documents: the last two phases before deduplicate.py writes.

Of the documents that are kept, `Lines` writes a run of (hash of the normalised line, order of its document, document,
place and bytes of the line). `LineMatches` finds equal hashes, keeps the line in the document that would survive, and
there once, and writes down all others. `Cuts` hands them to the writer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_prep.duplicates.files import NONE, U64, Documents, Drops, facts, listed, number_of, read_ranges, write_run
from data_prep.duplicates.matches import slots_of
from data_prep.duplicates.minhash import hash_of_words, mix
from data_prep.duplicates.plan import Plan
from data_prep.engine.stage import Part, Task, new_counts
from shared.files import atomic_file
from shared.rows import read_rows

ENDS = {"line": re.compile("\n"), "paragraph": re.compile("\n[ \t\r\f\v]*\n\\s*")}
LOW = np.uint64(2**32 - 1)
WINDOW = 8  # parts of the signatures whose cuts are in memory at a time


def spans_of(text: str, level: str) -> Iterator[tuple[int, int, int]]:
    """Where each line or paragraph starts, where it ends, and where the next one starts."""
    start = 0
    for end in ENDS[level].finditer(text):
        yield start, end.start(), end.end()
        start = end.end()
    yield start, len(text), len(text)


def without(text: str, level: str, places: list[int]) -> str:
    """`text` without the lines at these places and what follows each of them."""
    removed, spans = set(places), enumerate(spans_of(text, level))
    return "".join(text[start:after] for place, (start, _, after) in spans if place not in removed).strip("\n")


@dataclass(frozen=True)
class Lines:
    """Reads a source once more, in the same parts as the signatures."""

    plan: Plan

    def __call__(self, task: Task, start: int, number: int) -> Iterator[Part]:
        assert task.source is not None
        source = task.source.index
        documents = Documents(self.plan.folder("signatures"))
        drops = Drops(self.plan.folder("groups") / f"{source:05d}.drops")
        reader = read_rows(task.source, start)
        parts = documents.parts_of(source)
        share = 0.0
        for part in range(number, parts):
            found: list[tuple[int, int, int, int]] = []
            for document, order in enumerate(documents.part(source, part)["order"].tolist(), number_of(source, part)):
                start, share, row, _ = next(reader)
                if row is not None and drops.at(start) is None:
                    found += self._lines(row, order, document)
            table = np.array(found, np.uint64).reshape(-1, 4)
            table[:, 0] = mix(table[:, 0])
            path = self.plan.folder("lines") / f"{task.name}-{part:05d}.run"
            files = {self.plan.name(path): write_run(path, table[np.argsort(table[:, 0], kind="stable")])}
            yield Part(start, share, new_counts(), files, last=part == parts - 1)

    def _lines(self, row: dict[str, Any], order: int, document: int) -> Iterator[tuple[int, int, int, int]]:
        group = xxhash.xxh3_64_intdigest((row["source"] or "").encode()) if self.plan.within_source else 0
        text, shortest = row["text"], self.plan.args.min_line_chars
        for place, (start, end, _) in enumerate(spans_of(text, self.plan.args.level)):
            if end - start >= shortest:
                line = text[start:end].strip()
                key = hash_of_words(line, group) if len(line) >= shortest else None
                if key is not None:
                    yield key, order, document, place << 32 | len(line.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class LineMatches:
    """Finds equal lines, for one range of hashes, and writes the documents and places of those to remove."""

    plan: Plan
    tasks: int

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]:
        documents = Documents(self.plan.folder("signatures"))
        first, last = slots_of(task, self.tasks)
        runs = listed(self.plan.folder("lines"), ".run")
        for slot, rows in read_ranges(runs, 4, max(position, first), last, self.plan.rows_at_once // 2):
            removed = self._removed(rows, documents)
            removed = removed[np.lexsort((removed[:, 1], removed[:, 0]))]
            path = self.plan.folder("cuts") / f"{task.name}-{number:05d}.cuts"
            with atomic_file(path) as temporary:
                np.stack([removed[:, 0], removed[:, 1] >> np.uint64(32)]).astype("<u8").tofile(temporary)
            counts = new_counts() | {"removed_lines": len(removed), "removed_bytes": int((removed[:, 1] & LOW).sum())}
            files = {self.plan.name(path): facts(path, len(removed))}
            yield Part(slot, (slot - first) / (last - first), counts, files, last=slot == last)
            number += 1
        documents.close()

    def _removed(self, rows: U64, documents: Documents) -> U64:
        """(document, place and bytes) of all but the first of each run; `rows` are sorted by all columns."""
        keys, orders, numbers = rows[:, 0], rows[:, 1], rows[:, 2]
        first = np.append(True, keys[1:] != keys[:-1])[: len(rows)]
        kept = first.copy()
        # Documents of the same date: their URL and id decide, which are looked up for these alone.
        tied = np.flatnonzero(first[:-1] & ~first[1:] & (orders[1:] == orders[:-1])) if len(rows) else NONE
        starts = np.append(np.flatnonzero(first), len(rows))
        for start in tied.tolist():
            end = int(starts[np.searchsorted(starts, start) + 1])
            end = start + int(np.searchsorted(orders[start:end], orders[start], "right"))
            names = np.unique(numbers[start:end]).tolist()
            if len(names) > 1:
                best = min(names, key=documents.rank)
                kept[start] = False
                kept[start + int(np.searchsorted(numbers[start:end], best))] = True
        return rows[~kept][:, 2:]


class Cuts:
    """The places of the lines to remove from each document of a source."""

    def __init__(self, plan: Plan, source: int) -> None:
        self.source = source
        self.documents = Documents(plan.folder("signatures"))
        self.files = listed(plan.folder("cuts"), ".cuts")
        self.parts = self.documents.parts_of(source)
        self.part = -1  # whose positions are in memory
        self.positions: NDArray[Any] = np.zeros(0, np.uint64)
        self.window = -1
        self.numbers: U64 = NONE
        self.places: U64 = NONE

    def at(self, position: int) -> list[int]:
        """The lines to remove from the document that ends at `position`, which must not fall from call to call."""
        while self.part < 0 or not len(self.positions) or position > int(self.positions[-1]):
            self.part += 1
            self.positions = self.documents.part(self.source, self.part)["position"]
        document = number_of(self.source, self.part) + int(np.searchsorted(self.positions, position))
        if self.part // WINDOW != self.window:
            self._load(self.part // WINDOW)
        start, end = np.searchsorted(self.numbers, np.array([document, document + 1], np.uint64))
        return self.places[start:end].tolist()

    def _load(self, window: int) -> None:
        self.window = window
        span = np.array([number_of(self.source, window * WINDOW + more) for more in (0, WINDOW)], np.uint64)
        numbers, places = [NONE], [NONE]
        for path in self.files:
            size = path.stat().st_size // 16
            if size:
                table = np.memmap(path, "<u8", "r", shape=(2, size))
                start, end = np.searchsorted(table[0], span)
                numbers.append(np.array(table[0, start:end]))
                places.append(np.array(table[1, start:end]))
        sort = np.lexsort((np.concatenate(places), np.concatenate(numbers)))
        self.numbers, self.places = np.concatenate(numbers)[sort], np.concatenate(places)[sort]
