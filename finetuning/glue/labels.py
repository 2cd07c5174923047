"""The labels of sentences: what kind they are, their names in the order of the model, and as numbers for the loss."""

import re
from typing import Any

from datasets import ClassLabel, Value

from finetuning.common.checkpoint import MULTI, REGRESSION, SINGLE, problem_type_of, stock_name
from finetuning.common.data import Split
from finetuning.common.tables import NUMBER
from shared.errors import InputError
from shared.loss import IGNORED

RENAME = (  # the way out where nothing is trained
    "; if the checkpoint has other names for the labels of this data, say these in the order of the checkpoint with "
    "--class_names"
)


def choose_problem_type(data_args: Any, head: Any | None, split: Split) -> str:
    """What the labels are: what a fine-tuned checkpoint knows, whose configuration is `head`; or else what a flag, and
    or else what the data say. Raises InputError where these contradict each other."""
    asked, column = data_args.problem_type, data_args.label_column
    is_there = column in split.rows.column_names
    if head is None:
        return asked or (find_problem_type(split, column) if is_there else SINGLE)
    known = problem_type_of(head)
    if known == REGRESSION and head.num_labels > 1:
        raise InputError(f"--model_name_or_path: gives {head.num_labels} numbers for a text, where one is supported")
    if asked and (asked != known if known else asked == REGRESSION):
        flag = f"--task_name {data_args.task_name}" if data_args.task_name else f"--problem_type {asked}"
        way_out = "remove the flag, name the pretrained checkpoint, or train a new head with --ignore_mismatched_sizes"
        raise InputError(f"{flag}: this checkpoint was fine-tuned for {known or SINGLE}; {way_out}")
    has_lists = is_there and not isinstance(split.rows.features[column], (ClassLabel, Value))
    return known or asked or (MULTI if has_lists else SINGLE)


def find_problem_type(split: Split, column: str) -> str:
    """What kind of labels a column holds. Raises InputError where its type does not say."""
    feature = split.rows.features[column]
    if not isinstance(feature, (ClassLabel, Value)):
        return MULTI
    if isinstance(feature, ClassLabel) or feature.dtype in ("string", "large_string", "bool"):
        return SINGLE
    if feature.dtype.startswith("float"):
        if set(split.rows.unique(column)) <= {0, 1, None}:
            raise InputError(f"{split.where}: column {column} holds 0.0 and 1.0: say by --problem_type what they mean")
        return REGRESSION
    if set(split.rows.unique(column)) <= {0, 1}:
        return SINGLE
    raise InputError(f"{split.where}: column {column} holds whole numbers: say by --problem_type what they mean")


def read_labels(split: Split, column: str, problem_type: str) -> list[Any] | None:
    """The label of each row: its name, a list of names, or a number; None if the set has no labels, as test sets.
    Raises InputError for a row without a label among others, and for a value of another kind."""
    if column not in split.rows.column_names:
        return None
    feature = split.rows.features[column]
    feature = getattr(feature, "feature", feature)
    names = [*feature.names, None] if isinstance(feature, ClassLabel) else None  # its -1 is no label

    def name_of(value: Any) -> str | None:
        if value is None:
            return None
        return names[value] if names else plain_number(str(value)) or None

    labels: list[Any] = []
    for index, value in enumerate(split.rows[column][:]):
        where = f"{split.name(index)}: column {column}"
        if problem_type == MULTI and value is not None:
            if not isinstance(value, list):
                way_out = "name columns of 0 and 1 by --label_columns, or what separates labels by --label_separator"
                raise InputError(f"{where} holds {value!r}, not a list of labels; {way_out}")
            labels.append(list(map(name_of, value)))
            if None in labels[-1]:
                raise InputError(f"{where} holds {value!r}, with an empty label")
        elif problem_type == REGRESSION and value is not None:
            if isinstance(value, str) and NUMBER.fullmatch(value):  # the value that made the column text is another
                value = float(value)
            if isinstance(value, (str, bool)) or not float("-inf") < value < float("inf"):
                raise InputError(f"{where} holds {value!r}, not a number")
            if value == IGNORED:
                raise InputError(f"{where} holds {value!r}, which means no label to Trainer; shift or scale it")
            labels.append(float(value))
        else:
            labels.append(name_of(value))
    missing = [index for index, label in enumerate(labels) if label is None]
    if missing and len(missing) < len(labels):
        raise InputError(f"{split.name(missing[0])}: column {column} is empty, but not in other rows")
    return None if missing else labels


def find_names(labels: list[Any], split: Split, column: str, problem_type: str) -> list[str]:
    """The names in the order of the ClassLabel, or sorted; "score" for numbers. InputError for one class only."""
    if problem_type == REGRESSION:
        return ["score"]
    feature = split.rows.features[column]
    feature = getattr(feature, "feature", feature)
    found = {name for label in labels for name in (label if problem_type == MULTI else [label])}
    if len(found) < (1 if problem_type == MULTI else 2):
        shown = ", ".join(found) or "empty"
        raise InputError(f"{split.where}: column {column}: every row is {shown}; there is nothing to learn")
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    return sorted(found, key=lambda name: (len(name), name))


def encode_labels(
    labels: list[Any], ids: dict[str, int], split: Split, problem_type: str, way_out: str = ""
) -> list[Any]:
    """Labels as the loss wants them: the id of a class, zeros and ones for each class, or the number. A class without
    a name, LABEL_1, is also called by its number. Raises InputError for a name that is none of `ids`."""
    if problem_type == REGRESSION:
        return labels
    others = {plain_number(name): i for name, i in ids.items()}
    others |= {str(i): i for name, i in ids.items() if name == stock_name(str(i))}

    def id_of(name: str, index: int) -> int:
        found = ids.get(name, others.get(plain_number(name)))
        if found is None:
            raise InputError(f"{split.name(index)}: label {name} is not one of the model's: {', '.join(ids)}{way_out}")
        return found

    if problem_type == MULTI:
        sets = ({id_of(name, index) for name in label} for index, label in enumerate(labels))
        return [[float(i in found) for i in ids.values()] for found in sets]
    return [id_of(label, index) for index, label in enumerate(labels)]


def plain_number(name: str) -> str:
    """The name without white space around it, and a whole number without the zeros behind its point, which tables add
    to a column with gaps: "1.0" is "1"."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", name.strip())
