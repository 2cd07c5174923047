"""Labelled data for the fine-tuning scripts: from the Hub, a local folder or files, checked before a model loads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from shared.errors import InputError
from shared.files import sha256_of
from shared.tokenizer import tokenizer_hash

FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
}
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
    test_file: str | None = field(
        default=None, metadata={"help": "What --do_predict predicts; labels may be missing."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first N rows only."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate the first N rows only."})
    max_predict_samples: int | None = field(default=None, metadata={"help": "Predict the first N rows only."})

    def __post_init__(self) -> None:
        for name in ("max_train_samples", "max_eval_samples", "max_predict_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} {value}: must be at least 1")

    @property
    def source(self) -> str:
        """What the model was trained on, for readers."""
        return self.dataset_name or Path(self.train_file or "").name


@dataclass(frozen=True)
class Split:
    """Rows and where they came from, for messages: a file, or a dataset and its split."""

    rows: Any  # datasets.Dataset
    where: str

    def first(self, most: int | None) -> "Split":
        """The first rows of it."""
        return self if most is None or most >= len(self.rows) else Split(self.rows.select(range(most)), self.where)


def load_splits(
    args: LabelledDataArguments,
    config: str | None = None,
    read_file: Callable[[str], Any] | None = None,
    renamed: dict[str, str] | None = None,
) -> tuple[dict[str, Split], dict[str, str]]:
    """The splits that there are, by name, and the SHA-256 of what they were read from.

    `config` is the configuration of a Hub dataset unless `dataset_config_name` names one; `read_file` reads a file of
    a format of the task's own; `renamed` says what splits of the dataset are called here. Raises InputError.
    """
    files = {name: getattr(args, f"{name}_file") for name in SPLITS if getattr(args, f"{name}_file")}
    if bool(args.dataset_name) == bool(files):
        raise InputError("give --dataset_name, or --train_file, --validation_file and --test_file: one of the two")
    if args.dataset_name:
        loaded = _load_dataset(args.dataset_name, args.dataset_config_name or config)
        splits: dict[str, Split] = {}
        hashes: dict[str, str] = {}
        for name, rows in loaded.items():
            name = (renamed or {}).get(name, name)
            splits[name] = Split(rows, f"{args.dataset_name}, split {name}")
            hashes |= {f"{name}/{i}": sha256_of(file["filename"]) for i, file in enumerate(rows.cache_files)}
    else:
        splits = {name: Split((read_file or read_rows)(path), path) for name, path in files.items()}
        hashes = {name: sha256_of(path) for name, path in files.items()}
    for split in splits.values():
        if not len(split.rows):
            raise InputError(f"{split.where}: holds no rows")
    return splits, hashes


def _load_dataset(name: str, config: str | None) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(name) if Path(name).is_dir() else load_dataset(name, config)
    except Exception as error:  # the library has dozens of its own
        shown = f"{name} --dataset_config_name {config}" if config and not Path(name).is_dir() else name
        raise InputError(f"--dataset_name {shown}: cannot be loaded: {' '.join(str(error).split())[:400]}") from error


def read_rows(path: str) -> Any:
    """The rows of one file. Raises InputError for a file that is missing, of another kind or damaged."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    suffix = Path(path).suffix
    if suffix not in FORMATS:
        raise InputError(f"{path}: unknown kind of file; the ones read here end in {', '.join(FORMATS)}")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    if not Path(path).stat().st_size:
        raise InputError(f"{path}: the file is empty")
    more: dict[str, Any] = {}
    if FORMATS[suffix] == "csv":
        # "NA" and "None" are words; a field that is empty is a missing one.
        more = {"keep_default_na": False, "na_values": [""], "sep": "\t" if suffix == ".tsv" else ","}
        more |= {"quoting": 3} if suffix == ".tsv" else {}  # in TSV files a quote is a quote
    try:
        return load_dataset(FORMATS[suffix], data_files=[path], split="train", **more)
    except (DatasetGenerationError, ValueError, OSError) as error:
        cause = " ".join(str(error.__cause__ or error).split())[:400]
        # What the library says of a CSV file with a header alone, and of a parquet file without rows.
        if "corresponds to no data" in cause or "BatchSize must be greater than 0" in cause:
            raise InputError(f"{path}: holds no rows") from error
        raise InputError(f"{path}: not a readable {suffix} file: {cause}") from error


def data_identity(hashes: dict[str, str], tokenizer: Any) -> dict[str, Any]:
    """What a resumed run compares of its data: the files, and how text becomes tokens."""
    return {"files": hashes, "tokenizer": tokenizer_hash(tokenizer)}


def check_columns(split: Split, names: Sequence[str], kind: str = "any") -> None:
    """Raise InputError unless the split has these columns, without nulls and, if `kind` is "text", as text."""
    import pyarrow as pa

    table = split.rows.data.table
    for name in names:
        if name not in split.rows.column_names:
            raise InputError(f"{split.where}: has no column {name}; there are {', '.join(split.rows.column_names)}")
        column = table.column(name)
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if kind == "text" and not text and not pa.types.is_null(column.type):
            raise InputError(f"{split.where}: column {name} holds {column.type}, not text")
        if column.null_count:
            row = pc.index(pc.is_null(column), True).as_py() + 1
            raise InputError(f"{split.where}: row {row} (of {len(table):,}): column {name} is empty")


def choose_splits(splits: dict[str, Split], data_args: LabelledDataArguments, training_args: Any) -> dict[str, Split]:
    """The splits that --do_train, --do_eval and --do_predict ask for, as far as the --max_..._samples allow.

    A split may come in parts, as MNLI's validation_mismatched. Raises InputError for one that is not there.
    """
    most = (data_args.max_train_samples, data_args.max_eval_samples, data_args.max_predict_samples)
    asked = (training_args.do_train, training_args.do_eval, training_args.do_predict)
    chosen: dict[str, Split] = {}
    for role, flag, limit, wanted in zip(SPLITS, ("do_train", "do_eval", "do_predict"), most, asked, strict=True):
        parts = {name: split.first(limit) for name, split in splits.items() if f"{name}_".startswith(f"{role}_")}
        if wanted and role not in parts:
            raise InputError(
                f"--{flag}: there is no {role} split (there are: {', '.join(splits)}); name --{role}_file, or switch "
                f"this off by --{flag} false"
            )
        chosen |= parts if wanted else {}
    if not chosen:
        raise InputError("--do_train, --do_eval, --do_predict: all are off, there is nothing to do")
    return chosen


def split_off(rows: Any, share: float, seed: int) -> tuple[Any, Any]:
    """The rows without a share of them, and this share, drawn by seed: for a search, which must not see validation."""
    parts = rows.train_test_split(test_size=share, seed=seed)
    return parts["train"], parts["test"]
