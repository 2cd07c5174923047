"""Which documents are taken: by a hash of their text, by date, and by what each group is to give."""

import datetime
import hashlib
import math
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from data_prep.corpus.records import DATED, TRAIN, UNDATED
from shared.errors import InputError
from shared.rows import Source, read_rows

BINS = 2**20  # of the sampling hash: a budget is met to a millionth of its group, or to one document


def sampling_bin(text: str, seed: int) -> int:
    """Where a document stands among `BINS`; documents below a threshold are taken."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big") * BINS >> 64


def dated_split(date: str | None, first: str) -> int:
    """DATED at or after `first`, TRAIN before it, UNDATED when `date` ("2026" in the same year, 1780000000) cannot."""
    found = re.match(r"[0-9]{4}(?![0-9])(-[0-9]{2}(?![0-9])(-[0-9]{2}(?![0-9]))?)?", date or "")
    if not found or found[0] == first[: len(found[0])] != first:
        return UNDATED
    return DATED if found[0] >= first else TRAIN


def day_after(date: str) -> str:
    """The next day, YYYY-MM-DD."""
    return (datetime.date.fromisoformat(date) + datetime.timedelta(1)).isoformat()


def plan_mix(available: list[int], weights: Sequence[float], budget: int | None, repeats: int) -> list[int]:
    """Training tokens to take from each group, at most `repeats` times what is available.

    Weights without a budget give the largest mix in their proportions. Raises InputError where there is too little.
    """
    if not weights and budget is None:
        return available
    for number, tokens in enumerate(available):
        if weights and not tokens:
            raise InputError(f"--weights {weights[number]:g}: entry {number + 1} of --input has no document left")
    shares = np.array(weights or available, dtype=float) / sum(weights or available)
    with np.errstate(divide="ignore", invalid="ignore"):
        most = float(np.nanmin(np.array(available) * repeats / shares))
    if budget is not None and budget > most * (1 + 1e-9):
        scarce = int(np.nanargmin(np.array(available) * repeats / shares))
        raise InputError(
            f"--token_budget {budget:,}: entry {scarce + 1} of --input has {available[scarce]:,} tokens, which at "
            f"these proportions and --max_repeats {repeats} is enough for {int(most):,} in all; lower the budget, "
            "change --weights, or raise --max_repeats (and name a new --output_dir)"
        )
    total = most if budget is None else budget
    return [
        min(round(total * float(share)), tokens * repeats) for share, tokens in zip(shares, available, strict=True)
    ]


def check_budget(
    groups: Sequence[Sequence[Source]], weights: Sequence[float], budget: int, repeats: int, per_byte: float
) -> None:
    """Raise InputError for a budget that no tokenizer could fill: a byte of text has `per_byte` tokens at most.

    Text is read, and that to count its bytes, only where the sizes of the files say that it cannot be enough.
    """
    shares = [weight / sum(weights) for weight in weights] or [1.0]
    groups = groups if weights else [[source for group in groups for source in group]]
    for number, (group, share) in enumerate(zip(groups, shares, strict=True), 1):
        wanted = budget * share / per_byte / repeats
        if sum(map(_likely_bytes, group)) >= wanted:
            continue
        rows = (row for source in tqdm(group, desc="Reading sizes", unit=" files") for *_, row, _ in read_rows(source))
        size = sum(len(row["text"].encode()) for row in rows if row is not None)
        if size < wanted:
            where = f"entry {number} of --input" if weights else "--input"
            raise InputError(
                f"--token_budget {budget:,}: {where} has {size:,} bytes of text, fewer than the {budget * share:,.0f} "
                f"tokens that it is to give at --max_repeats {repeats}; lower the budget or change --weights"
            )


def _likely_bytes(source: Source) -> float:
    """About the bytes of text in a file, by its size alone."""
    if not source.path.endswith(".parquet"):
        return source.bytes * (10 if source.path.endswith(".gz") else 1)
    try:
        facts = pq.read_metadata(source.path)
    except (pa.ArrowException, OSError):
        return math.inf  # the first phase says what is wrong
    columns = [
        facts.row_group(group).column(column)
        for group in range(facts.num_row_groups)
        for column in range(facts.num_columns)
    ]
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == "text")


def passes_of(tokens: np.ndarray, target: int) -> list[int]:
    """The threshold of each pass over a group: `BINS` for whole ones, then what is left of `target` tokens."""
    available = int(tokens.sum())
    if not available:
        return [BINS]
    whole, rest = divmod(target, available)
    threshold = int(np.searchsorted(np.cumsum(tokens), rest, side="right")) if rest else 0
    return [BINS] * whole + ([threshold] if threshold or not whole else [])
