import os
import subprocess
import sys
import warnings
from pathlib import Path

import evaluate
import numpy as np
import pytest
from conftest import ROOT

from finetuning.metrics.glue_tasks import METRICS, main_metric

GLUE = Path(os.environ.get("TINY_OLM_DATA", "nowhere"), "glue")


def score(task, predictions, references):
    with warnings.catch_warnings(action="error"):
        metric = evaluate.load("finetuning/metrics/glue_tasks.py", task, keep_in_memory=True)
        return metric.compute(predictions=predictions, references=references)


@pytest.mark.parametrize("task", ["sst2", "mnli", "qnli", "rte", "wnli"])
def test_accuracy(task):
    assert score(task, [0, 1, 1, 0], [0, 1, 0, 1]) == {"accuracy": 0.5}


@pytest.mark.parametrize("task", ["mrpc", "qqp"])
def test_f1_is_that_of_the_second_class(task):
    # The majority class of MRPC's validation set, 279 of 408 pairs: .684 and .812 in every published table.
    found = score(task, [1] * 408, [1] * 279 + [0] * 129)
    assert found == pytest.approx({"accuracy": 0.6838, "f1": 0.8122}, abs=5e-5)
    # And of its test set, 1,147 of 1,725: the 66.5 and 79.9 of the GLUE paper's majority row.
    found = score(task, [1] * 1725, [1] * 1147 + [0] * 578)
    assert {name: round(value, 3) for name, value in found.items()} == {"accuracy": 0.665, "f1": 0.799}
    # 1 hit, 1 false alarm, 2 misses.
    assert score(task, [1, 1, 0, 0, 0], [1, 0, 1, 1, 0])["f1"] == pytest.approx(2 / 5)


def test_matthews_correlation():
    # 8 cats and 4 dogs, 6 and 3 of them recognized: .478 (Wikipedia, Phi coefficient).
    found = score("cola", [1] * 6 + [0] * 2 + [1] + [0] * 3, [1] * 8 + [0] * 4)
    assert found["matthews_correlation"] == pytest.approx(0.478, abs=5e-4)
    assert score("cola", [0, 1, 0], [1, 0, 1])["matthews_correlation"] == -1
    # Three classes by Gorodkin's formula: (3 * 4 - 5) / sqrt((16 - 6) * (16 - 6)).
    assert score("ax", [0, 1, 2, 2], [0, 1, 2, 1]) == pytest.approx({"accuracy": 0.75, "matthews_correlation": 0.7})


def test_correlations():
    # Anscombe (1973), the first of four sets: .816.
    x = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
    y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
    assert score("stsb", y, x)["pearson"] == pytest.approx(0.81642, abs=5e-6)
    # Hours of television and IQ: -29/165 (Wikipedia, Spearman's rank correlation coefficient).
    iq, hours = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110], [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert score("stsb", hours, iq)["spearmanr"] == pytest.approx(-29 / 165)
    # Tied ranks: (1.5, 1.5, 3, 4) against (1, 2, 3, 4).
    assert score("stsb", [1, 1, 2, 3], [1, 2, 3, 4])["spearmanr"] == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    found = score("regression", np.float32([1, 2, 3]), np.float32([1, 2, 5]))
    assert found == pytest.approx({"pearson": 0.9607689228, "spearmanr": 1, "mean_squared_error": 4 / 3}, abs=1e-10)


def test_sets_of_ones_own():
    # F1 of the classes 0, 1, 2: 2/3, 1/2, 0.
    found = score("single_label", [0, 0, 1, 1], [0, 1, 1, 2])
    assert found == pytest.approx({"accuracy": 0.5, "macro_f1": (2 / 3 + 1 / 2 + 0) / 3})
    # Hits, gold and predicted of the labels: (1, 1, 2), (1, 1, 1), (0, 1, 0), and a fourth that never occurs.
    gold = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], dtype=np.float32)
    predicted = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]])
    found = score("multi_label", predicted, gold)
    assert found == pytest.approx({"micro_f1": 2 / 3, "macro_f1": (2 / 3 + 1 + 0 + 0) / 4, "exact_match": 2 / 3})


@pytest.mark.parametrize(
    ("task", "predictions", "references"),
    [
        ("cola", [1, 1, 1], [0, 1, 0]),
        ("cola", [0, 1, 0], [1, 1, 1]),
        ("cola", [1, 1], [1, 1]),
        ("stsb", [2.5, 2.5, 2.5], [0.0, 1.0, 5.0]),
        ("stsb", [0.0, 1.0, 5.0], [2.5, 2.5, 2.5]),
        ("stsb", [2.0], [3.0]),
        ("stsb", [1e-300, 3e-300, 2e-300], [4e-300, 4e-300, 5e-300]),
        ("mrpc", [0, 0], [0, 0]),
        ("multi_label", [[0, 0]], [[0, 0]]),
    ],
)
def test_every_value_is_a_number_without_a_warning(task, predictions, references):
    found = score(task, predictions, references)
    assert set(found) == set(METRICS[task]) and all(type(value) is float for value in found.values())
    assert all(np.isfinite(value) for value in found.values())
    if task == "cola":
        assert found == {"matthews_correlation": 0}
    if task == "stsb" and len({*predictions}) + len({*references}) < 5:
        assert found == {"pearson": 0, "spearmanr": 0}


@pytest.mark.parametrize(
    ("task", "predictions", "references", "reason"),
    [
        ("stsb", [1.0, float("nan")], [1.0, 2.0], "prediction of row 1 is nan, which is not a finite number"),
        ("stsb", [1.0, 2.0], [float("inf"), 2.0], "reference of row 0 is inf"),
        ("sst2", [], [], "no rows"),
        ("sst2", [0.7, 0.2], [1, 0], "prediction of row 0 is 0.7, which is not the number of a class"),
        ("sst2", [1, 1], [0, -1], "reference of row 1 is -1.0"),
        ("sst2", [1], [1, 0], "Mismatch"),
        ("multi_label", [[1, 2]], [[1, 0]], r"prediction of row 0 is \[1.0, 2.0\], which is not 0 or 1"),
        ("multi_label", [[1, 0, 1]], [[1, 0]], "3 labels, references of 2"),
        ("sst", [1], [1], "unknown configuration 'sst'; there are cola, sst2,"),
    ],
)
def test_what_has_no_honest_score_is_an_error(task, predictions, references, reason):
    with pytest.raises(ValueError, match=reason):
        score(task, predictions, references)


def test_the_best_epoch_is_chosen_by_a_metric_that_majority_does_not_flatter():
    tasks = ("cola", "sst2", "mrpc", "stsb", "multi_label", "regression")
    assert [main_metric(task) for task in tasks] == [
        *("matthews_correlation", "accuracy", "accuracy", "pearson", "micro_f1", "pearson"),
    ]


@pytest.mark.faults
def test_it_loads_from_another_folder_without_a_hub(tmp_path):
    code = "import evaluate; print(evaluate.load({!r}, 'rte').compute(predictions=[1], references=[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code.format(str(ROOT / "finetuning" / "metrics" / "glue_tasks.py"))],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout.strip() == "{'accuracy': 1.0}", done.stderr[-2000:]


@pytest.mark.data
@pytest.mark.skipif(not GLUE.is_dir(), reason="TINY_OLM_DATA is not set")
@pytest.mark.parametrize(
    ("task", "majority"), [("sst2", 0.509), ("mrpc", 0.684), ("cola", 0.0), ("rte", 0.527), ("wnli", 0.563)]
)
def test_the_majority_class_of_the_real_sets_scores_as_published(task, majority):
    from datasets import load_dataset

    gold = np.array(load_dataset(str(GLUE / task), split="validation")["label"])
    most = np.full_like(gold, np.bincount(gold).argmax())
    assert score(task, most, gold)[main_metric(task)] == pytest.approx(majority, abs=5e-4)
