"""Packed sets mixed by weights: the block at a place of the order is a function of seed, epoch and row."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.blocks import PackedBlocks
from shared.errors import InputError
from shared.loss import IGNORED

MOST_ROWS = 1 << 28  # of an epoch, whose order is kept in memory: 2.4 GB
KEPT = 3  # orders of a set in memory: where a repeat begins two are read


@dataclass
class MixtureArguments:
    packed_dataset: list[str] = field(
        default_factory=list, metadata={"help": "A folder written by data_prep/pack_dataset.py, or several, mixed."}
    )
    mixture_weights: list[float] = field(
        default_factory=list,
        metadata={"help": "The share of each folder of --packed_dataset in training. Default: that of its blocks."},
    )

    def __post_init__(self) -> None:
        folders, weights = self.packed_dataset, self.mixture_weights
        if weights and len(weights) != len(folders):
            raise InputError(
                f"--mixture_weights: {len(weights)} for {len(folders)} folders of --packed_dataset; give each folder "
                "one"
            )
        if any(not 0 < weight < float("inf") for weight in weights):
            raise InputError(
                f"--mixture_weights {' '.join(f'{weight:g}' for weight in weights)}: must be above 0; leave a folder "
                "out of --packed_dataset that is not to be read"
            )
        self.given = vars(self) | {"packed_dataset": folders[0] if len(folders) == 1 else folders}  # as recipes say it


class Mixture:
    """Blocks of several sets in one order, which MaskedBlocks reads in place of an array.

    `counts[i]` rows of an epoch are blocks of set i. With a `seed` they are spread evenly, so that the shares are
    right in every stretch of the order, and a set is read in an order drawn from (seed, set, repeat), all of it before
    any of it again; rows must then be read one after the other. Without a seed the sets follow each other.
    """

    def __init__(self, sets: Sequence[np.ndarray], counts: Sequence[int], seed: int | None = None) -> None:
        self.sets, self.counts, self.seed = list(sets), np.asarray(counts), seed
        self.sizes = np.array([len(blocks) for blocks in sets])
        self.first = self.sizes.cumsum() - self.sizes  # the number of each set's block 0 among those of all sets
        self.source = np.repeat(np.arange(len(sets), dtype=np.uint8), counts)
        self.turn = np.concatenate([np.arange(count) for count in counts])  # of the rows of its set
        if seed is not None:
            order = np.argsort((self.turn + 0.5) / self.counts[self.source], kind="stable")
            self.source, self.turn = self.source[order], self.turn[order]
        self.orders: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getstate__(self) -> tuple[Any, ...]:
        """For a worker that is not forked: names of files in place of their content."""
        return [name_rows(blocks) for blocks in self.sets], self.counts, self.seed

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        sets, counts, seed = state
        self.__init__([open_rows(blocks) for blocks in sets], counts, seed)  # type: ignore[misc]

    def read(self, rows: np.ndarray, epoch: np.ndarray | int) -> tuple[np.ndarray, np.ndarray, np.ndarray | int]:
        """The blocks at these rows of an epoch, of all rows or of each: (rows, length), and what their masks are
        drawn from: the number of each block, (rows,) int64, and how often its set was read before, (rows,) int64.

        Among sets that are mixed no two blocks have one number. Without a seed a block has the number that it has in
        its own set, so that it is evaluated under the masks that it gets alone.
        """
        source, turn = self.source[rows], self.turn[rows]
        if self.seed is None:
            return self._gather(source, turn), turn, epoch
        repeat, place = np.divmod(epoch * self.counts[source] + turn, self.sizes[source])
        number = np.empty_like(place)
        for part, again in {*zip(source.tolist(), repeat.tolist(), strict=True)}:
            here = (source == part) & (repeat == again)
            number[here] = self._order(part, again)[place[here]]
        return self._gather(source, number), self.first[source] + number, repeat

    def rows_read(self, rows: int) -> np.ndarray:
        """How many blocks of each set stand in the first `rows` rows of an epoch, (sets,) int64."""
        return np.bincount(self.source[:rows], minlength=len(self.sets))

    def _gather(self, source: np.ndarray, number: np.ndarray) -> np.ndarray:
        ids = np.empty((len(source), self.sets[0].shape[1]), dtype=self.sets[0].dtype)
        for part in np.unique(source):
            here = source == part
            ids[here] = self.sets[part][number[here]]
        return ids

    def _order(self, part: int, repeat: int) -> np.ndarray:
        key = (part, repeat)
        if key not in self.orders:
            for old in [kept for kept in self.orders if kept[0] == part][: 1 - KEPT]:
                del self.orders[old]
            self.orders[key] = np.random.default_rng((self.seed or 0, *key)).permutation(self.sizes[part])
        return self.orders[key]


@dataclass(frozen=True)
class PackedSets:
    """One or several packed sets that one tokenizer reads, with their weights, none for one in proportion to size."""

    sets: list[PackedBlocks]
    weights: list[float]

    @property
    def names(self) -> list[str]:
        """The last parts of each path, as many as tell them apart."""
        paths = [blocks.path.resolve().parts for blocks in self.sets]
        parts = next(n for n in range(1, max(map(len, paths)) + 1) if len({path[-n:] for path in paths}) == len(paths))
        return ["/".join(path[-parts:]).lstrip("/") for path in paths]

    @property
    def manifest(self) -> dict[str, Any]:
        """That of the one set; of several what they have in common, their sums, and each under `sets`."""
        found = [blocks.manifest for blocks in self.sets]
        if len(found) == 1:
            return found[0]
        common = {name: found[0][name] for name in ("max_seq_length", "dtype", "tokenizer")}
        splits = {
            split: {name: sum(one["splits"][split].get(name, 0) for one in found) for name in COUNTED}
            for split in ("train", "validation")
        }
        sources = [source for one in found for source in one.get("sources", [])]
        held_out = min(one.get("validation_fraction", 0.0) for one in found)
        each = dict(zip(self.names, found, strict=True))
        return common | {"validation_fraction": held_out, "splits": splits, "sources": sources, "sets": each}

    @property
    def identity(self) -> dict[str, Any]:
        """What a resumed run is compared with."""
        manifest = self.manifest
        more = {name: one["splits"] for name, one in manifest.get("sets", {}).items()}
        return {name: manifest[name] for name in ("tokenizer", "splits")} | ({"sets": more} if more else {})

    @property
    def results(self) -> dict[str, str]:
        """Readable names of the results that a mixture adds."""
        names = self.names if len(self.sets) > 1 else []
        shares = {f"train_mixture_{name}": f"share of the blocks trained on: {name}" for name in names}
        return {f"eval_bits_per_byte_{name}": f"bits per byte, {name}" for name in names} | shares

    def training_rows(self, most: int | None, seed: int) -> np.ndarray | Mixture:
        """Of one set its first `most` blocks. Of several a mixture by the weights, which reads the first set once in
        an epoch; with `most` an epoch has as many blocks in all, and reads the first blocks of each set alone."""
        rows = [blocks.splits["train"] for blocks in self.sets]
        if len(rows) == 1:
            return rows[0][:most]
        weights = np.array(self.weights or [max(1, len(blocks)) for blocks in rows], dtype=float)
        once = len(rows[0])
        others = round(once * weights[1:].sum() / weights[0])
        if once + others > MOST_ROWS:
            raise InputError(
                f"--mixture_weights: an epoch, which reads {self.names[0]} once, would have {once + others:,} blocks; "
                "name the folder with the largest share first"
            )
        if most and most < once + others:
            counts = divide(most, weights)
            rows = [blocks[:count] for blocks, count in zip(rows, counts, strict=True)]
        else:
            counts = [once, *divide(others, weights[1:])]
        for name, blocks, count in zip(self.names, rows, counts, strict=True):
            if not count or not len(blocks):
                raise InputError(
                    f"--packed_dataset {name}: none of its blocks is in an epoch of {sum(counts)}; raise its share of "
                    "--mixture_weights or --max_train_samples, or leave the folder out"
                )
        return Mixture(rows, counts, seed)

    def validation_rows(self, most: int | None) -> np.ndarray | Mixture:
        """The held-out blocks of all sets, or `most` of them, from each in proportion to their number."""
        rows = [blocks.splits["validation"] for blocks in self.sets]
        if len(rows) == 1:
            return rows[0][:most]
        sizes = np.array([len(blocks) for blocks in rows])
        return Mixture(rows, divide(min(most or sizes.sum(), sizes.sum()), sizes))

    @property
    def tokens_per_byte(self) -> float:
        """Of the held-out text of all sets."""
        facts = self.manifest["splits"]["validation"]
        return float(facts["tokens"] / facts["bytes"])

    def bits_per_byte(self, found: Any, dataset: Any) -> dict[str, float]:
        """Bits per byte of each of several sets, of an evaluation on `dataset`; see `sum_over_targets`."""
        metrics = {}
        for part, name in enumerate(self.names if isinstance(dataset.blocks, Mixture) else []):
            here = dataset.blocks.source == part
            facts = self.sets[part].manifest["splits"]["validation"]
            targets = (found.label_ids[here] != IGNORED).sum()
            if targets:
                loss = found.predictions[here, 0].sum(dtype=np.float64) / targets
                metrics[f"bits_per_byte_{name}"] = float(loss / np.log(2) * facts["tokens"] / facts["bytes"])
        return metrics

    def shares(self, dataset: Any, trainer: Any) -> dict[str, float]:
        """The share of each of several sets in the blocks that were trained on, as train metrics."""
        rows, order = dataset.blocks, trainer.order
        if not isinstance(rows, Mixture):
            return {}
        epoch, steps = divmod(trainer.state.global_step, order.steps_per_epoch)
        whole = order.steps_per_epoch * order.samples_per_step  # less than an epoch when short steps are dropped
        read = epoch * rows.rows_read(whole) + rows.rows_read(steps * order.samples_per_step)
        left_out = order.ramp.left_out(order, trainer.state.global_step)
        read -= np.bincount(rows.source[left_out], minlength=len(self.sets))
        return {
            f"train_mixture_{name}": float(n / max(1, read.sum())) for name, n in zip(self.names, read, strict=True)
        }


COUNTED = ("documents", "tokens", "bytes", "blocks")


def divide(total: int, weights: np.ndarray) -> list[int]:
    """`total` as a sum of whole numbers in proportion to the weights: the largest remainders are rounded up."""
    exact = total * weights / weights.sum()
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def name_rows(blocks: np.ndarray) -> Any:
    """For pickle, which sends the rows of a memory map: the name of its file and how many rows, where that is all."""
    root = blocks
    while isinstance(root.base, np.memmap):
        root = root.base
    at_start = (blocks.ctypes.data, blocks.strides) == (root.ctypes.data, root.strides)
    name = str(root.filename) if isinstance(root, np.memmap) and at_start else ""
    return (name, len(blocks)) if name else blocks


def open_rows(named: Any) -> np.ndarray:
    """What `name_rows` was given."""
    if not isinstance(named, tuple):
        return np.asarray(named)
    name, rows = named
    opened: np.ndarray = np.load(name, mmap_mode="r", allow_pickle=False)[:rows]
    return opened
