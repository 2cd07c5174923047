"""Text with dates: held-out documents by quarter or year, what models score on them, and which one is fresher."""

import datetime
import hashlib
import heapq
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from evaluation.masked.scores import Checkpoint, cut_documents, score_blocks
from evaluation.tasks.bootstrap import interval, resample_sums
from shared.documents import is_held_out
from shared.errors import InputError
from shared.files import sha256_of
from shared.rows import Source, find_sources, read_raw

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".ndjson")
_DATE = re.compile(r"(\d{4})(?:[-/](\d{1,2})(?:[-/](\d{1,2})(?:[T ]\d.*)?)?)?")


class Days(NamedTuple):
    """The first and the last day of a date that may be as rough as a year."""

    first: datetime.date
    last: datetime.date


class RoughDate(ValueError):
    """A date that does not say in which period it lies."""


class Document(NamedTuple):
    bucket: str
    key: int  # from the hash of the text: decides its masks
    text: str


@dataclass
class Bucket:
    """The documents of one period; `samples` are bits per byte of each bootstrap sample, (samples, models)."""

    name: str
    documents: int
    bytes: int
    bits_per_byte: np.ndarray
    samples: np.ndarray


def parse_date(text: str) -> Days:
    """Read 2022, 2022-07, 2022-07-15 or 2022-07-15T09:30, with - or /. Raises ValueError for anything else."""
    found = _DATE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a date like 2022, 2022-07 or 2022-07-15")
    year, month, day = (int(part) if part else None for part in found.groups())
    try:
        first = datetime.date(year or 0, month or 1, day or 1)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a date: {error}") from error
    if day:
        return Days(first, first)
    following = datetime.date(first.year + 1, 1, 1) if not month else (first + datetime.timedelta(32)).replace(day=1)
    return Days(first, following - datetime.timedelta(1))


def period_of(text: str, period: str) -> str:
    """The year, quarter or month that a date falls into: 2022, 2022-Q3, 2022-07.

    Raises ValueError for a date that does not parse, RoughDate for one that is rougher than the period.
    """
    days = parse_date(text)
    first, last = (_period(day, period) for day in days)
    if first != last:
        raise RoughDate(f"{text!r} does not say in which {period}")
    return first


def days_of(name: str) -> Days:
    """The days of a period, by its name."""
    year, _, part = name.partition("-")
    if part.startswith("Q"):
        month = 3 * int(part[1:])
        return Days(datetime.date(int(year), month - 2, 1), parse_date(f"{year}-{month}").last)
    return parse_date(name)


def _period(day: datetime.date, period: str) -> str:
    if period == "quarter":
        return f"{day.year}-Q{(day.month + 2) // 3}"
    return f"{day.year}-{day.month:02}" if period == "month" else str(day.year)


def read_dated(source: Source) -> Iterator[tuple[int, Any, Any]]:
    """Yield (number of the row, text, date) as they stand in the file, so that the hash of a text is that of packing.

    Raises InputError for a file that cannot be read or has no `text` and `date`.
    """
    for number, _, row, problem in read_raw(source, columns=["text", "date"]):
        if row is None or not {"text", "date"} <= row.keys():
            raise InputError(f"--input {source.path}, row {number}: {problem or 'needs the fields text and date'}")
        yield number, row["text"], row["date"]


def choose_documents(
    inputs: Sequence[str], period: str, held_out: float, most: int | None, least: int, most_characters: int
) -> tuple[list[Document], dict[str, int]]:
    """The held-out documents of every period, and how many were left out for what reason.

    Of a period with more than `most` documents those with the lowest hashes are taken, which is the same choice
    whatever the order of the files; periods with fewer than `least` are left out. A text is cut after
    `most_characters`. Raises InputError for a date that does not parse.
    """
    buckets: dict[str, list[tuple[int, str]]] = {}
    left_out: Counter[str] = Counter()
    seen: set[int] = set()
    for source in find_sources(inputs, SUFFIXES):
        for number, text, date in tqdm(read_dated(source), desc="Reading dated text", unit=" documents"):
            if not isinstance(text, str) or not text.strip():
                left_out["no text"] += 1
                continue
            if date is None or date == "":
                left_out["no date"] += 1
                continue
            try:
                name = period_of(str(date), period)
                digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
            except UnicodeEncodeError:
                left_out["lone surrogate in text"] += 1
                continue
            except RoughDate:
                left_out[f"date without a {period}"] += 1
                continue
            except ValueError as error:
                raise InputError(f"--input {source.path}, row {number}: {error}") from error
            key = int.from_bytes(digest, "big")
            if not is_held_out(text, held_out):
                left_out["not held out"] += 1
            elif key in seen:
                left_out["repeated"] += 1
            else:
                seen.add(key)
                heap = buckets.setdefault(name, [])
                heapq.heappush(heap, (-key, text[:most_characters]))
                if most is not None and len(heap) > most:
                    heapq.heappop(heap)
                    left_out["more than --max_samples of a period"] += 1
    for name in [name for name, heap in buckets.items() if len(heap) < least]:
        left_out[f"fewer than {least} documents in the period"] += len(buckets.pop(name))
    if not buckets:
        raise InputError(
            f"--input: no period has {least} held-out documents ({dict(left_out)}); see --held_out, --period and "
            "--min_documents"
        )
    # The lower half of the hash: the upper one is small for all held-out documents.
    chosen = [Document(n, -key & (2**62 - 1), text) for n in sorted(buckets) for key, text in sorted(buckets[n])[::-1]]
    return chosen, dict(sorted(left_out.items()))


def check_unseen(checkpoints: Sequence[Checkpoint], inputs: Sequence[str], held_out: float) -> dict[str, float | None]:
    """The share of documents that each model held out in training, as its manifest says; None where that is unknown.

    Raises InputError if a model was trained on one of these very files and held out less than `held_out` of it.
    """
    files = {sha256_of(source.path): source.path for source in find_sources(inputs, SUFFIXES)}
    shares: dict[str, float | None] = {}
    for checkpoint in checkpoints:
        manifest = Path(checkpoint.name) / "manifest.json"
        try:
            read = json.loads(manifest.read_text(encoding="utf-8"))["inputs"]
            share = shares[checkpoint.label] = float(read["validation_fraction"])
            trained_on = {source.get("sha256") for source in read["sources"]}
        except (OSError, ValueError, KeyError, TypeError):
            shares[checkpoint.label] = None
            continue
        known = files.keys() & trained_on
        if known and held_out > share:
            file = files[min(known)]
            found = f"{checkpoint.name} was trained on {file} and held out only {share}"
            raise InputError(f"--held_out {held_out}: {found}")
    return shares


def score_documents(
    model: Any, checkpoint: Checkpoint, documents: Sequence[Document], max_seq_length: int, batch_size: int
) -> np.ndarray:
    """The summed loss at fixed masks, targets and tokens of each document, (documents, 3) float64.

    The masks of a document depend on its text alone, so models with one tokenizer are asked the same questions.
    """
    keys = np.array([document.key for document in documents], dtype=np.int64)
    blocks, block_keys, owner, tokens = cut_documents(checkpoint, [d.text for d in documents], keys, max_seq_length)
    scores = score_blocks(model, checkpoint, blocks, block_keys, batch_size)
    loss, targets = (np.bincount(owner, scores[:, column], len(documents)) for column in (0, 2))
    return np.column_stack([loss, targets, tokens])


def bits_per_byte(sums: np.ndarray) -> np.ndarray:
    """Loss per target times tokens per byte, in bits. `sums`: (..., 4) loss, targets, tokens and bytes."""
    loss, targets, tokens, size = np.moveaxis(sums, -1, 0)
    return loss / targets * tokens / size / np.log(2)


def fill_buckets(documents: Sequence[Document], scores: Sequence[np.ndarray], seed: int) -> list[Bucket]:
    """Bits per byte of every period and model, with bootstrap samples over the documents of the period.

    `scores`: (documents, 3) for each model, of `score_documents`. All models get the same samples.
    """
    sizes = np.array([[len(document.text.encode("utf-8"))] for document in documents], dtype=np.float64)
    columns = np.stack([np.concatenate([sums, sizes], axis=1) for sums in scores], axis=1)  # (documents, models, 4)
    names = np.array([document.bucket for document in documents])
    buckets = []
    for number, name in enumerate(sorted(set(names.tolist()))):
        part = columns[names == name]
        drawn = resample_sums(part.reshape(len(part), -1), seed + number).reshape(-1, *part.shape[1:])
        values = bits_per_byte(part.sum(0))
        buckets.append(Bucket(name, len(part), int(part[:, 0, 3].sum()), values, bits_per_byte(drawn)))
    return buckets


def early_and_late(names: Sequence[str], old: Days, new: Days | None) -> tuple[list[str], list[str]]:
    """The periods that ended when the old model's training text did, and those that began after it.

    What began after the new model's text is neither, unless that is no newer than the old one's. Raises InputError
    when there is no early or no late period.
    """
    last = new.last if new and new.last > old.last else None
    early = [name for name in names if days_of(name).last <= old.last]
    late = [name for name in names if days_of(name).first > old.last and (last is None or days_of(name).first <= last)]
    if not early or not late:
        began = f"began after {old.last}" + (f" and by {last}" if last else "")
        which = began if early else f"ended by {old.last}"
        raise InputError(f"--cutoff {old.last}: no period with enough documents {which}; see --period and --held_out")
    return early, late


def freshness_gain(
    buckets: Sequence[Bucket], old: int, new: int, early: Sequence[str], late: Sequence[str]
) -> dict[str, Any]:
    """How much further the new model is ahead of the old one on late text than on early text, in bits per byte.

    (old - new on the late periods) - (old - new on the early periods), each the mean over periods: a model that is
    merely better leads by as much on both. `old` and `new` are columns of the samples. The interval is one over
    documents, which are the same for both models; it knows nothing of other seeds in training.
    """
    lead = {b.name: float(b.bits_per_byte[old] - b.bits_per_byte[new]) for b in buckets}
    samples = {b.name: b.samples[:, old] - b.samples[:, new] for b in buckets}
    early_value, late_value = (float(np.mean([lead[name] for name in part])) for part in (early, late))
    early_samples, late_samples = (np.mean([samples[name] for name in part], axis=0) for part in (early, late))
    gain_interval = interval(late_samples - early_samples)
    return {
        "early": [*early],
        "late": [*late],
        "lead_early": early_value,
        "lead_early_interval": interval(early_samples),
        "lead_late": late_value,
        "lead_late_interval": interval(late_samples),
        "gain": late_value - early_value,
        "gain_interval": gain_interval,
        "is_fresher": gain_interval[0] > 0,
        "periods": [
            {
                "lead": lead[b.name],
                "lead_interval": interval(samples[b.name]),
                "above_early": lead[b.name] - early_value,
                "above_early_interval": interval(samples[b.name] - early_samples),
            }
            for b in buckets
        ],
    }
