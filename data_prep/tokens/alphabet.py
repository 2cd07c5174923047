"""The characters that a WordPiece tokenizer knows."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from shared.errors import InputError


def most_frequent_characters(texts: Iterable[str], normalizer: Any, size: int) -> list[str]:
    """The `size` most frequent characters after normalisation, in code point order.

    BERT's normaliser looks at one character at a time, so each distinct one is normalised once, after the counting.
    """
    raw = np.zeros(0x110000, dtype=np.int64)
    texts = iter(texts)
    while batch := list(islice(texts, 256)):
        raw += np.bincount(np.frombuffer("".join(batch).encode("utf-32-le"), dtype="<u4"), minlength=len(raw))
    counts = np.zeros_like(raw)
    for point in np.flatnonzero(raw):
        for character in normalizer.normalize_str(chr(point)):
            if not character.isspace():
                counts[ord(character)] += raw[point]
    if not counts.any():
        raise InputError("--input: there is no text to train on")
    by_frequency = np.lexsort((np.arange(len(counts)), -counts))[:size]
    return [chr(point) for point in sorted(by_frequency) if counts[point]]
