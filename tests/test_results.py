"""The results table of the README says what the result files say."""

import json

import pytest
from conftest import ROOT
from faults import tables

from data_prep import bench_stages
from evaluation.bench_pretraining import make_table

FILES = sorted((ROOT / "pretraining" / "results").glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_readme_agrees_with_the_result_file(file):
    results = json.loads(file.read_text())["results"]
    row = next(x for x in (ROOT / "README.md").read_text().splitlines() if x.startswith(f"| [`{file.stem}`]"))
    for number in (
        f"{results['train_tokens'] / 1e6:.1f}M",
        f"{results['eval_loss']:.3f}",
        f"{results['eval_masked_accuracy']:.3f}",
        f"{results['eval_most_frequent_token_accuracy']:.3f}",
        f"{results['eval_bits_per_byte']:.3f}",
        f"{results['train_tokens_per_second']:,.0f}",
        f"{results['train_runtime'] / 60:.1f} min",
    ):
        assert f" {number} " in row, f"{number} is not in the row of {file.stem}"
    assert file.with_suffix(".png").is_file()


def test_the_tables_of_the_fault_tests_are_those_of_their_record():
    report = json.loads((ROOT / "shared" / "faults.json").read_text())
    assert tables(report) in (ROOT / "shared" / "README.md").read_text()
    assert sum(row["kills"] for row in report["kills"]) >= 50
    assert all(row["same_bits"] == row["kills"] for row in report["kills"])
    cells = [cell for row in report["damage"].values() for cell in row.values()]
    assert len(cells) == 48 and set(cells) <= {"recovered", "refused", "aborted"} and cells.count("aborted") <= 1


def test_the_tables_of_the_speed_benchmark_are_those_of_their_record():
    folder, page = ROOT / "evaluation" / "results", (ROOT / "evaluation" / "README.md").read_text()
    assert make_table(json.loads((folder / "pretraining_cpu.json").read_text())) in page
    knobs = make_table(json.loads((folder / "knobs_cpu.json").read_text()))
    assert knobs[knobs.index("| model | vocabulary | length | variant") :] in page


def test_the_tables_of_the_data_stages_are_those_of_their_records():
    folder, page = ROOT / "data_prep" / "results", (ROOT / "data_prep" / "README.md").read_text()
    assert bench_stages.make_table(json.loads((folder / "real_files.json").read_text())) in page
    speed = json.loads((folder / "speed.json").read_text())
    for row in speed:
        assert f"| {row['task']} | {row['side']} | {row['per_second']:,.0f} |" in page
    rate = {(row["task"], row["side"]): row for row in speed}
    assert rate["web", "ours"]["per_second"] >= 100 and rate["web", "datatrove"]["ratio"] >= 2
    assert rate["wikipedia", "ours"]["per_second"] >= 60 and rate["signatures", "ours"]["per_second"] >= 800


def test_the_filters_decide_as_the_reference_does():
    report = json.loads((ROOT / "data_prep" / "results" / "filters.json").read_text())
    assert report["documents"] >= 1000 and len(report["agree"]) >= 40
    assert min(report["agree"].values()) >= 0.995
