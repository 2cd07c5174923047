"""How sure a score is, and the difference of two: a paired bootstrap over examples and seeds.

Every score here is a function of sums over examples: accuracy of right answers, Matthews correlation of the cells of
the confusion matrix, Pearson's of first and second moments, F1 of entities of three counts. A resample weighs the
examples, so all scores of a thousand resamples are one matrix product. What masked-language models score on text is
resampled by `resample_sums`, with the same draws.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any
from zlib import crc32

import numpy as np

RESAMPLES = 2000
SAMPLES = 1000  # of sums
CHUNK = 4_000_000  # weights that are in memory at once


def _matthews(sums: np.ndarray, rows: int) -> np.ndarray:
    true_positive, true_negative, false_positive, false_negative = np.moveaxis(sums, -1, 0)
    up = true_positive * true_negative - false_positive * false_negative
    down = (true_positive + false_positive) * (true_positive + false_negative)
    down = np.sqrt(down * (true_negative + false_positive) * (true_negative + false_negative))
    return np.divide(up, down, out=np.zeros_like(up), where=down > 0)


def _pearson(sums: np.ndarray, rows: int) -> np.ndarray:
    x, y, xx, yy, xy = np.moveaxis(sums / rows, -1, 0)
    spread = np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0)
    return np.divide(xy - x * y, np.sqrt(spread), out=np.zeros_like(xy), where=spread > 1e-12)


def _entity_f1(sums: np.ndarray, rows: int) -> np.ndarray:
    hits, found, gold = np.moveaxis(sums, -1, 0)
    return np.divide(2 * hits, found + gold, out=np.zeros_like(hits), where=found + gold > 0)


# Sums over examples (..., parts) and the number of examples -> scores (...); undefined is 0, as in finetuning/metrics.
SCORES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "mean": lambda sums, rows: sums[..., 0] / rows,
    "matthews": _matthews,
    "pearson": _pearson,
    "entity_f1": _entity_f1,
}


@dataclass(frozen=True)
class Examples:
    """What each run made of each example: `parts` (seeds, examples, parts) float64.

    `score`, a name in SCORES, is the function of their sums. Equal `key`s name equal examples.
    """

    parts: np.ndarray
    score: str
    key: str

    def values(self) -> np.ndarray:
        """The score of each seed, (seeds,)."""
        return SCORES[self.score](self.parts.sum(axis=1), self.parts.shape[1])


@dataclass(frozen=True)
class Sample:
    """The mean score over seeds: as it is, and in each resample of examples and seeds, `values` (resamples,). What the
    choice of examples alone adds to the standard error of one seed is `set_error`; a larger set would shrink it."""

    mean: float
    values: np.ndarray
    set_error: float | None = None

    def __sub__(self, other: "Sample") -> "Sample":
        return Sample(self.mean - other.mean, self.values - other.values)


def _weights(rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each example is drawn in each resample, (some resamples, rows) at a time; the same for the same seed,
    so that all models see the same resamples."""
    generator = np.random.default_rng(seed)
    size = max(1, CHUNK // rows)
    for begin in range(0, resamples, size):
        count = min(size, resamples - begin)
        drawn = generator.integers(0, rows, (count, rows)) + np.arange(count)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)


def resample(examples: Examples, name: str, resamples: int = RESAMPLES) -> Sample:
    """The mean score over seeds in each of some resamples of examples and seeds.

    Examples are the same for all models, seeds are drawn for the model `name` alone, because seed 1 of one is no twin
    of seed 1 of another (as Sellam et al., 2022, The MultiBERTs, do). The two are drawn apart and their deviations
    added: the variance is that over examples of the mean, plus that over seeds divided by their number. As few seeds
    drawn from themselves vary too little, deviations between them are stretched by the root of n / (n - 1).
    """
    seeds, rows, parts = examples.parts.shape
    flat = examples.parts.transpose(1, 0, 2).reshape(rows, seeds * parts)
    score = SCORES[examples.score]
    found = np.concatenate(
        [
            score((weights @ flat).reshape(-1, seeds, parts), rows)
            for weights in _weights(rows, resamples, crc32(examples.key.encode()))
        ]
    )
    scores, values = examples.values(), found.mean(axis=1)
    if seeds > 1:
        generator = np.random.default_rng(crc32(f"{examples.key} {name}".encode()))
        counts = generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
        values = values + sqrt(seeds / (seeds - 1)) * (counts @ (scores - scores.mean())) / seeds
    return Sample(float(scores.mean()), values, float(found.std(axis=0).mean()))


def resample_sums(sums: np.ndarray, seed: int, resamples: int = SAMPLES) -> np.ndarray:
    """The column sums of some resamples of rows, for scores that are no function in SCORES.

    `sums`: (rows, columns). Returns (resamples, columns) float64. The same rows are drawn for equal seeds and numbers
    of rows, so what stands in the columns of one array, or of two, is compared pair by pair.
    """
    drawn = (row for weights in _weights(len(sums), resamples, seed) for row in weights)
    return np.stack([row @ sums for row in drawn])  # row by row, for the bits that were published


def interval(values: np.ndarray) -> list[float]:
    """The 95% interval of bootstrapped values, (samples,): their 2.5th and 97.5th percentile."""
    low, high = np.percentile(values, [2.5, 97.5]).tolist()
    return [low, high]


def average(samples: Sequence[Sample]) -> Sample:
    """The mean of several tasks, whose resamples are independent."""
    errors = [sample.set_error for sample in samples if sample.set_error is not None]
    set_error = sqrt(sum(error**2 for error in errors)) / len(samples) if len(errors) == len(samples) else None
    middle = np.mean([sample.values for sample in samples], axis=0)
    return Sample(float(np.mean([sample.mean for sample in samples])), middle, set_error)


def describe(sample: Sample, confidence: float = 0.95) -> dict[str, float]:
    """Interval and standard error, and that which comes of the set alone where it is known."""
    low, high = np.quantile(sample.values, [(1 - confidence) / 2, (1 + confidence) / 2])
    found = {"low": float(low), "high": float(high), "standard_error": float(sample.values.std())}
    return found if sample.set_error is None else found | {"set_error": sample.set_error}


def p_value(difference: Sample) -> float:
    """Two-sided: twice the share of resamples on the rarer side of 0, never below what their number can show."""
    values, count = difference.values, len(difference.values)
    rarer = min((values <= 0).sum(), (values >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (count + 1)))


def holm(values: Sequence[float]) -> list[float]:
    """p-values as Holm (1979) corrects them for their number, in their order."""
    order = np.argsort(values, kind="stable")
    found, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        found[place] = highest
    return found


def parts_of(rows: Sequence[dict[str, Any]], metric: str) -> tuple[np.ndarray, str]:
    """What each example adds to the sums of a metric, (examples, parts), and the name of the score.

    `rows` hold `gold` and `prediction`: names of classes, numbers, lists of tags (`entity_f1`), or a list of right
    answers and a text (`squad_f1`, `squad_v2_f1`).
    """
    gold, found = ([row[name] for row in rows] for name in ("gold", "prediction"))
    if metric == "accuracy":
        return np.array([[a == b] for a, b in zip(gold, found, strict=True)], np.float64), "mean"
    if metric == "matthews_correlation":  # of two classes; which one is positive makes no difference
        positive = max([*gold, *found])
        a, b = (np.array([name == positive for name in names]) for names in (gold, found))
        return np.stack([a & b, ~a & ~b, ~a & b, a & ~b], axis=1).astype(np.float64), "matthews"
    if metric == "pearson":
        x, y = (np.array(values, np.float64) for values in (gold, found))
        x, y = x - x.mean(), y - y.mean()  # for precision; it changes no correlation
        return np.stack([x, y, x * x, y * y, x * y], axis=1), "pearson"
    if metric == "entity_f1":
        from finetuning.ner.tags import find_entities

        pairs = ((set(find_entities(a)), set(find_entities(b))) for a, b in zip(gold, found, strict=True))
        return np.array([[len(a & b), len(b), len(a)] for a, b in pairs], np.float64), "entity_f1"
    if metric in ("squad_f1", "squad_v2_f1"):
        from finetuning.metrics.squad_answers import is_unspaced, score_answer

        how = (metric == "squad_v2_f1", is_unspaced([text for golds in gold for text in golds]))
        scores = [score_answer(b, a, *how)[1] for a, b in zip(gold, found, strict=True)]
        return np.array(scores, np.float64)[:, None], "mean"
    raise ValueError(f"no parts for {metric}")
