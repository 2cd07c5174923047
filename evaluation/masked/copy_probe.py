"""The copy probe: does a model look a masked word up in an equal sentence before it?

`[CLS] s [SEP] s with one word masked [SEP]`: what is found more often than without the first sentence was copied.
"""

import re
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import torch

from evaluation.masked.scores import Checkpoint, batches_of_one_length, find_hits
from shared.errors import InputError
from shared.loss import IGNORED
from shared.tokenizer import special_tokens

WORD = re.compile(r"[^\W\d_]+")
SHORTEST = 4  # letters of a content word


class Chosen(NamedTuple):
    """A sentence, and the characters of its word that is masked, first and behind the last."""

    text: str
    span: tuple[int, int]


class Gap(NamedTuple):
    """A row of ids with masked tokens: its token types, the masked columns and the ids that belong there; int64."""

    ids: np.ndarray
    types: np.ndarray
    places: np.ndarray
    targets: np.ndarray


def choose_words(texts: Sequence[str], most: int) -> list[Chosen]:
    """The sentences with the lowest hashes, at most `most`, each once, and the content word of each.

    The content word is, of the words of four letters or more, the one that is rarest in all `texts` (in lower case;
    the first of equally rare ones): no model and no list of words has a part in the choice. Raises InputError when no
    sentence has such a word.
    """
    texts = sorted(set(texts), key=lambda text: blake2b(text.encode(), digest_size=8).digest())
    counts = Counter(word.lower() for text in texts for word in WORD.findall(text))
    chosen = []
    for text in texts:
        words = [word for word in WORD.finditer(text) if len(word[0]) >= SHORTEST]
        if words:
            chosen.append(Chosen(text, min(words, key=lambda word: counts[word[0].lower()]).span()))
    if not chosen:
        raise InputError(f"no sentence has a word of {SHORTEST} letters or more")
    return chosen[:most]


def make_gaps(checkpoint: Checkpoint, chosen: Sequence[Chosen]) -> list[tuple[Gap, Gap] | None]:
    """Each sentence with its word masked, behind the whole sentence and alone.

    None for one that is too long for the model in the first form, or whose word holds a token unknown to it.
    """
    special, tokenizer = special_tokens(checkpoint.tokenizer), checkpoint.tokenizer
    gaps: list[tuple[Gap, Gap] | None] = []
    encodings = checkpoint.encoder.encode_batch([text for text, _ in chosen], add_special_tokens=False)
    for encoding, (_, (first, end)) in zip(encodings, chosen, strict=True):
        ids = np.array(encoding.ids, dtype=np.int64)
        starts, ends = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2).T
        is_masked = (starts < end) & (ends > first)
        masked, targets = np.flatnonzero(is_masked), ids[is_masked]
        gapped = np.where(is_masked, tokenizer.mask_token_id, ids)
        before = np.array([*special.prefix, *ids, *special.separator], dtype=np.int64)
        prefix, suffix = (np.array(part, dtype=np.int64) for part in (special.prefix, special.suffix))
        both, alone = (np.concatenate([start, gapped, suffix]) for start in (before, prefix))
        fits = len(both) <= checkpoint.most_tokens and len(masked) and tokenizer.unk_token_id not in targets
        types = (np.arange(len(both)) >= len(before)).astype(np.int64)
        pair = (
            Gap(both, types, masked + len(before), targets),
            Gap(alone, np.zeros_like(alone), masked + len(prefix), targets),
        )
        gaps.append(pair if fits else None)
    return gaps


@torch.inference_mode()
def fill_gaps(model: Any, gaps: Sequence[Gap]) -> np.ndarray:
    """Whether all masked tokens of a row are the likeliest of the vocabulary at their places, (rows,) bool."""
    found = np.zeros(len(gaps), dtype=bool)
    has_types = getattr(model.config, "type_vocab_size", 0) > 1
    for rows, ids in batches_of_one_length([gap.ids for gap in gaps], model.device):
        most = max(len(gaps[row].places) for row in rows)
        places, labels = np.zeros((len(rows), most), dtype=np.int64), np.full((len(rows), most), IGNORED)
        for number, row in enumerate(rows):
            places[number, : len(gaps[row].places)] = gaps[row].places
            labels[number, : len(gaps[row].places)] = gaps[row].targets
        batch = {"input_ids": ids, "masked_positions": torch.from_numpy(places).to(ids.device)}
        if has_types:
            batch["token_type_ids"] = torch.from_numpy(np.stack([gaps[row].types for row in rows])).to(ids.device)
        hits = find_hits(model(**batch).logits, torch.from_numpy(labels).to(ids.device)).sum(1).cpu().numpy()
        found[rows] = hits == (labels != IGNORED).sum(1)
    return found


def measure_copies(model: Any, checkpoint: Checkpoint, chosen: Sequence[Chosen]) -> np.ndarray:
    """Of each sentence that fits: found behind the whole sentence, found alone, tokens masked; (sentences, 3) float64.

    Raises InputError if none fits.
    """
    gaps = [pair for pair in make_gaps(checkpoint, chosen) if pair]
    if not gaps:
        raise InputError(f"--copy_text: {checkpoint.label} takes {checkpoint.most_tokens} tokens, no sentence twice")
    both, alone = (fill_gaps(model, [pair[form] for pair in gaps]) for form in (0, 1))
    return np.column_stack([both, alone, [len(pair[0].targets) for pair in gaps]]).astype(np.float64)
