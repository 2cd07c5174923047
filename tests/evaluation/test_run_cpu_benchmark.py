import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, SENTENCES
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    set_seed,
)

from evaluation.cpu.inputs import Rows, choose_places, labelled_rows, made_up_rows, write_batches
from evaluation.cpu.page import make_table, recommend
from evaluation.cpu.processes import latency, start_all, throughput, time_all
from evaluation.run_cpu_benchmark import CpuBenchmarkArguments, main
from shared.errors import InputError, RunError

TRAIN, VALIDATION = "tests/data/opinions_train.csv", "tests/data/opinions_validation.csv"
QUICK = {"threads": [1], "rounds": 2, "seconds": 0.02, "starts": 1, "seq_lengths": [8, 40], "max_seq_length": 64}


def save_model(folder, kind, model_type, tokenizer, **fields):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "pad_token_id": tokenizer.pad_token_id}
    set_seed(0)
    model = kind.from_config(AutoConfig.for_model(model_type, **sizes, **fields))
    with torch.no_grad():
        for values in model.parameters():
            values.mul_(3)  # logits that differ from row to row, as a trained model's do
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, wordpiece):
    labels = {"id2label": {0: "blame", 1: "praise"}, "label2id": {"blame": 0, "praise": 1}, "local_attention": 16}
    labels["problem_type"] = "single_label_classification"
    folder = tmp_path_factory.mktemp("models") / "classifier"
    return save_model(folder, AutoModelForSequenceClassification, "modernbert", wordpiece, **labels)


@pytest.fixture(scope="module")
def measured(classifier, tmp_path_factory):
    output = tmp_path_factory.mktemp("cpu") / "out"
    variants = ["torch_bf16", "onnx", "onnx_int8", "onnx_static"]
    more = {"input": VALIDATION, "calibration_input": TRAIN, "variants": variants, **QUICK}
    return output, main(CpuBenchmarkArguments([classifier], str(output), **more))


def test_the_forms_of_a_classifier_agree_and_are_measured(measured):
    output, report = measured
    assert json.loads((output / "cpu_benchmark.json").read_text()) == report
    assert (output / "cpu_benchmark.md").read_text() == make_table(report)
    model = report["models"]["classifier"]
    assert model["data"] == {"source": "opinions_validation.csv", "rows": 80, "places": None, "metric": "accuracy"}
    assert list(model["variants"]) == ["eager", "torch_bf16", "onnx", "onnx_int8", "onnx_static"]
    parity = {name: found["parity"] for name, found in model["variants"].items()}
    assert parity["onnx"]["largest_logit_difference"] < 1e-4
    assert parity["onnx"]["agreement"] == 1 and parity["onnx"]["points"] == 0
    if report["hardware"]["cpu_instructions"]:
        assert "instructions for products in bf16: " in make_table(report)
    for name in ("torch_bf16", "onnx_int8", "onnx_static"):
        assert 1e-4 < parity[name]["largest_logit_difference"] < 1 and parity[name]["agreement"] > 0.8
        difference = 100 * (parity[name]["score"] - parity["eager"]["score"])
        assert parity[name]["points"] == pytest.approx(difference)
    sizes = {name: found["file_bytes"] for name, found in model["variants"].items()}
    assert sizes["onnx_int8"] < sizes["onnx"] and sizes["eager"] == os.path.getsize(
        f"{model['path']}/model.safetensors"
    )
    for found in model["variants"].values():
        run = found["threads"]["1"]
        assert 0 < run["start_memory_mib"] <= run["peak_memory_mib"] and run["start_seconds"] > 0
        for length in ("8", "40"):
            one, many = run["latency"][length], run["throughput"][length]
            assert 0 < one["p50_ms"] <= one["p95_ms"] and len(one["rounds"]) == 2 and many["rows_per_second"] > 0
    eager, onnx = (model["variants"][name]["threads"]["1"] for name in ("eager", "onnx"))
    assert onnx["start_seconds"] < eager["start_seconds"]  # it imports no torch,
    assert onnx["peak_memory_mib"] < eager["start_memory_mib"]  # and its memory is not that of this process


def test_a_threshold_that_was_tuned_decides(classifier, wordpiece, tmp_path):
    shutil.copytree(classifier, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    args = CpuBenchmarkArguments([str(tmp_path / "model")], str(tmp_path), input=VALIDATION, max_seq_length=64)
    for threshold in (0.0, 1.0):  # then all rows are of the second class, or of the first
        path.write_text(json.dumps(json.loads(path.read_text()) | {"decision_thresholds": [threshold]}))
        rows = labelled_rows(str(tmp_path / "model"), wordpiece, ["input_ids"], {"input_ids": 0}, args)
        assert set(rows.predict(np.array([[1.0, 0.0], [0.0, 1.0]])).tolist()) == {int(threshold == 0)}


@pytest.mark.parametrize("variant", ["onnx", "onnx_int8"])
def test_an_exported_folder_runs_by_the_lines_in_its_readme(variant, measured, classifier):
    folder = measured[0] / "classifier" / variant
    (lines,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    lines += "import sys\nassert 'torch' not in sys.modules\nprint(logits.tolist())\n"
    done = subprocess.run([sys.executable, "-c", lines], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    from transformers import AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(
        ["A first text.", "And a second, longer one."], padding=True, return_tensors="pt"
    )
    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    with torch.inference_mode():
        expected = model(**inputs).logits
    assert np.allclose(json.loads(done.stdout), expected, atol=1e-4 if variant == "onnx" else 0.5)


@pytest.mark.faults
def test_a_masked_language_model_is_scored_at_fixed_masks(tmp_path, wordpiece):
    path = save_model(tmp_path / "bert", AutoModelForMaskedLM, "bert", wordpiece)
    args = CpuBenchmarkArguments(
        [f"mine={path}"], str(tmp_path / "out"), variants=["onnx"], input=str(SENTENCES), max_samples=20, **QUICK
    )
    model = main(args)["models"]["mine"]
    assert model["task"] == "masked_lm" and model["data"]["rows"] == 20 and model["data"]["places"] > 60
    parity = model["variants"]["onnx"]["parity"]
    assert parity["largest_logit_difference"] < 1e-4 and parity["agreement"] == 1 and parity["points"] == 0
    assert "token_type_ids" in (tmp_path / "out" / "mine" / "onnx" / "README.md").read_text()


def test_a_variant_that_does_not_start_is_recorded(tmp_path):
    spec = {"variant": "onnx", "folder": str(tmp_path), "class": "", "threads": 1, "vocab_size": 9, "input_names": []}
    found, running = {"onnx": {"threads": {}}}, {}
    start_all({"onnx": spec | {"max_seq_length": 8}}, 1, found, running)
    assert "model.onnx" in found["onnx"]["failure"] and not running


def test_made_up_rows_and_places(wordpiece, tmp_path):
    names = ["input_ids", "attention_mask"]
    rows = made_up_rows(wordpiece, names, 30)
    assert rows == made_up_rows(wordpiece, names, 30) and {len(row["input_ids"]) for row in rows} == set(range(8, 31))
    assert all(row["attention_mask"] == [1] * len(row["input_ids"]) for row in rows)
    found = Rows("made-up rows", [dict(row) for row in rows], 7, {"input_ids": wordpiece.pad_token_id})
    choose_places(found, "masked_lm", wordpiece)
    masked = [
        [i for i, token in enumerate(row["input_ids"]) if token == wordpiece.mask_token_id] for row in found.inputs
    ]
    assert masked == found.places
    assert found.labels.tolist() == [rows[n]["input_ids"][i] for n, places in enumerate(masked) for i in places]
    batches = np.load(write_batches(found, tmp_path / "batches.npz"))
    assert batches["count"] == 10 and batches["9.input_ids"].shape == (1, 30)
    read = [batches[f"{n}.input_ids"][batches[f"{n}.rows"], batches[f"{n}.columns"]] for n in range(10)]
    assert set(np.concatenate(read).tolist()) == {wordpiece.mask_token_id}


def test_times_are_medians_over_rounds_and_ratios_of_each_round():
    eager, fast = [[0.004, 0.004, 0.006], [0.040] * 3, [0.008] * 3], [[0.001] * 3, [0.020] * 3, [0.002] * 3]
    found = latency(fast, eager)
    assert (found["p50_ms"], found["ratio"], found["calls"]) == (pytest.approx(2), pytest.approx(4), 9)
    assert latency(eager, eager)["ratio"] == 1
    found = throughput(fast, eager, 32)
    assert found["rows_per_second"] == pytest.approx(32 / 0.002) and found["ratio"] == pytest.approx(4)


def test_a_variant_that_loses_too_much_is_not_recommended(measured):
    model = json.loads(json.dumps(measured[1]["models"]["classifier"]))
    for name, ratio, points in (("onnx", 3.0, 0.0), ("onnx_int8", 5.0, -0.6), ("onnx_static", 4.0, -0.5)):
        latency = model["variants"][name]["threads"]["1"]["latency"]
        latency["8"]["ratio"], latency["40"]["ratio"] = 2 * ratio, ratio
        model["variants"][name]["parity"]["points"] = points
    assert "static int8, 4.0 to 8.0 times" in recommend(model) and "−0.50 points of accuracy" in recommend(model)
    latency["8"]["ratio"] = 1.5  # of the static one, the last: by all lengths it is behind now
    assert "ONNX Runtime, 3.0 to 6.0 times" in recommend(model)
    model["variants"]["onnx_static"] = {"failure": "a | reason", "threads": {}}
    assert "ONNX Runtime, 3.0 to 6.0 times" in recommend(model)
    report = measured[1] | {"models": {"a | b": model}}
    assert "## a \\| b" in make_table(report) and "Failed: ONNX Runtime, static int8: a \\| reason" in make_table(
        report
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ["tensorrt"]}, "--variants tensorrt: there are eager"),
        ({"variants": ["onnx_static"]}, "--variants onnx_static: needs --input"),
        ({"seconds": 0.0}, "--seconds 0.0: must be above 0"),
        ({"seq_lengths": [4]}, "--seq_lengths"),
        ({"models": ["a/x", "b/x"]}, "--models b/x: the name 'x' is taken"),
        ({"task_name": "sst2"}, "--task_name, --calibration_input: need --input"),
    ],
)
def test_wrong_flags_are_refused(changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        CpuBenchmarkArguments(**{"models": ["m"], "output_dir": "out"} | changes)


def test_wrong_models_and_rows_are_refused_and_leave_nothing(classifier, wordpiece, tmp_path):
    def refused(message, models=classifier, **more):
        with pytest.raises(InputError, match=message):
            main(CpuBenchmarkArguments([models], str(tmp_path / "out"), **QUICK | more))
        assert not (tmp_path / "out").exists()

    refused("nowhere", models=str(tmp_path / "nowhere"))
    refused(
        "BertForQuestionAnswering; there must be",
        models=save_model(tmp_path / "qa", AutoModelForQuestionAnswering, "bert", wordpiece),
    )
    refused("--max_seq_length 65", max_seq_length=65)
    refused("has no column text", input=VALIDATION, text_column="text")
    (tmp_path / "other.csv").write_text("sentence,label\nFine.,good\nBad.,bad\n")
    refused("other.csv", input=str(tmp_path / "other.csv"))
    with pytest.raises(InputError, match="not an empty folder"):
        main(CpuBenchmarkArguments([classifier], str(ROOT / "tests")))


def test_if_no_variant_starts_the_reason_is_said():
    args = SimpleNamespace(seq_lengths=[8], batch_size=2, rounds=2, seconds=0.1)
    with pytest.raises(RunError, match=r"eager PyTorch.* failed: out of memory"):
        time_all({}, 1, args, {"eager": {"failure": "out of memory"}})
