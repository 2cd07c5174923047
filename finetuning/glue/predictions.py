"""What a model says of sentences: logits as predictions and probabilities, and the files that hold them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from finetuning.common.checkpoint import MULTI, REGRESSION
from finetuning.common.error_analysis import write_error_analysis, write_json_lines
from finetuning.glue.server import write_server_file
from shared.errors import InputError

THRESHOLDS = "decision_thresholds"  # in the model's configuration: of each label, or of the second of two classes


def as_predictions(logits: np.ndarray, problem_type: str, thresholds: Sequence[float] | None = None) -> np.ndarray:
    """What the metric compares: classes (rows,), zeros and ones (rows, labels), or numbers (rows,). `thresholds`: of
    each of several labels, or of the second of two classes, the least probability that is a yes."""
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
    return expit(logits) if problem_type == MULTI else softmax(logits, axis=1)


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
    error analysis; returns what that measures.

    `about`: what is said of each row; `texts` has columns of text alone, `rows` `length` and `labels`; all in the
    order of the logits.
    """
    kind, names, measured = config.problem_type, list(config.label2id), {}
    answers = as_predictions(logits, kind, getattr(config, THRESHOLDS, None))
    shares = as_probabilities(logits, kind)
    if name.startswith("test"):
        path, gold = record.folder / f"{name.replace('test', 'predictions')}.jsonl", None
        if task:
            found = [answer if kind == REGRESSION else names[answer] for answer in answers.tolist()]
            try:
                path_for_server = write_server_file(record.folder, name.replace("test", task), found)
                record.print(f"For GLUE's server: {path_for_server}")
            except InputError as error:
                record.print(f"Not for GLUE's server: {error}")
    else:
        folder, gold = record.folder / name.replace("validation", "errors"), rows["labels"][:]
        path, predicted = folder / "predictions.jsonl", answers if kind == REGRESSION else shares
        facts = (texts, texts.column_names, rows["length"], gold, predicted, names, answers)
        measured = write_error_analysis(folder, kind, *facts)
    write_json_lines(path, prediction_lines(kind, names, answers, shares, about, gold))
    return measured


def prediction_lines(
    problem_type: str,
    names: list[str],
    answers: np.ndarray,
    shares: np.ndarray,
    about: list[dict[str, Any]],
    gold: list[Any] | None,
) -> Iterator[dict[str, Any]]:
    """For each row what is said `about` it, the right label where `gold`, as the loss takes it, is given, the
    prediction, and the probability of each label."""

    def named(label: Any) -> Any:
        if problem_type == MULTI:
            return [name for name, is_on in zip(names, label, strict=True) if is_on]
        return label if problem_type == REGRESSION else names[label]

    for index, (answer, row) in enumerate(zip(answers.tolist(), shares.tolist(), strict=True)):
        line = about[index] | ({} if gold is None else {"gold": named(gold[index])}) | {"prediction": named(answer)}
        yield line if problem_type == REGRESSION else line | {"probabilities": dict(zip(names, row, strict=True))}
