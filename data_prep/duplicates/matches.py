"""Documents with a common key, as pairs: the second phase of deduplicate.py."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.duplicates.files import ONE, SLOTS, U64, listed, number_of, read_ranges, write_pairs
from data_prep.duplicates.plan import Plan
from data_prep.engine.stage import Part, Task, new_counts
from shared.rows import Source


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
