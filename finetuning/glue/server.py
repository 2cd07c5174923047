"""Predictions of GLUE's test sets in the format of its server, gluebenchmark.com.

One file for each test set: a line `index<TAB>prediction`, then one line per row in the order of the set, from 0. The
server takes a zip of all eleven files: `zip submission.zip *.tsv`; MNLI and the diagnostic set AX are predicted by one
model. Names, sizes and values are those of the benchmark (Wang et al., 2018); the number of rows and the names of the
labels are checked here, before anything is uploaded.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from shared.errors import InputError
from shared.files import atomic_file

# Each test set: its file, its rows, its labels in the order of the Hub's numbers, whether they are written as words.
_INFERENCE = ("entailment", "neutral", "contradiction")
_BINARY = ("entailment", "not_entailment")
TEST_SETS: dict[str, tuple[str, int, tuple[str, ...], bool]] = {
    "cola": ("CoLA.tsv", 1063, ("unacceptable", "acceptable"), False),
    "sst2": ("SST-2.tsv", 1821, ("negative", "positive"), False),
    "mrpc": ("MRPC.tsv", 1725, ("not_equivalent", "equivalent"), False),
    "stsb": ("STS-B.tsv", 1379, (), False),
    "qqp": ("QQP.tsv", 390_965, ("not_duplicate", "duplicate"), False),
    "mnli": ("MNLI-m.tsv", 9796, _INFERENCE, True),
    "mnli_mismatched": ("MNLI-mm.tsv", 9847, _INFERENCE, True),
    "qnli": ("QNLI.tsv", 5463, _BINARY, True),
    "rte": ("RTE.tsv", 3000, _BINARY, True),
    "wnli": ("WNLI.tsv", 146, ("not_entailment", "entailment"), False),
    "ax": ("AX.tsv", 1104, _INFERENCE, True),
}


def why_not_for_server(task: str, names: Sequence[str], rows: int) -> str | None:
    """Why predictions cannot go to the server, or None if they can; known before anything is trained.

    `names` are the model's labels in any order: GLUE's words, or their numbers as on the Hub ("0", "1"); none for
    stsb. `task` is a key of TEST_SETS.
    """
    file, wanted, labels, _ = TEST_SETS[task]
    if rows != wanted:
        return f"{file}: the server wants {wanted:,} rows, and there are {rows:,}"
    unknown = [name for name in names if labels and name not in _values(task)]
    if unknown:
        return f"{file}: label {unknown[0]!r} is neither one of {', '.join(labels)} nor its number"
    return None


def write_server_file(folder: str | Path, task: str, predictions: Sequence[str] | Sequence[float]) -> Path:
    """Write the file of one test set into `folder` and return its path.

    `predictions`, in the order of the test set: the names of the predicted labels, or numbers for stsb, which are
    clipped to 0..5 and written with three decimals. Raises InputError when the server would refuse the file.
    """
    reason = why_not_for_server(task, [str(label) for label in {*predictions}], len(predictions))
    if reason:
        raise InputError(reason)
    if task == "stsb":
        numbers = [float(value) for value in predictions]
        for row, number in enumerate(numbers):
            if not math.isfinite(number):
                raise InputError(f"{TEST_SETS[task][0]}: the prediction of row {row} is {number}")
        lines = [f"{min(max(number, 0.0), 5.0):.3f}" for number in numbers]
    else:
        values = _values(task)
        lines = [values[str(label)] for label in predictions]
    path = Path(folder, TEST_SETS[task][0])
    with atomic_file(path) as file:
        rows = "".join(f"{index}\t{value}\n" for index, value in enumerate(lines))
        file.write_text("index\tprediction\n" + rows, encoding="utf-8", newline="\n")
    return path


def _values(task: str) -> dict[str, str]:
    """What the server calls a label, by its name and by its number."""
    _, _, labels, as_words = TEST_SETS[task]
    value = {label: label if as_words else str(number) for number, label in enumerate(labels)}
    return value | {str(number): value[label] for number, label in enumerate(labels)}
