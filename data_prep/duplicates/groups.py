"""Which documents are duplicates of which: signatures, matches and groups, the first three phases of deduplicate.py.

`Signatures` gives each document its keys: two documents with a common key are duplicates. `Matches` finds common keys
and writes pairs. `Groups` joins pairs to groups (a duplicate of a duplicate is a duplicate) and picks the survivor of
each. Survivors and groups do not depend on the order in which anything is found.

Documents of the corpus of `--against`, "old" ones, are the last sources: they always survive.
"""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_prep.duplicates.files import (
    DOCUMENT,
    DROP,
    MAX_PART,
    SLOTS,
    U64,
    Documents,
    facts,
    listed,
    number_of,
    read_ranges,
    write_documents,
    write_run,
)
from data_prep.duplicates.minhash import MinHash, mix
from data_prep.engine.stage import Part, Task, new_counts
from shared.files import atomic_file
from shared.rows import Source, read_rows

ONE = np.uint64(1)
NONE = np.zeros(0, np.uint64)
NO_DATE = 2**62
BATCH_CHARACTERS = 2**20  # signed together
EPOCH = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Plan:
    """What all phases know: where the files are, and what counts as a duplicate."""

    output_dir: str
    work: str  # a folder below it
    sources: int  # new ones; those after are old
    has_old: bool
    exact: bool
    near: bool
    bands: int
    rows: int
    ngram: int
    within_source: bool
    oldest: bool  # survives, rather than the newest
    part_records: int
    memory_mb: int

    def folder(self, phase: str) -> Path:
        return Path(self.output_dir, self.work, phase)

    def name(self, path: Path) -> str:
        return str(path.relative_to(self.output_dir))

    @property
    def rows_at_once(self) -> int:
        """Rows sorted together, at up to 100 bytes each with all copies."""
        return self.memory_mb * 2**6

    @property
    def text_at_once(self) -> int:
        """Characters of text held for one part."""
        return self.memory_mb * 2**13

    @property
    def pairs_at_once(self) -> int:
        """Pairs joined together. Each may touch some pages of a mapped file, of which the kernel maps 16 at a time."""
        return self.memory_mb * 2**2


def order_of(date: str | None, old: bool, oldest: bool) -> int:
    """A number that is lower the sooner a document survives: old corpus first, then by date, those without one last.

    `date` is ISO 8601, a year or month is taken as its first day, a time without zone as UTC.
    """
    order = 0 if old else 2**63
    text = date or ""
    try:
        when = datetime.fromisoformat(f"{text}-01-01"[:10] if len(text) in (4, 7) else text)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        since = (when - EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return order + NO_DATE
    return order + (since if oldest else NO_DATE - 1 - since)


Row = tuple[int, dict[str, Any] | None]


@dataclass(frozen=True)
class Signatures:
    """Reads a source and writes, part by part, what is known of its documents and a run of (key, document).

    Of documents of one part with the same key only the first has a row, the others are written as pairs with it. So a
    text that is there a million times costs one row a part.
    """

    plan: Plan

    def __call__(self, task: Task, start: int, number: int) -> Iterator[Part]:
        assert task.source is not None
        limit = min(self.plan.part_records, MAX_PART)
        rows: list[Row] = []
        position, size = start, 0
        for position, share, row, _ in read_rows(task.source, start):
            if row is not None:
                row = {name: row[name] for name in ("text", "url", "id", "date", "source")}
                size += sum(len(value or "") for value in row.values())
            rows.append((position, row))
            if len(rows) >= limit or size >= self.plan.text_at_once:
                yield Part(position, share, new_counts(), self._write(task, number, rows))
                number += 1
                rows, size = [], 0
        yield Part(position, 1.0, new_counts(), self._write(task, number, rows), last=True)

    def _write(self, task: Task, number: int, rows: list[Row]) -> dict[str, dict[str, Any]]:
        assert task.source is not None
        old = task.source.index >= self.plan.sources
        signer = MinHash(self.plan.bands, self.plan.rows, self.plan.ngram)
        records = np.zeros(len(rows), DOCUMENT)
        groups = np.zeros(len(rows), np.uint64)  # of documents that may be compared
        strings = bytearray()
        for place, (position, row) in enumerate(rows):
            if row is not None:
                url, name = (row["url"] or "").encode(), row["id"].encode()
                order = order_of(row["date"], old, self.plan.oldest)
                records[place] = (position, order, 0, len(strings), len(url), len(name), row["url"] is not None, 1)
                strings += url + name
                if self.plan.within_source:
                    groups[place] = xxhash.xxh3_64_intdigest((row["source"] or "").encode())
            else:
                records[place]["position"] = position
        keys: list[U64] = []
        numbers: list[U64] = []
        first = number_of(task.source.index, number)
        for places in _batches(rows):
            exact, bands, has_words = signer.sign([rows[place][1]["text"] for place in places])  # type: ignore[index]
            records["exact"][places] = exact
            found = np.concatenate([mix(exact)[:, None], bands], axis=1)
            wanted = np.zeros(found.shape, bool)
            wanted[:, 0] = self.plan.exact
            wanted[:, 1:] = has_words[:, None] & self.plan.near
            owners = np.broadcast_to((np.array(places, np.uint64) + np.uint64(first))[:, None], found.shape)
            # The last bit of a key says what it is for: 0, for all of the group; 1, for finding old documents alone.
            if not self.plan.within_source or not old:
                keys.append((mix(found + groups[places][:, None]) & ~ONE)[wanted])
                numbers.append(owners[wanted])
            if self.plan.within_source and self.plan.has_old:
                keys.append((mix(found) | ONE)[wanted])
                numbers.append(owners[wanted])
        table = np.stack([np.concatenate([NONE, *keys]), np.concatenate([NONE, *numbers])], axis=1)
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        pairs = np.zeros((0, 2), np.uint64)
        repeated = np.append(False, table[1:, 0] == table[:-1, 0]) & ((table[:, 0] & ONE) == 0)
        if repeated.any():
            firsts = table[~repeated, 1][np.cumsum(~repeated) - 1]
            pairs = np.unique(np.stack([table[:, 1], firsts], axis=1)[repeated], axis=0)
            table = table[~repeated]
        folder = self.plan.folder("signatures")
        files = {}
        for suffix, write, content in (
            ("docs", write_documents, (records, bytes(strings))),
            ("run", write_run, (table,)),
            ("pairs", write_pairs, (pairs,)),
        ):
            path = folder / f"{task.name}-{number:05d}.{suffix}"
            files[self.plan.name(path)] = write(path, *content)  # type: ignore[operator]
        return files


def _batches(rows: list[Row]) -> Iterator[list[int]]:
    """The places of usable rows, in lots of about `BATCH_CHARACTERS`."""
    places: list[int] = []
    size = 0
    for place, (_, row) in enumerate(rows):
        if row is not None:
            places.append(place)
            size += len(row["text"])
            if size >= BATCH_CHARACTERS:
                yield places
                places, size = [], 0
    if places:
        yield places


def write_pairs(path: Path, pairs: U64) -> dict[str, Any]:
    """Write pairs of documents (n, 2)."""
    with atomic_file(path) as temporary:
        pairs.astype("<u8").tofile(temporary)
    return facts(path, len(pairs))


def match_tasks(sources: Sequence[Source]) -> tuple[Task, ...]:
    """Ranges of keys, as tasks: one for 16 MB of input, between 4 and 1024. They depend on the input alone."""
    size = sum(source.bytes for source in sources)
    count = min(max(2 ** (size // 2**24).bit_length(), 4), 1024)
    return tuple(Task(f"{number:05d}", max(size // count, 1)) for number in range(count))


def slots_of(task: Task, tasks: int) -> tuple[int, int]:
    """The range of slots of a task."""
    return int(task.name) * SLOTS // tasks, (int(task.name) + 1) * SLOTS // tasks


@dataclass(frozen=True)
class Matches:
    """Finds equal keys in all runs, for one range of keys, and writes pairs: each document with the first of them."""

    plan: Plan
    tasks: int

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]:
        first, last = slots_of(task, self.tasks)
        runs = listed(self.plan.folder("signatures"), ".run")
        for slot, rows in read_ranges(runs, 2, max(position, first), last, self.plan.rows_at_once):
            path = self.plan.folder("matches") / f"{task.name}-{number:05d}.pairs"
            files = {self.plan.name(path): write_pairs(path, self._pairs(rows))}
            yield Part(slot, (slot - first) / (last - first), new_counts(), files, last=slot == last)
            number += 1

    def _pairs(self, rows: U64) -> U64:
        if not len(rows):
            return rows
        keys, numbers = rows[:, 0], rows[:, 1]
        new_key = np.append(True, keys[1:] != keys[:-1])
        run = np.cumsum(new_key) - 1
        starts = np.flatnonzero(new_key)
        # Old documents have the highest numbers, so the last of a run tells whether there is one.
        ends = np.append(starts[1:], len(keys)) - 1
        has_old = numbers[ends] >= np.uint64(number_of(self.plan.sources, 0))
        firsts = numbers[starts][run]
        pairs = (numbers != firsts) & (has_old[run] | ((keys & ONE) == 0))
        return np.unique(np.stack([numbers, firsts], axis=1)[pairs], axis=0)


class MappedNumbers:
    """An array of 64-bit numbers in a file, zero at first. What is held in memory of it can be given back."""

    def __init__(self, path: Path, count: int = 0) -> None:
        """With `count` the file is made."""
        if count:
            with open(path, "wb") as file:
                file.truncate(8 * count)
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.array: U64 = np.frombuffer(self._map, "<u8")

    def release(self) -> None:
        """Give the memory back; the content stays in the file, or on its way there."""
        self._map.madvise(mmap.MADV_DONTNEED)


def find(parents: U64, numbers: U64) -> U64:
    """The roots of documents, in `parents` (0: is a root; else 1 + the parent), which is shortened on the way."""
    roots = numbers.copy()
    while True:
        above = parents[roots]
        inner = above > 0
        if not inner.any():
            break
        roots[inner] = above[inner] - ONE
    moved = roots != numbers
    parents[numbers[moved]] = roots[moved] + ONE
    return roots


def unite(parents: U64, left: U64, right: U64) -> None:
    """Join the groups of each pair. The root of a group is its lowest number, whatever the order of pairs."""
    while len(left):
        left, right = find(parents, left), find(parents, right)
        apart = left != right
        left, right = np.minimum(left, right)[apart], np.maximum(left, right)[apart]
        order = np.argsort(left)[::-1]  # of several that a root is joined to, the last assigned counts: the lowest
        parents[right[order]] = left[order] + ONE


class Numbering:
    """Gapless numbers for all documents, in the order of theirs."""

    def __init__(self, documents: Documents) -> None:
        paths = listed(documents.folder, ".docs")
        self.parts = [tuple(map(int, path.stem.split("-"))) for path in paths]
        self.first = np.array([number_of(*part) for part in self.parts], np.uint64)
        counts = []
        for path in paths:
            with open(path, "rb") as file:
                counts.append(int.from_bytes(file.read(8), "little"))
        self.base = np.cumsum([0, *counts]).astype(np.uint64)

    def gapless(self, numbers: U64) -> U64:
        part = np.searchsorted(self.first, numbers, "right") - 1
        return self.base[part] + (numbers - self.first[part])

    def number(self, gapless: U64) -> U64:
        part = np.searchsorted(self.base, gapless, "right") - 1
        return self.first[part] + (gapless - self.base[part])


@dataclass(frozen=True)
class Groups:
    """Joins pairs to groups, picks the survivors, and writes for each new source which documents are dropped.

    Its parts: the parents of all documents, the best of each group, then one for each source.
    """

    plan: Plan

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]:
        folder = self.plan.folder("groups")
        documents = Documents(self.plan.folder("signatures"))
        numbering = Numbering(documents)
        count = max(int(numbering.base[-1]), 1)
        parts = self.plan.sources + 2
        if number == 0:
            with atomic_file(folder / "parents") as temporary:
                self._join(MappedNumbers(temporary, count), numbering)
            yield self._part(1, parts, folder / "parents", count)
        if number <= 1:
            with atomic_file(folder / "best") as temporary:
                self._choose(MappedNumbers(folder / "parents"), MappedNumbers(temporary, count), numbering, documents)
            yield self._part(2, parts, folder / "best", count)
        parents, best = MappedNumbers(folder / "parents"), MappedNumbers(folder / "best")
        for source in range(max(number - 2, 0), self.plan.sources):
            path = folder / f"{source:05d}.drops"
            rows = 0
            with atomic_file(path) as temporary, open(temporary, "wb") as file:
                for part in range(documents.parts_of(source)):
                    drops = self._drops(source, part, parents, best, numbering, documents)
                    file.write(drops.tobytes())
                    rows += len(drops)
            yield self._part(source + 3, parts, path, rows)
        documents.close()

    def _part(self, done: int, parts: int, path: Path, rows: int) -> Part:
        return Part(done, done / parts, new_counts(), {self.plan.name(path): facts(path, rows)}, last=done == parts)

    def _join(self, parents: MappedNumbers, numbering: Numbering) -> None:
        for phase in ("signatures", "matches"):
            for path in listed(self.plan.folder(phase), ".pairs"):
                with open(path, "rb") as file:
                    while len(pairs := np.fromfile(file, "<u8", 2 * self.plan.pairs_at_once)):
                        unite(parents.array, numbering.gapless(pairs[::2]), numbering.gapless(pairs[1::2]))
                        parents.release()
        step = np.uint64(self.plan.pairs_at_once)
        for start in range(0, len(parents.array), int(step)):
            inner = np.flatnonzero(parents.array[start : start + int(step)]).astype(np.uint64) + np.uint64(start)
            find(parents.array, inner)
            parents.release()

    def _choose(self, parents: MappedNumbers, best: MappedNumbers, numbering: Numbering, documents: Documents) -> None:
        """Write 1 + the lowest-ranking document of each group at its root, 0 where that is the root."""
        for (source, part), base, end in zip(numbering.parts, numbering.base, numbering.base[1:], strict=False):
            inner = np.flatnonzero(parents.array[int(base) : int(end)])
            if len(inner):
                roots = parents.array[int(base) : int(end)][inner] - ONE
                orders = documents.part(source, part)["order"][inner]
                sort = np.lexsort((orders, roots))
                roots, orders, inner = roots[sort], orders[sort], inner[sort]
                starts = np.append(True, roots[1:] != roots[:-1])
                lowest = orders == orders[starts][np.cumsum(starts) - 1]  # in its group, of this part
                root, chosen, rank = -1, 0, None
                for candidate, of in zip((inner + int(base))[lowest].tolist(), roots[lowest].tolist(), strict=True):
                    if of != root:
                        root, chosen = of, int(best.array[of]) - 1 if best.array[of] else of
                        rank = documents.rank(int(numbering.number(np.uint64(chosen))))
                    other = documents.rank(int(numbering.number(np.uint64(candidate))))
                    if other < rank:
                        best.array[of], rank = candidate + 1, other
            parents.release()
            best.release()

    def _drops(
        self,
        source: int,
        part: int,
        parents: MappedNumbers,
        best: MappedNumbers,
        numbering: Numbering,
        documents: Documents,
    ) -> NDArray[Any]:
        records = documents.part(source, part)
        first = numbering.gapless(np.array([number_of(source, part)], np.uint64))[0]
        own = first + np.arange(len(records), dtype=np.uint64)
        above = parents.array[int(first) : int(first) + len(records)]
        roots = np.where(above > 0, above - ONE, own)
        chosen = best.array[roots]
        survivors = np.where(chosen > 0, chosen - ONE, roots)
        dropped = np.flatnonzero(survivors != own)
        drops = np.zeros(len(dropped), DROP)
        drops["position"] = records["position"][dropped]
        drops["survivor"] = numbering.number(survivors[dropped])
        exact = [documents.record(survivor)["exact"][0] for survivor in drops["survivor"].tolist()]
        drops["exact"] = records["exact"][dropped] == np.array(exact, np.uint64)
        parents.release()
        best.release()
        return drops
