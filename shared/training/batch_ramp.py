"""Smaller batches at the start of a run: what a step reads of its samples, as a function of the step alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from shared.errors import InputError


@dataclass(frozen=True)
class BatchRamp:
    """`stages`: shares of a batch, each with the first step that it does not hold for; then batches are whole."""

    stages: tuple[tuple[Fraction, int], ...] = ()

    def count(self, batch: int, step: int) -> int:
        """How many of `batch` samples a step reads, the first ones: at least one."""
        return _read(batch, next((share for share, end in self.stages if step < end), Fraction(1)))

    def samples(self, batch: int, steps: int) -> int:
        """How many samples the first steps of a run read, of batches of `batch` samples."""
        total = begin = 0
        for share, end in (*self.stages, (Fraction(1), max(steps, self.last))):
            total += _read(batch, share) * max(0, min(end, steps) - begin)
            begin = end
        return total

    def steps(self, batch: int, samples: float) -> float:
        """How many steps read so many samples: a fraction of a step at the end."""
        begin = 0
        for share, end in self.stages:
            each = _read(batch, share)
            if samples <= each * (end - begin):
                return begin + samples / each
            samples, begin = samples - each * (end - begin), end
        return begin + samples / batch

    @property
    def last(self) -> int:
        """The first step of a whole batch."""
        return self.stages[-1][1] if self.stages else 0

    def left_out(self, order: Any, steps: int) -> np.ndarray:
        """The rows that the first steps of a `GlobalBatches` leave out, (rows,) int64."""
        found, size, steps = [np.empty(0, dtype=np.int64)], order.samples_per_step, min(steps, self.last)
        for first in range(0, steps, order.steps_per_epoch):
            rows = order.order(first // order.steps_per_epoch)
            for step in range(first, min(steps, first + order.steps_per_epoch)):
                batch = rows[(step - first) * size : (step - first + 1) * size]
                found.append(batch[self.count(len(batch), step) :])
        return np.concatenate(found)


def read_ramp(entries: Sequence[str]) -> BatchRamp:
    """The ramp of `--batch_ramp SHARE:STEP ...`. Raises InputError."""
    stages: list[tuple[Fraction, int]] = []
    for entry in entries:
        share, _, step = entry.partition(":")
        try:
            stages.append((Fraction(share), int(step)))
        except (ValueError, ZeroDivisionError):
            raise InputError(
                f"--batch_ramp {entry}: write SHARE:STEP; 0.25:1000 is a quarter of the batch before step 1000"
            ) from None
        before = stages[-2] if len(stages) > 1 else (Fraction(0), 0)
        if not before[0] < stages[-1][0] < 1 or not before[1] < stages[-1][1]:
            raise InputError(f"--batch_ramp {' '.join(entries)}: shares rise between 0 and 1, and steps from above 0")
    return BatchRamp(tuple(stages))


def _read(batch: int, share: Fraction) -> int:
    return -(-batch * share.numerator // share.denominator)
