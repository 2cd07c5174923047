"""How much of a text repeats what stood before: lines, paragraphs and n-grams. Functions of strings and arrays."""

import numpy as np

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: the base of the rolling hashes


def duplicate_shares(parts: list[str], characters: int) -> tuple[float, float]:
    """Share of the parts that stood there before, and the share of all characters that are in them."""
    if len(set(parts)) == len(parts):
        return 0.0, 0.0
    seen: set[str] = set()
    count = inside = 0
    for part in parts:
        if part in seen:
            count += 1
            inside += len(part)
        else:
            seen.add(part)
    return count / len(parts), inside / max(characters, 1)


def group_sizes(ordered: np.ndarray) -> np.ndarray:
    """How many there are of each value in an ordered array that is not empty."""
    bounds = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    return bounds[1:] - bounds[:-1]


def ngram_shares(hashes: np.ndarray, lengths: np.ndarray, characters: int) -> dict[int, float]:
    """Share of a text's characters that are in its most frequent 2-, 3- and 4-gram of words (all its occurrences,
    with the spaces between the words), and in 5- to 10-grams that stood before (words alone, none counted twice).

    A repeated n-gram starts with a repeated (n - 1)-gram, so that each n looks only at what is left of the one before.
    """
    shares = dict.fromkeys(range(2, 11), 0.0)
    hashes = np.ascontiguousarray(hashes)
    before = np.concatenate([[0], lengths.cumsum(dtype=np.int64)])
    places, keys = np.arange(len(hashes)), hashes  # where the n-grams start, and their hashes
    for n in range(2, 11):
        if len(places) and places[-1] + n > len(hashes):
            fitting = places + n <= len(hashes)
            places, keys = places[fitting], keys[fitting]
        if not len(places) and n > 4:
            break
        keys = keys * _FACTOR + hashes[places + (n - 1)]
        order = keys.argsort()
        ordered = keys[order]
        same = ordered[1:] == ordered[:-1]
        repeated = np.zeros(len(keys), bool)
        repeated[order[1:]] = same
        repeated[order[:-1]] |= same
        if n <= 4 and len(hashes) >= n:
            most, first = 1, 0  # if none is repeated, the first one is the most frequent
            if same.any():
                of_each = np.repeat(sizes := group_sizes(ordered), sizes)
                most = int(of_each.max())
                first = int(places[order[of_each == most].min()])
            shares[n] = most * int(before[first + n] - before[first] + n - 1) / max(characters, 1)
        places, keys = places[repeated], keys[repeated]
        if n > 4:
            shares[n] = _characters_repeated(places, keys, before, n) / max(characters, 1)
    return shares


def _characters_repeated(places: np.ndarray, keys: np.ndarray, before: np.ndarray, n: int) -> int:
    """Characters in n-grams that stood before, read from left to right; what is in one is not part of the next."""
    seen: set[int] = set()
    free = total = 0
    for place, key, start, end in zip(
        places.tolist(), keys.tolist(), before[places].tolist(), before[places + n].tolist(), strict=True
    ):
        if place < free:
            continue
        if key in seen:
            total += end - start
            free = place + n
        else:
            seen.add(key)
    return total


def rolling_hashes(codes: np.ndarray, n: int) -> np.ndarray:
    """A hash of each n-gram of an array."""
    keys = codes[: len(codes) - n + 1].copy()
    for offset in range(1, n):
        keys = keys * _FACTOR + codes[offset : len(codes) - n + 1 + offset]
    return keys
