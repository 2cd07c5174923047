"""What is known of a document between the phases of build_corpus.py: a `RECORD` of 22 bytes on disk."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np

from data_prep.corpus.contamination import Index
from shared.rows import STATE

TRAIN, VALIDATION, DATED, EMPTY, CONTAMINATED, UNDATED, BAD, OLD = range(8)
REASONS = {
    EMPTY: "empty text",
    CONTAMINATED: "contains evaluation text",
    UNDATED: "no date to compare with --validation_from or --documents_after",
    BAD: "damaged",
    OLD: "not after --documents_after",
}
NOT_SAMPLED = "not in the sample"
FOLDERS = {TRAIN: "", VALIDATION: "validation", DATED: "validation_dated"}
RECORD = np.dtype(
    [("position", "<i8"), ("bin", "<u4"), ("tokens", "<u4"), ("bytes", "<u4"), ("fate", "u1"), ("hit", "?")]
)


def examined_parts(output_dir: str, source: int) -> Iterator[tuple[int, np.ndarray]]:
    """The records of a source, part by part."""
    for number in count():
        path = Path(output_dir, STATE, "examined", f"{source:05d}-{number:05d}.npy")
        if not path.is_file():
            return
        yield number, np.load(path)


def rows_by_folder(records: np.ndarray, threshold: int, number: int) -> dict[str, int]:
    """How many rows pass `number` writes of these documents to each folder."""
    taken = records["bin"] < threshold
    rows = {folder: int(np.count_nonzero(taken & (records["fate"] == outcome))) for outcome, folder in FOLDERS.items()}
    return {"": rows[""]} if number else rows | {"dropped": len(records) - sum(rows.values())}


@lru_cache(maxsize=1)
def index_of(output_dir: str) -> Index:
    """The n-grams of the evaluation sets, which the first phase has written."""
    return Index(Path(output_dir, STATE, "index.npz"))
