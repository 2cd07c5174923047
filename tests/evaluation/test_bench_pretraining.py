import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from evaluation.bench.mlm import BenchArguments, make_table, make_variants
from shared.errors import InputError

# Makes libraries invisible to a Python process, as on a bare GPU machine.
HIDE = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *args):
        if name.partition(".")[0] not in ("datasets", "deepspeed", "evaluate", "xxhash"):
            return self.finder.find_spec(name, *args)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


@pytest.mark.faults
def test_both_paths_run_on_the_libraries_of_a_bare_gpu_machine(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    flags = ["--vocab_sizes", "300", "--seq_lengths", "32", "--batch_size", "4", "--rounds", "1", "--seconds", "0.1"]
    flags += ["--config_overrides", "hidden_size=16,intermediate_size=16", "--variants", "bf16: --bf16"]
    done = subprocess.run(
        [sys.executable, "evaluation/bench/mlm.py", *flags, "--output_dir", str(tmp_path / "out")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    (row,) = json.loads((tmp_path / "out" / "bench_pretraining.json").read_text())
    assert row["ratio"] == pytest.approx(row["tokens_per_second"] / row["stock_tokens_per_second"])
    assert (row["size"], row["vocab_size"], row["seq_length"], row["precision"]) == ("tiny", 300, 32, "fp32")
    assert min(row["peak_memory_gib"], row["stock_peak_memory_gib"], row["peak_tflops"]) > 0
    assert row["versions"]["torch"] and "datasets" in row["versions"] and row["device"]
    assert len(row["rounds"]["stock"]) == 1
    variant = row["variants"]["bf16"]
    assert variant["ratio"] == pytest.approx(variant["tokens_per_second"] / row["stock_tokens_per_second"])
    table = (tmp_path / "out" / "bench_pretraining.md").read_text()
    assert f"{row['tokens_per_second']:,.0f}" in table and table in done.stdout and row["products"] in table


def test_variants_stand_beside_ours_and_the_stock_path():
    row = {
        "size": "tiny", "model_type": "bert", "seq_length": 128, "batch_size": 32, "vocab_size": 300,
        "stock_tokens_per_second": 100.0, "tokens_per_second": 600.0, "ratio": 6.0, "peak_memory_gib": 1.0,
        "stock_peak_memory_gib": 2.0, "model_flops_utilization": 0.5, "stock_model_flops_utilization": 0.1,
        "share_data": 0.01, "peak_tflops": 0.1, "precision": "fp32", "device": "a device", "versions": {"torch": "1"},
        "rounds": {"ours": [600]}, "products": "torch uses AVX512",
    }  # fmt: skip
    variant = {"tokens_per_second": 900.0, "peak_memory_gib": 1.5, "ratio_to_ours": 1.5}
    more = {"ratio": 9.0, "model_flops_utilization": 0.25, "peak_tflops": 0.3}
    table = make_table([row | {"variants": {"bf16": variant | more}}])
    assert "| bf16 | 900 | 1.50 | 1.50 | 9.0 | 25% | 0.3 |" in table and "a device; torch uses AVX512; one" in table
    older = {name: value for name, value in row.items() if name != "products"}
    table = make_table([older | {"variants": {"bf16": variant}}])
    assert "| bf16 | 900 | 1.50 | 1.50 |\n" in table and "utilisation |" not in table.splitlines()[-4]


def test_variants_are_flags_and_variables():
    args = BenchArguments("out", variants=["old: A=1 B=x=y --optim adamw_torch --bf16 false"], skip_stock=True)
    variants = make_variants(args, "cpu")
    assert "--bf16" in make_variants(args, "cuda")["ours"][0]
    assert list(variants) == ["ours", "old"]
    assert variants["old"] == (
        [*variants["ours"][0], "--optim", "adamw_torch", "--bf16", "false"],
        {"A": "1", "B": "x=y"},
    )


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *[
            ("variants", [text])
            for text in ("nonsense", "ours: --bf16", "new: A --bf16", "empty:", "open: --optim 'a")
        ],
        *[("sizes", ["hugo"]), ("model_type", "gpt"), ("vocab_sizes", [5]), ("seq_lengths", [1]), ("rounds", 0)],
    ],
)
def test_wrong_flags_are_refused_before_anything_runs(flag, value):
    with pytest.raises(InputError, match=f"--{flag}"):
        BenchArguments("out", **{flag: value})


def test_the_table_sets_small_vocabularies_against_the_largest():
    def row(vocab_size, stock, ours):
        return {
            "size": "tiny", "model_type": "bert", "seq_length": 128, "batch_size": 32, "vocab_size": vocab_size,
            "stock_tokens_per_second": stock, "tokens_per_second": ours, "ratio": ours / stock,
            "peak_memory_gib": 1.0, "stock_peak_memory_gib": 2.0, "model_flops_utilization": 0.5,
            "stock_model_flops_utilization": 0.1, "share_data": 0.01, "peak_tflops": 0.1, "precision": "fp32",
            "device": "a device", "versions": {"torch": "1"}, "rounds": {"ours": [ours]}, "variants": {},
        }  # fmt: skip

    lines = make_table([row(30522, 1000, 6000), row(8192, 3000, 12000)]).splitlines()
    assert "| **6.0** | 6.0 (30,522) |" in lines[2] and "| **4.0** | 12.0 (30,522) |" in lines[3]


def test_the_gpu_report_says_what_is_missing_before_it_starts(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE.replace('"datasets"', '"matplotlib", "psutil", "datasets"'))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "evaluation/gpu_report.sh", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PATH": path}, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "") and not (tmp_path / "out").exists()
    assert done.stderr == "error: not installed: matplotlib psutil; run pip install matplotlib psutil\n"
