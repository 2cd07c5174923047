"""What a model says of sentences: logits as predictions and probabilities, and the files that hold them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetuning.common.checkpoint import MULTI, REGRESSION
from finetuning.common.error_analysis import write_error_analysis
from finetuning.glue.server import why_not_for_server, write_server_file
from shared.files import atomic_file

THRESHOLDS = "decision_thresholds"  # in the model's configuration: of each label, or of the second of two classes


def as_predictions(logits: np.ndarray, problem_type: str, thresholds: Sequence[float] | None = None) -> np.ndarray:
    """What the metric compares: classes (rows,), zeros and ones (rows, labels), or numbers (rows,).

    `thresholds`: of each of several labels, or of the second of two classes, the least probability that is a yes.
    """
    if problem_type == REGRESSION:
        return logits[:, 0]
    if thresholds is not None:
        probabilities = as_probabilities(logits, problem_type)
        found = (probabilities if problem_type == MULTI else probabilities[:, 1]) >= np.asarray(thresholds)
        return found.astype(int)
    return (logits > 0).astype(int) if problem_type == MULTI else logits.argmax(1)


def as_probabilities(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """Probabilities of the labels, (rows, labels) float64."""
    logits = logits.astype(np.float64)
    if problem_type == MULTI:
        return 1 / (1 + np.exp(-logits))
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def write_predictions(
    path: Path,
    logits: np.ndarray,
    names: list[str],
    problem_type: str,
    thresholds: Sequence[float] | None,
    about: list[dict[str, Any]],
    gold: list[Any] | None = None,
) -> None:
    """One JSON line for each row, in the order of the set: what is said `about` it, the prediction, the probability of
    each label, and the right label where `gold`, as the loss takes it, is given."""
    predictions = as_predictions(logits, problem_type, thresholds)
    probabilities = as_probabilities(logits, problem_type)

    def named(label: Any) -> Any:
        if problem_type == MULTI:
            return [name for name, is_on in zip(names, label, strict=True) if is_on]
        return label if problem_type == REGRESSION else names[label]

    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for index, (found, shares) in enumerate(zip(predictions.tolist(), probabilities.tolist(), strict=True)):
            row = about[index] | ({} if gold is None else {"gold": named(gold[index])})
            row["prediction"] = named(found)
            if problem_type != REGRESSION:
                row["probabilities"] = dict(zip(names, shares, strict=True))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_errors(
    folder: Path,
    logits: np.ndarray,
    names: list[str],
    problem_type: str,
    thresholds: Sequence[float] | None,
    about: list[dict[str, Any]],
    texts: Any,
    rows: Any,
) -> dict[str, float]:
    """Write the error analysis of labelled rows, and all predictions beside it; returns what the analysis measures.

    `texts` has columns of text alone, `rows` `length` and `labels`, both in the order of the logits.
    """
    lengths, labels = rows["length"][:], rows["labels"][:]
    predicted = logits[:, 0] if problem_type == REGRESSION else as_probabilities(logits, problem_type)
    facts = (texts, texts.column_names, lengths, labels, predicted, names)
    answers = None if thresholds is None else as_predictions(logits, problem_type, thresholds)
    errors = write_error_analysis(folder, problem_type, *facts, answers=answers)
    write_predictions(folder / "predictions.jsonl", logits, names, problem_type, thresholds, about, labels)
    return errors


def write_for_server(
    folder: Path, task: str, logits: np.ndarray, names: list[str], kind: str, thresholds: Sequence[float] | None = None
) -> str:
    """Write what GLUE's server reads, if this is a whole test set of it; say what was done."""
    predictions = as_predictions(logits, kind, thresholds).tolist()
    found = predictions if kind == REGRESSION else [names[index] for index in predictions]
    reason = why_not_for_server(task, names, len(found))
    return (
        f"Not for GLUE's server: {reason}"
        if reason
        else f"For GLUE's server: {write_server_file(folder, task, found)}"
    )


def write_split(
    record: Any,
    name: str,
    logits: np.ndarray,
    config: Any,
    about: list[dict[str, Any]],
    texts: Any,
    rows: Any,
    task: str | None,
) -> dict[str, float]:
    """Write the predictions of a split, of a test split of GLUE also as its server reads them, and for other splits an
    error analysis; returns what that measures."""
    facts = (logits, list(config.label2id), config.problem_type, getattr(config, THRESHOLDS, None))
    if not name.startswith("test"):
        return write_errors(record.folder / name.replace("validation", "errors"), *facts, about, texts, rows)
    write_predictions(record.folder / f"{name.replace('test', 'predictions')}.jsonl", *facts, about)
    if task:
        record.print(write_for_server(record.folder, name.replace("test", task), *facts))
    return {}
