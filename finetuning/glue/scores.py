"""The scores of classes: of each of them, averaged, and of how the probabilities order the rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from finetuning.common.checkpoint import REGRESSION
from finetuning.glue.predictions import as_predictions, as_probabilities


def score(
    metric: Any, gold: Any, logits: np.ndarray, names: Sequence[str], problem_type: str, thresholds: Any = None
) -> dict[str, float]:
    """The metrics of the task, and of classes those of `class_scores`."""
    answers, gold = as_predictions(logits, problem_type, thresholds), np.asarray(gold[:])
    found: dict[str, float] = metric.compute(predictions=answers, references=gold)
    if problem_type == REGRESSION:
        return found
    return class_scores(gold, answers, as_probabilities(logits, problem_type), names) | found


def names_of_measures(metric: Any, rows: Any | None, names: Sequence[str], problem_type: str) -> list[str] | None:
    """What `score` will measure on these labelled rows, known before a model is; None without rows."""
    if rows is None:
        return None
    return ["loss", *score(metric, rows["labels"], np.zeros((len(rows), len(names))), names, problem_type)]


def class_scores(
    gold: np.ndarray, answers: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> dict[str, float]:
    """Precision, recall and F1 of each label, their means (macro) and the means weighted by how often a label occurs,
    as scikit-learn computes them; where one is 0/0, it is 0. `gold` and `answers`: classes (rows,), or zeros and ones
    (rows, labels); `probabilities`: (rows, labels).

    `auroc` and `average_precision` are those of the second of two classes, else means over the labels, each against
    all others; they are left out where a label occurs in no row or in all, since then there is none.
    """
    parts = ("precision", "recall", "f1")
    ids, found = list(range(len(names))), {}
    is_on = gold if gold.ndim == 2 else gold[:, None] == np.arange(len(names))
    for average in ("macro", "weighted"):
        means = precision_recall_fscore_support(gold, answers, average=average, zero_division=0.0)
        found |= {f"{average}_{part}": float(value) for part, value in zip(parts, means[:3], strict=True)}
    if ((is_on.sum(0) > 0) & (is_on.sum(0) < len(is_on))).all():
        kept = 1 if gold.ndim == 1 and len(names) == 2 else slice(None)
        for name, of in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
            found[name] = float(of(is_on[:, kept], probabilities[:, kept], average="macro"))
    each = precision_recall_fscore_support(gold, answers, labels=ids, average=None, zero_division=0.0)
    for part, values in zip(parts, each[:3], strict=True):
        found |= {f"{part}_{name}": float(value) for name, value in zip(names, values, strict=True)}
    return found
