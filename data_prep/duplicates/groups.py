"""Which documents are duplicates of which, and which of them stays: the third phase of deduplicate.py.

`Groups` joins pairs to groups (a duplicate of a duplicate is a duplicate) and picks the survivor of each. Survivors
and groups do not depend on the order in which anything is found.

Documents of the corpus of `--against`, "old" ones, are the last sources: they always survive.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.duplicates.files import DROP, ONE, U64, Documents, facts, listed, number_of
from data_prep.duplicates.plan import Plan
from data_prep.engine.stage import Part, Task, new_counts
from shared.files import atomic_file


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
        counts = [int(np.fromfile(path, "<u8", 1)[0]) for path in paths]
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
