"""Scores of classes, weights and thresholds, against scikit-learn on the files that a run writes."""

import json

import numpy as np
import pytest
from datasets import Dataset, Features, Sequence, Value
from sklearn import metrics as sk
from sklearn.utils.class_weight import compute_class_weight
from test_fine_tuned_checkpoints import PREDICT, encoder, opinions, predictions, run  # noqa: F401

from finetuning.common.classes import balanced_weights
from finetuning.glue.scores import class_scores
from finetuning.glue.thresholds import best_threshold


def check(found, prefix, gold, answers, probabilities, names):
    """All scores of a results file are scikit-learn's."""
    expected = {}
    for part, of in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        for average in ("macro", "weighted"):
            expected[f"{average}_{part}"] = of(gold, answers, average=average, zero_division=0.0)
        each = of(gold, answers, labels=range(len(names)), average=None, zero_division=0.0)
        expected |= {f"{part}_{name}": value for name, value in zip(names, each, strict=True)}
    if gold.ndim == 1 and len(names) == 2:
        expected["auroc"] = sk.roc_auc_score(gold, probabilities[:, 1])
        expected["average_precision"] = sk.average_precision_score(gold, probabilities[:, 1])
    else:
        expected["auroc"] = sk.roc_auc_score(gold, probabilities, multi_class="ovr", average="macro")
        is_on = gold if gold.ndim == 2 else np.eye(len(names))[gold]
        expected["average_precision"] = sk.average_precision_score(is_on, probabilities, average="macro")
    assert {key: found[f"{prefix}{key}"] for key in expected} == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scores_are_scikit_learns(classes):
    generator = np.random.default_rng(classes)
    gold = np.concatenate([np.arange(classes), generator.integers(0, classes, 60)])
    probabilities = generator.dirichlet(np.ones(classes), len(gold))
    names = [f"label {i}" for i in range(classes)]
    answers = probabilities.argmax(1)
    answers[answers == 1] = 0  # a class that is never predicted
    check(class_scores(gold, answers, probabilities, names), "", gold, answers, probabilities, names)
    missing = gold[gold != 0]  # of a class that never occurs there is no area under a curve
    found = class_scores(missing, answers[gold != 0], probabilities[gold != 0], names)
    assert "auroc" not in found and found["recall_label 0"] == 0 and all(map(np.isfinite, found.values()))


def test_balanced_weights_are_scikit_learns():
    labels = np.random.default_rng(0).choice(4, 50, p=[0.6, 0.3, 0.1, 0])
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    assert balanced_weights(labels.tolist(), 4, multi=False) == pytest.approx([*expected, 1.0])
    of_tokens = [[*labels[:30].tolist(), -100], labels[30:].tolist()]
    assert balanced_weights(of_tokens, 4, multi=False) == pytest.approx([*expected, 1.0])
    assert balanced_weights([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], 2, multi=True) == [1.0, 1.0]
    assert balanced_weights([[1.0], [0.0], [0.0], [0.0]], 1, multi=True) == [3.0]


@pytest.mark.parametrize("seed", range(20))
def test_the_best_threshold_has_the_highest_f1_of_the_curve(seed):
    generator = np.random.default_rng(seed)
    is_on = generator.random(30) < 0.3
    is_on[0] = True
    probabilities = np.round(generator.random(30) ** 3 + 0.3 * is_on, 2 if seed % 2 else 9).clip(0, 1)  # ties, or none
    precision, recall, _ = sk.precision_recall_curve(is_on, probabilities)
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-300)).max()
    threshold = best_threshold(is_on, probabilities)
    assert sk.f1_score(is_on, probabilities >= threshold) == pytest.approx(best)
    order = generator.permutation(30)
    assert best_threshold(is_on[order], probabilities[order]) == threshold


def test_special_thresholds():
    assert best_threshold(np.zeros(3, bool), np.array([0.1, 0.2, 0.9])) == 0.5
    assert best_threshold(np.array([False, True]), np.array([0.2, 0.8])) == 0.5  # as good as any
    assert best_threshold(np.array([False, True, True]), np.array([0.1, 0.2, 0.4])) == pytest.approx(0.15)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_thresholds_are_kept_and_used(kind, encoder, tmp_path):  # noqa: F811
    file = opinions(tmp_path / "opinions.csv")
    if kind == "multi":
        lines = [line.rsplit(",", 1) for line in file.read_text().splitlines()[1:]]
        values = {"sentence": [text.strip('"') for text, _ in lines]}
        values["label"] = [[label] + (["song"] if "song" in text else []) for text, label in lines]
        file = tmp_path / "opinions.parquet"
        labels = Features({"sentence": Value("string"), "label": Sequence(Value("string"))})
        Dataset.from_dict(values, features=labels).to_parquet(str(file))
    files = ("--train_file", file, "--validation_file", file, "--do_predict", "--test_file", file)
    weights = ("--class_weights", "balanced", "--focal_gamma", 1)
    found = run(encoder, tmp_path / "out", *files, "--max_steps", 8, "--tune_thresholds", *weights)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    names = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
    rows = predictions(tmp_path / "out" / "errors" / "predictions.jsonl")
    probabilities = np.array([[row["probabilities"][name] for name in names] for row in rows])
    if kind == "single":
        gold, answers = (np.array([names.index(row[key]) for row in rows]) for key in ("gold", "prediction"))
        curves = {"praise": (gold == 1, probabilities[:, 1])}
    else:
        gold, answers = (np.array([[n in row[key] for n in names] for row in rows]) for key in ("gold", "prediction"))
        gold, answers = gold.astype(int), answers.astype(int)
        curves = {name: (gold[:, i], probabilities[:, i]) for i, name in enumerate(names)}
    check(found, "eval_", gold, answers, probabilities, names)
    assert config["decision_thresholds"] == [found[f"eval_threshold_{name}"] for name in curves]
    for name, (is_on, scores) in curves.items():
        precision, recall, _ = sk.precision_recall_curve(is_on, scores)
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-300)).max()
        assert found[f"eval_f1_{name}"] == pytest.approx(best)
    run(tmp_path / "out", tmp_path / "again", *PREDICT, file)
    for folder in ("out", "again"):
        tested = predictions(tmp_path / folder / "predictions.jsonl")
        assert [row["prediction"] for row in tested] == [row["prediction"] for row in rows]
    assert found["test_macro_f1"] == found["eval_macro_f1"] and "eval_untuned_macro_f1" in found
    card = (tmp_path / "out" / "README.md").read_text()
    assert "eval f1 praise" in card and "eval auroc" in card and "eval average precision" in card
    again = run(tmp_path / "out", tmp_path / "more", *files[:4], "--max_steps", 1)  # trained again without tuning
    assert "decision_thresholds" not in json.loads((tmp_path / "more" / "config.json").read_text())
    assert "eval_threshold_praise" not in again
