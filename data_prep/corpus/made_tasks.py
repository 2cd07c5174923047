"""Tasks that plain text sets by itself: the flags of the scripts that make them, and the folder that they write."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shared.documents import HELP, Documents
from shared.errors import InputError
from shared.files import atomic_folder, write_json

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")  # English: the next sentence begins with a capital


@dataclass
class TaskArguments:
    input: list[str] = field(metadata={"help": HELP})
    output_dir: str = field(metadata={"help": "The folder to write; it must not hold files yet."})
    validation_fraction: float = field(default=0.01, metadata={"help": "Share of the documents held out, by hash."})
    seed: int = field(default=42, metadata={"help": "Another seed takes other parts of the same documents."})

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"--validation_fraction {self.validation_fraction}: must be between 0 and 1")


def write_task(
    args: TaskArguments, documents: Documents, splits: Mapping[str, list[dict[str, Any]]], facts: dict[str, Any]
) -> dict[str, Any]:
    """Write the rows of each split as parquet, and report.json: settings, input, `facts`, what was skipped. Returns
    the report."""
    report = {"settings": vars(args) | {"output_dir": None}, "input": documents.describe(), **facts}
    report["skipped"] = dict(documents.skipped)
    with atomic_folder(args.output_dir) as folder:
        for name, rows in splits.items():
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
        write_json(folder / "report.json", report)
    return report
