"""The metrics of the GLUE tasks, and of classification and regression sets of one's own, without the network.

    evaluate.load("finetuning/metrics/glue_tasks.py", "mrpc").compute(predictions=[1, 0], references=[1, 1])

Configurations are the GLUE tasks (Wang et al., 2018, table 1) and `single_label`, `multi_label` and `regression`.
Every value is a finite number, because NaN is not JSON and loses every comparison between epochs:

- A correlation is undefined when the predictions or the references are all the same. Such predictions order nothing,
  so it is 0.0, as chance is. Matthews correlation has the same convention in scikit-learn.
- An F1 is 0/0 when its label is in neither predictions nor references. It is 0.0, as in scikit-learn.
- A prediction or reference that is not finite, and an empty set, are errors.
"""

import warnings
from collections.abc import Callable
from functools import partial

import datasets
import evaluate
import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

# The metrics of each configuration. The first one chooses the best epoch: accuracy rather than F1, because always
# saying "paraphrase" has an F1 of .81 on MRPC.
METRICS = {
    "cola": ("matthews_correlation",),
    "sst2": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "stsb": ("pearson", "spearmanr"),
    "qqp": ("accuracy", "f1"),
    "mnli": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
    "ax": ("accuracy", "matthews_correlation"),  # the server shows the second one, for all three classes
    "single_label": ("accuracy", "macro_f1"),
    "multi_label": ("micro_f1", "macro_f1", "exact_match"),
    "regression": ("pearson", "spearmanr", "mean_squared_error"),
}


def _pearson(gold: np.ndarray, found: np.ndarray) -> float:
    with warnings.catch_warnings(action="ignore"):  # scipy warns of a spread near 0 and may answer NaN; see above
        return np.nan_to_num(pearsonr(gold, found).statistic)


def _unless_constant(of: Callable, gold: np.ndarray, found: np.ndarray) -> float:
    return 0.0 if np.ptp(gold) == 0 or np.ptp(found) == 0 else of(gold, found)  # also for a single row


SCORES: dict[str, Callable] = {
    "accuracy": lambda gold, found: (gold == found).mean(),
    "f1": lambda gold, found: f1_score(gold, found, labels=[1], average="micro", zero_division=0.0),
    "macro_f1": lambda gold, found: f1_score(gold, found, average="macro", zero_division=0.0),
    "micro_f1": lambda gold, found: f1_score(gold, found, average="micro", zero_division=0.0),
    "exact_match": lambda gold, found: (gold == found).all(axis=1).mean(),  # rows whose labels are all right
    "matthews_correlation": partial(_unless_constant, matthews_corrcoef),
    "pearson": partial(_unless_constant, _pearson),
    "spearmanr": partial(_unless_constant, lambda gold, found: spearmanr(gold, found).statistic),
    "mean_squared_error": lambda gold, found: ((gold - found) ** 2).mean(),
}


def main_metric(task: str) -> str:
    """The name of the metric by which the best epoch of a configuration is chosen; greater is better for all."""
    return METRICS[task][0]


class GlueTasks(evaluate.Metric):
    """Metrics of one configuration. A class is an integer, a regression target a float, and a set of labels a row of
    zeros and ones; `compute` returns a dict of floats."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in METRICS:
            raise ValueError(f"glue_tasks: unknown configuration {self.config_name!r}; there are {', '.join(METRICS)}")
        # Not int64 for classes: probabilities would be cut to 0 without a word.
        value = datasets.Value("float64")
        if self.config_name == "multi_label":
            value = datasets.Sequence(value)
        return evaluate.MetricInfo(
            description="The metrics of the GLUE tasks, and of single-label, multi-label and regression sets.",
            citation="Wang et al., 2018: GLUE: A Multi-Task Benchmark and Analysis Platform",
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        found, gold = (self._check(*pair) for pair in (("prediction", predictions), ("reference", references)))
        if found.shape != gold.shape:
            raise ValueError(f"glue_tasks: predictions of {found.shape[1]} labels, references of {gold.shape[1]}")
        return {name: float(SCORES[name](gold, found)) for name in METRICS[self.config_name]}

    def _check(self, name: str, values: list) -> np.ndarray:
        """`values` as float64 (rows,) or (rows, labels), or as int64 where they are classes. Raises ValueError."""
        rows = np.asarray(values, np.float64)
        if not len(rows):
            raise ValueError("glue_tasks: nothing to score, there are no rows")
        wrong, wanted = ~np.isfinite(rows), "a finite number"
        if self.config_name == "multi_label":
            wrong, wanted = ~np.isin(rows, (0, 1)), "0 or 1"
        elif "pearson" not in METRICS[self.config_name]:
            wrong, wanted = ~(np.isfinite(rows) & (rows >= 0) & (rows % 1 == 0)), "the number of a class"
        if wrong.any():
            row = int(np.argwhere(wrong)[0][0])
            raise ValueError(f"glue_tasks: the {name} of row {row} is {values[row]}, which is not {wanted}")
        return rows if "pearson" in METRICS[self.config_name] else rows.astype(np.int64)
