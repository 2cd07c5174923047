"""The columns of sentences and labels: which they are, what they hold, and which rows lack something."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from datasets import ClassLabel, List, Value, concatenate_datasets

from finetuning.common.checkpoint import MULTI, REGRESSION
from finetuning.common.classes import ClassArguments
from finetuning.common.data import Split, check_columns, check_there
from finetuning.common.tables import DECIMAL_COMMA, NOT_FINITE, number_kind, say
from shared.errors import InputError

MARKS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}  # of --label_columns


@dataclass
class LabelArguments(ClassArguments):
    label_column: str = field(default="label", metadata={"help": "The column of the label, number or list of labels."})
    label_columns: list[str] = field(
        default_factory=list, metadata={"help": "Columns of 0 and 1, one for each label, where a row has several."}
    )
    label_separator: str | None = field(
        default=None,
        metadata={"help": "What separates several labels in --label_column; a row with nothing there has none."},
    )
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = field(
        default=None, metadata={"help": "What the labels are. Default: as the task or the column says."}
    )
    id_column: str | None = field(default=None, metadata={"help": "A column that predictions repeat as `id`."})
    drop_incomplete_rows: bool = field(
        default=False, metadata={"help": "Leave out rows without a text or label, and count them. Default: an error."}
    )
    both_orders: bool = field(
        default=False, metadata={"help": "Train on each pair in both orders, where the order means nothing."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_columns and self.label_separator:
            raise InputError("--label_columns, --label_separator: give one of the two")
        if self.label_columns or self.label_separator:
            if self.problem_type not in (None, MULTI):
                shown = "--label_columns" if self.label_columns else "--label_separator"
                raise InputError(f"{shown}: means several labels a row, and the task or --problem_type says one")
            self.problem_type = MULTI

    @property
    def sources_of_labels(self) -> list[str]:
        """The columns that hold labels in the data."""
        return self.label_columns or [self.label_column]

    def labels_of(self, split: Split) -> list[list[Any]]:
        """The labels of each row as the file writes them, and none where they are scores: what a held-out part is to
        have as well. Marks in --label_columns count as one label each, set or not."""
        rows, columns = split.rows, [name for name in self.sources_of_labels if name in split.rows.column_names]
        if self.problem_type == REGRESSION or any(_holds_scores(rows[name][:]) for name in columns):
            columns = []
        labels: list[list[Any]] = [[] for _ in range(len(rows))]
        for name in columns:
            for found, value in zip(labels, rows[name][:], strict=True):
                if self.label_separator:
                    found += [part.strip() for part in str(value or "").split(self.label_separator)]
                else:
                    found += value if isinstance(value, list) else [(name, value)]
        return labels


def settle_columns(splits: dict[str, Split], args: Any) -> dict[str, Split]:
    """The splits with a label column whose type says what the labels are, without the rows that lack something.

    A test split whose labels are all missing has no label column then. With --both_orders the training split has its
    pairs a second time, exchanged. Raises InputError, which names file, row and column, and for a row that lacks
    something unless --drop_incomplete_rows is set.
    """
    splits = {name: _settle(split, args, may_lack_labels=name.startswith("test")) for name, split in splits.items()}
    if args.both_orders and "train" in splits:
        splits["train"] = _in_both_orders(splits["train"], args.text_columns)
    return splits if args.label_separator else _as_numbers(splits, args.label_column, args.problem_type)


def _holds_scores(values: Sequence[Any]) -> bool:
    """Whether a column holds numbers that are not all whole, as numbers or as a CSV file's text."""
    texts = [value if isinstance(value, str) else repr(value) for value in values if value is not None]
    return number_kind(texts) == "float64" and any(float(text) % 1 for text in texts)


def _in_both_orders(split: Split, columns: Sequence[str]) -> Split:
    """The rows, and behind them once more all of them with the two texts exchanged. Raises InputError for one text."""
    if len(columns) != 2:
        raise InputError("--both_orders: there is one text; name the second one by --text_pair_column")
    rows, numbers = split.rows, [split.number(i) for i in range(len(split.rows))]
    exchanged = rows.rename_columns(dict(zip(columns, reversed(columns), strict=True)))
    both = concatenate_datasets([rows, exchanged.select_columns(rows.column_names)])
    return replace(split, rows=both, numbers=[*numbers, *numbers])


def _settle(split: Split, args: Any, may_lack_labels: bool) -> Split:
    check_there(split, args.text_flags | ({args.id_column: "id_column"} if args.id_column else {}))
    labels = args.sources_of_labels
    if may_lack_labels and not any(_has_labels(split, name, args.task_name) for name in labels):
        split = replace(split, rows=split.rows.remove_columns(set(labels) & set(split.rows.column_names)))
        labels = []
    check_there(split, dict.fromkeys(labels, "label_columns" if args.label_columns else "label_column"))
    split = _complete(split, args.text_columns, [] if args.label_separator else labels, args.drop_incomplete_rows)
    check_columns(split, args.text_columns, "text")
    if labels and args.label_columns:
        return _join_columns(split, args.label_columns, args.label_column)
    return _split_labels(split, args.label_column, args.label_separator) if labels and args.label_separator else split


def _has_labels(split: Split, name: str, task: str | None) -> bool:
    """Whether any row has a label in a column. Test sets of GLUE have -1 in every row."""
    if name not in split.rows.column_names:
        return False
    values = [value for value in split.rows[name][:] if not _is_missing(value, split.rows.features[name])]
    return bool(values) and not (task and all(str(value) in ("-1", "-1.0") for value in values))


def _is_missing(value: Any, feature: Any) -> bool:
    """Whether a field is empty. A number is missing at nan, a class at -1 where the column has names for numbers."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value != value or (isinstance(feature, ClassLabel) and value == -1)


def _complete(split: Split, texts: Sequence[str], labels: Sequence[str], drop: bool) -> Split:
    """The rows that have all of these columns. Raises InputError for the first that has not, unless they are dropped,
    and if none is left."""
    names = [*texts, *labels]
    features = [split.rows.features[name] for name in names]
    kept: list[int] = []
    reasons: Counter[str] = Counter()
    for index, values in enumerate(zip(*(split.rows[name][:] for name in names), strict=True)):
        pairs = zip(names, values, features, strict=True)
        lacks = next((name for name, value, feature in pairs if _is_missing(value, feature)), None)
        if lacks is None:
            kept.append(index)
        elif drop:
            reasons[f"{lacks} is empty"] += 1
        else:
            way_out = "fill it, or leave such rows out by --drop_incomplete_rows"
            raise InputError(f"{split.name(index)}: column {lacks} is empty; {way_out}")
    if not reasons:
        return split
    shown = ", ".join(f"column {reason} in {count:,}" for reason, count in reasons.items())
    if not kept:
        raise InputError(f"{split.where}: no row is complete: {shown}")
    say(f"{split.where}: {reasons.total():,} of {len(split.rows):,} rows are left out: {shown}")
    return replace(split.take(kept), left_out=dict(reasons))


def _join_columns(split: Split, names: Sequence[str], column: str) -> Split:
    """One column with the list of a row's labels, instead of one of zeros and ones for each label."""
    labels: list[list[int]] = [[] for _ in range(len(split.rows))]
    for label, name in enumerate(names):
        for index, value in enumerate(split.rows[name][:]):
            marked = MARKS.get(str(value).strip().lower())
            if marked is None:
                raise InputError(f"{split.name(index)}: column {name} holds {value!r}, which is neither 0 nor 1")
            labels[index] += [label] if marked else []
    split = replace(split, rows=split.rows.remove_columns(list(names)))
    return _with_column(split, column, labels, List(ClassLabel(names=list(names))))


def _split_labels(split: Split, column: str, separator: str) -> Split:
    """The text of a label column as a list of labels."""
    labels = []
    for i, value in enumerate(split.rows[column][:]):
        if value is not None and not isinstance(value, str):
            raise InputError(f"{split.name(i)}: column {column} holds {value!r}, not text; remove --label_separator")
        parts = [part.strip() for part in (value or "").split(separator)]
        labels.append(list(dict.fromkeys(part for part in parts if part)))
    return _with_column(split, column, labels, List(Value("string")))


def _with_column(split: Split, column: str, values: list[Any], feature: Any) -> Split:
    rows = split.rows.remove_columns({column} & {*split.rows.column_names})
    return replace(split, rows=rows.add_column(column, values, feature=feature))


def _as_numbers(splits: dict[str, Split], column: str, problem_type: str | None) -> dict[str, Split]:
    """The splits with the text of a CSV file's column as numbers, if it is numbers in all rows of all splits. Raises
    InputError for a decimal comma, and for nan or inf, among such numbers."""
    columns = {
        name: split.rows[column][:]
        for name, split in splits.items()
        if column in split.rows.column_names
        and split.rows.info.builder_name == "csv"
        and getattr(split.rows.features[column], "dtype", "") == "string"
    }
    kind = number_kind(value for values in columns.values() for value in values)
    if kind == "null":
        return splits
    if kind == "string":
        if problem_type in (None, REGRESSION):
            _refuse_no_numbers(splits, columns, column)
        for name, values in columns.items():
            commas = [i for i, value in enumerate(values) if value and DECIMAL_COMMA.fullmatch(value)]
            if commas and number_kind(value and value.replace(",", ".") for value in values) != "string":
                where, value = splits[name].name(commas[0]), values[commas[0]]
                way_out = "write a decimal point, or say --label_separator , if these are several labels"
                raise InputError(f"{where}: column {column} holds {value!r}: {way_out}")
        return splits
    number = int if kind == "int64" else float
    for name, values in columns.items():
        typed = [value if value is None else number(value) for value in values]
        splits = splits | {name: _with_column(splits[name], column, typed, Value(kind))}
    return splits


def _refuse_no_numbers(splits: dict[str, Split], columns: dict[str, list[str | None]], column: str) -> None:
    """Raise InputError for nan or inf where all other values are numbers, and not all of them whole ones. Beside names
    and whole numbers, which may be classes, they may be classes too; nobody calls classes 0.5 and nan."""
    known = [(name, i, value) for name, values in columns.items() for i, value in enumerate(values) if value]
    found = [(name, i, value) for name, i, value in known if NOT_FINITE.fullmatch(value)]
    if found and number_kind(value for _, _, value in known if not NOT_FINITE.fullmatch(value)) == "float64":
        name, i, value = found[0]
        way_out = "correct it, or empty the field and leave the row out by --drop_incomplete_rows"
        raise InputError(f"{splits[name].name(i)}: column {column} holds {value.strip()}, not a number; {way_out}")


def about_rows(split: Split, args: Any) -> list[dict[str, Any]]:
    """What predictions say of each row: its `index` where it came from, from 0, its `id` if a column has it, and its
    `text` by column."""
    ids = split.rows[args.id_column][:] if args.id_column else None
    ids = ids and [value if isinstance(value, str | int | float | None) else str(value) for value in ids]  # dates
    texts = zip(*(split.rows[name][:] for name in args.text_columns), strict=True)
    return [
        {"index": split.number(i) - 1}
        | ({} if ids is None else {"id": ids[i]})
        | {"text": dict(zip(args.text_columns, row, strict=True))}
        for i, row in enumerate(texts)
    ]


def count_left_out(splits: dict[str, Split]) -> dict[str, int]:
    """How many rows of each split were left out, for the results."""
    return {f"{name}_left_out": sum(split.left_out.values()) for name, split in splits.items() if split.left_out}
