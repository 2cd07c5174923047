"""Pairs of sentences with the teacher's score, and the groups of them that a training step reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pretraining.distillation.made_tasks import MadeTask, hash_of, ids_and_mask
from pretraining.distillation.sentences import add_copies
from pretraining.masking import MaskedBlocks
from pretraining.text.mixture import Mixture
from shared.command_line import check_ranges

CHUNK = 4096  # sentences among which partners are looked for; bounds memory at about 200 MB


@dataclass
class PairArguments:
    pairs_per_text: int = field(default=2, metadata={"help": "Partners of each sentence and each edited copy."})
    pairs_per_group: int = field(
        default=32,
        metadata={"help": "Pairs of like length in a sample; all their texts are compared with each other."},
    )
    blocks_per_group: int = field(default=8, metadata={"help": "Packed blocks with masks in a sample."})
    mask_sentences: bool = field(
        default=False, metadata={"help": "Fill masks in the single sentences too, not only in the blocks."}
    )
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate N groups only, of all lengths."})

    def __post_init__(self) -> None:
        check_ranges(
            self, max_eval_samples=">= 1", pairs_per_text=">= 1", pairs_per_group=">= 2", blocks_per_group=">= 0"
        )


@dataclass(frozen=True)
class Pairs:
    """Texts as token ids, the teacher's unit vectors, and pairs: (pairs, 2) int64 numbers of texts, (pairs,) float32
    cosines of the teacher."""

    ids: list[np.ndarray]
    vectors: np.ndarray
    pairs: np.ndarray
    scores: np.ndarray

    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hash_of(*self.ids, self.vectors, self.pairs, self.scores)


def make_pairs(sentences: list[str], teacher: Any, encode: Any, tokenizer: Any, args: Any, seed: int) -> Pairs:
    """Sentences with their edited copies, encoded by `encode(teacher, texts)`, and their partners.

    Every text gets `pairs_per_text` partners among the 4,096 sentences of its chunk and their copies: each time the
    one whose cosine is closest to a number drawn evenly from 0 to 1, so that all scores are about equally frequent
    where chance would give nearly none above .5.
    """
    texts, sentence = add_copies(sentences, args.edited_share)
    vectors = encode(teacher, texts)
    rng = np.random.default_rng(seed)
    pairs, scores = [], []
    for start in range(0, len(sentences), CHUNK):
        members = np.flatnonzero((sentence >= start) & (sentence < start + CHUNK))
        cosines = vectors[members].astype(np.float32) @ vectors[members].astype(np.float32).T
        np.fill_diagonal(cosines, -2)
        for _ in range(args.pairs_per_text):
            wanted = rng.uniform(0, 1, len(members)).astype(np.float32)
            partner = np.abs(cosines - wanted[:, None]).argmin(1)
            pairs.append(np.stack([members, members[partner]], axis=1))
            scores.append(cosines[np.arange(len(members)), partner])
    encoder = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=args.max_sentence_tokens)
    ids = [np.array(row, dtype=np.int64) for row in encoder["input_ids"]]
    return Pairs(ids, vectors, np.concatenate(pairs), np.concatenate(scores))


class PairGroups(torch.utils.data.Dataset):
    """Groups of pairs of like length, each with some packed blocks; use `data_collator=whole_batch`.

    A sample is a group, and its losses depend on it alone, so that a step may be split anywhere between samples. A
    batch of G groups of P pairs holds

    - each text alone: `sentence_ids` and `sentence_mask`, (G * 2 P, tokens) int64, and the teacher's `vectors`,
      (G, 2 P, width) float32, the two texts of a pair one after the other;
    - both texts as one input: `pair_ids` and `pair_mask`, (G * P, tokens) int64, and `scores`, (G, P) float32;
    - what MaskedBlocks gives of G * B blocks: `input_ids`, `attention_mask`, `block_positions` and `block_labels`;
    - if sentences are masked, `masked_sentence_ids`, `sentence_positions` and `sentence_labels`, in the same way;
    - what `MadeTask.batch` gives of a group of each made-up task;
    - `labels`, (G,) float32 zeros, by which Trainer counts the groups.
    """

    def __init__(
        self,
        pairs: Pairs,
        special: Any,
        pad: int,
        args: PairArguments,
        blocks: MaskedBlocks | None,
        made: Mapping[str, MadeTask] = {},
    ) -> None:
        self.pairs, self.special, self.pad, self.blocks, self.made = pairs, special, pad, blocks, made
        self.size, self.per_group = args.pairs_per_group, args.blocks_per_group
        self.masker = blocks.masker if blocks and args.mask_sentences else None
        lengths = np.array([len(row) for row in pairs.ids])[pairs.pairs].sum(1)
        order = np.argsort(lengths, kind="stable")
        self.groups = order[: len(order) // self.size * self.size].reshape(-1, self.size)
        self.lengths = lengths[self.groups].max(1)
        self.epoch, self.progress = 0, 0.0

    def __len__(self) -> int:
        return len(self.groups)

    def keep(self, most: int) -> None:
        """Leave so many groups at most, of all lengths."""
        kept = np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(np.int64)
        self.groups, self.lengths = self.groups[kept], self.lengths[kept]

    def set_epoch(self, epoch: int) -> None:
        """Read other blocks, under other masks, from now on."""
        self.epoch = epoch

    def set_progress(self, progress: float) -> None:
        """Mask the share of tokens from now on that belongs to this place of the run, from 0 to 1."""
        self.progress = progress
        if self.blocks:
            self.blocks.set_progress(progress)

    def __getitem__(self, index: Any) -> Any:
        return self.lengths if index == "length" else self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        rows = np.asarray(indices)
        chosen = self.groups[rows].ravel()
        pairs = self.pairs.pairs[chosen]
        before, between, after = self.special.prefix, self.special.separator, self.special.suffix
        singles = [[*before, *self.pairs.ids[text], *after] for text in pairs.ravel()]
        doubles = [[*before, *self.pairs.ids[a], *between, *self.pairs.ids[b], *after] for a, b in pairs]
        batch = ids_and_mask("sentence", singles, self.pad) | ids_and_mask("pair", doubles, self.pad)
        vectors = self.pairs.vectors[pairs.ravel()].astype(np.float32)
        batch["vectors"] = torch.from_numpy(vectors).view(len(rows), 2 * self.size, -1)
        batch["scores"] = torch.from_numpy(self.pairs.scores[chosen]).view(len(rows), self.size)
        batch["labels"] = torch.zeros(len(rows))
        if self.masker:
            ids, places = batch["sentence_ids"].numpy(), (2 * chosen[:, None] + np.arange(2)).ravel()
            masked = map(torch.from_numpy, self.masker(ids, places, self.epoch, self.progress))
            batch |= zip(("masked_sentence_ids", "sentence_positions", "sentence_labels"), masked, strict=True)
        for task, made in self.made.items():
            batch |= made.batch(task, self._places(rows, 1, len(made.groups))[1], self.pad)
        return batch | self._blocks_of(rows)

    def _blocks_of(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """The blocks of these groups in this epoch."""
        if self.blocks is None or not self.per_group:
            return {}
        repeat, places = self._places(rows, self.per_group, len(self.blocks))
        # In a mixture other blocks of a larger set stand at the same places in every repeat.
        self.blocks.set_epoch(repeat if isinstance(self.blocks.blocks, Mixture) else self.epoch)
        found = self.blocks.__getitems__(places)
        # Under names of their own: the model takes `masked_positions` off what it is called with.
        found["block_labels"], found["block_positions"] = found.pop("labels"), found.pop("masked_positions")
        return found

    def _places(self, rows: np.ndarray, each: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`each` numbers below `count` for each group in this epoch, after how often all of them came before: all come
        before one comes again. Two arrays of (groups * each,) int64."""
        first = (self.epoch * len(self) + rows) * each
        repeat, places = np.divmod((first[:, None] + np.arange(each)).ravel(), count)
        # A stride that shares no factor with the count visits each once, far from its neighbours.
        return repeat, places * _stride(count) % count


def _stride(count: int) -> int:
    stride = max(1, round(count * 0.618))
    while np.gcd(stride, count) > 1:
        stride += 1
    return stride
