"""Labelled data for the fine-tuning scripts: from the Hub, a local folder or files, checked before a model loads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from finetuning.common.tables import TextFormat, format_of, read_rows
from shared.command_line import check_ranges, refuse_flags
from shared.errors import InputError, one_line
from shared.files import content_hash, sha256_of

SPLITS = ("train", "validation", "test")


@dataclass
class LabelledDataArguments:
    dataset_name: str | None = field(
        default=None, metadata={"help": "A dataset of the Hub, by id, or a folder that load_dataset reads."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "The configuration of that dataset."})
    train_file: str | None = field(
        default=None, metadata={"help": "Files instead: parquet, CSV, TSV, JSON or JSON lines, by their suffix."}
    )
    validation_file: str | None = field(default=None, metadata={"help": "What is evaluated."})
    test_file: str | None = field(default=None, metadata={"help": "What --do_predict predicts; labels are optional."})
    file_encoding: str | None = field(
        default=None,
        metadata={"help": "The encoding of CSV, TSV and JSON. Default: as the byte order mark says, else UTF-8."},
    )
    csv_separator: str | None = field(
        default=None, metadata={"help": "What separates columns: , ; | tab. Default: as in the header."}
    )
    csv_quotes: bool | None = field(
        default=None, metadata={"help": "Whether quotes hold a field together. Default: in CSV yes, in TSV no."}
    )
    column_names: list[str] = field(default_factory=list, metadata={"help": "The columns, if a file has no header."})
    validation_fraction: float | None = field(
        default=None,
        metadata={"help": "Hold out about this share of training as validation, by a hash of the text of a row."},
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first N rows only."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate the first N rows only."})
    max_predict_samples: int | None = field(default=None, metadata={"help": "Predict the first N rows only."})

    def __post_init__(self) -> None:
        check_ranges(self, validation_fraction="> 0, < 1")
        separator = "\t" if self.csv_separator in ("tab", "\\t") else self.csv_separator
        if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
            raise InputError(f"--csv_separator {self.csv_separator}: must be one character, for example ; or tab")
        if len(set(self.column_names)) < len(self.column_names):
            raise InputError(f"--column_names {' '.join(self.column_names)}: one is named twice")
        self.text_format = TextFormat(self.file_encoding, separator, self.csv_quotes, tuple(self.column_names))

    @property
    def source(self) -> str:
        """What the model was trained on, for readers."""
        return self.dataset_name or Path(self.train_file or "").name


@dataclass(frozen=True)
class Split:
    """Rows and where they came from, for messages: a file, or a dataset and its split. `numbers` are those that the
    rows have there, from 1, where rows have been left out, and `left_out` counts these by reason."""

    rows: Any  # datasets.Dataset
    where: str
    numbers: Sequence[int] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def number(self, index: int) -> int:
        """The number of a row where it came from."""
        return index + 1 if self.numbers is None else self.numbers[index]

    def name(self, index: int) -> str:
        """Where a row is."""
        return f"{self.where}: row {self.number(index)}"

    def take(self, indices: Sequence[int]) -> "Split":
        """Some of the rows."""
        return replace(self, rows=self.rows.select(indices), numbers=[self.number(index) for index in indices])

    def first(self, most: int | None) -> "Split":
        """The first rows of it."""
        return self if most is None or most >= len(self.rows) else self.take(range(most))


def load_splits(
    args: LabelledDataArguments,
    config: str | None = None,
    read_file: Callable[[str, TextFormat], Any] = read_rows,
    renamed: dict[str, str] | None = None,
) -> tuple[dict[str, Split], dict[str, str]]:
    """The splits that there are, by name, and the SHA-256 of what they were read from.

    `config` is the configuration of a Hub dataset unless `dataset_config_name` names one; `read_file` reads a file of
    a format of the task's own; `renamed` says what splits of the dataset are called here. Raises InputError.
    """
    files = {name: getattr(args, f"{name}_file") for name in SPLITS if getattr(args, f"{name}_file")}
    if bool(args.dataset_name) == bool(files):
        raise InputError("give --dataset_name, or --train_file, --validation_file and --test_file: one of the two")
    if files:
        refuse_flags(args, {"dataset_config_name": "is for --dataset_name"})
    files = files or _tables_of(str(args.dataset_name))
    if not files:
        if args.text_format != TextFormat():
            raise InputError(
                "--file_encoding, --csv_separator, --csv_quotes, --column_names: are for files, not for --dataset_name"
            )
        loaded = _load_dataset(str(args.dataset_name), args.dataset_config_name or config)
        splits: dict[str, Split] = {}
        hashes: dict[str, str] = {}
        for name, rows in loaded.items():
            name = (renamed or {}).get(name, name)
            splits[name] = Split(rows, f"{args.dataset_name}, split {name}")
            hashes |= {f"{name}/{i}": sha256_of(file["filename"]) for i, file in enumerate(rows.cache_files)}
    else:
        kinds = {format_of(path) for path in files.values()}  # None: a format of the task's own
        if not kinds & {"csv", "tsv", None}:
            refuse_flags(args, dict.fromkeys(("csv_separator", "csv_quotes", "column_names"), "is for CSV and TSV"))
        if kinds == {"parquet"}:
            refuse_flags(args, {"file_encoding": "parquet says itself how its text is encoded"})
        splits = {name: Split(read_file(path, args.text_format), path) for name, path in files.items()}
        hashes = {name: sha256_of(path) for name, path in files.items()}
    for split in splits.values():
        if not len(split.rows):
            raise InputError(f"{split.where}: holds no rows")
    return splits, hashes


def _tables_of(folder: str) -> dict[str, str]:
    """The CSV and TSV files of a folder that are called as splits: load_dataset would guess what their columns are."""
    files = sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []
    tables = {file.name.split(".")[0]: str(file) for file in files if format_of(file)}
    are_text = all(format_of(path) in ("csv", "tsv") for path in tables.values())
    return tables if are_text and set(tables) <= set(SPLITS) else {}


def _load_dataset(name: str, config: str | None) -> Any:
    try:
        if not Path(name).is_dir():
            return datasets.load_dataset(name, config)
        # The library finds its copy of a folder whose README.md names the files by the folder's name and that page
        # alone, and so gave the rows of another folder, or of a file before it was changed.
        files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in Path(name).resolve().rglob("*")]
        cache = Path(datasets.config.HF_DATASETS_CACHE, content_hash(sorted(files)))
        return datasets.load_dataset(name, cache_dir=str(cache))
    except Exception as error:  # the library has dozens of its own
        shown = f"{name}, configuration {config}" if config and not Path(name).is_dir() else name
        raise InputError(f"--dataset_name {shown}: cannot be loaded: {one_line(error)}") from error


def check_columns(split: Split, names: Sequence[str] | Mapping[str, str], kind: str = "any") -> None:
    """Raise InputError unless the split has these columns, without nulls and, if `kind` is "text", as text."""
    check_there(split, names)
    for name in names:
        column = split.rows.with_format("arrow")[name][:]
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if kind == "text" and not text and not pa.types.is_null(column.type):
            raise InputError(f"{split.where}: column {name} holds {column.type}, not text")
        if column.null_count:
            index = pc.index(pc.is_null(column), True).as_py()
            more = f", as in {column.null_count - 1:,} more" if column.null_count > 1 else ""
            raise InputError(f"{split.name(index)}: column {name} is empty{more}")


def check_there(split: Split, names: Sequence[str] | Mapping[str, str]) -> None:
    """Raise InputError unless the split has these columns. `names` may say for each the flag that names it."""
    for name in names:
        if name not in split.rows.column_names:
            shown = ", ".join(name if len(name) <= 40 else f"{name[:40]}..." for name in split.rows.column_names)
            way_out = f"; name it by --{names[name]}" if isinstance(names, Mapping) else ""
            if split.rows.info.builder_name == "csv":
                way_out += "; if row 1 of the file is no header, name all its columns by --column_names"
            raise InputError(f"{split.where}: has no column {name}; there are {shown}{way_out}")


def check_roles(*roles: tuple[str, str | None]) -> None:
    """Raise InputError where one column has two roles. A role is a flag and the column that it names."""
    flags: dict[str, str] = {}
    for flag, column in roles:
        if column in flags:
            shown = ", ".join(dict.fromkeys((f"--{flags[column]}", f"--{flag}")))
            raise InputError(f"{shown}: column {column} is taken twice; each needs one of its own")
        if column is not None:
            flags[column] = flag


def choose_splits(splits: dict[str, Split], data_args: LabelledDataArguments, training_args: Any) -> dict[str, Split]:
    """The splits that --do_train, --do_eval and --do_predict ask for, as far as the --max_..._samples allow. A split
    may come in parts, as MNLI's validation_mismatched. Raises InputError for one that is not there."""
    most = (data_args.max_train_samples, data_args.max_eval_samples, data_args.max_predict_samples)
    asked = (training_args.do_train, training_args.do_eval, training_args.do_predict)
    chosen: dict[str, Split] = {}
    for role, flag, limit, wanted in zip(SPLITS, ("do_train", "do_eval", "do_predict"), most, asked, strict=True):
        parts = {name: split.first(limit) for name, split in splits.items() if f"{name}_".startswith(f"{role}_")}
        if wanted and role not in parts:
            there = ", ".join(splits)
            raise InputError(f"--{flag}: there is no {role} split ({there}); name --{role}_file, or --{flag} false")
        chosen |= parts if wanted else {}
    if not chosen:
        raise InputError("--do_train, --do_eval, --do_predict: all are off, there is nothing to do")
    return chosen


def split_off(rows: Any, share: float, seed: int) -> tuple[Any, Any]:
    """The rows without a share of them, and this share, drawn by seed: for a search, which must not see validation."""
    parts = rows.train_test_split(test_size=share, seed=seed)
    return parts["train"], parts["test"]
