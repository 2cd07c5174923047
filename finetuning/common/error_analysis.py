"""Where a model errs: calibration, confusions, scores by length and the worst mistakes, as files that people read.

`write_error_analysis` does all of it for sentences; the rest are the parts, for scripts whose answers are of another
kind. Arrays are of numpy, their first axis the rows in the order of the data set. Labels are written in the model's
order; a probability is a share of 1, a loss is in nats.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finetuning.common.checkpoint import MULTI, REGRESSION, SINGLE
from shared.figures import new_figure, save_figure
from shared.files import atomic_file, write_text
from shared.markdown import escape, markdown_table

MISTAKES = 100  # in worst_mistakes.jsonl
SHOWN = 20  # of these on the page
MOST_LABELS = 20  # in a table of all confusions; above it only the most frequent ones are listed
MOST_POINTS = 5000  # in a scatter picture
LEAST = float(np.finfo(np.float32).tiny)  # a probability of 0 would be an infinite loss, which JSON has not


def reliability(
    confidence: np.ndarray, right: np.ndarray, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean confidence and accuracy of each bin, (bins,) each; an empty bin has 0 in all three. The bins divide
    0..1 into equal parts, closed above.

    `confidence`: (n,) the probability of each answer given; `right`: (n,) whether it was right.
    """
    bin_of = np.clip(np.ceil(np.asarray(confidence, np.float64) * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    sums = (np.bincount(bin_of, weights=values, minlength=bins) for values in (confidence, right))
    mean_confidence, accuracy = (total / np.maximum(counts, 1) for total in sums)
    return counts, mean_confidence, accuracy


def draw_reliability(confidence: np.ndarray, right: np.ndarray, path: str | Path) -> float:
    """Draw accuracy over confidence, and how many answers there are of each confidence, as PNG; returns the expected
    calibration error."""
    counts, mean_confidence, accuracy = reliability(confidence, right)
    bins, full = len(counts), counts > 0
    edges = np.arange(bins) / bins
    error = calibration_error(counts, mean_confidence, accuracy)
    figure = new_figure(5, 6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(edges, accuracy, width=1 / bins, align="edge", edgecolor="white", label="accuracy")
    upper.plot((0, 1), (0, 1), "--", color="gray", label="perfectly calibrated")
    upper.plot(mean_confidence[full], accuracy[full], "o", color="black", markersize=3, label="mean of the bin")
    upper.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1), title=f"expected calibration error {error:.3f}")
    upper.legend(loc="best")
    lower.bar(edges, counts, width=1 / bins, align="edge", edgecolor="white", color="gray")
    lower.set(xlabel="confidence", ylabel="answers")
    save_figure(figure, path)
    return error


def draw_scatter(gold: np.ndarray, predicted: np.ndarray, path: str | Path) -> None:
    """Draw predicted over gold numbers as PNG; of more than 5,000 rows an even choice."""
    chosen = np.unique(np.linspace(0, len(gold) - 1, min(len(gold), MOST_POINTS)).astype(int))
    low, high = min(gold.min(), predicted.min()), max(gold.max(), predicted.max())
    figure = new_figure(5, 5)
    axes = figure.subplots()
    axes.plot((low, high), (low, high), "--", color="gray", label="as it should be")
    axes.plot(gold[chosen], predicted[chosen], ".", alpha=0.3, markeredgewidth=0, label=f"{len(chosen):,} rows")
    axes.set(xlabel="gold", ylabel="predicted", aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    save_figure(figure, path)


def confusion_matrix(gold: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often each gold class (row) was predicted as each class (column): (classes, classes) int64."""
    return np.bincount(gold * classes + predicted, minlength=classes**2).reshape(classes, classes)


def confusion_table(matrix: np.ndarray, names: Sequence[str]) -> str:
    """The confusion matrix as Markdown; of more than 20 classes the most frequent confusions instead."""
    if len(names) <= MOST_LABELS:
        rows = [[f"**{escape(name)}**", *counts] for name, counts in zip(names, matrix.tolist(), strict=True)]
        return markdown_table(["gold (down), predicted (across)", *map(escape, names)], rows)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    places = np.argsort(-wrong, axis=None, kind="stable")[:MOST_LABELS]
    pairs = [divmod(int(place), len(names)) for place in places if wrong.flat[place]]
    rows = [[escape(names[gold]), escape(names[found]), wrong[gold, found]] for gold, found in pairs]
    return markdown_table(["gold", "predicted", "rows"], rows)


def label_table(hits: np.ndarray, gold: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> str:
    """Precision, recall and F1 of each label as Markdown, from counts: `hits` is how often it was rightly predicted,
    `gold` how often it should have been, `predicted` how often it was, (labels,) each. A share of nothing is a dash.
    """

    def share(part: float, whole: float) -> str:
        return f"{part / whole:.3f}" if whole else "–"

    rows = [
        [escape(name), share(hit, found), share(hit, wanted), share(2 * hit, wanted + found), wanted, found]
        for name, hit, wanted, found in zip(names, hits.tolist(), gold.tolist(), predicted.tolist(), strict=True)
    ]
    return markdown_table(["label", "precision", "recall", "F1", "gold", "predicted"], rows)


def score_by_length(lengths: np.ndarray, scores: np.ndarray, bins: int = 5) -> list[dict[str, float]]:
    """The mean score of rows of like length, from short to long: `from` and `to` (included), `rows`, `score`, and the
    standard `error` of that mean.

    `lengths`: (rows,) int; `scores`: (rows,) float, for example 0 or 1. The bins are quantiles of the length, so they
    hold about as many rows each; there are fewer where many rows are of one length.
    """
    edges = np.unique(np.quantile(lengths, np.arange(1, bins) / bins, method="inverted_cdf"))
    bin_of = np.searchsorted(edges, lengths)
    parts = [np.flatnonzero(bin_of == i) for i in np.unique(bin_of)]
    return [
        {
            "from": int(lengths[rows].min()),
            "to": int(lengths[rows].max()),
            "rows": len(rows),
            "score": float(scores[rows].mean()),
            "error": float(scores[rows].std() / np.sqrt(len(rows))),
        }
        for rows in parts
    ]


def length_table(lengths: np.ndarray, scores: np.ndarray, score: str, unit: str = "tokens") -> str:
    """What `score_by_length` finds as Markdown."""
    rows = [
        [f"{part['from']} to {part['to']}", part["rows"], f"{part['score']:.3f} ± {part['error']:.3f}"]
        for part in score_by_length(lengths, scores)
    ]
    return markdown_table([unit, "rows", score], rows)


def worst_rows(losses: np.ndarray, wrong: np.ndarray, most: int = MISTAKES) -> list[int]:
    """The wrong rows with the highest loss, worst first; rows of equal loss in their order."""
    rows = np.flatnonzero(wrong)
    return [int(row) for row in rows[np.argsort(-losses[rows], kind="stable")][:most]]


def write_json_lines(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """One JSON object per line, atomically."""
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_page(folder: Path, sections: dict[str, str], mistakes: Sequence[dict[str, Any]]) -> None:
    """Write worst_mistakes.jsonl and errors.md, a page of sections, title to text, the first mistakes behind the last
    one."""
    write_json_lines(folder / "worst_mistakes.jsonl", mistakes)
    parts = ["# Error analysis", *(f"## {name}\n\n{text.strip()}" for name, text in sections.items())]
    write_text(folder / "errors.md", "\n\n".join([*parts, mistake_lines(mistakes)]).strip() + "\n")


def mistake_lines(mistakes: Sequence[dict[str, Any]]) -> str:
    """The first mistakes as a Markdown list. What stands under `text`, name to text, gets a line each."""
    lines = []
    for number, mistake in enumerate(mistakes[:SHOWN], 1):
        facts = (f"{key} {_value(value)}" for key, value in mistake.items() if key != "text")
        lines.append(f"{number}. {', '.join(facts)}")
        lines += [f"   - {escape(name)}: {escape(text)}" for name, text in mistake["text"].items()]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return "; ".join(f"{escape(key)} {_value(part)}" for key, part in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(f"**{escape(part)}**" for part in value) or "**none**"
    return f"**{escape(value)}**" if isinstance(value, str) else f"{value}"


def write_error_analysis(
    folder: str | Path,
    problem_type: str,
    rows: Any,
    text_columns: Sequence[str],
    lengths: Sequence[int] | np.ndarray,
    gold: Sequence[Any] | np.ndarray,
    predicted: np.ndarray,
    names: Sequence[str] = (),
    answers: np.ndarray | None = None,
) -> dict[str, float]:
    """Write errors.md, worst_mistakes.jsonl and reliability.png or scatter.png into `folder`.

    `rows`: the labelled rows, a `datasets.Dataset` or list of dicts; only the worst ones are read. `text_columns`: the
    keys of their texts. `lengths`: (rows,) tokens of each. `gold` and `predicted` are, by problem type, classes
    (rows,) and probabilities (rows, labels); zeros and ones (rows, labels) and probabilities (rows, labels), of which
    those above 0.5 are predicted; numbers (rows,) and numbers (rows,). `names`: the labels in the model's order.
    `answers`, of the form of `gold`: what is predicted, where other thresholds decide.
    Returns what is worth reporting beside the metrics: `expected_calibration_error`, for multi-label sets that of all
    decisions, or `mean_absolute_error`. Raises ValueError for arrays of other shapes or without rows.
    """
    # [:] because a column of a data set is slow to read value by value
    folder, lengths, gold = Path(folder), np.asarray(lengths[:]), np.asarray(gold[:])
    predicted = np.asarray(predicted, np.float64)
    shape = (len(rows),) if problem_type == REGRESSION else (len(rows), len(names))
    gold_shape = shape[:1] if problem_type == SINGLE else shape
    if (predicted.shape, gold.shape, lengths.shape) != (shape, gold_shape, shape[:1]) or not len(rows):
        raise ValueError(f"{len(rows)} rows, {gold.shape} gold, {predicted.shape} predicted, {lengths.shape} lengths")
    found = ANALYSES[problem_type](folder, gold, predicted, names, answers)
    found.sections[f"{found.score} by length"] = length_table(lengths, found.scores, found.score.lower())
    mistakes = []
    for index in worst_rows(found.losses, found.wrong):
        texts = {name: rows[index][name] for name in text_columns}
        mistakes.append({"index": index, **found.describe(index), "tokens": int(lengths[index]), "text": texts})
    count = f"{found.wrong.sum():,} of {len(rows):,} rows are wrong. " if problem_type != REGRESSION else ""
    more = f"The worst first; `worst_mistakes.jsonl` holds {len(mistakes)}, with their whole text."
    write_page(folder, found.sections | {"Worst mistakes": count + more}, mistakes)
    return found.summary


class _Found(NamedTuple):
    """What is special to a problem type. `scores` are averaged by length, `losses` order the `wrong` rows."""

    summary: dict[str, float]
    sections: dict[str, str]
    score: str
    scores: np.ndarray
    losses: np.ndarray
    wrong: np.ndarray
    describe: Callable[[int], dict[str, Any]]


def _single_label(
    folder: Path, gold: np.ndarray, probabilities: np.ndarray, names: Sequence[str], answers: np.ndarray | None
) -> _Found:
    answers, all_rows = probabilities.argmax(axis=1) if answers is None else answers, np.arange(len(gold))
    confidence, right = probabilities[all_rows, answers], answers == gold
    losses = -np.log(np.maximum(probabilities[all_rows, gold], LEAST))
    matrix = confusion_matrix(gold, answers, len(names))
    error = draw_reliability(confidence, right, folder / "reliability.png")
    of_gold, of_answers = matrix.sum(axis=1), matrix.sum(axis=0)
    most = int(of_gold.argmax())
    overview = (
        f"Accuracy {right.mean():.3f} on {len(gold):,} rows; {of_gold[most] / len(gold):.3f} for always saying "
        f"**{escape(names[most])}**. Of {np.count_nonzero(of_gold)} labels in the data, "
        f"{np.count_nonzero(of_answers[of_gold > 0])} are predicted at all."
    )
    sections = {
        "Overview": overview,
        "Confusions": confusion_table(matrix, names),
        "Labels": label_table(matrix.diagonal(), of_gold, of_answers, names),
        "Calibration": _calibration(error, "prediction"),
    }

    def describe(index: int) -> dict[str, Any]:
        return {
            "gold": names[gold[index]],
            "predicted": names[answers[index]],
            "probability": float(confidence[index]),
            "loss": float(losses[index]),
        }

    return _Found({"expected_calibration_error": error}, sections, "Accuracy", right, losses, ~right, describe)


def _multi_label(
    folder: Path, gold: np.ndarray, probabilities: np.ndarray, names: Sequence[str], answers: np.ndarray | None
) -> _Found:
    gold, answers = gold.astype(bool), probabilities > 0.5 if answers is None else answers.astype(bool)
    right, confidence = gold == answers, np.where(answers, probabilities, 1 - probabilities)
    losses = -np.log(np.maximum(np.where(gold, probabilities, 1 - probabilities), LEAST)).sum(axis=1)
    error = draw_reliability(confidence.ravel(), right.ravel(), folder / "reliability.png")
    sections = {
        "Overview": (
            f"All labels right in {right.all(axis=1).mean():.3f} of {len(gold):,} rows. A row has "
            f"{gold.sum(axis=1).mean():.2f} of {len(names)} labels on average, and {answers.sum(axis=1).mean():.2f} "
            f"are predicted; {int((~answers.any(axis=1)).sum()):,} rows get none."
        ),
        "Labels": label_table((gold & answers).sum(axis=0), gold.sum(axis=0), answers.sum(axis=0), names),
        "Calibration": _calibration(error, "decision on one label of one row"),
    }

    def describe(index: int) -> dict[str, Any]:
        marked = gold[index] | answers[index]
        return {
            "gold": [name for name, is_on in zip(names, gold[index], strict=True) if is_on],
            "predicted": [name for name, is_on in zip(names, answers[index], strict=True) if is_on],
            "probabilities": {names[i]: float(probabilities[index, i]) for i in np.flatnonzero(marked).tolist()},
            "loss": float(losses[index]),
        }

    wrong = ~right.all(axis=1)
    summary = {"expected_calibration_error": error}
    return _Found(summary, sections, "Share of rows with all labels right", ~wrong, losses, wrong, describe)


def _regression(folder: Path, gold: np.ndarray, predicted: np.ndarray, *_: Any) -> _Found:
    errors = predicted - gold
    draw_scatter(gold, predicted, folder / "scatter.png")
    absolute, chance = abs(errors), abs(gold - np.median(gold))
    table = markdown_table(
        ["", "smallest", "mean", "largest", "standard deviation"],
        [
            [name, *(f"{value:.3f}" for value in (v.min(), v.mean(), v.max(), v.std()))]
            for name, v in (("gold", gold), ("predicted", predicted), ("predicted - gold", errors))
        ],
    )
    overview = (
        f"Mean absolute error {absolute.mean():.3f} on {len(gold):,} rows; {chance.mean():.3f} for always saying "
        f"{np.median(gold):.3g}, the median."
    )
    if np.ptp(predicted) == 0 or np.ptp(gold) == 0:
        overview += " One of the two is the same in all rows: correlations are undefined, and reported as 0."

    def describe(index: int) -> dict[str, Any]:
        return {"gold": float(gold[index]), "predicted": float(predicted[index]), "error": float(errors[index])}

    sections = {"Overview": f"{overview}\n\n{table}\n\n![predicted over gold numbers](scatter.png)"}
    summary = {"mean_absolute_error": float(absolute.mean())}
    return _Found(summary, sections, "Mean absolute error", absolute, absolute, absolute > 0, describe)


ANALYSES: dict[str, Callable[..., _Found]] = {SINGLE: _single_label, MULTI: _multi_label, REGRESSION: _regression}


def _calibration(error: float, what: str) -> str:
    return (
        f"Expected calibration error {error:.3f}: by so much the probability of a {what} differs from how often it is "
        "right.\n\n![accuracy over confidence](reliability.png)"
    )


def calibration_error(counts: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray) -> float:
    """How far confidence is from accuracy in the bins of `reliability`, (bins,) each: their absolute difference,
    weighted by count (Guo et al., 2017, eq. 3)."""
    return float((counts * abs(confidence - accuracy)).sum() / max(counts.sum(), 1))
