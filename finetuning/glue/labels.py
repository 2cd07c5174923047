"""The labels of sentences: what kind they are, their names in the order of the model, and as numbers for the loss."""

from typing import Any

from datasets import ClassLabel, Value

from finetuning.common.data import Split
from shared.errors import InputError

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def find_problem_type(split: Split, column: str) -> str:
    """What kind of labels a column holds. Raises InputError where its type does not say."""
    feature = split.rows.features[column]
    if not isinstance(feature, (ClassLabel, Value)):
        return MULTI
    if isinstance(feature, ClassLabel) or feature.dtype in ("string", "large_string", "bool"):
        return SINGLE
    if feature.dtype.startswith("float"):
        return REGRESSION
    if set(split.rows.unique(column)) <= {0, 1}:
        return SINGLE
    raise InputError(f"{split.where}: column {column} holds whole numbers: say by --problem_type what they mean")


def read_labels(split: Split, column: str, problem_type: str) -> list[Any] | None:
    """The label of each row: its name, a list of names, or a number; None if the set has no labels, as test sets.

    Raises InputError for a row without a label among others, and for a value of another kind.
    """
    if column not in split.rows.column_names:
        return None
    feature = split.rows.features[column]
    feature = getattr(feature, "feature", feature)
    names = [*feature.names, None] if isinstance(feature, ClassLabel) else None  # -1 is no label

    def name_of(value: Any) -> str | None:
        return names[value] if names and value is not None else None if value in (None, "", -1) else str(value)

    labels: list[Any] = []
    for number, value in enumerate(split.rows[column][:], 1):
        where = f"{split.where}: row {number}: column {column}"
        if problem_type == MULTI:
            if not isinstance(value, list):
                raise InputError(f"{where} holds {value!r}, not a list of labels")
            labels.append(list(map(name_of, value)))
        elif problem_type == REGRESSION and value is not None:
            if isinstance(value, (str, bool)) or not float("-inf") < value < float("inf"):
                raise InputError(f"{where} holds {value!r}, not a number")
            labels.append(float(value))
        else:
            labels.append(name_of(value))
    missing = [number for number, label in enumerate(labels, 1) if label is None]
    if missing and len(missing) < len(labels):
        raise InputError(f"{split.where}: row {missing[0]}: column {column} is empty, but not in other rows")
    return None if missing else labels


def find_names(labels: list[Any], split: Split, column: str, problem_type: str) -> list[str]:
    """The names in the order of the ClassLabel, or sorted; "score" for numbers. InputError for one class only."""
    if problem_type == REGRESSION:
        return ["score"]
    feature = split.rows.features[column]
    feature = getattr(feature, "feature", feature)
    found = {name for label in labels for name in (label if problem_type == MULTI else [label])}
    if len(found) < (1 if problem_type == MULTI else 2):
        raise InputError(
            f"{split.where}: column {column}: every row is {', '.join(found) or 'empty'}; there is nothing to learn"
        )
    return (
        list(feature.names) if isinstance(feature, ClassLabel) else sorted(found, key=lambda name: (len(name), name))
    )


def encode_labels(labels: list[Any], ids: dict[str, int], split: Split, problem_type: str) -> list[Any]:
    """Labels as the loss wants them: the id of a class, zeros and ones for each class, or the number.

    Raises InputError for a name that is not among `ids`.
    """
    if problem_type == REGRESSION:
        return labels
    for number, label in enumerate(labels, 1):
        for name in label if problem_type == MULTI else [label]:
            if name not in ids:
                raise InputError(
                    f"{split.where}: row {number}: label {name} is not one of the model's: {', '.join(ids)}"
                )
    if problem_type == MULTI:
        return [[float(name in label) for name in ids] for label in labels]
    return [ids[label] for label in labels]
