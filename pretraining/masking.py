"""Masks as a pure function of (seed, epoch, block, step): the same again on any machine, fresh in every epoch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch

from pretraining.text.mixture import Mixture, name_rows, open_rows
from pretraining.text.words import word_edges
from shared.command_line import check_ranges
from shared.errors import InputError
from shared.loss import IGNORED


@dataclass
class MaskingArguments:
    mlm_probability: float = field(default=0.15, metadata={"help": "Share of tokens to predict in training."})
    mlm_probability_end: float | None = field(
        default=None, metadata={"help": "The share at the last step, linearly from the first. Default: the same."}
    )
    mask_replace_prob: float = field(default=0.8, metadata={"help": "Share of these that become the mask token."})
    random_replace_prob: float = field(default=0.1, metadata={"help": "Share of these that become a random token."})
    whole_word_mask: bool = field(default=False, metadata={"help": "Predict whole words instead of single tokens."})

    def __post_init__(self) -> None:
        check_ranges(self, mlm_probability="> 0, <= 1", mlm_probability_end="> 0, <= 1")
        check_ranges(self, mask_replace_prob=">= 0, <= 1", random_replace_prob=">= 0, <= 1")
        if self.mask_replace_prob + self.random_replace_prob > 1:
            raise InputError("--mask_replace_prob and --random_replace_prob add up to more than 1")


# How models are compared: the same 15% of positions always, all of them masked.
EVALUATION = MaskingArguments(mlm_probability=0.15, mask_replace_prob=1.0, random_replace_prob=0.0)


@dataclass(frozen=True)
class Masker:
    """Chooses targets and replaces them. Build it with `make_masker`; arrays are indexed by token id."""

    mask_token_id: int
    is_special: np.ndarray  # bool: never a target, never a random replacement
    starts_word: np.ndarray  # bool, see pretraining/text/words.py; empty unless whole words are masked
    ends_word: np.ndarray
    args: MaskingArguments
    seed: int

    def share(self, progress: float) -> float:
        """The share of tokens to predict when `progress`, from 0 to 1, of the steps are done: linear, as in Ankner et
        al., 2023 (arXiv:2305.15096), whose best goes from 0.3 to 0.15."""
        start, end = self.args.mlm_probability, self.args.mlm_probability_end
        return start if end is None else start * (1 - progress) + end * progress

    def most_targets(self, length: int) -> int:
        """Targets that a row of `length` tokens can have at most, at any step."""
        return min(length, round(max(self.share(0), self.share(1)) * length) + self.args.whole_word_mask)

    def __call__(
        self, ids: np.ndarray, blocks: np.ndarray, epoch: np.ndarray | int, progress: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mask a batch.

        `ids`: (batch, length) token ids; `blocks`: (batch,) the index of each row in its split; `epoch`: of all rows,
        or of each, (batch,); `progress`: of the steps, see `share`. Returns the masked ids, (batch, length) int64, and
        of each target its column and its label, both (batch, most_targets) int64 and in the order of the columns; a
        row with fewer targets is filled up with column 0 and label IGNORED.

        The share of targets among the tokens of a row that are not special is `share(progress)`, to the nearest
        token (or to half a word). In a word with more tokens than that, each is chosen by itself. A target becomes
        [MASK], a random token or itself, whole words alike.
        """
        ids = ids.astype(np.int64)
        length, epochs = ids.shape[1], np.broadcast_to(epoch, len(ids))
        special = self.is_special[ids]
        wanted = np.round(self.share(progress) * (~special).sum(axis=1, keepdims=True))
        columns = np.arange(length)
        if self.args.whole_word_mask:
            starts = self.starts_word[ids]
            starts[:, 0] = True
            starts[:, 1:] |= self.ends_word[ids[:, :-1]]
            word = np.maximum.accumulate(np.where(starts, columns, 0), axis=1)  # where each token's word begins
            word = np.where(_tokens_in_word(word) > wanted + 1, columns, word)
        else:
            word = np.broadcast_to(columns, ids.shape)

        # Rank the words of a row at random; the first ones, up to the wanted number of tokens, are the targets.
        draws = _hash(self.seed, epochs[:, None], 0, blocks[:, None], columns[None, :])
        order_key = np.take_along_axis(draws, word, axis=1)
        order_key[special] = np.iinfo(np.uint64).max
        rank = np.empty(ids.shape, dtype=np.int64)
        np.put_along_axis(rank, np.argsort(order_key, axis=1, kind="stable"), columns[None, :], axis=1)
        tokens_in_word = _tokens_in_word(word)
        before = np.take_along_axis(rank, word, axis=1)  # tokens of the words ranked before this one
        chosen = (before + tokens_in_word / 2 <= wanted) & (before + tokens_in_word <= wanted + 1) & ~special

        rows, found = np.nonzero(chosen)
        targets = ids[rows, found]
        draw = _hash(self.seed, epochs[rows], 1, blocks[rows], word[rows, found]) / 2.0**64
        candidates = np.flatnonzero(~self.is_special)
        random_ids = candidates[_hash(self.seed, epochs[rows], 2, blocks[rows], found) % np.uint64(len(candidates))]
        replaced = np.where(draw < self.args.mask_replace_prob + self.args.random_replace_prob, random_ids, targets)
        ids[rows, found] = np.where(draw < self.args.mask_replace_prob, self.mask_token_id, replaced)

        positions = np.zeros((len(ids), self.most_targets(length)), dtype=np.int64)
        labels = np.full_like(positions, IGNORED)
        slot = np.arange(len(rows)) - np.searchsorted(rows, rows)
        positions[rows, slot], labels[rows, slot] = found, targets
        return ids, positions, labels


def _tokens_in_word(word: np.ndarray) -> np.ndarray:
    """How many tokens each token's word has; `word`: (batch, length), the column where it begins."""
    flat = word + np.arange(len(word))[:, None] * word.shape[1]
    return np.bincount(flat.ravel(), minlength=word.size)[flat]


def make_masker(tokenizer: Any, args: MaskingArguments, seed: int) -> Masker:
    """Build a Masker for a tokenizer."""
    starts, ends = word_edges(tokenizer) if args.whole_word_mask else (np.empty(0), np.empty(0))
    is_special = np.zeros(len(tokenizer), dtype=bool)
    is_special[[i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]] = True
    return Masker(tokenizer.mask_token_id, is_special, starts, ends, args, seed)


class MaskedBlocks(torch.utils.data.Dataset):
    """Packed blocks with masks on, made a whole batch at a time; use `data_collator=whole_batch`.

    A batch holds `input_ids`, (batch, length) int64; `masked_positions` and `labels`, (batch, most_targets) int64, as
    Masker returns them, so that the shapes of full batches never change; and `attention_mask` only where a block has
    padding. With `sep_token_id` it holds `document_ids` instead, (batch, length) int64, for pretraining/attention.py.
    """

    def __init__(
        self, blocks: np.ndarray | Mixture, masker: Masker, pad_token_id: int, sep_token_id: int | None = None
    ) -> None:
        self.blocks, self.masker, self.pad_token_id, self.sep_token_id = blocks, masker, pad_token_id, sep_token_id
        self.epoch: np.ndarray | int = 0
        self.progress = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is not forked (macOS): pickle sends the rows of a memory map, here it sends its name."""
        return vars(self) | {"blocks": self.blocks if isinstance(self.blocks, Mixture) else name_rows(self.blocks)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if isinstance(self.blocks, tuple):
            self.blocks = open_rows(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def set_epoch(self, epoch: np.ndarray | int) -> None:
        """Put on the masks of this epoch from now on; of a mixture each row of the next batch may have its own."""
        self.epoch = epoch

    def set_progress(self, progress: float) -> None:
        """Mask the share of tokens from now on that belongs to this place of the run, from 0 to 1."""
        self.progress = progress

    def check_share(self, flag: str, say: Callable[[str], None]) -> None:
        """Compare the share of tokens that are targets, in up to 256 blocks, with what was asked for; `say` when it is
        off by a fifth. Raises InputError, which names `flag`, when there is nothing to predict."""
        args = self.masker.args
        rows = np.unique(np.linspace(0, max(len(self) - 1, 0), 256).astype(int))[: len(self)]
        ids, numbers, epochs = self._read(rows, 0)
        shares = {"mlm_probability": 0.0} | ({} if args.mlm_probability_end is None else {"mlm_probability_end": 1.0})
        for name, progress in shares.items():
            asked, targets = self.masker.share(progress), 0
            if len(rows):
                targets = int((self.masker(ids, numbers, epochs, progress)[2] != IGNORED).sum())
            if not targets:
                raise InputError(f"{flag}, --{name} or the text: too small, there is no token to predict")
            share = targets / (~self.masker.is_special[ids]).sum()
            if abs(share - asked) > asked / 5:
                cause = (
                    "--whole_word_mask: words are long for these blocks"
                    if args.whole_word_mask
                    else "blocks are short"
                )
                say(f"--{name} {asked}: {share:.3f} of the tokens are predicted; {cause}")

    def most_documents(self) -> int:
        """The most documents that a block holds; reads all blocks (about a second a gigabyte)."""
        sets = self.blocks.sets if isinstance(self.blocks, Mixture) else [self.blocks]
        parts = (rows[start : start + (1 << 14)] for rows in sets for start in range(0, len(rows), 1 << 14))
        return max(int(number_documents(part, cast(int, self.sep_token_id)).max()) + 1 for part in parts)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        rows = np.asarray(indices)
        ids, numbers, epochs = self._read(rows, self.epoch)
        masked, positions, labels = self.masker(ids, numbers, epochs, self.progress)
        batch = {
            "input_ids": torch.from_numpy(masked),
            "masked_positions": torch.from_numpy(positions),
            "labels": torch.from_numpy(labels),
        }
        is_padding = ids == self.pad_token_id
        if self.sep_token_id is not None:
            batch["document_ids"] = torch.from_numpy(number_documents(ids, self.sep_token_id))
        elif is_padding.any():
            batch["attention_mask"] = torch.from_numpy((~is_padding).astype(np.int64))
        return batch

    def _read(self, rows: np.ndarray, epoch: np.ndarray | int) -> tuple[np.ndarray, np.ndarray, np.ndarray | int]:
        """The blocks of these rows, and the number and epoch of each, which its masks are drawn from."""
        if isinstance(self.blocks, Mixture):
            return self.blocks.read(rows, epoch)
        return np.asarray(self.blocks[rows]), rows, epoch


def number_documents(ids: np.ndarray, sep_token_id: int) -> np.ndarray:
    """The number of each token's document in its block, from 0 on, (batch, length) int64.

    A document ends with its separators; what precedes the first document belongs to it, and padding is one of its own.
    """
    is_end = ids == sep_token_id
    begins = np.zeros(ids.shape, dtype=np.int64)
    begins[:, 1:] = is_end[:, :-1] & ~is_end[:, 1:]
    return begins.cumsum(axis=1)


def whole_batch(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The collator for MaskedBlocks, whose batches are ready."""
    return batch


def _hash(seed: int, epoch: np.ndarray, stream: int, blocks: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A uniform uint64 for each (seed, epoch, stream, block, column): SplitMix64 (Steele et al., 2014), chained."""
    state = np.zeros(1, dtype=np.uint64)
    for value in (seed, epoch, stream, blocks, columns):
        state = _splitmix64(state ^ np.asarray(value, dtype=np.uint64))
    return state


def _splitmix64(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
