"""Masked accuracy by the frequency of the masked token."""

from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from evaluation.masked.scores import Checkpoint, find_hits, masked_batch
from pretraining.masking import Masker
from shared.loss import IGNORED

BANDS = {"top 100": (0, 100), "101 to 2,000": (100, 2000), "rarer": (2000, None)}  # ranks from 0 on


def rank_tokens(blocks: np.ndarray, masker: Masker) -> np.ndarray:
    """The rank of every token of the vocabulary in the blocks, (vocabulary,) int64: 0 is the most frequent one.

    Special tokens come last; of equally frequent tokens the one with the lower id is first.
    """
    counts = np.zeros(len(masker.is_special), dtype=np.int64)
    for start in range(0, len(blocks), 1024):
        counts += np.bincount(np.asarray(blocks[start : start + 1024]).ravel(), minlength=len(counts))
    counts[masker.is_special] = -1
    ranks = np.empty_like(counts)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return ranks


@torch.inference_mode()
def count_hits(
    model: Any, checkpoint: Checkpoint, blocks: np.ndarray, ranks: np.ndarray, batch_size: int
) -> np.ndarray:
    """Hits and targets of each band in each block, (blocks, bands, 2) float64; the masks are those of the rows."""
    edges = torch.tensor([first for first, _ in BANDS.values()][1:])
    band_of = torch.bucketize(torch.from_numpy(ranks), edges, right=True).to(model.device)
    sums = np.zeros((len(blocks), len(BANDS), 2))
    for start in tqdm(range(0, len(blocks), batch_size), desc="Masked accuracy", unit=" batches", leave=False):
        part = slice(start, start + batch_size)
        keys = np.arange(start, start + len(blocks[part]))
        batch, labels = masked_batch(checkpoint, blocks[part], keys, model.device)
        hits = find_hits(model(**batch).logits, labels)
        bands = band_of[labels.clamp(min=0)]
        for number in range(len(BANDS)):
            is_here = (labels != IGNORED) & (bands == number)
            sums[part, number] = torch.stack([(hits & is_here).sum(1), is_here.sum(1)], dim=1).cpu().numpy()
    return sums
