"""What a checkpoint that was fine-tuned knows of its labels, against transformers' own model of it."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    set_seed,
)

from finetuning.common.arguments import CheckpointArguments, FineTuningArguments
from finetuning.common.checkpoint import set_dropout
from finetuning.run_glue import DataArguments, main
from shared.command_line import parse_arguments
from shared.errors import InputError
from shared.training.arguments import choose_best_by

KINDS = (CheckpointArguments, DataArguments, FineTuningArguments)
NEVER_MIND = {"output_hidden_states": True, "output_attentions": True, "return_dict": False}  # in a config.json
PREDICT = ("--no_do_train", "--no_do_eval", "--do_predict", "--test_file")
STILL = ("--max_steps", 1, "--learning_rate", 1e-12)  # trained, and the same


def change_config(folder, changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def copy_of(folder, target, **changes):
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("manifest.json", "checkpoint-*"))
    change_config(target, changes)
    return target


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, wordpiece):
    """A tiny encoder, whose configuration asks for more than logits."""
    folder = tmp_path_factory.mktemp("encoder")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    set_seed(0)
    config = AutoConfig.for_model("bert", vocab_size=len(wordpiece), max_position_embeddings=64, **sizes)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    wordpiece.save_pretrained(folder)
    change_config(folder, NEVER_MIND)
    return folder


def opinions(path, blame="blame", praise="praise", split="validation"):
    with open(f"tests/data/opinions_{split}.csv") as file:
        rows = list(csv.DictReader(file))
    names = {"blame": blame, "praise": praise}
    path.write_text("sentence,label\n" + "".join(f'"{row["sentence"]}",{names[row["label"]]}\n' for row in rows))
    return path


def run(model, folder, *flags):
    words = ["--use_cpu", "--max_seq_length", "64", "--disable_tqdm", "true", "--learning_rate", "3e-3"]
    words += ["--model_name_or_path", str(model), "--output_dir", str(folder), *map(str, flags)]
    return main(*parse_arguments(KINDS, words))


def predictions(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def stock_logits(folder, sentences):
    """What transformers' own model says."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**tokenizer(sentences, padding=True, return_tensors="pt"))["logits"]


@pytest.fixture(scope="module")
def classifier(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    train, validation = (opinions(folder / f"{name}.csv", split=name) for name in ("train", "validation"))
    files = ("--train_file", train, "--validation_file", validation)
    return folder / "run", run(encoder, folder / "run", *files, "--max_steps", 60), files


@pytest.fixture(scope="module")
def regressor(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("regressor")
    file = opinions(folder / "numbers.csv", "1.5", "4.0")
    run(encoder, folder / "run", "--train_file", file, "--validation_file", file, "--max_steps", 3)
    return folder / "run"


def sentences_of(path):
    with open(path) as file:
        return [row["sentence"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
@pytest.mark.parametrize("labels", [None, "", "named"])
def test_prediction_needs_no_labels(kind, labels, classifier, regressor, tmp_path):
    model = classifier[0] if kind == "classifier" else regressor
    file = opinions(
        tmp_path / "new.csv", *([labels] * 2 if labels == "" else ["1", "4"] if kind == "regressor" else [])
    )
    sentences = sentences_of(file)
    if labels is None:
        file.write_text("sentence\n" + "".join(f'"{text}"\n' for text in sentences))
    metrics = run(model, tmp_path / "out", *PREDICT, file)
    logits, rows = stock_logits(model, sentences), predictions(tmp_path / "out" / "predictions.jsonl")
    if kind == "classifier":
        classes = AutoConfig.from_pretrained(model).id2label
        assert [row["prediction"] for row in rows] == [classes[i] for i in logits.argmax(1).tolist()]
    else:
        assert [row["prediction"] for row in rows] == pytest.approx(logits[:, 0].tolist(), abs=1e-5)
    assert any("loss" in name for name in metrics) == (labels == "named")


def test_a_problem_type_that_is_not_the_checkpoints_is_refused(classifier, regressor, tmp_path):
    trained, _, files = classifier
    numbers = opinions(tmp_path / "numbers.csv", "1.5", "4.0")
    classes = ("--problem_type", "single_label_classification")
    with pytest.raises(InputError, match=r"--problem_type regression: .* fine-tuned for single_label_classification"):
        run(trained, tmp_path / "a", *PREDICT, files[1], "--problem_type", "regression")
    with pytest.raises(
        InputError, match=r"--problem_type single_label.* fine-tuned for regression.*--ignore_mismatch"
    ):
        run(regressor, tmp_path / "b", *files, *classes)
    with pytest.raises(InputError, match=r"--task_name cola: .* fine-tuned for regression"):
        run(regressor, tmp_path / "c", "--task_name", "cola", *files)
    run(regressor, tmp_path / "d", *files, *classes, "--ignore_mismatched_sizes", "--max_steps", 1)
    config = AutoConfig.from_pretrained(tmp_path / "d")
    assert config.problem_type == "single_label_classification" and set(config.label2id) == {"blame", "praise"}
    files = ("--train_file", numbers, "--validation_file", numbers)
    found = run(trained, tmp_path / "e", *files, "--ignore_mismatched_sizes", "--max_steps", 1)
    assert AutoConfig.from_pretrained(tmp_path / "e").problem_type == "regression" and "eval_pearson" in found


def test_the_head_of_another_task_is_left_behind(tmp_path, wordpiece, capsys):
    """ModernBERT calls the heads of all tasks by the same names, and there are as many marks of words as classes."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    special = {f"{kind}_token_id": 0 for kind in ("pad", "bos", "eos", "cls", "sep")}
    config = AutoConfig.for_model("modernbert", vocab_size=len(wordpiece), **sizes, **special)
    file = opinions(tmp_path / "opinions.csv")
    for labels in (2, 5):
        config.num_labels = labels
        marks, folder = AutoModelForTokenClassification.from_config(config), tmp_path / f"marks{labels}"
        torch.nn.init.constant_(marks.classifier.weight, 3)
        marks.save_pretrained(folder)
        wordpiece.save_pretrained(folder)
        run(folder, tmp_path / f"classes{labels}", "--train_file", file, "--validation_file", file, *STILL)
        trained = load_file(tmp_path / f"classes{labels}" / "model.safetensors")
        assert trained["classifier.weight"].shape == (2, 32) and trained["classifier.weight"].abs().max() < 1
        before = marks.model.layers[0].attn.Wqkv.weight
        assert torch.allclose(trained["model.layers.0.attn.Wqkv.weight"], before, atol=1e-6)
        assert "was fine-tuned for something else: classifier.weight" in capsys.readouterr().out


def test_other_labels_want_a_new_head_or_other_names(classifier, tmp_path, capsys):
    trained, metrics, _ = classifier
    file = opinions(tmp_path / "other.csv", "bad", "good")
    files = ("--train_file", file, "--validation_file", file, *STILL)
    with pytest.raises(InputError, match=r"blame, praise.*bad, good.*--ignore_mismatched_sizes.*--class_names"):
        run(trained, tmp_path / "no", *files)
    same = run(trained, tmp_path / "same", *files, "--class_names", "bad", "good")
    assert same["eval_accuracy"] == metrics["eval_accuracy"]
    capsys.readouterr()
    run(trained, tmp_path / "new", *files, "--ignore_mismatched_sizes")
    assert "classifier.weight, classifier.bias are new" in capsys.readouterr().out
    folders = (trained, tmp_path / "same", tmp_path / "new")
    before, renamed, new = (load_file(folder / "model.safetensors") for folder in folders)
    assert torch.allclose(renamed["classifier.weight"], before["classifier.weight"], atol=1e-9)
    assert not torch.allclose(new["classifier.weight"], before["classifier.weight"], atol=1e-3)
    assert torch.allclose(new["bert.pooler.dense.weight"], before["bert.pooler.dense.weight"], atol=1e-9)
    manifest = json.loads((tmp_path / "new" / "manifest.json").read_text())
    assert any("classifier.weight, classifier.bias are new" in note for note in manifest["notes"])
    assert AutoConfig.from_pretrained(tmp_path / "new").label2id == {"bad": 0, "good": 1}


@pytest.mark.parametrize(("blame", "praise"), [("0", "1"), ("0.0", "1.0")])
def test_classes_without_names_serve_data_that_number_them(blame, praise, classifier, tmp_path):
    trained, metrics, _ = classifier
    stock = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    model = copy_of(trained, tmp_path / "stock", **stock, problem_type=None)
    file = opinions(tmp_path / "numbers.csv", blame, praise)
    found = run(model, tmp_path / "eval", "--no_do_train", "--validation_file", file)
    assert found["eval_accuracy"] == metrics["eval_accuracy"]
    found = run(model, tmp_path / "train", "--train_file", file, "--validation_file", file, *STILL)
    assert found["eval_accuracy"] == metrics["eval_accuracy"]
    assert AutoConfig.from_pretrained(tmp_path / "train").label2id == {"0": 0, "1": 1}
    named = opinions(tmp_path / "named.csv")
    with pytest.raises(
        InputError, match=r"row 1: label praise is not one of the model's: LABEL_0, LABEL_1.*--class_names"
    ):
        run(model, tmp_path / "no", "--no_do_train", "--validation_file", named)
    flags = ("--no_do_train", "--validation_file", named, "--class_names", "blame", "praise")
    assert run(model, tmp_path / "renamed", *flags)["eval_accuracy"] == metrics["eval_accuracy"]
    with pytest.raises(InputError, match=r"--class_names: 3 names, but .* has 2 classes"):
        run(model, tmp_path / "three", *flags, "neither")


def test_a_checkpoint_without_the_weights_of_its_encoder_is_refused(encoder, classifier, tmp_path):
    model = copy_of(encoder, tmp_path / "wrapped")
    weights = load_file(model / "model.safetensors")
    save_file({f"module.{name}": w for name, w in weights.items()}, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"weights do not fit the model: .*bert\.emb.*left over .module\.bert"):
        run(model, tmp_path / "out", *classifier[2], *STILL)


def uneven(path):
    rows = opinions(path).read_text().splitlines()
    path.write_text(
        "\n".join([*rows[:1], *(row for i, row in enumerate(rows[1:]) if row.endswith("praise") or i % 4)])
    )
    return path


def test_smoothed_and_weighted_losses_are_torchs(classifier, tmp_path):
    trained, _, _ = classifier
    file = uneven(tmp_path / "uneven.csv")
    sentences = sentences_of(file)
    with open(file) as rows:
        labels = [row["label"] == "praise" for row in csv.DictReader(rows)]
    labels, logits = torch.tensor(labels).long(), stock_logits(trained, sentences)
    files = ("--train_file", file, "--validation_file", file, "--per_device_eval_batch_size", 100, *STILL)
    balanced = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels.numpy())
    for number, (flags, settings) in enumerate(
        (
            (("--label_smoothing_factor", 0.2), {"label_smoothing": 0.2}),
            (("--class_weights", "balanced"), {"weight": torch.tensor(balanced).float()}),
            (("--class_weights", "praise=3.5"), {"weight": torch.tensor([1.0, 3.5])}),
        )
    ):
        found = run(trained, tmp_path / str(number), *files, *flags)
        assert found["eval_loss"] == pytest.approx(cross_entropy(logits, labels, **settings).item(), rel=1e-5)
    for flags, message in (
        (("--class_weights", "neither=2"), "--class_weights neither=2: write balanced, or LABEL=2.5 .* blame, praise"),
        (("--class_weights", "praise=-1"), "with a number above 0"),
        (("--focal_gamma", -1), "--focal_gamma -1: must be 0 or more"),
    ):
        with pytest.raises(InputError, match=message):
            run(trained, tmp_path / "no", *files, *flags)


def test_flags_without_meaning_are_refused(encoder, regressor, classifier, tmp_path):
    _, _, files = classifier
    numbers = opinions(tmp_path / "numbers.csv", "1.5", "4.0")
    measures = "there are accuracy, auroc, average_precision, f1_blame, f1_praise, loss, macro_f1"
    for model, flags, message in (
        (encoder, ("--prediction_loss_only",), "--prediction_loss_only: the scores need what the model predicts"),
        (encoder, ("--batch_eval_metrics",), "--batch_eval_metrics: the scores need the whole split"),
        (encoder, ("--eval_do_concat_batches", "false"), "--eval_do_concat_batches false: "),
        (encoder, ("--label_smoothing_factor", 1), "--label_smoothing_factor 1.*below 1"),
        (encoder, ("--early_stopping_patience", 0), "--early_stopping_patience 0: must be at least 1"),
        (
            encoder,
            ("--metric_for_best_model", "f1_macro"),
            f"--metric_for_best_model f1_macro: not measured.*{measures}",
        ),
        (regressor, ("--train_file", numbers, "--label_smoothing_factor", 0.1), "numbers have no classes"),
        (regressor, ("--train_file", numbers, "--class_weights", "balanced"), "numbers have no classes"),
        (regressor, ("--train_file", numbers, "--tune_thresholds"), "--tune_thresholds: is for two classes"),
        (encoder, ("--tune_thresholds", "--no_do_eval"), "--tune_thresholds: needs --do_train, and --do_eval"),
    ):
        more = ("--validation_file", numbers) if model is regressor else ()
        with pytest.raises(InputError, match=message):
            run(model, tmp_path / "out", *files, *more, *flags)


def test_the_best_epoch_by_an_error_is_the_one_with_the_lowest(encoder, tmp_path):
    file = opinions(tmp_path / "numbers.csv", "1.5", "4.0")
    flags = ("--train_file", file, "--validation_file", file, "--max_steps", 6, "--eval_steps", 2, "--save_steps", 2)
    flags += ("--eval_strategy", "steps", "--load_best_model_at_end", "--metric_for_best_model", "mean_squared_error")
    run(encoder, tmp_path / "out", *flags, "--dataloader_drop_last", "--per_device_eval_batch_size", 7)
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    errors = {row["step"]: row["eval_mean_squared_error"] for row in state["log_history"] if "eval_loss" in row}
    assert len(errors) == 3 and state["best_global_step"] == min(errors, key=errors.get)


@pytest.mark.parametrize(
    ("name", "greater"),
    [
        *[(name, True) for name in ("f1", "f1_error", "recall_loss", "pearson")],
        *[(name, False) for name in ("loss", "pair_loss", "mean_squared_error", "bits_per_byte_2026/10", "eval_loss")],
    ],
)
def test_losses_and_errors_are_best_when_low_and_scores_of_labels_so_called_are_not(name, greater):
    args = SimpleNamespace(given={"metric_for_best_model": name, "greater_is_better": None})
    choose_best_by(args, None)
    assert args.greater_is_better == greater


def test_without_training_nothing_is_planned_or_searched(encoder, tmp_path):
    for flags in (("--dry_run",), ("--search_trials", 2, "--search_space", "learning_rate=1e-4,1e-3")):
        with pytest.raises(InputError, match=r"--do_train false: --dry_run and --search_trials are about training"):
            run(encoder, tmp_path / "out", "--validation_file", "x.csv", "--no_do_train", *flags)


def test_an_evaluation_that_is_switched_off_stays_off(encoder, tmp_path):
    file = opinions(tmp_path / "rows.csv")
    by_epoch = ("--eval_strategy", "epoch", "--no_do_eval")
    with pytest.raises(InputError, match="--do_eval false: contradicts --eval_strategy; say --eval_strategy no"):
        run(encoder, tmp_path / "out", "--train_file", file, *by_epoch)
    run(encoder, tmp_path / "model", "--train_file", file, "--max_steps", 1, "--no_do_eval")
    files = ("--validation_file", file, "--test_file", file)
    found = run(tmp_path / "model", tmp_path / "out", *files, *by_epoch, "--no_do_train", "--do_predict")
    assert not any(key.startswith("eval_") for key in found)


def test_a_number_that_means_no_label_to_trainer_is_refused(encoder, tmp_path):
    file = opinions(tmp_path / "numbers.csv", "1.5", "-100.0")
    with pytest.raises(InputError, match=r"holds -100\.0, which means no label to Trainer; shift or scale"):
        run(encoder, tmp_path / "out", "--train_file", file, "--no_do_eval")


def test_dropout_of_fine_tuning_is_not_that_of_the_checkpoint(encoder, tmp_path):
    file = opinions(tmp_path / "rows.csv")
    found = {}
    for share in (0, 0.5):
        folder = tmp_path / str(share)
        flags = ("--train_file", file, "--max_steps", 1, "--logging_steps", 1, "--no_do_eval", "--dropout", share)
        run(encoder, folder, *flags)
        config = AutoConfig.from_pretrained(folder)
        assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (share, 0.1)
        found[share] = json.loads((folder / "trainer_state.json").read_text())["log_history"][0]["loss"]
    assert found[0] != found[0.5]
    with pytest.raises(InputError, match=r"--dropout 1\.0: must be at least 0 and below 1"):
        run(encoder, tmp_path / "out", "--train_file", file, "--dropout", 1)


@pytest.mark.parametrize(
    ("model_type", "names"),
    [
        ("modernbert", {"embedding_dropout", "mlp_dropout", "classifier_dropout"}),
        ("distilbert", {"dropout", "qa_dropout", "seq_classif_dropout"}),
        ("albert", {"hidden_dropout_prob", "classifier_dropout_prob"}),
    ],
)
def test_dropout_by_the_names_of_an_architecture(model_type, names):
    config = AutoConfig.for_model(model_type)
    set_dropout(config, 0.25)
    assert {name for name, value in config.to_dict().items() if value == 0.25} == names
    with pytest.raises(InputError, match=r"eurobert has none"):
        set_dropout(AutoConfig.for_model("eurobert"), 0.25)
