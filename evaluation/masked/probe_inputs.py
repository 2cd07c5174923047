"""What the probes of run_probes.py read: checked before the weights of any model are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.masked.copy_probe import choose_words
from evaluation.masked.dated_cloze import read_cloze
from evaluation.masked.text_sample import FirstDocuments, choose_sentences
from evaluation.run_blimp import load_pairs
from finetuning.common.data import LabelledDataArguments, Split, check_columns, load_splits, read_rows
from shared.errors import InputError

OF_TABLES = ("--file_encoding", "--csv_separator", "--csv_quotes", "--column_names")
PAIRS = 20  # of each paradigm of BLiMP


@contextmanager
def errors_of(flag: str) -> Iterator[None]:
    """Errors of parts of other scripts, which call their flags --input, --dataset_name or --pll, name this one."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for other in ("--input", "--dataset_name", "--pll"):
            text = text.replace(other, f"--{flag}")
        if any(name in text for name in OF_TABLES):
            text += " (these are flags of the fine-tuning scripts; here save the file as parquet, or as CSV in UTF-8)"
        raise InputError(text if text.startswith("--") else f"--{flag} {text}") from error


def load_validation(source: str, flag: str, config: str | None = None) -> Split:
    """The rows of a file, or the validation split of a folder or a dataset of the Hub. Raises InputError."""
    with errors_of(flag):
        if Path(source).is_file():
            split = Split(read_rows(source), source)
            if not len(split.rows):
                raise InputError(f"{source}: holds no rows")
            return split
        splits, _ = load_splits(LabelledDataArguments(dataset_name=source), config)
        if "validation" not in splits:
            raise InputError(f"{source}: has no validation split; there are {', '.join(splits)}")
        return splits["validation"]


def load_scored_pairs(source: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """All sentences, each once; (pairs, 2) numbers of sentences; (pairs,) float64 human scores. Raises InputError."""
    split = load_validation(source, "stsb", "stsb")
    with errors_of("stsb"):
        check_columns(split, ("sentence1", "sentence2"), "text")
        check_columns(split, ("label",))
        try:
            labels = np.array(split.rows["label"], dtype=np.float64)
        except ValueError as error:
            raise InputError(f"{split.where}: column label holds what is no number: {error}") from error
        if len(labels) < 2 or not np.isfinite(labels).all() or np.ptp(labels) == 0:
            raise InputError(f"{split.where}: column label needs at least two scores that differ, all finite")
    both = [*zip(split.rows["sentence1"], split.rows["sentence2"], strict=True)]
    places = {text: place for place, text in enumerate(dict.fromkeys(text for pair in both for text in pair))}
    return [*places], np.array([[places[a], places[b]] for a, b in both]), labels


def load_all(
    stsb: str | None, copy_text: Sequence[str], max_samples: int, blimp: str | None, cloze: str | None
) -> dict[str, Any]:
    """What each probe reads but the masked accuracy, by its name. Raises InputError."""
    data: dict[str, Any] = {}
    if stsb:
        data["similarity"] = load_scored_pairs(stsb)
    if copy_text or stsb:
        with errors_of("copy_text" if copy_text else "stsb"):
            if copy_text:
                texts = choose_sentences(FirstDocuments([*copy_text], None), 0, max_samples)
            else:
                texts = data["similarity"][0]
            data["copy"] = choose_words(texts, max_samples)
    if blimp:
        with errors_of("blimp"):
            data["blimp"] = load_pairs(blimp, PAIRS)
    if cloze:
        split = load_validation(cloze, "cloze")
        with errors_of("cloze"):
            data["cloze"] = read_cloze(split)
    return data
