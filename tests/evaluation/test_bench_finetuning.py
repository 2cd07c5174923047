import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from datasets import ClassLabel, Dataset, Features, Value
from transformers import BertConfig, BertModel

from evaluation.bench.glue import BenchArguments, make_table, make_variants, summarize
from shared.errors import InputError


@pytest.fixture
def checkpoint(tmp_path, wordpiece):
    config = BertConfig(
        vocab_size=len(wordpiece), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=128,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "model")
    wordpiece.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def glue(tmp_path):
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["negative", "positive"])})
    (tmp_path / "glue" / "sst2").mkdir(parents=True)
    for split, count in (("train", 24), ("validation", 10)):
        rows = {
            "sentence": [f"words {i} " * (1 + i % 5) for i in range(count)],
            "label": [i % 2 for i in range(count)],
        }
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "glue" / "sst2" / f"{split}.parquet")
    return tmp_path / "glue"


@pytest.mark.faults
def test_both_paths_train_on_the_same_rows(tmp_path, checkpoint, glue):
    flags = ["--model_name_or_path", checkpoint.name, "--dataset_name", "glue", "--tasks", "sst2", "--batch_size", "4"]
    flags += ["--num_train_epochs", "1", "--seeds", "1", "--output_dir", "out"]
    flags += ["--max_train_samples", "16", "--max_eval_samples", "8", "--learning_rate", "1e-9"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "evaluation" / "bench" / "glue.py"), *flags],
        cwd=tmp_path,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    (row,) = json.loads((tmp_path / "out" / "bench_finetuning.json").read_text())
    ours, stock = row["sides"]["ours"], row["sides"]["stock"]
    assert ours["ratio"] == pytest.approx(ours["samples_per_second"] / stock["samples_per_second"])
    assert ours["score"] == stock["score"], "the same head, rows and metric"
    assert (row["task"], row["metric"], row["target"], row["batch_size"]) == ("sst2", "accuracy", 4, 4)
    assert row["versions"]["torch"] and row["device"] and stock["ratio"] == 1 and stock["eval_samples_per_second"] > 0
    table = (tmp_path / "out" / "bench_finetuning.md").read_text()
    assert f"{stock['samples_per_second']:,.0f}" in table and table in done.stdout


def test_rounds_are_compared_one_by_one():
    def rounds(*pairs):
        return [
            {"train_samples_per_second": rate, "eval_samples_per_second": 5 * rate, "eval_accuracy": score}
            for rate, score in pairs
        ]

    ours, stock = rounds((40, 0.7), (90, 0.8), (10, 0.9)), rounds((10, 0.6), (10, 0.7), (5, 0.8))
    found = summarize(ours, stock, "accuracy")
    assert (found["samples_per_second"], found["ratio"], found["eval_samples_per_second"]) == (40, 4, 200)
    assert (found["score"], found["score_deviation"]) == (pytest.approx(0.8), pytest.approx(0.1))
    row = {
        "task": "mrpc", "model": "tiny", "metric": "accuracy", "target": 5.0, "batch_size": 8, "learning_rate": 3e-4,
        "epochs": 3.0, "max_train_samples": None, "seeds": [1, 2, 3], "device": "a device", "versions": {"torch": "1"},
        "sides": {"ours": found, "stock": summarize(stock, stock, "accuracy")},
    }  # fmt: skip
    table = make_table([row])
    assert "| mrpc | tiny | ours | 40 | **4.00** (target 5, missed) | 200 | accuracy 0.800 ± 0.100 |" in table
    assert "| mrpc | tiny | stock | 10 | 1 | 50 | accuracy 0.700 ± 0.100 |" in table
    assert "(target 3)" in make_table([row | {"target": 3.0}])


def test_variants_are_flags_and_variables():
    args = BenchArguments("out", "model", variants=["random order: A=1 B=x=y --train_sampling_strategy random"])
    variants = make_variants(args)
    assert list(variants) == ["ours", "stock", "random order"]
    assert variants["random order"] == (
        [*variants["ours"][0], "--train_sampling_strategy", "random"],
        {"A": "1", "B": "x=y"},
    )


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *[
            ("variants", [text])
            for text in ("nonsense", "ours: --bf16", "new: A --bf16", "empty:", "open: --optim 'a")
        ],
        *[("tasks", ["mnli"]), ("tasks", []), ("seeds", []), ("batch_size", 0), ("num_train_epochs", 0.0)],
    ],
)
def test_wrong_flags_are_refused_before_anything_runs(flag, value):
    with pytest.raises(InputError, match=f"--{flag}"):
        BenchArguments("out", "model", **{flag: value})
