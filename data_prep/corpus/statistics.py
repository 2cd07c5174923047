"""Figures from counts: words that rise, months, quantiles of lengths, correlations of domains."""

import math
from itertools import accumulate, combinations_with_replacement
from typing import Any

import numpy as np

from data_prep.corpus.counts import bin_start

PRIOR = 0.1  # the weight of the prior, as a share of the documents compared
COMMON = 0.2  # a word in more of the documents to begin with is grammar or page furniture, not news
ENOUGH_DOMAINS = 10  # fewer say nothing of a correlation


def rises(counts: dict[str, tuple[int, int]], first: int, last: int, minimum: int) -> list[dict[str, Any]]:
    """Rank words by how surely the share of documents that hold them has risen from the first to the last snapshot.

    The z-score of the log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, Fightin'
    Words), on documents rather than tokens: a page that says a word a thousand times counts once. `counts` are the
    documents in both snapshots, of `first` and `last` documents in all. Left out is a word that more than `COMMON` of
    the documents of both snapshots hold.
    """
    words = sorted(word for word, pair in counts.items() if sum(pair) >= minimum)
    if not words or not first or not last:
        return []
    before, after = np.array([counts[word] for word in words], dtype=float).T
    prior = PRIOR * (before + after)
    odds, variance = np.zeros(len(words)), np.zeros(len(words))
    for sign, seen, size in ((1, after, last), (-1, before, first)):
        with_word, without = seen + prior, size - seen + PRIOR * (first + last) - prior
        odds += sign * np.log(with_word / np.maximum(without, 0.5))
        variance += 1 / with_word + 1 / np.maximum(without, 0.5)
    z = odds / np.sqrt(variance)
    order = np.argsort(-z, kind="stable")
    return [
        {
            "word": words[index],
            "z": round(float(z[index]), 2),
            "first": int(before[index]),
            "last": int(after[index]),
            "first_share": before[index] / first,
            "last_share": after[index] / last,
        }
        for index in order.tolist()
        if min(before[index] / first, after[index] / last) <= COMMON
    ]


def months_of(counts: dict[str, dict[str, int]], snapshots: list[str]) -> dict[str, Any]:
    """For each snapshot its months with their counts, the first, the median and the last one, and how many unknown."""
    found = {}
    for name in snapshots:
        months = dict(sorted(counts.get(name, {}).items()))
        unknown = months.pop("unknown", 0)
        total, passed = sum(months.values()), zip(months, accumulate(months.values()), strict=True)
        found[name] = {
            "first": min(months, default=None),
            "median": next((month for month, count in passed if count * 2 >= total), None),
            "last": max(months, default=None),
            "unknown": unknown,
            "months": months,
        }
    return found


def quantiles(histogram: dict[str, int]) -> dict[str, float]:
    """Percentiles of the words in a document, to within the 5% of a bin."""
    bins = sorted((int(key), count) for key, count in histogram.items())
    passed = np.cumsum([count for _, count in bins])
    found = {}
    for percent in (1, 5, 25, 50, 75, 95, 99):
        number, _ = bins[np.searchsorted(passed, passed[-1] * percent / 100)]
        found[str(percent)] = round(math.sqrt((bin_start(number) + 1) * (bin_start(number + 1) + 1)) - 1)
    return found


def correlations(domains: dict[str, dict[str, int]], snapshots: list[str]) -> dict[str, Any]:
    """Pearson's and Spearman's correlation of the log counts of domains, for each two snapshots.

    Over the domains that either of the two has; None where they are fewer than `ENOUGH_DOMAINS` or all equal.
    """
    from scipy.stats import rankdata

    table = np.array([[counts.get(name, 0) for name in snapshots] for counts in domains.values()], dtype=float)
    table = table.reshape(len(domains), len(snapshots))
    found: dict[str, list[list[float | None]]] = {
        kind: [[None] * len(snapshots) for _ in snapshots] for kind in ("pearson", "spearman")
    }
    for one, other in combinations_with_replacement(range(len(snapshots)), 2):
        both = np.log1p(table[(table[:, one] > 0) | (table[:, other] > 0)][:, [one, other]])
        if len(both) < ENOUGH_DOMAINS:
            continue
        for kind, columns in (("pearson", both), ("spearman", rankdata(both, axis=0))):
            if one == other or columns.std(axis=0).min() > 0:
                value = 1.0 if one == other else round(float(np.corrcoef(columns.T)[0, 1]), 4)
                found[kind][one][other] = found[kind][other][one] = value
    return found
