import os
from pathlib import Path

import pytest

from finetuning.glue.server import TEST_SETS, why_not_for_server, write_server_file
from shared.errors import InputError

GLUE = Path(os.environ.get("TINY_OLM_DATA", "nowhere"), "glue")


def fill(task, first):
    """As many predictions as the server wants, `first` at the start and then its first value."""
    return [*first, *[first[0]] * (TEST_SETS[task][1] - len(first))]


def read(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_the_eleven_files_of_a_submission():
    assert {file for file, *_ in TEST_SETS.values()} == {
        *("CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "STS-B.tsv", "QQP.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "QNLI.tsv"),
        *("RTE.tsv", "WNLI.tsv", "AX.tsv"),
    }


@pytest.mark.parametrize(
    ("task", "names", "written"),
    [
        ("cola", ["acceptable", "unacceptable"], ["1", "0"]),
        ("sst2", ["negative", "positive"], ["0", "1"]),
        ("mrpc", ["1", "0"], ["1", "0"]),
        ("wnli", ["entailment", "not_entailment"], ["1", "0"]),
        ("rte", ["entailment", "not_entailment"], ["entailment", "not_entailment"]),
        ("qnli", ["1", "0"], ["not_entailment", "entailment"]),
        ("mnli", ["contradiction", "neutral", "entailment"], ["contradiction", "neutral", "entailment"]),
        ("mnli_mismatched", ["2", "1", "0"], ["contradiction", "neutral", "entailment"]),
        ("ax", ["neutral", "entailment"], ["neutral", "entailment"]),
        ("stsb", [-0.4, 2.71828, 5.6, 5], ["0.000", "2.718", "5.000", "5.000"]),
    ],
)
def test_labels_are_written_as_the_server_calls_them(tmp_path, task, names, written):
    path = write_server_file(tmp_path, task, fill(task, names))
    header, *rows = read(path)
    assert path == tmp_path / TEST_SETS[task][0] and header == ["index", "prediction"]
    assert [value for _, value in rows[: len(names)]] == written
    assert [index for index, _ in rows] == [str(i) for i in range(TEST_SETS[task][1])]


def test_what_the_server_would_refuse_is_not_written(tmp_path):
    assert why_not_for_server("mrpc", ["equivalent", "not_equivalent"], 1725) is None
    assert why_not_for_server("stsb", [], 1379) is None
    assert "1,725 rows, and there are 8" in why_not_for_server("mrpc", ["equivalent"], 8)
    assert "'LABEL_0'" in why_not_for_server("mrpc", ["LABEL_0", "LABEL_1"], 1725)
    with pytest.raises(InputError, match="146 rows, and there are 2"):
        write_server_file(tmp_path, "wnli", ["entailment", "entailment"])
    with pytest.raises(InputError, match="'neutral'"):
        write_server_file(tmp_path, "rte", fill("rte", ["entailment", "neutral"]))
    with pytest.raises(InputError, match=r"STS-B.tsv: the prediction of row 1 is nan"):
        write_server_file(tmp_path, "stsb", fill("stsb", [1.0, float("nan")]))
    assert not list(tmp_path.iterdir())


@pytest.mark.data
@pytest.mark.skipif(not GLUE.is_dir(), reason="TINY_OLM_DATA is not set")
def test_sizes_and_labels_are_those_of_the_real_sets():
    from datasets import load_dataset

    for task in ("sst2", "mrpc", "stsb"):
        rows = load_dataset(str(GLUE / task), split="test")
        assert why_not_for_server(task, getattr(rows.features["label"], "names", []), len(rows)) is None
    for task in ("cola", "rte", "wnli"):
        names = load_dataset(str(GLUE / task), split="validation").features["label"].names
        assert TEST_SETS[task][2] == tuple(names)
