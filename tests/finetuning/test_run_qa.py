import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from datasets import Dataset
from forked import train_group
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForQuestionAnswering, AutoTokenizer, set_seed

from finetuning.common.arguments import CheckpointArguments, FineTuningArguments
from finetuning.metrics.squad_answers import score_answer
from finetuning.qa.answers import question_kind
from finetuning.qa.squad import read_questions
from finetuning.run_qa import THRESHOLD, DataArguments, main
from shared.command_line import parse_arguments
from shared.errors import InputError

RECIPE = "finetuning/recipes/qa_smoke.yaml"
KINDS = (CheckpointArguments, DataArguments, FineTuningArguments)
VALIDATION = "tests/data/questions_validation.json"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, wordpiece):
    """A tiny encoder as pretraining leaves it, with its tokenizer."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"), wordpiece, "modernbert")


def make_checkpoint(folder, tokenizer, model_type):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 64 + 2 * (model_type == "roberta")}
    set_seed(0)
    config = AutoConfig.for_model(model_type, pad_token_id=tokenizer.pad_token_id, **sizes)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def run(checkpoint, output_dir, *flags):
    words = ["--config", RECIPE, "--model_name_or_path", checkpoint, "--output_dir", str(output_dir)]
    return main(*parse_arguments(KINDS, [*words, "--disable_tqdm", "true", *map(str, flags)]))


def read(path):
    return json.loads(Path(path).read_text())


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def rows():
    return read_questions(VALIDATION).to_list()


@pytest.fixture(scope="module")
def finished(checkpoint, tmp_path_factory):
    """The smoke run."""
    folder = tmp_path_factory.mktemp("qa") / "run"
    return folder, run(checkpoint, folder)


@pytest.fixture(scope="module")
def predicted(finished, rows, tmp_path_factory):
    """The validation questions, backwards and without answers, predicted by the saved model."""
    folder = tmp_path_factory.mktemp("predicted")
    asked = [{name: row[name] for name in ("id", "question", "context")} for row in rows[::-1]]
    metrics = predict(finished[0], folder, write(folder / "test.jsonl", asked))
    return folder, metrics


def predict(model, folder, test_file, *flags):
    off = ["--do_train", "false", "--do_eval", "false", "--eval_strategy", "no"]
    return run(str(model), folder, *off, "--do_predict", "--test_file", test_file, *flags)


def test_the_smoke_recipe_learns(finished):
    folder, metrics = finished
    assert metrics["eval_f1"] > 90 and metrics["eval_has_answer_f1"] > 85 and metrics["eval_no_answer_f1"] > 80
    assert metrics["eval_f1"] >= metrics["eval_untuned_f1"] and metrics["eval_loss"] < 1
    assert {"recipe.yaml", "manifest.json", "README.md", "curve.png", "model.safetensors", "null_odds.json"} <= {
        path.name.removeprefix("eval_") for path in folder.iterdir()
    }
    assert read(folder / "all_results.json")["eval_f1"] == metrics["eval_f1"]


def test_the_scores_are_those_of_the_predictions_file(finished, rows):
    folder, metrics = finished
    answers = read(folder / "eval_predictions.json")
    assert list(answers) == [row["id"] for row in rows]
    scores = [score_answer(answers[row["id"]], row["answers"]["text"], version_2=True) for row in rows]
    assert 100 * np.mean(scores, axis=0) == pytest.approx([metrics["eval_exact_match"], metrics["eval_f1"]])


def test_each_split_for_validation_has_its_own_predictions(finished, rows, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "validation.jsonl", rows)
    write(folder / "short.jsonl", rows[:9])
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: validation, path: validation.jsonl}\n"
        "  - {split: validation_short, path: short.jsonl}\n---\n"
    )
    words = ["--model_name_or_path", finished[0], "--output_dir", tmp_path / "out", "--disable_tqdm", "true"]
    words += ["--no_do_train", "--dataset_name", folder, "--version_2_with_negative"]
    words += ["--max_seq_length", 64, "--doc_stride", 16, "--max_question_length", 24]
    found = main(*parse_arguments(KINDS, [*map(str, words)]))
    assert {"eval_f1", "eval_short_f1"} <= {*found}
    for name, some in (("eval", rows), ("eval_short", rows[:9])):
        assert list(read(tmp_path / "out" / f"{name}_predictions.json")) == [row["id"] for row in some]


def test_the_threshold_is_in_the_config_and_decides(finished, predicted, rows):
    """A test set is answered as validation was, by the saved model alone, in the order of the file."""
    (folder, metrics), (found, _) = finished, predicted
    threshold = read(folder / "config.json")[THRESHOLD]
    assert threshold == metrics["eval_no_answer_threshold"] != 0
    answers = read(found / "predictions.json")
    assert list(answers) == [row["id"] for row in rows[::-1]] and answers == read(folder / "eval_predictions.json")
    odds = read(found / "null_odds.json")
    assert [answers[name] == "" for name in answers] == [odds[name] > threshold for name in answers]
    assert 0 < sum(text == "" for text in answers.values()) < len(answers)
    # Another threshold, other answers.
    other = found / "other"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("checkpoint-*", "manifest.json"))
    (other / "config.json").write_text(json.dumps(read(folder / "config.json") | {THRESHOLD: -100.0}))
    predict(other, found / "silent", found / "test.jsonl")
    assert set(read(found / "silent" / "predictions.json").values()) == {""}


def test_a_threshold_is_for_the_second_version_and_is_not_kept_in_training(finished, rows, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(finished[0], folder, ignore=shutil.ignore_patterns("checkpoint-*", "manifest.json"))
    (folder / "config.json").write_text(json.dumps(read(folder / "config.json") | {THRESHOLD: -1e9}))
    test = write(tmp_path / "test.jsonl", answerable(rows))
    predict(folder, tmp_path / "found", test, "--version_2_with_negative", "false")
    assert "" not in read(tmp_path / "found" / "predictions.json").values()
    assert not (tmp_path / "found" / "null_odds.json").exists()
    flags = ["--max_steps", 1, "--no_do_eval", "--eval_strategy", "no", "--load_best_model_at_end", "false"]
    with pytest.raises(InputError, match="knows no no_answer_threshold; find it by --do_eval"):
        run(str(folder), tmp_path / "again", *flags, "--do_predict", "--test_file", VALIDATION)
    train = write(tmp_path / "train.jsonl", answerable(rows))
    run(str(folder), tmp_path / "first", *flags, "--train_file", train, "--version_2_with_negative", "false")
    assert THRESHOLD not in read(tmp_path / "first" / "config.json")


def test_a_test_set_without_answers_is_not_scored(predicted):
    _, metrics = predicted
    assert not any(part in name for name in metrics for part in ("f1", "exact", "loss"))


def test_a_test_set_with_answers_is_scored_by_the_saved_threshold(finished, tmp_path):
    metrics = predict(finished[0], tmp_path / "out", VALIDATION)
    assert metrics["test_f1"] == pytest.approx(finished[1]["eval_f1"])
    assert metrics["test_no_answer_threshold"] == finished[1]["eval_no_answer_threshold"]


def test_n_best_answers_have_probabilities_and_places(predicted, rows):
    folder, _ = predicted
    answers, n_best = read(folder / "predictions.json"), read(folder / "nbest_predictions.json")
    assert list(n_best) == list(answers)
    for row in rows:
        found = n_best[row["id"]]
        assert sum(answer["probability"] for answer in found) == pytest.approx(1)
        assert [a["probability"] for a in found] == sorted((a["probability"] for a in found), reverse=True)
        texts = [answer for answer in found if answer["answer_start"] is not None]
        assert len(texts) == 20 and len(found) == 21
        for answer in texts:
            assert row["context"][answer["answer_start"] :].startswith(answer["text"])
        assert answers[row["id"]] in ("", texts[0]["text"])


def plain_answer(model, tokenizer, question, context):
    """As the pipeline does it: probabilities over the context and [CLS], the likeliest pair, or no answer if that is
    likelier still."""
    inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    sides, places = inputs.sequence_ids(), inputs.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        outputs = model(**inputs)
    allowed = torch.tensor([side == 1 for side in sides])
    allowed[0] = True
    starts, ends = (
        logits[0].masked_fill(~allowed, -10_000).softmax(0) for logits in (outputs.start_logits, outputs.end_logits)
    )
    null = float(starts[0] * ends[0])
    pairs = torch.outer(starts, ends).triu().tril(29)
    pairs[0], pairs[:, 0] = 0, 0
    start, end = divmod(int(pairs.argmax()), len(sides))
    text = context[places[start][0] : places[end][1]]
    return "" if null > pairs[start, end] else text


def test_the_model_answers_alike_when_anybody_loads_it(finished, predicted, rows):
    """Contexts of one window; among several the pipeline compares probabilities, and SQuAD's scripts scores."""
    folder, _ = finished
    model, tokenizer = AutoModelForQuestionAnswering.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts, odds = read(predicted[0] / "nbest_predictions.json"), read(predicted[0] / "null_odds.json")
    compared = 0
    for row in rows:
        if len(tokenizer(row["question"], row["context"])["input_ids"]) <= 64:
            compared += 1
            best = next(answer["text"] for answer in texts[row["id"]] if answer["text"])
            wanted = "" if odds[row["id"]] > 0 else best  # the pipeline knows no threshold: it is 0
            assert plain_answer(model, tokenizer, row["question"], row["context"]) == wanted
    assert 20 < compared < len(rows)


@pytest.mark.skipif(
    "question-answering" not in transformers.pipelines.get_supported_tasks(),
    reason="transformers has had no question-answering pipeline since 5.3",
)
def test_the_pipeline_gives_the_same_answers(finished, predicted, rows):
    folder, _ = finished
    ask = transformers.pipeline("question-answering", model=str(folder), device="cpu")
    texts = read(predicted[0] / "nbest_predictions.json")
    for row in rows:
        if len(ask.tokenizer(row["question"], row["context"])["input_ids"]) <= 64:
            found = ask(
                question=row["question"],
                context=row["context"],
                max_seq_len=64,
                doc_stride=24,
                max_answer_len=30,
                align_to_words=False,
            )
            assert found["answer"] == next(answer["text"] for answer in texts[row["id"]] if answer["text"])


def test_the_code_in_the_model_card_runs(finished, predicted, rows, capsys):
    folder, _ = finished
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    row = next(row for row in rows if row["answers"]["text"] and len(row["context"]) < 120)
    code = code.replace("path/or/id/of/this/model", str(folder)).replace('"Who ...?"', repr(row["question"]))
    exec(code.replace('"..."', repr(row["context"])), {})
    text, _, odds = capsys.readouterr().out.strip().rpartition(" ")
    assert text == row["answers"]["text"][0]
    assert float(odds) == pytest.approx(-read(predicted[0] / "null_odds.json")[row["id"]], abs=1e-3)


def test_the_error_analysis(finished, rows):
    folder, metrics = finished
    page = (folder / "errors" / "errors.md").read_text()
    answers = read(folder / "eval_predictions.json")
    assert "| has none |" in page and "| where |" in page and "words | rows | F1" in page
    mistakes = [json.loads(line) for line in (folder / "errors" / "worst_mistakes.jsonl").read_text().splitlines()]
    wrong = [row for row in rows if score_answer(answers[row["id"]], row["answers"]["text"], True)[1] < 1]
    assert {mistake["id"] for mistake in mistakes} == {row["id"] for row in wrong}
    for mistake in mistakes:
        assert mistake["predicted"] == answers[mistake["id"]] and 0 <= mistake["probability"] <= 1
    assert f"F1 {metrics['eval_f1'] / 100:.3f}" in page


@pytest.mark.parametrize(
    ("question", "kind"),
    [("How many cats?", "how many"), ("In what city?", "what"), ("Name it.", "other"), ("To whom?", "whom")],
)
def test_kinds_of_questions(question, kind):
    assert question_kind(question) == kind


def answerable(rows):
    return [row for row in rows if row["answers"]["text"]]


def changed(rows, **changes):
    return [rows[0] | changes, *rows[1:]]


BAD = {
    "missing column": (lambda rows: [{"id": "1", "question": "?", "text": "x"}], "no column context; there are id"),
    "null": (lambda rows: changed(rows, context=None), "row 1: column context is empty"),
    "duplicate": (lambda rows: changed(rows, id=rows[1]["id"]), "row 2: its id .* is that of row 1"),
    "misplaced": (lambda rows: changed(rows, context="x" + rows[0]["context"]), "not at their answer_start"),
    "answers": (lambda rows: changed(rows, answers={"text": [], "answer_start": []}), "--version_2_with_negative"),
}


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_questions_are_named_before_the_model_loads(rows, tmp_path, split, bad):
    change, message = BAD[bad]
    good = write(tmp_path / "good.jsonl", answerable(rows))
    wrong = write(tmp_path / f"{split}.jsonl", change(answerable(rows)))
    files = {"train": good, "validation": good} | {split: wrong}
    flags = ["--train_file", files["train"], "--validation_file", files["validation"]]
    with pytest.raises(InputError, match=f"{split}.jsonl: .*{message}"):
        run("no/such/model", tmp_path / "out", *flags, "--version_2_with_negative", "false")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--doc_stride", 60], "--doc_stride 60: must be from 0 to"),
        (["--max_seq_length", 200], "--max_seq_length 200: the model has only 64 positions"),
        (["--max_answer_length", 0], "--max_answer_length 0"),
        (["--n_best_size", 0], "--n_best_size 0"),
        (["--do_predict"], "there is no test split"),
    ],
)
def test_wrong_flags(checkpoint, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run(checkpoint, tmp_path / "out", *flags)


def test_version_2_needs_questions_of_both_kinds(checkpoint, rows, tmp_path):
    path = write(tmp_path / "all.jsonl", answerable(rows))
    with pytest.raises(InputError, match=r"all.jsonl: every question has an answer"):
        run(checkpoint, tmp_path / "out", "--validation_file", path)


def test_version_2_needs_a_threshold(checkpoint, tmp_path):
    model = AutoModelForQuestionAnswering.from_pretrained(checkpoint)
    model.save_pretrained(tmp_path / "qa")
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path / "qa")
    with pytest.raises(InputError, match="knows no no_answer_threshold; find it by --do_eval"):
        predict(tmp_path / "qa", tmp_path / "out", VALIDATION)


def test_misplaced_answers_are_dropped_and_listed(checkpoint, rows, tmp_path, capsys):
    path = write(tmp_path / "train.jsonl", changed(answerable(rows), context="x" + answerable(rows)[0]["context"]))
    flags = ["--train_file", path, "--validation_file", write(tmp_path / "v.jsonl", answerable(rows))]
    flags += ["--version_2_with_negative", "false", "--drop_misplaced_answers", "--max_steps", 2]
    metrics = run(checkpoint, tmp_path / "out", *flags)
    assert "Left out 1 misplaced answers and 1 questions" in capsys.readouterr().out
    line = json.loads((tmp_path / "out" / "misplaced_answers.jsonl").read_text())
    assert (line["row"], line["where"]) == (1, path) and line["there"] != line["answer"]
    assert set(metrics) & {"eval_f1", "eval_no_answer_f1", "eval_untuned_f1"} == {"eval_f1"}  # version 1.1
    assert not (tmp_path / "out" / "eval_null_odds.json").exists()
    best = read(tmp_path / "out" / "eval_nbest_predictions.json")
    assert all(answer["text"] for answers in best.values() for answer in answers)


@pytest.mark.parametrize("count", [1, 2])
def test_very_small_sets(checkpoint, rows, tmp_path, count):
    path = write(tmp_path / "small.jsonl", answerable(rows)[:count])
    flags = ["--train_file", path, "--validation_file", path, "--test_file", path, "--do_predict"]
    metrics = run(checkpoint, tmp_path / "out", *flags, "--version_2_with_negative", "false", "--max_steps", 2)
    assert all(math.isfinite(value) for value in metrics.values())
    assert len(read(tmp_path / "out" / "predictions.json")) == count


def test_an_empty_set(checkpoint, tmp_path):
    Dataset.from_dict({"id": [], "question": [], "context": []}).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(InputError, match=r"none\.parquet: holds no rows"):
        run(checkpoint, tmp_path / "out", "--train_file", tmp_path / "none.parquet")


def test_a_context_of_100_000_characters_and_a_long_word(checkpoint, rows, tmp_path):
    row = answerable(rows)[0]
    far = 100_000 - len(row["context"])
    answers = {"text": row["answers"]["text"], "answer_start": [row["answers"]["answer_start"][0] + far]}
    long = row | {"context": "Nobody was cold. " * (far // 17) + " " * (far % 17) + row["context"], "answers": answers}
    start = answers["answer_start"][0] - far + 1801
    word = row | {"id": "w", "context": "x" * 1800 + " " + row["context"]}
    word["answers"] = {"text": answers["text"], "answer_start": [start]}
    path = write(tmp_path / "long.jsonl", [long, word])
    flags = ["--train_file", path, "--validation_file", path, "--version_2_with_negative", "false", "--max_steps", 1]
    metrics = run(checkpoint, tmp_path / "out", *flags)
    assert len(long["context"]) == 100_000 and math.isfinite(metrics["eval_f1"])


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_other_encoders(wordpiece, bpe, tmp_path, model_type):
    tokenizer = bpe if model_type == "roberta" else wordpiece
    start = make_checkpoint(tmp_path / "start", tokenizer, model_type)
    metrics = run(start, tmp_path / "out", "--max_steps", 60, "--learning_rate", "1e-3")
    assert metrics["eval_loss"] < 3.5 and math.isfinite(metrics["eval_f1"])
    model, info = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and hasattr(model.config, THRESHOLD)


def test_going_on_from_a_checkpoint_ends_with_the_same_weights(checkpoint, finished, tmp_path):
    flags = ["--max_steps", 30, "--save_steps", 20, "--eval_strategy", "no"]
    run(checkpoint, tmp_path / "whole", *flags)
    (tmp_path / "resumed").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-20", tmp_path / "resumed" / "checkpoint-20")
    run(checkpoint, tmp_path / "resumed", *flags)
    names = ("model.safetensors", "eval_predictions.json", "config.json")
    assert all((tmp_path / "whole" / n).read_bytes() == (tmp_path / "resumed" / n).read_bytes() for n in names)
    assert read(tmp_path / "resumed" / "manifest.json")["resumed_from"]


def test_the_dry_run_splits_a_batch(checkpoint, tmp_path):
    plan = run(checkpoint, tmp_path / "out", "--dry_run")
    norms = [value for name, value in plan.items() if name.startswith("gradient_norm")]
    assert len(norms) == 2 and norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_seeds(checkpoint, tmp_path):
    flags = ["--seeds", 1, 2, "--max_steps", 3, "--eval_strategy", "no", "--max_eval_samples", 40]
    summary = run(checkpoint, tmp_path / "out", *flags)
    losses = [found["eval_loss"] for found in summary["runs"]]
    assert losses[0] != losses[1] and summary["eval_loss_mean"] == pytest.approx(np.mean(losses))
    assert yaml.safe_load((tmp_path / "out" / "seed-2" / "recipe.yaml").read_text())["seed"] == 2


@pytest.mark.faults
def test_a_search(checkpoint, tmp_path):
    pytest.importorskip("optuna")
    flags = ["--search_trials", 2, "--search_space", "learning_rate=1e-5,3e-3", "--max_steps", 30]
    run(checkpoint, tmp_path / "out", *flags, "--max_train_samples", 200, "--eval_strategy", "no")
    found = read(tmp_path / "out" / "search.json")
    assert found["metric"] == "eval_f1" and len(found["trials"]) == 2
    assert all(0 <= trial["eval_f1"] <= 100 for trial in found["trials"])


def test_two_processes_answer_as_one_does(checkpoint, finished, tmp_path):
    """What evaluation keeps is gathered from both."""
    alone, metrics = finished
    flags = ["--config", RECIPE, "--model_name_or_path", alone, "--do_train", "false", "--do_predict"]
    flags += ["--test_file", VALIDATION, "--ddp_backend", "gloo"]
    folder = train_group(tmp_path / "run", "finetuning/run_qa.py", *flags)
    assert read(folder / "predictions.json") == read(alone / "eval_predictions.json")
    assert read(folder / "manifest.json")["processes"] == 2
    assert read(folder / "all_results.json")["eval_f1"] == pytest.approx(metrics["eval_f1"])
