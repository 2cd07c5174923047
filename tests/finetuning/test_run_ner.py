import json
import math
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import seqeval.metrics
import torch
from conftest import ROOT
from datasets import ClassLabel, Dataset, Features, List, Value
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
    set_seed,
)

from finetuning.common.arguments import CheckpointArguments, FineTuningArguments
from finetuning.ner.conll import read_columns
from finetuning.ner.sentences import Sentences
from finetuning.ner.tags import find_entities, labels_of, write_tags
from finetuning.ner.windows import encode, first_tokens, make_windows
from finetuning.run_ner import DataArguments, main
from shared.command_line import parse_arguments
from shared.errors import InputError

DATA = os.environ.get("TINY_OLM_DATA", "")
RECIPE = "finetuning/recipes/ner_smoke.yaml"
KINDS = (CheckpointArguments, DataArguments, FineTuningArguments)
TRAIN, VALIDATION = "tests/data/tagged_train.conll", "tests/data/tagged_validation.conll"
OFF = ("--no_do_train", "--no_do_eval", "--eval_strategy", "no")


def make_checkpoint(folder, tokenizer, model_type):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 64 + 2 * (model_type == "roberta")}
    set_seed(0)
    config = AutoConfig.for_model(model_type, pad_token_id=tokenizer.pad_token_id, **sizes)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, wordpiece):
    """A tiny encoder as pretraining leaves it, with its tokenizer."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"), wordpiece, "modernbert")


def run(checkpoint, output_dir, *flags):
    words = ["--config", RECIPE, "--model_name_or_path", str(checkpoint), "--output_dir", str(output_dir)]
    return main(*parse_arguments(KINDS, [*words, "--disable_tqdm", "true", *map(str, flags)]))


@pytest.fixture(scope="module")
def finished(checkpoint, tmp_path_factory):
    """The smoke run, which also predicts the validation file as a test set."""
    folder = tmp_path_factory.mktemp("ner") / "run"
    return folder, run(checkpoint, folder, "--do_predict", "--test_file", VALIDATION)


def predict(model, folder, sentences, *flags):
    """Words without tags, predicted by a saved model: for each sentence its words, tags and probabilities."""
    Dataset.from_dict({"tokens": sentences}).to_json(str(folder) + ".jsonl")
    metrics = run(model, folder, *OFF, "--do_predict", "--test_file", f"{folder}.jsonl", *flags)
    return read_predictions(folder), metrics


def read_predictions(folder):
    blocks = (Path(folder) / "predictions.conll").read_text(encoding="utf-8").removesuffix("\n\n").split("\n\n")
    return [[line.split("\t") for line in block.split("\n")] for block in blocks]


@pytest.fixture(scope="module")
def sentences():
    rows = read_columns(VALIDATION)
    return Sentences(rows["tokens"][:], rows["tags"][:])


def write_table(path, words, tags, names=None):
    """A parquet file, with a ClassLabel of these names if there are some."""
    features = {
        "tokens": List(Value("string")),
        "ner_tags": List(ClassLabel(names=names) if names else Value("string")),
    }
    tags = [[names.index(tag) for tag in row] for row in tags] if names else tags
    Dataset.from_dict({"tokens": words, "ner_tags": tags}, Features(features)).to_parquet(str(path))
    return str(path)


def test_the_smoke_recipe_learns(finished):
    folder, metrics = finished
    assert metrics["eval_f1"] == metrics["test_f1"] > 0.9 and metrics["eval_strict_f1"] > 0.9
    assert metrics["eval_accuracy"] > 0.95 > 0.6 > metrics["eval_outside_accuracy"] > 0.5
    assert {"recipe.yaml", "manifest.json", "README.md", "curve.png", "model.safetensors", "predictions.conll"} <= {
        path.name for path in folder.iterdir()
    }
    results = json.loads((folder / "all_results.json").read_text())
    report = json.loads((folder / "eval_report.json").read_text())
    assert results["eval_f1"] == metrics["eval_f1"] and list(report) == ["LOC", "ORG", "PER"]
    assert all(report[kind]["f1"] == metrics[f"eval_f1_{kind}"] for kind in report)
    assert {"precision", "recall", "support", "strict_f1"} < set(report["PER"])


def test_predictions_are_in_the_order_of_the_input(finished, sentences):
    """A line for each word, an empty one between sentences, and the scores are those of the tags in the file."""
    folder, metrics = finished
    rows = read_predictions(folder)
    assert [[word for word, *_ in row] for row in rows] == sentences.words
    hits = [
        tag == gold
        for row, tags in zip(rows, sentences.tags, strict=True)
        for (_, tag, *_), gold in zip(row, tags, strict=True)
    ]
    assert np.mean(hits) == metrics["test_accuracy"]
    gold = {(i, *e) for i, tags in enumerate(sentences.tags) for e in find_entities(tags)}
    for column in (1, 3):  # as predicted, and written as IOB2 wants it: the same entities
        found = {(i, *e) for i, row in enumerate(rows) for e in find_entities([line[column] for line in row])}
        assert 2 * len(gold & found) / (len(gold) + len(found)) == pytest.approx(metrics["test_f1"])
    assert all(0 < float(line[2]) <= 1 for row in rows for line in row)


def test_the_pipeline_gives_the_same_tags(finished, sentences, tmp_path):
    """For text whose words stand between spaces: the tag of a word is that of its first token."""
    folder, _ = finished
    words = [*sentences.words[:30], ["don't", "(Berlin)", "Rio-Lima", "Annabella", "."], ["unheard", "of", "words"]]
    rows, _ = predict(folder, tmp_path / "out", words)
    find = pipeline("token-classification", model=str(folder), device="cpu", ignore_labels=[])
    for row, answer in zip(rows, find([" ".join(sentence) for sentence in words]), strict=True):
        at = 0
        of_start = {token["start"]: token for token in answer}
        for word, tag, share, _ in row:
            assert of_start[at]["entity"] == tag
            assert float(of_start[at]["score"]) == pytest.approx(float(share), abs=1e-4)
            at += len(word) + 1
    grouped = pipeline("token-classification", model=str(folder), device="cpu", aggregation_strategy="first")
    for row, answer in zip(rows[:30], grouped([" ".join(sentence) for sentence in words[:30]]), strict=True):
        if any(not word.isalpha() and len(word) > 1 for word, *_ in row):
            continue  # here the pipeline's words are smaller than ours
        sentence = [line[0] for line in row]
        entities = [(kind, " ".join(sentence[a:b])) for kind, a, b in find_entities([line[1] for line in row])]
        text = " ".join(sentence)
        assert [(e["entity_group"], text[e["start"] : e["end"]]) for e in answer] == entities


def test_the_pipeline_takes_words_too(finished, sentences):
    folder, _ = finished
    find = pipeline("token-classification", model=str(folder), device="cpu", ignore_labels=[])
    for row, words in zip(read_predictions(folder)[:20], sentences.words[:20], strict=True):
        of_start = {token["start"]: token["entity"] for token in find(words, is_split_into_words=True)[0]}
        starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
        assert [of_start[start] for start in starts] == [line[1] for line in row]


def test_the_order_of_labels_changes_no_score(finished, checkpoint, sentences, tmp_path):
    """Names decide: in other data, and in a checkpoint that goes on from another order."""
    trained, metrics = finished
    names = [*AutoConfig.from_pretrained(trained).label2id]
    for seed in (1, 2):
        shuffled = random.Random(seed).sample(names, len(names))
        file = write_table(tmp_path / f"{seed}.parquet", sentences.words, sentences.tags, shuffled)
        found = run(
            trained, tmp_path / f"out{seed}", "--no_do_train", "--eval_strategy", "no", "--validation_file", file
        )
        for key in ("eval_f1", "eval_strict_f1", "eval_accuracy", "eval_f1_ORG"):
            assert found[key] == metrics[key]
        assert found["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-5)
        more = ("--train_file", file, "--validation_file", file, "--max_steps", 1, "--learning_rate", 1e-9)
        assert run(trained, tmp_path / f"more{seed}", *more)["eval_f1"] == metrics["eval_f1"]
        assert (
            AutoConfig.from_pretrained(tmp_path / f"more{seed}").id2label
            == AutoConfig.from_pretrained(trained).id2label
        )


def test_a_model_has_the_types_in_the_order_of_the_data(finished, checkpoint, tmp_path):
    """So two models may differ in their order, and each is read with its own."""
    rows = read_columns(TRAIN)
    order = ["I-PER", "O", "B-ORG", "I-LOC", "B-PER", "I-ORG", "B-LOC"]
    file = write_table(tmp_path / "train.parquet", rows["tokens"][:], rows["tags"][:], order)
    flags = ("--train_file", file, "--test_file", VALIDATION, "--do_predict", "--max_steps", 60)
    found = run(checkpoint, tmp_path / "other", *flags, "--eval_strategy", "no")
    config = AutoConfig.from_pretrained(tmp_path / "other")
    assert list(config.id2label.values()) == ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
    assert found["test_accuracy"] == found["eval_accuracy"] > found["eval_outside_accuracy"] + 0.1
    again = run(tmp_path / "other", tmp_path / "again", "--no_do_train", "--eval_strategy", "no")
    assert again["eval_f1"] == found["eval_f1"]


def test_schemes_of_data_and_model(finished, sentences, tmp_path):
    """Data in any scheme score the same; a model of BIOES or IOB1 says so, is read back so, and writes so."""
    trained, metrics = finished
    files = {}
    for scheme in ("IOB1", "BIOES"):
        tags = [write_tags(find_entities(row), len(row), scheme) for row in sentences.tags]
        files[scheme] = write_table(tmp_path / f"{scheme}.parquet", sentences.words, tags)
        found = run(
            trained, tmp_path / scheme, "--no_do_train", "--eval_strategy", "no", "--validation_file", files[scheme]
        )
        assert (found["eval_f1"], found["eval_strict_f1"]) == (metrics["eval_f1"], metrics["eval_strict_f1"])


def test_a_model_of_another_scheme(checkpoint, tmp_path):
    flags = ("--validation_file", VALIDATION, "--test_file", VALIDATION, "--do_predict")
    for scheme in ("BIOES", "IOB1"):
        steps = ("--eval_strategy", "no", "--max_steps", 40)
        found = run(checkpoint, tmp_path / scheme, "--tag_scheme", scheme, *flags, *steps)
        assert found["eval_f1"] > 0.1 and found["eval_strict_f1"] > 0.1
        config = AutoConfig.from_pretrained(tmp_path / scheme)
        assert config.tag_scheme == scheme and (scheme == "IOB1" or config.num_labels == 13)
        again = run(tmp_path / scheme, tmp_path / f"{scheme} again", "--no_do_train", "--eval_strategy", "no", *flags)
        assert (again["eval_f1"], again["eval_strict_f1"]) == (found["eval_f1"], found["eval_strict_f1"])
        for row in read_predictions(tmp_path / f"{scheme} again"):
            tags = [line[3] for line in row]
            assert tags == write_tags(find_entities(tags), len(tags), scheme)


def test_a_test_set_without_tags_is_predicted_and_not_scored(finished, sentences, tmp_path):
    folder, _ = finished
    rows, metrics = predict(folder, tmp_path / "out", sentences.words)
    assert rows == read_predictions(folder)
    assert not [key for key in metrics if "f1" in key or "loss" in key or "accuracy" in key]
    assert not (tmp_path / "out" / "test_report.json").exists()
    words = tmp_path / "words.txt"
    words.write_text("\n".join("\n".join(sentence) + "\n" for sentence in sentences.words))
    run(folder, tmp_path / "columns", *OFF, "--do_predict", "--test_file", words)
    assert read_predictions(tmp_path / "columns") == rows


def test_every_word_is_predicted(finished, tmp_path):
    """Long sentences, long words, and words that the tokenizer drops."""
    folder, _ = finished
    words = [
        ["Anna", "\u200b", "went", "", "to", "Oslo", "😀", "."],
        ["Anna", "went", "to", "New", "York", "."] * 100,
        ["Anna", "-#" * 300, "Oslo"],
        ["\u200b"],
    ]
    rows, _ = predict(folder, tmp_path / "out", words)
    assert [[line[0] for line in row] for row in rows] == words
    # The same from the model alone, window by window.
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    windows = make_windows(AutoTokenizer.from_pretrained(folder), words, 64, None)
    assert windows["sentence"].count(1) > 10 and windows["sentence"].count(2) == 3
    of_word = {}
    for ids, word_ids, sentence in zip(windows["input_ids"], windows["word_ids"], windows["sentence"], strict=True):
        with torch.no_grad():
            shares, classes = model(torch.tensor([ids])).logits[0].softmax(-1).max(-1)
        for at in first_tokens(word_ids):
            of_word[sentence, word_ids[at]] = model.config.id2label[int(classes[at])], float(shares[at])
    for i, row in enumerate(rows):
        for j, (_, tag, share, _) in enumerate(row):
            assert tag == of_word[i, j][0] and float(share) == pytest.approx(of_word[i, j][1], abs=1e-4)


def test_windows_do_not_change_short_sentences(finished, sentences, tmp_path):
    folder, _ = finished
    short = [words for words in sentences.words if len(words) < 6]
    alone, _ = predict(folder, tmp_path / "alone", short)
    mixed, _ = predict(
        folder, tmp_path / "mixed", [short[0] * 40, *short, short[1] * 30], "--per_device_eval_batch_size", 3
    )
    assert [[line[:2] for line in row] for row in mixed[1:-1]] == [[line[:2] for line in row] for row in alone]


def test_the_errors_are_counted(finished, sentences):
    folder, _ = finished
    page = (folder / "errors" / "errors.md").read_text()
    mistakes = [json.loads(line) for line in (folder / "errors" / "worst_mistakes.jsonl").read_text().splitlines()]
    rows = read_predictions(folder)
    wrong = [i for i, row in enumerate(rows) if [line[1] for line in row] != sentences.tags[i]]
    assert sorted(mistake["index"] for mistake in mistakes) == wrong
    assert f"{len(wrong)} of 60 sentences have a wrong tag" in page
    assert (folder / "errors" / "reliability.png").read_bytes()[:4] == b"\x89PNG"
    assert f"| PER | {json.loads((folder / 'eval_report.json').read_text())['PER']['precision']:.3f} |" in page


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_other_architectures_and_all_tokens_labelled(model_type, tmp_path, bpe, wordpiece):
    checkpoint = make_checkpoint(tmp_path / model_type, bpe if model_type == "roberta" else wordpiece, model_type)
    folder = tmp_path / "run"
    flags = ("--label_all_tokens", "--max_steps", 40, "--eval_strategy", "no", "--train_file", VALIDATION)
    found = run(checkpoint, folder, *flags, "--do_predict", "--test_file", VALIDATION)
    assert found["eval_f1"] > 0.1 and found["eval_accuracy"] == found["test_accuracy"]
    find = pipeline("token-classification", model=str(folder), device="cpu", ignore_labels=[])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    compared = 0
    for row in read_predictions(folder):
        line = " ".join(word for word, *_ in row)
        if len(tokenizer(line)["input_ids"]) > 64:
            continue  # the model is small, and the pipeline does not know
        compared, answer = compared + 1, find(line)
        starts = np.cumsum([0, *(len(word) + 1 for word, *_ in row[:-1])])
        of_start = {}
        for token in answer:  # a byte-level one may begin with the space before the word
            of_start.setdefault(token["start"] + (line[token["start"]] == " "), token["entity"])
        assert [of_start[start] for start in starts] == [tag for _, tag, *_ in row]
    assert compared > 40


def test_all_tokens_of_a_word_are_labelled(wordpiece):
    label2id = {label: i for i, label in enumerate(labels_of(["X"], "BIOES"))}
    some = Sentences([["Annabella", "went", "to"]], [["S-X", "O", "O"]])
    windows = [
        encode(wordpiece, some.words, some.tags, label2id, 512, None, True, all_tokens) for all_tokens in (False, True)
    ]
    first, every = (rows["labels"][0] for rows in windows)
    tokens = len(wordpiece("Annabella", add_special_tokens=False)["input_ids"])
    assert tokens > 2 and first[: tokens + 1] == [-100, label2id["S-X"]] + [-100] * (tokens - 1)
    assert every[: tokens + 1] == [-100, label2id["S-X"]] + [label2id["I-X"]] * (tokens - 1)
    assert set(every[tokens + 1 : -1]) == {0} and every[-1] == -100


def test_a_resumed_run_is_the_same_run(finished, checkpoint, tmp_path):
    """In the middle of an epoch, with batches grouped by length, which stock Trainer does not resume exactly."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    flags = ("--max_steps", 45, "--save_steps", 15, "--eval_strategy", "no")
    metrics = run(checkpoint, whole, *flags)
    part.mkdir()
    shutil.copytree(whole / "checkpoint-30", part / "checkpoint-30")
    assert run(checkpoint, part, *flags)["eval_f1"] == metrics["eval_f1"]
    assert json.loads((part / "manifest.json").read_text())["resumed_from"].endswith("checkpoint-30")
    assert (whole / "model.safetensors").read_bytes() == (part / "model.safetensors").read_bytes()


def test_seeds_and_search(checkpoint, tmp_path):
    space = ("--search_trials", 2, "--search_space", "learning_rate=1e-5,3e-3", "--search_fraction", 0.3)
    flags = ("--max_train_samples", 60, "--seeds", 1, 2, "--num_train_epochs", 1, "--eval_strategy", "no", *space)
    found = run(checkpoint, tmp_path, *flags)
    values = [json.loads((tmp_path / f"seed-{seed}" / "all_results.json").read_text())["eval_f1"] for seed in (1, 2)]
    assert found["eval_f1_mean"] == pytest.approx(np.mean(values))
    assert found["eval_f1_std"] == pytest.approx(np.std(values, ddof=1))
    assert "eval_strict_f1_mean" in found


def test_dry_run(checkpoint, tmp_path):
    plan = run(checkpoint, tmp_path / "out", "--dry_run")
    assert plan["steps"] > 100 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("rows", [1, 2])
def test_very_small_sets_and_a_batch_larger_than_them(rows, checkpoint, tmp_path):
    file = tmp_path / "small.conll"
    file.write_text("\n".join(f"Anna B-PER\nwent{i} O\n" for i in range(rows)))
    flags = ("--train_file", file, "--validation_file", file, "--test_file", file, "--do_predict", "--max_steps", 2)
    found = run(checkpoint, tmp_path / "out", *flags, "--per_device_train_batch_size", 64)
    assert all(math.isfinite(value) for value in found.values())
    assert len(read_predictions(tmp_path / "out")) == rows


def test_each_split_for_validation_is_scored_under_its_own_name(finished, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = read_columns(VALIDATION).remove_columns("line")
    for name, some in (("validation", rows), ("short", rows.select(range(9)))):
        some.to_json(str(folder / f"{name}.jsonl"))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: validation, path: validation.jsonl}\n"
        "  - {split: validation_short, path: short.jsonl}\n---\n"
    )
    flags = ("--no_do_train", "--dataset_name", folder, "--max_seq_length", 64)
    words = ["--model_name_or_path", finished[0], "--output_dir", tmp_path / "out", "--disable_tqdm", "true"]
    found = main(*parse_arguments(KINDS, [*map(str, (*words, *flags))]))
    assert found["eval_f1"] == finished[1]["eval_f1"] and "eval_short_f1" in found
    for name, count in (("errors", len(rows)), ("errors_short", 9)):
        assert len((tmp_path / "out" / name / "predictions.jsonl").read_text().splitlines()) == count


BAD = {
    "a,b\n1,2\n": (".csv", "has no column word or token; there are a, b; name it by --text_column"),
    "": (".jsonl", "empty"),
    "\n\n": (".conll", "holds no rows"),
    '{"tokens": ["a", "b"], "tags": ["O", "B-X"]}\n{"tokens": ["a"], "tags": ["O", "O"]}\n': (
        ".jsonl",
        "row 2: 1 words and 2",
    ),
    '{"tokens": ["a", null], "tags": ["O", "B-X"]}\n': (".jsonl", "row 1: column tokens: a word is missing"),
    "a B-X\n\nb O\nc I-X\n": (".conll", "sentence 2, from line 3: I-X of word 2 ('c') is not IOB2"),
    "a O\n\nb O\n": (".conll", "every tag is O"),
    "a\nb\n": (".txt", "has no column ner_tags or tags"),
}


@pytest.mark.parametrize("text", BAD)
def test_bad_training_data_is_refused_before_the_model_loads(text, tmp_path):
    suffix, message = BAD[text]
    path = tmp_path / f"train{suffix}"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        run("no/such/model", tmp_path / "out", "--train_file", path)
    assert str(path) in str(error.value) and message in str(error.value)


def test_other_errors_name_what_is_wrong(finished, checkpoint, tmp_path):
    trained, _ = finished
    other = tmp_path / "other.conll"
    other.write_text("a B-FOOD\nb O\n")
    no_types = tmp_path / "headless"
    shutil.copytree(trained, no_types, ignore=shutil.ignore_patterns("checkpoint-*", "manifest.json"))
    config = json.loads((no_types / "config.json").read_text())
    labels = {f"LABEL_{i}": i for i in range(7)}
    config |= {"label2id": labels, "id2label": {str(i): name for name, i in labels.items()}}
    (no_types / "config.json").write_text(json.dumps(config))
    evaluate = ("--no_do_train", "--eval_strategy", "no")
    for flags, model, message in (
        (("--validation_file", other), checkpoint, r"other\.conll: sentence 1, from line 1: an entity of type FOOD"),
        ((*evaluate, "--validation_file", other), trained, "type FOOD, which training has not seen"),
        (("--train_file", other, "--validation_file", other), trained, "was fine-tuned for 7 labels"),
        (("--do_predict",), checkpoint, "--do_predict: there is no test split"),
        (evaluate, checkpoint, "has no head for this task"),
        (evaluate, no_types, "the labels of this model are not those of IOB2"),
        (("--max_seq_length", 100), checkpoint, "the model has only 64 positions"),
        (("--max_seq_length", 4), checkpoint, "must be at least 8"),
        (("--stride", 40), checkpoint, "from 0 to half of --max_seq_length"),
        (("--label_column", "7"), checkpoint, "has no column 7"),
        (("--text_column", "3"), checkpoint, "has only 2 columns"),
        (("--train_file", tmp_path / "no.jsonl"), checkpoint, "no such file"),
        (("--train_file", tmp_path / "no.conll"), checkpoint, "No such file"),
        (("--text_column_name", "3"), checkpoint, "unknown key 'text_column_name'; use text_column"),
    ):
        with pytest.raises(InputError, match=message):
            run(model, tmp_path / "out", *flags)
    flags = ("--train_file", other, "--validation_file", other, "--ignore_mismatched_sizes", "--max_steps", 1)
    run(trained, tmp_path / "new", *flags)
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "new")
    assert model.config.id2label == {0: "O", 1: "B-FOOD", 2: "I-FOOD"}


def as_kaggle(path, rows, label_of):
    """A CSV with a word in each row, the id of a sentence in its first row alone, in the encoding of Windows."""
    words = [
        {"Sentence #": f"Sentence: {number}" if at == 0 else None, "Word": word, "Tag": label_of(word, tag)}
        for number, (tokens, tags) in enumerate(zip(rows["tokens"][:], rows["tags"][:], strict=True), 1)
        for at, (word, tag) in enumerate(zip(tokens, tags, strict=True))
    ]
    pd.DataFrame(words).to_csv(path, index=False, encoding="cp1252")
    return path


@pytest.mark.parametrize("scheme", ["POS", "IO"])
def test_labels_without_prefixes_in_a_table_of_words(scheme, checkpoint, tmp_path):
    """Accuracy and F1 of word classes are scikit-learn's; runs of equal labels are those of seqeval with I- alone."""

    def label_of(word, tag):
        if scheme == "IO":
            return "O" if tag == "O" else tag[2:]
        return "." if word == "." else "NNP" if word[0].isupper() else "O" if len(word) < 4 else "NN"

    train, validation = (
        as_kaggle(tmp_path / Path(f).with_suffix(".csv").name, read_columns(f), label_of) for f in (TRAIN, VALIDATION)
    )
    files = ["--file_encoding", "cp1252", "--validation_file", validation, "--test_file", validation, "--do_predict"]
    found = run(checkpoint, tmp_path / "out", "--train_file", train, *files, "--tag_scheme", scheme, "--max_steps", 30)
    rows = read_columns(VALIDATION)
    gold = [
        [label_of(*pair) for pair in zip(*both, strict=True)]
        for both in zip(rows["tokens"], rows["tags"], strict=True)
    ]
    predicted = [[line[1] for line in row] for row in read_predictions(tmp_path / "out")]
    flat = [[label for row in side for label in row] for side in (gold, predicted)]
    assert found["test_accuracy"] == found["eval_accuracy"] == pytest.approx(accuracy_score(*flat), abs=1e-12)
    labels = sorted({*flat[0], *flat[1]})
    if scheme == "POS":
        by_label = f1_score(*flat, labels=labels, average=None, zero_division=0)
        assert [found[f"test_f1_{label}"] for label in labels] == pytest.approx(by_label.tolist(), abs=1e-12)
        assert found["test_macro_f1"] == pytest.approx(f1_score(*flat, average="macro", zero_division=0), abs=1e-12)
        assert "test_f1" not in found
    else:
        both = [
            [["O" if label == "O" else f"I-{label}" for label in row] for row in side] for side in (gold, predicted)
        ]
        assert found["test_f1"] == found["test_strict_f1"] == pytest.approx(seqeval.metrics.f1_score(*both), abs=1e-12)
    assert set(AutoConfig.from_pretrained(tmp_path / "out").label2id) == {*flat[0], *(["O"] if scheme == "IO" else [])}
    again = run(tmp_path / "out", tmp_path / "again", *OFF, *files)  # the model knows its scheme
    assert again["test_accuracy"] == found["test_accuracy"]
    with pytest.raises(InputError, match=r"--tag_scheme IO, .* or --tag_scheme POS"):
        run(checkpoint, tmp_path / "no", "--train_file", train, *files)


def test_repaired_tags_are_counted(checkpoint, tmp_path):
    file = tmp_path / "mixed.conll"
    file.write_text("Anna B-PER\n\nto O\nOslo I-LOC\n")
    flags = ("--train_file", file, "--validation_file", file, "--max_steps", 1, "--repair_tags")
    found = run(checkpoint, tmp_path / "out", *flags)
    assert found["train_repaired"] == found["validation_repaired"] == 1


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="TINY_OLM_DATA is not set")
@pytest.mark.parametrize(("name", "types"), [("wnut_17", 6), ("wikiann_en", 3)])
def test_real_sets(name, types, checkpoint, tmp_path):
    flags = ["--dataset_name", f"{DATA}/{name}", "--max_train_samples", 64, "--max_eval_samples", 32, "--do_predict"]
    recipe = "\n".join(line for line in (ROOT / RECIPE).read_text().splitlines() if "_file:" not in line)
    (tmp_path / "recipe.yaml").write_text(recipe)
    words = ["--config", str(tmp_path / "recipe.yaml"), "--model_name_or_path", checkpoint]
    words += [
        *map(str, flags),
        "--max_predict_samples",
        "40",
        "--output_dir",
        str(tmp_path / "out"),
        "--num_train_epochs",
        "1",
    ]
    found = main(*parse_arguments(KINDS, words))
    assert AutoConfig.from_pretrained(tmp_path / "out").num_labels == 2 * types + 1
    assert len(read_predictions(tmp_path / "out")) == 40 and 0 <= found["test_f1"] <= 1


def test_smoothing_and_weights_of_classes(checkpoint, tmp_path):
    """The loss of evaluation is torch's, of what the saved model says of each word."""
    words = ["Anna", "sings", "in", "Paris", "."] * 2
    tags = ["B-PER", "O", "O", "B-LOC", "O"] * 2
    file = tmp_path / "words.conll"
    file.write_text("".join(f"{word} {tag}\n" for word, tag in zip(words, tags, strict=True)))
    flags = ("--train_file", file, "--validation_file", file, "--max_steps", 1, "--learning_rate", 1e-12)
    run(checkpoint, tmp_path / "base", *flags)
    base = tmp_path / "base"
    model = AutoModelForTokenClassification.from_pretrained(base).eval()
    encoded = AutoTokenizer.from_pretrained(base)(" ".join(words), return_offsets_mapping=True, return_tensors="pt")
    places = encoded.pop("offset_mapping")[0].tolist()
    starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])]).tolist()
    firsts = [places.index(place) for start in starts for place in places if place[0] == start < place[1]]
    with torch.no_grad():
        logits = model(**encoded).logits[0][firsts]
    labels = torch.tensor([model.config.label2id[tag] for tag in tags])
    weights = torch.ones(len(model.config.label2id))
    weights[model.config.label2id["B-PER"]] = 3.0
    for name, more, settings in (
        ("smoothed", ("--label_smoothing_factor", 0.2), {"label_smoothing": 0.2}),
        ("weighted", ("--class_weights", "B-PER=3"), {"weight": weights}),
    ):
        found = run(str(base), tmp_path / name, *flags, *more)["eval_loss"]
        assert found == pytest.approx(torch.nn.functional.cross_entropy(logits, labels, **settings).item(), rel=1e-4)
