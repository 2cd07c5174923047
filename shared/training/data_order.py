"""Which samples a step reads: a pure function of seed, epoch and step, however the step is split."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from shared.errors import InputError
from shared.loss import IGNORED
from shared.training.batch_ramp import BatchRamp

WINDOW = 50  # steps whose samples are sorted together when samples are grouped by length


class MicroBatch(NamedTuple):
    """What the sampler hands to `Samples`: row numbers, (rows,) int64; a filler counts for nothing. `progress`: where
    the run is, from 0 at its first step to 1 at its last."""

    epoch: int
    rows: np.ndarray
    is_filler: bool
    progress: float = 0.0


@dataclass(eq=False)
class GlobalBatches(Sampler[MicroBatch]):
    """The batch sampler of one process.

    An epoch is one permutation of all samples, drawn from (seed, epoch); step k of it reads the `samples_per_step`
    samples from k * samples_per_step on, and the last step what is left. A step is then cut into
    accumulation x processes parts, so that none of these three numbers changes what a step reads, only who reads it.
    With a ramp the first steps read the first samples of their batch alone; in that epoch nobody reads the others.
    A process for which a short last step has no sample gets one whose targets are hidden (`is_filler`).
    """

    samples: int
    batch_size: int
    accumulation: int
    processes: int
    rank: int
    seed: int
    shuffle: bool = True
    lengths: np.ndarray | None = None  # (samples,) int: group samples of similar length into steps
    drop_last: bool = False  # no short last step
    steps: int = 0  # of the whole run, for `progress`, which stays 0 without
    ramp: BatchRamp = field(default_factory=BatchRamp)  # smaller batches at first

    def __post_init__(self) -> None:
        self.samples_per_step = self.batch_size * self.accumulation * self.processes
        self.epoch = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return steps_per_epoch(self.samples, self.samples_per_step, self.drop_last)

    def __len__(self) -> int:
        """Micro-batches of this process in an epoch."""
        full, rest = divmod(self.samples, self.samples_per_step)
        return full * self.accumulation + (0 if self.drop_last else self._parts(rest))

    def set_epoch(self, epoch: int) -> None:
        """Iterate over this epoch from now on."""
        self.epoch = epoch

    def order(self, epoch: int) -> np.ndarray:
        """All row numbers in the order in which this epoch reads them, (samples,) int64."""
        rng = np.random.default_rng((self.seed, epoch))
        rows = rng.permutation(self.samples) if self.shuffle else np.arange(self.samples)
        if self.lengths is not None:
            whole = self.samples - self.samples % self.samples_per_step
            for start in range(0, whole, WINDOW * self.samples_per_step):
                window = slice(start, min(start + WINDOW * self.samples_per_step, whole))
                alike = rows[window][np.argsort(self.lengths[rows[window]], kind="stable")]
                rows[window] = rng.permutation(alike.reshape(-1, self.samples_per_step)).ravel()
        return rows

    def step_rows(self, step: int) -> np.ndarray:
        """The row numbers that all processes together read in optimizer step `step` of the run, from 0 on."""
        epoch, k = divmod(step, self.steps_per_epoch)
        rows = self.order(epoch)[k * self.samples_per_step : (k + 1) * self.samples_per_step]
        return rows[: self.ramp.count(len(rows), step)]

    def __iter__(self) -> Iterator[MicroBatch]:
        rows, size, first = self.order(self.epoch), self.batch_size, self.epoch * self.steps_per_epoch
        whole = self.samples - self.samples % self.samples_per_step
        small = min(whole, max(0, self.ramp.last - first) * self.samples_per_step)  # where whole batches begin
        for start in range(0, small, self.samples_per_step):
            yield from self._split(rows[start : start + self.samples_per_step], first + start // self.samples_per_step)
        for start in range(small + self.rank * size, whole, self.processes * size):
            yield self._batch(rows[start : start + size], first + start // self.samples_per_step)
        if whole < self.samples and not self.drop_last:
            yield from self._split(rows[whole:], first + whole // self.samples_per_step)

    def _split(self, rows: np.ndarray, step: int) -> Iterator[MicroBatch]:
        """What this process reads of a step whose batch is short, or is read in part."""
        read = rows[: self.ramp.count(len(rows), step)]
        for part in np.array_split(read, self._parts(len(rows)) * self.processes)[self.rank :: self.processes]:
            yield self._batch(part if len(part) else rows[:1], step, is_filler=not len(part))

    def _batch(self, rows: np.ndarray, step: int, is_filler: bool = False) -> MicroBatch:
        progress = min(1.0, step / max(1, self.steps - 1)) if self.steps > 0 else 0.0
        return MicroBatch(self.epoch, rows, is_filler, progress)

    def _parts(self, rest: int) -> int:
        return math.ceil(rest / (self.batch_size * self.processes))


class Samples(Dataset[Any]):
    """Fetches and collates the micro-batches of `GlobalBatches`; the DataLoader's data set.

    A data set with `set_epoch` is told the epoch in the process that fetches, so that workers need no message, and one
    with `set_progress` where the run is. What `dataset` and `collate` do must depend on these and on the rows alone,
    or a resumed run is not the same run.
    """

    def __init__(self, dataset: Any, collate: Callable[[Any], dict[str, Any]]) -> None:
        self.dataset, self.collate = dataset, collate

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, batch: MicroBatch) -> dict[str, Any]:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(batch.epoch)
        if hasattr(self.dataset, "set_progress"):
            self.dataset.set_progress(batch.progress)
        rows = batch.rows.tolist()
        many = getattr(self.dataset, "__getitems__", None)
        features = self.collate(many(rows) if many else [self.dataset[row] for row in rows])
        if batch.is_filler:
            features["labels"] = torch.full_like(features["labels"], IGNORED)
        return features


def lengths_of(dataset: Any, args: Any) -> np.ndarray | None:
    """The length of each sample, (samples,) int, where samples are to be grouped by it. Raises InputError."""
    if dataset is None or args.train_sampling_strategy != "group_by_length":
        return None
    try:
        return np.asarray(dataset[args.length_column_name])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"--train_sampling_strategy group_by_length: these data have no column {args.length_column_name} "
            "(packed blocks are all of one length); use --train_sampling_strategy random"
        ) from error


def steps_per_epoch(samples: int, samples_per_step: int, drop_last: bool = False) -> int:
    """Optimizer steps in an epoch."""
    return samples // samples_per_step if drop_last else math.ceil(samples / samples_per_step)


def seed_step(seed: int, step: int, process: int, device: torch.device) -> None:
    """Let the random numbers of a step, those of dropout, be a function of seed, step and process."""
    key = np.random.SeedSequence((seed, step, process)).generate_state(1, np.uint64)
    torch.default_generator.manual_seed(int(key[0]))
    if device.type == "cuda":
        torch.cuda.manual_seed(int(key[0]))
