import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from datasets import ClassLabel, Dataset, Features, Value
from test_run_glue import checkpoint  # noqa: F401  a tiny encoder, as a fixture

from evaluation.run_benchmark import BenchmarkArguments, main, make_run, name_models
from evaluation.tasks.bootstrap import Examples, average, describe, holm, p_value, parts_of, resample
from evaluation.tasks.definitions import TASKS, make_examples, predict_majority
from evaluation.tasks.page import build_report, make_page, make_table, read_references
from finetuning.common.data import read_rows
from shared.command_line import parse_arguments
from shared.errors import InputError, RunError

SMOKE = ("--config", "evaluation/recipes/benchmark_smoke.yaml")
FAST = ("use_cpu=true", "opinions.num_train_epochs=2")


def benchmark(*words):
    return main(*parse_arguments([BenchmarkArguments], list(map(str, words))))


@pytest.fixture(scope="session")
def finished(checkpoint, tmp_path_factory):  # noqa: F811
    """The smoke recipe, run once, and its words."""
    folder = tmp_path_factory.mktemp("benchmark") / "out"
    words = (*SMOKE, "--models", f"tiny={checkpoint}", "--output_dir", folder, "--overrides", *FAST)
    return folder, benchmark(*words), words


def test_the_smoke_recipe_beats_its_controls(finished):
    folder, report, _ = finished
    cell = report["results"]["tiny"]["opinions"]
    assert cell["learning_rate"] == 3e-3 and set(cell["seeds"]) == {"1", "2"}
    assert cell["mean"] > 0.9 and cell["low"] <= cell["mean"] <= cell["high"]
    majority = report["results"]["majority class"]["opinions"]["mean"]
    labels = read_rows("tests/data/opinions_validation.csv")["label"][:]
    train = read_rows("tests/data/opinions_train.csv")["label"][:]
    assert majority == labels.count(max(sorted(set(train)), key=train.count)) / len(labels)
    row = next(row for row in report["comparisons"] if row["model"] == "majority class")
    assert (
        row["high"] < 0 and row["p_corrected"] < 0.05 and row["difference"] == pytest.approx(majority - cell["mean"])
    )
    assert "random weights" in report["results"] and report["models"]["tiny"]["parameters"] > 1000
    assert {"benchmark.json", "benchmark.md", "benchmark.png", "examples.safetensors"} <= {
        path.name for path in folder.iterdir()
    }
    assert not list(folder.rglob("checkpoint-*"))


def test_the_grid_is_tried_once_on_training_data_and_shared_by_the_seeds(finished):
    folder, _, _ = finished
    search = json.loads((folder / "runs/opinions/tiny/search.json").read_text())
    tried = sorted(trial["settings"]["learning_rate"] for trial in search["trials"])
    assert tried == [1e-5, 3e-3] and search["asked"]["seed"] == 0
    assert not list(folder.glob("runs/opinions/tiny/seed-*/search.json"))
    manifests = [
        json.loads(path.read_text()) for path in sorted(folder.glob("runs/opinions/tiny/seed-*/manifest.json"))
    ]
    assert [manifest["recipe"]["seed"] for manifest in manifests] == [1, 2]


def test_a_second_start_runs_nothing_and_says_the_same(finished):
    folder, report, words = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}
    page = (folder / "benchmark.md").read_text()
    again = benchmark(*words)
    assert json.dumps(again) == json.dumps(report) and (folder / "benchmark.md").read_text() == page
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")} == before


def test_tables_are_made_of_the_result_file_alone(finished):
    folder, _, _ = finished
    report = json.loads((folder / "benchmark.json").read_text())
    assert (folder / "benchmark.md").read_text() == make_page(report)
    table = make_table(report)
    cell = report["results"]["tiny"]["opinions"]
    assert f"| {100 * cell['mean']:.1f} ± {100 * cell['std']:.1f} |" in table.replace(" ▲", "").replace(" ▼", "")
    assert "majority class" in table and "standard error of the set" in table


def test_another_model_under_the_same_name_is_refused(finished, checkpoint, tmp_path):  # noqa: F811
    words = finished[2]
    for path in Path(checkpoint).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"norm_eps": 1e-4}))
    with pytest.raises(InputError, match="holds runs of another tiny"):
        benchmark(*(f"tiny={tmp_path}" if word == f"tiny={checkpoint}" else word for word in words))


def save_task(folder, texts, labels, names):
    columns = {"sentence1": Value("string"), "sentence2": Value("string"), "label": ClassLabel(names=names)}
    rows = {"sentence1": texts, "sentence2": texts, "label": labels}
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        Dataset.from_dict(rows, features=Features(columns)).to_parquet(str(folder / f"{split}.parquet"))


def test_a_run_that_fails_is_shown_and_the_others_go_on(checkpoint, tmp_path):  # noqa: F811
    texts = [f"The book was number {number}." for number in range(12)]
    save_task(tmp_path / "data" / "mrpc", texts, [0, 1, 1] * 4, ["not_equivalent", "equivalent"])
    save_task(tmp_path / "data" / "rte", ["The book."] * 12, [0] * 12, ["entailment", "not_entailment"])
    words = [
        "--models",
        f"tiny={checkpoint}",
        "--tasks",
        "rte",
        "mrpc",
        "--seeds",
        1,
        "--output_dir",
        tmp_path / "out",
    ]
    words += ["--dataset_root", tmp_path / "data", "--overrides", "use_cpu=true", "max_seq_length=64"]
    words += ["num_train_epochs=1", "rte.learning_rate=1e-3"]
    with pytest.raises(RunError, match=r"2 of 4 runs failed, the first one with: .*there is nothing to learn"):
        benchmark(*words)
    page = (tmp_path / "out" / "benchmark.md").read_text()
    assert "| failed |" in page and page.count("there is nothing to learn") == 3
    report = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert report["results"]["majority class"]["mrpc"]["mean"] == pytest.approx(2 / 3)
    assert report["results"]["majority class"]["mrpc"]["metrics"]["f1"]["mean"] == pytest.approx(0.8)
    assert 0 <= report["results"]["tiny"]["mrpc"]["mean"] <= 1 and report["averages"]["tiny"] is None
    assert "nothing to learn" in (tmp_path / "out/runs/rte/tiny/seed-1/log.txt").read_text()


def test_questions(checkpoint, tmp_path):  # noqa: F811
    words = ["--models", f"tiny={checkpoint}", "--tasks", "questions", "--seeds", 1, "--output_dir", tmp_path]
    words += ["--max_samples", 40, "--overrides", "num_train_epochs=1"]
    report = benchmark(*words)
    cell = report["results"]["tiny"]["questions"]
    assert 0 <= cell["mean"] <= 1 and "low" in cell  # its answers were read, and have the score that was reported
    share = report["results"]["majority class"]["questions"]["mean"]
    assert 0 < share < 1 and report["tasks"]["questions"]["rows"] == 40


BAD = {
    ("--tasks", "sst3"): "there is no task sst3",
    ("--seeds", 1, 1): "one is named twice",
    ("--baseline", "other"): "--baseline other: there are tiny, random weights, majority class",
    ("--learning_rates", "1e-4", "--search_seed", 1): "which must be fresh",
    ("--overrides", "num_train_epoch=3"): "did you mean num_train_epochs",
    ("--overrides", "use_cpu"): "write NAME=value",
    ("--overrides", "mrpd.use_cpu=true"): "there is no task mrpd",
    ("--datasets", "mrpc=no/such"): "there is no folder no/such",
    ("--dataset_root", "no/such"): "there is no folder no/such/mrpc",
    ("--models", "no/such/model"): "--models no/such/model",
    ("--models", "a/x", "b/x"): "the name 'x' is taken",
    ("--references", "no.yaml"): "--references no.yaml: cannot be read",
}


@pytest.mark.parametrize("words", BAD)
def test_wrong_flags(words, checkpoint, tmp_path):  # noqa: F811
    usual = {"--models": f"tiny={checkpoint}", "--tasks": "mrpc", "--seeds": 1, "--output_dir": tmp_path / "out"}
    others = [word for flag, value in usual.items() if flag not in words for word in (flag, value)]
    with pytest.raises(InputError) as error:
        benchmark(*others, *words)
    assert BAD[words] in str(error.value) and not (tmp_path / "out").exists()


def test_nothing_to_do_and_more_than_one_process(monkeypatch):
    with pytest.raises(InputError, match="name at least one of each"):
        benchmark("--tasks", "mrpc")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="is one process"):
        benchmark("--models", "x")


def test_a_fine_tuned_checkpoint_is_refused_unless_it_is_meant(finished, tmp_path):
    folder, report, _ = finished
    trained = folder / "runs/opinions/tiny/seed-1"
    command = [*SMOKE, "--models", f"twice={trained}", "--output_dir", tmp_path / "out", "--overrides", *FAST]
    with pytest.raises(InputError, match=r"is fine-tuned already .* or add --fine_tuned"):
        benchmark(*command)
    found = benchmark(*command, "--seeds", 1, "--fine_tuned")["results"]["twice"]["opinions"]
    assert found["mean"] > report["results"]["tiny"]["opinions"]["mean"] - 0.05


def test_names_of_models():
    assert name_models(["runs/tiny", "b=runs/other/tiny", "org/model"]) == {
        "tiny": "runs/tiny",
        "b": "runs/other/tiny",
        "model": "org/model",
    }
    with pytest.raises(InputError, match=r"--models \.\.: the name '\.\.' is taken or none"):
        name_models([".."])  # would be the folder of the runs themselves


def test_published_results_are_of_known_tasks_and_sourced(tmp_path):
    rows = read_references(str(ROOT / "evaluation" / "tasks" / "published_results.yaml"), [*TASKS])
    assert len(rows) >= 5 and all(row["source"].startswith("https://") and row["protocol"] for row in rows)
    assert all(-1 <= score[TASKS[task].metric] <= 1 for row in rows for task, score in row["scores"].items())
    assert not read_references(str(ROOT / "evaluation" / "tasks" / "published_results.yaml"), ["opinions"])
    (tmp_path / "bad.yaml").write_text("- {model: x, parameters: 1M, split: test, protocol: p, scores: {}}")
    with pytest.raises(InputError, match="entry 1: has no source"):
        read_references(str(tmp_path / "bad.yaml"), ["mrpc"])


@pytest.mark.data
@pytest.mark.skipif("TINY_OLM_DATA" not in os.environ, reason="TINY_OLM_DATA is not set")
@pytest.mark.parametrize(("task", "value"), [("mrpc", 0.684), ("cola", 0.0), ("rte", 0.527), ("stsb", 0.0)])
def test_the_majority_class_of_real_sets(task, value, checkpoint, tmp_path):  # noqa: F811
    args = BenchmarkArguments([checkpoint], str(tmp_path), [task], dataset_root=f"{os.environ['TINY_OLM_DATA']}/glue")
    rows, metrics = predict_majority(task, make_run(args, task, "tiny", checkpoint, 1), None)
    assert metrics[TASKS[task].metric] == pytest.approx(value, abs=5e-4)
    assert make_examples(task, [rows]).values() == pytest.approx([value], abs=5e-4)


def test_scores_of_sums_are_the_metrics_of_the_tasks():
    import evaluate

    rng = np.random.default_rng(0)
    classes = [{"gold": int(g), "prediction": int(g if rng.random() < 0.7 else 1 - g)} for g in rng.integers(0, 2, 50)]
    numbers = [{"gold": float(x), "prediction": float(x + rng.normal())} for x in rng.normal(3, 1, 50)]
    for task, rows in (("cola", classes), ("mrpc", classes), ("stsb", numbers)):
        metric = evaluate.load("finetuning/metrics/glue_tasks.py", task)
        gold, found = ([row[key] for row in rows] for key in ("gold", "prediction"))
        expected = metric.compute(predictions=found, references=gold)[TASKS[task].metric]
        assert make_examples(task, [rows]).values() == pytest.approx([expected])
    tags = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC", "I-LOC", "O"], ["O", "O", "O", "O"]]
    found = [["B-PER", "I-PER", "O", "O"], ["O", "B-LOC", "O", "O"], ["B-PER", "O", "O", "O"]]
    expected = evaluate.load("finetuning/metrics/entities.py").compute(predictions=found, references=tags)["f1"]
    rows = [{"gold": a, "prediction": b} for a, b in zip(tags, found, strict=True)]
    assert make_examples("wnut_17", [rows]).values() == pytest.approx([expected])
    texts, golds = ["東京", "大阪の", "京都"], [["東京都"], ["大阪", "大"], ["名古屋"]]  # scored by characters
    metric = evaluate.load("finetuning/metrics/squad_answers.py", "v1.1")
    expected = metric.compute(
        predictions=[{"id": t, "prediction_text": t, "no_answer_probability": 0.0} for t in texts],
        references=[
            {"id": t, "answers": {"text": g, "answer_start": [0] * len(g)}} for t, g in zip(texts, golds, strict=True)
        ],
    )["f1"]
    rows = [{"gold": g, "prediction": t} for t, g in zip(texts, golds, strict=True)]
    assert make_examples("squad", [rows]).values() == pytest.approx([expected / 100]) and expected > 50
    always = [{"gold": row["gold"], "prediction": 1} for row in classes]
    assert make_examples("cola", [always]).values() == [0.0]
    with pytest.raises(ValueError, match="different rows"):
        make_examples("mrpc", [classes, classes[:-1]])


def made_up(rng, seeds, rows, accuracy, spread=0.0):
    """Right answers of runs that differ in their accuracy."""
    chances = np.clip(accuracy + spread * rng.normal(size=(seeds, 1)), 0, 1)
    return Examples((rng.random((seeds, rows)) < chances).astype(float)[..., None], "mean", "made up")


def test_the_bootstrap_has_the_known_standard_errors():
    rng = np.random.default_rng(1)
    one = made_up(rng, 1, 400, 0.7)
    found = describe(resample(one, "a"))
    share = one.values()[0]
    assert found["standard_error"] == pytest.approx(np.sqrt(share * (1 - share) / 400), rel=0.08)
    assert found["set_error"] == pytest.approx(found["standard_error"])
    # Seeds that differ, on examples that do not: the deviation over the root of their number.
    parts = np.repeat(np.array([0.5, 0.6, 0.7, 0.6]), 100).reshape(4, 100, 1)
    found = describe(resample(Examples(parts, "mean", "k"), "a"))
    assert found["standard_error"] == pytest.approx(np.std([0.5, 0.6, 0.7, 0.6], ddof=1) / 2, rel=0.08)


def test_a_pairing_sees_what_two_intervals_do_not():
    rng = np.random.default_rng(2)
    worse = rng.random(500) < 0.6
    better = worse | (rng.random(500) < 0.05)
    a, b = (Examples(x.astype(float)[None, :, None], "mean", "k") for x in (worse, better))
    difference = resample(b, "b") - resample(a, "a")
    assert difference.mean == pytest.approx(better.mean() - worse.mean()) and p_value(difference) < 0.01
    assert describe(resample(b, "b"))["low"] < describe(resample(a, "a"))["high"]


def test_false_alarms_come_as_often_as_they_may():
    rng = np.random.default_rng(3)
    count = 0
    for _ in range(200):
        a, b = made_up(rng, 5, 200, 0.7, 0.02), made_up(rng, 5, 200, 0.7, 0.02)
        count += p_value(resample(a, "a", 500) - resample(b, "b", 500)) < 0.05
    assert count <= 20  # 10 are expected


def test_the_average_of_tasks_and_corrected_p_values():
    rng = np.random.default_rng(4)
    tasks = [Examples((rng.random((1, 300)) < 0.7).astype(float)[..., None], "mean", f"task {i}") for i in range(4)]
    samples = [resample(task, "a") for task in tasks]
    mean_of = average(samples)
    assert mean_of.mean == pytest.approx(np.mean([sample.mean for sample in samples]))
    assert describe(mean_of)["standard_error"] == pytest.approx(describe(samples[0])["standard_error"] / 2, rel=0.15)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    with pytest.raises(ValueError, match="no parts"):
        parts_of([], "bleu")


def test_tasks_without_examples_have_no_interval_and_no_test():
    args = BenchmarkArguments(["x"], "out", ["wnut_17"], [1, 2])
    cell = {1: {"value": 0.3, "metrics": {"f1": 0.3}}, 2: {"value": 0.2, "metrics": {"f1": 0.2}}}
    report = build_report(args, {"x": "runs/x"}, {"x": {}}, {"wnut_17": ({"x": cell}, {}, {})}, [])
    assert report["results"]["x"]["wnut_17"]["mean"] == 0.25 and not report["comparisons"]
    assert "25.0 ± 7.1" in make_table(report) and make_page(report)
