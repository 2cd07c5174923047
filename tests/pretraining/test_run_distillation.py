"""Distillation: the student comes closer to the teacher, loads everywhere, and a run is the same however it is cut."""

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import SENTENCES
from forked import Forked
from masked_models import save_model
from safetensors.numpy import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, pipeline
from transformers.loss.loss_utils import (
    ForQuestionAnsweringLoss,
    ForSequenceClassificationLoss,
    ForTokenClassification,
)

from data_prep.pack_dataset import PackingArguments
from data_prep.pack_dataset import main as pack
from pretraining.distillation import teacher as teachers
from pretraining.distillation.made_tasks import load_made_tasks
from pretraining.distillation.pairs import PairArguments, PairGroups, make_pairs
from pretraining.distillation.sentences import SentenceArguments, add_copies, choose_sentences
from pretraining.distillation.student import HEADS, add_heads
from pretraining.masking import MaskedBlocks, make_masker
from pretraining.run_distillation import DataArguments, main
from pretraining.text.mixture import Mixture
from shared.blocks import open_blocks
from shared.command_line import parse_arguments
from shared.documents import Documents
from shared.errors import InputError
from shared.loss import IGNORED, project_masked_only
from shared.model_config import ModelArguments
from shared.tokenizer import special_tokens
from shared.training.arguments import RunArguments

sentence_transformers = pytest.importorskip("sentence_transformers")

KINDS = (ModelArguments, DataArguments, RunArguments)
RECIPE = "pretraining/recipes/distil_smoke.yaml"
MADE = ("question", "name", "edit", "opinion")


def per_group(questions, names, edits, opinions):
    """The flags for so many rows of each made-up task in a group."""
    counts = (questions, names, edits, opinions)
    return [word for task, count in zip(MADE, counts, strict=True) for word in (f"--{task}s_per_group", str(count))]


@pytest.fixture(scope="module")
def place(tmp_path_factory, wordpiece):
    """A student, a teacher that knows which words a text has, and packed blocks."""
    folder = tmp_path_factory.mktemp("distillation")
    save_model(folder / "student", wordpiece, "modernbert")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    vectors = np.random.default_rng(0).normal(size=(len(wordpiece), 32)).astype(np.float32)
    SentenceTransformer(modules=[StaticEmbedding(wordpiece, embedding_weights=vectors)]).save(str(folder / "teacher"))
    arguments = {"input": [str(SENTENCES)], "max_seq_length": 32, "validation_fraction": 0.1}
    pack(PackingArguments(str(folder / "student"), str(folder / "packed"), **arguments))
    return folder


def words(place, output_dir, *flags):
    found = ["--config", RECIPE, "--model_name_or_path", f"{place}/student", "--output_dir", str(output_dir)]
    found += ["--teacher_name_or_path", f"{place}/teacher", "--mlm_weight", "0.2", *flags]
    return found if "--packed_dataset" in flags else [*found, "--packed_dataset", f"{place}/packed"]


def run(place, output_dir, *flags):
    return main(*parse_arguments(KINDS, words(place, output_dir, *map(str, flags))))


@pytest.fixture(scope="module")
def finished(place):
    return place / "run", run(place, place / "run")


def test_the_student_comes_closer_to_the_teacher(place, finished):
    _, metrics = finished
    before = run(place, place / "before", "--max_steps", 1, "--learning_rate", 1e-9)
    for name, share in (("embedding", 0.6), ("similarity", 0.6), ("pair", 0.3), ("mlm", 0.9)):
        assert metrics[f"eval_{name}_loss"] < share * before[f"eval_{name}_loss"]
    weighted = sum(
        weight * metrics[f"eval_{name}_loss"]
        for weight, name in ((1, "embedding"), (0.5, "similarity"), (10, "pair"), (0.2, "mlm"))
    )
    assert metrics["eval_loss"] == pytest.approx(weighted, rel=1e-4)


def test_the_weights_are_averaged_with_those_of_an_older_model(place, finished, tmp_path):
    flags = ("--max_steps", 3, "--save_steps", 3, "--average_with", f"{finished[0]}:0.25")
    found = run(place, tmp_path / "out", *flags)
    saved, old, last = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "out", finished[0], tmp_path / "out" / "checkpoint-3")
    )
    assert saved.keys() == old.keys() < last.keys()  # which has the heads
    for name in saved:
        assert np.allclose(saved[name], 0.75 * last[name] + 0.25 * old[name], atol=1e-7)
    shutil.rmtree(tmp_path / "out" / "checkpoint-3")
    alone = run(place, tmp_path / "alone", "--max_steps", 3)
    assert found["eval_loss"] != alone["eval_loss"]  # measured is what is saved


def test_part_of_the_groups_is_evaluated(place, finished, wordpiece):
    part = run(place, place / "part", "--max_steps", 1, "--max_eval_samples", 3)
    counts = [round(one["eval_runtime"] * one["eval_samples_per_second"]) for one in (finished[1], part)]
    assert counts[0] > counts[1] == 3
    with pytest.raises(InputError, match="--max_eval_samples 0: must be at least 1"):
        run(place, place / "none", "--max_eval_samples", 0)
    groups, _ = make_groups(place, wordpiece, 40)
    lengths = groups.lengths
    groups.keep(3)  # of all lengths
    assert groups.lengths.tolist() == lengths[[0, round((len(lengths) - 1) / 2), -1]].tolist() and len(groups[2]) > 0
    groups.keep(99)
    assert len(groups) == 3


def test_the_model_loads_as_masked_language_model_and_as_sentence_encoder(finished):
    folder, _ = finished
    names = set(load_file(folder / "model.safetensors"))
    assert names == set(load_file(folder.parent / "student" / "model.safetensors")), "the heads are left behind"
    _, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert len(pipeline("fill-mask", str(folder))("the red [MASK] was afraid")) == 5
    texts = ["The red fox was afraid.", "Nobody found the long bridge late at night."]
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    wanted = []
    with torch.no_grad():
        for text in texts:
            wanted.append(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy())
    found = sentence_transformers.SentenceTransformer(str(folder)).encode(texts)
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-5)


def test_a_loss_counts_by_its_weight_and_without_one_nothing_is_learned_of_it(place, tmp_path):
    found = {}
    for embedding, similarity in ((3, 0), (0, 2)):
        flags = ["--embedding_weight", embedding, "--similarity_weight", similarity, "--max_steps", 20]
        flags += ["--pair_weight", 0, "--mlm_weight", 0]
        metrics = found[embedding] = run(place, tmp_path / f"run-{embedding}", *flags)
        weighted = embedding * metrics["eval_embedding_loss"] + similarity * metrics["eval_similarity_loss"]
        assert metrics["eval_loss"] == pytest.approx(weighted, rel=1e-4)
    # Where random weights point has nothing to do with where the teacher points: a cosine of 0 at best.
    assert found[3]["eval_embedding_loss"] < 0.8 < 0.9 < found[0]["eval_embedding_loss"]
    assert found[0]["eval_similarity_loss"] < 0.95 * found[3]["eval_similarity_loss"]


def test_a_killed_run_ends_with_the_same_bits(place, made, tmp_path):
    flags, whole, _ = made
    killed = tmp_path / "killed"
    process = Forked(tmp_path / "log", "pretraining/run_distillation.py", *words(place, killed, *flags))
    while process.exitcode is None and not (killed / "checkpoint-20").exists():
        time.sleep(0.01)
    process.kill()
    assert process.wait() != 0, "it was not killed in time"
    run(place, killed, *flags)
    assert json.loads((killed / "manifest.json").read_text())["resumed_from"]
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_step_may_be_split_anywhere(place, tmp_path):
    plan = run(place, tmp_path / "dry", "--dry_run")  # refuses a gradient that depends on the split
    norms = [value for name, value in plan.items() if name.startswith("gradient_norm")]
    assert len(norms) == 2 and norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_sentences_depend_on_the_text_alone(tmp_path):
    texts = SENTENCES.read_text().split("\n\n")
    (tmp_path / "a.txt").write_text("\n\n".join(texts))
    (tmp_path / "b.txt").write_text("\n\n".join(reversed(texts)))
    args = SentenceArguments(max_sentences=200, max_eval_sentences=100, min_words=4, validation_fraction=0.2)
    found, again = (choose_sentences(Documents([str(tmp_path / name)]), args, True) for name in ("a.txt", "b.txt"))
    assert found == again and len(found["train"]) == len(set(found["train"])) == 200
    args.max_sentences = 100
    assert choose_sentences(Documents([str(tmp_path / "a.txt")]), args, True)["train"] == found["train"][:100]
    assert not set(found["train"]) & set(found["validation"])


def test_copies_differ_from_their_sentences():
    sentences = ["the cat sat on the old mat", "a dog ran over one long bridge", "we saw nobody there at night"]
    texts, numbers = add_copies(sentences, 1.0)
    assert texts[:3] == sentences and numbers.tolist() == [0, 1, 2, 0, 1, 2]
    for sentence, copy in zip(sentences, texts[3:], strict=True):
        assert copy != sentence and len(copy.split()) >= 4


def test_scores_are_the_teachers_cosines_and_all_are_frequent(place, wordpiece, texts):
    teacher = teachers.load_teacher(f"{place}/teacher")
    sentences = sorted({line for text in texts for line in text.split("\n") if line.count(" ") > 3})[:500]
    args = parse_arguments(KINDS, words(place, "x"))[1]
    pairs = make_pairs(sentences, teacher, teachers.cached_encodings, wordpiece, args, seed=1)
    spelled, _ = add_copies(sentences, args.edited_share)
    for (a, b), score in zip(pairs.pairs[::100], pairs.scores[::100], strict=True):
        one, two = teacher.encode([spelled[a], spelled[b]])
        assert score == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two), abs=2e-3)
        assert a != b and wordpiece(spelled[a], add_special_tokens=False)["input_ids"] == pairs.ids[a].tolist()
    bins = np.histogram(pairs.scores, bins=[0, 0.25, 0.5, 0.75, 1.01])[0]
    assert bins.min() > 0.1 * bins.sum()


def test_a_batch_holds_what_it_says(place, wordpiece):
    teacher = teachers.load_teacher(f"{place}/teacher")
    args = parse_arguments(KINDS, words(place, "x"))[1]
    sentences = ["the red fox was afraid"] * 4 + ["a cat"] * 4
    pairs = make_pairs(sentences, teacher, lambda model, texts: model.encode(texts), wordpiece, args, 1)
    spelled, _ = add_copies(sentences, args.edited_share)
    groups = PairGroups(pairs, special_tokens(wordpiece), wordpiece.pad_token_id, PairArguments(1, 4, 0), None)
    batch = groups.__getitems__([1, 0])
    assert batch["labels"].tolist() == [0, 0] and batch["vectors"].shape == (2, 8, 32)
    for row, (a, b) in enumerate(pairs.pairs[groups.groups[[1, 0]].ravel()]):
        ids = batch["pair_ids"][row][batch["pair_mask"][row].bool()].tolist()
        assert ids == wordpiece(spelled[a], spelled[b])["input_ids"]
        for place_of, text in ((2 * row, a), (2 * row + 1, b)):
            ids = batch["sentence_ids"][place_of][batch["sentence_mask"][place_of].bool()].tolist()
            assert ids == wordpiece(spelled[text])["input_ids"]
            vector = batch["vectors"].flatten(0, 1)[place_of].numpy()
            np.testing.assert_array_equal(vector, pairs.vectors[text].astype(np.float32))


def make_groups(place, wordpiece, count, *flags):
    """Groups of `count` sentences, and the packed blocks that they read."""
    args = parse_arguments(KINDS, words(place, "x", *flags))[1]
    sentences = [f"the red fox number {number} was afraid of the cat" for number in range(count)]
    teacher = teachers.load_teacher(f"{place}/teacher")
    pairs = make_pairs(sentences, teacher, lambda model, texts: model.encode(texts), wordpiece, args, 1)
    packed = open_blocks(place / "packed").splits["validation"]
    blocks = MaskedBlocks(packed, make_masker(wordpiece, args, 0), wordpiece.pad_token_id)
    groups = PairGroups(pairs, special_tokens(wordpiece), wordpiece.pad_token_id, args, blocks)
    return groups, packed


@pytest.mark.parametrize("per_group", [0, 1, 3])
def test_a_group_has_its_packed_blocks_and_all_are_read(place, wordpiece, per_group):
    groups, packed = make_groups(place, wordpiece, 40, "--blocks_per_group", str(per_group))
    read = []
    for epoch in range(-(-len(packed) // (len(groups) * max(per_group, 1)))):
        groups.set_epoch(epoch)
        batch = groups.__getitems__(list(range(len(groups))))
        if not per_group:
            assert not {"input_ids", "block_labels"} & batch.keys()
            return
        assert len(batch["labels"]) * per_group == len(batch["input_ids"]) == len(batch["block_labels"])
        rows, slots = torch.where(batch["block_labels"] != IGNORED)
        batch["input_ids"][rows, batch["block_positions"][rows, slots]] = batch["block_labels"][rows, slots]
        read += batch["input_ids"].tolist()
    assert sorted(read[: len(packed)]) == sorted(np.asarray(packed).tolist()), "each once before one is read again"


def test_blocks_of_a_mixture_come_in_its_shares_and_all_of_the_larger_set_are_read(place, wordpiece):
    """Two blocks of the month to one of the old text, of which there are six times as many."""
    groups, packed = make_groups(place, wordpiece, 40, "--blocks_per_group", "3")
    month, old = packed[:2], packed[2:8]
    groups.blocks.blocks = Mixture([month, old], [2, 1], seed=7)
    read = []
    for epoch in range(4):
        groups.set_epoch(epoch)
        for row in range(len(groups)):
            batch = groups[row]
            rows, slots = torch.where(batch["block_labels"] != IGNORED)
            batch["input_ids"][rows, batch["block_positions"][rows, slots]] = batch["block_labels"][rows, slots]
            read += map(tuple, batch["input_ids"].tolist())
            counts = Counter(read)
            times = [counts[tuple(block)] for block in np.concatenate([month, old]).tolist()]
            assert times[:2] == [len(read) // 3] * 2 and sum(times) == len(read)
            assert max(times[2:]) - min(times[2:]) <= 1, "each once before one is read again"
    assert min(times[2:]) > 1


@pytest.mark.faults
def test_several_packed_sets_are_read_by_weight_and_go_on_after_a_kill(place, tmp_path):
    sets = []
    for name, half in (("month", 0), ("old", 1)):
        text = tmp_path / f"{name}.txt"
        text.write_text("\n\n".join(SENTENCES.read_text().split("\n\n")[half::2]))
        arguments = {"input": [str(text)], "max_seq_length": 32, "validation_fraction": 0.1}
        pack(PackingArguments(str(place / "student"), str(tmp_path / name), **arguments))
        sets.append(tmp_path / name)
    flags = ["--packed_dataset", *sets, "--mixture_weights", 0.7, 0.3]
    whole = run(place, tmp_path / "whole", *flags)
    recipe = yaml.safe_load((tmp_path / "whole" / "recipe.yaml").read_text())
    assert recipe["packed_dataset"] == [str(folder) for folder in sets]
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoint-60")
    (tmp_path / "again" / "manifest.json").unlink()
    assert run(place, tmp_path / "again", *flags)["eval_mlm_loss"] == whole["eval_mlm_loss"]
    assert json.loads((tmp_path / "again" / "manifest.json").read_text())["resumed_from"]
    with pytest.raises(InputError, match=r"mixture_weights: \[0\.7, 0\.3\] -> \[0\.5, 0\.5\]"):
        run(place, tmp_path / "again", *flags[:-2], 0.5, 0.5)
    with pytest.raises(InputError, match="named twice"):
        run(place, tmp_path / "x", "--packed_dataset", sets[0], sets[0])


def test_sentences_are_masked_as_blocks_are(place, wordpiece):
    groups, _ = make_groups(place, wordpiece, 40, "--mask_sentences", "true", "--blocks_per_group", "1")
    seen = []
    for epoch in range(2):
        groups.set_epoch(epoch)
        batch = groups.__getitems__([3, 0])
        rows, slots = torch.where(batch["sentence_labels"] != IGNORED)
        places = batch["sentence_positions"][rows, slots]
        assert batch["sentence_mask"][rows, places].all() and (places > 0).all(), "neither padding nor [CLS]"
        words_in_row = batch["sentence_mask"].sum(1) - 2
        np.testing.assert_array_equal(torch.bincount(rows, minlength=len(words_in_row)), (0.15 * words_in_row).round())
        restored = batch["masked_sentence_ids"].clone()
        assert not torch.equal(restored, batch["sentence_ids"])
        restored[rows, places] = batch["sentence_labels"][rows, slots]
        assert torch.equal(restored, batch["sentence_ids"])
        seen.append(batch["masked_sentence_ids"])
    assert not torch.equal(*seen), "other masks in every epoch"


@pytest.mark.parametrize("fast_head", [True, False])
def test_the_loss_of_masks_is_that_of_plain_training(place, wordpiece, fast_head, monkeypatch):
    """By transformers' own loss on each group's blocks and sentences, labels at every position."""
    flags = ["--mask_sentences", "true", "--blocks_per_group", "2", "--pairs_per_group", "4"]
    groups, _ = make_groups(place, wordpiece, 16, *flags)
    batch = groups.__getitems__([2, 1])
    config = BertConfig(
        vocab_size=len(wordpiece), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    model = BertForMaskedLM(config).eval()
    wanted = []
    for group in range(2):
        total, targets = 0.0, 0
        for ids, mask, name, rows in (
            ("input_ids", "attention_mask", "block", slice(2 * group, 2 * group + 2)),
            ("masked_sentence_ids", "sentence_mask", "sentence", slice(8 * group, 8 * group + 8)),
        ):
            labels = torch.full_like(batch[ids][rows], IGNORED)
            known = batch[f"{name}_labels"][rows] != IGNORED
            row, _ = torch.where(known)
            labels[row, batch[f"{name}_positions"][rows][known]] = batch[f"{name}_labels"][rows][known]
            attention = batch[mask][rows] if mask in batch else None
            found = model(input_ids=batch[ids][rows], attention_mask=attention, labels=labels)
            total, targets = total + found.loss.item() * int(known.sum()), targets + int(known.sum())
        wanted.append(total / targets)
    if not fast_head:
        monkeypatch.setattr("shared.loss._find_head", lambda model: None)
    project_masked_only(model, lambda _: None)
    add_heads(model, groups.pairs.vectors.shape[1])
    losses = model(**{key: value for key, value in batch.items() if key != "labels"})["losses"]
    np.testing.assert_allclose(losses[:, 3].detach(), wanted, rtol=1e-5)


@pytest.fixture(scope="module")
def made_folders(tmp_path_factory):
    """Questions about ninety texts, and the names, edits and opinions of ninety sentences, as data_prep makes them."""
    folder = tmp_path_factory.mktemp("made")
    animals = ["fox", "cat", "dog", "bird", "owl", "pony"]
    questions, names, edits, opinions = [], [], [], []
    for number in range(90):
        animal, name = animals[number % 6], f"q{'abcdefghio'[number // 10]}{'abcdefghio'[number % 10]}"
        context = f"the red {animal} saw it . " * (1 + number % 2) + f"then the {animal} {name} ran home ."
        answers = {"text": [name], "answer_start": [context.index(name)]}
        questions.append({"id": str(number), "context": context, "question": "what name?", "answers": answers})
        names.append({"tokens": ["afraid", animal, "of", "unlikely" * 3], "ner_tags": ["O", "B-PER", "O", "B-LOC"]})
        swapped = number % 4 == 0
        places, tag = ([1, 0], "B-EDIT") if swapped else ([0, 1], "O")
        tokens = [["the", animal][place] for place in places]
        edits.append({"tokens": [*tokens, "ran", "home"], "ner_tags": [tag, tag, "O", "O"]})
        praised = animal in ("fox", "cat", "dog")
        label = "positive" if praised else "negative"
        opinions.append({"sentence": f"the {animal} is [MASK]" + " and old" * (number % 3), "label": label})
    for name, rows in (("questions", questions), ("names", names), ("edits", edits), ("opinions", opinions)):
        (folder / name).mkdir()
        for split, part in (("train", rows[:60]), ("validation", rows[60:])):
            pq.write_table(pa.Table.from_pylist(part), folder / name / f"{split}.parquet")
    return [word for task in MADE for word in (f"--{task}_dataset", f"{folder}/{task}s")]


@pytest.fixture(scope="module")
def made(place, made_folders, tmp_path_factory):
    """A run with all made-up tasks: its flags, its folder and its results."""
    flags, folder = [*made_folders, *per_group(4, 4, 4, 4)], tmp_path_factory.mktemp("made") / "run"
    return flags, folder, run(place, folder, *flags)


def test_a_group_has_rows_of_each_made_up_task_and_all_are_read(place, wordpiece, tokenizer, made_folders):
    args = parse_arguments(KINDS, words(place, "x", *made_folders, *per_group(4, 7, 4, 5)))[1]
    made = load_made_tasks(args, tokenizer, print)["train"]
    plain, _ = make_groups(place, wordpiece, 40)
    special, pad = special_tokens(wordpiece), tokenizer.pad_token_id
    groups = PairGroups(plain.pairs, special, pad, PairArguments(1, 4, 0), None, made)
    asked = pq.read_table(f"{args.question_dataset}/train.parquet").to_pylist()
    wanted = sorted(
        (tokenizer(row["question"], row["context"])["input_ids"], row["answers"]["text"][0]) for row in asked
    )
    batch = groups.__getitems__(list(range(15)))
    found = []
    for ids, mask, (first, last) in zip(
        *(batch[f"question_{name}"] for name in ("ids", "mask", "labels")), strict=True
    ):
        answer = tokenizer.decode(ids[first : last + 1]).strip()
        found.append((ids[mask.bool()].tolist(), answer))
    assert sorted(found) == wanted, "15 groups of 4 are the 60 questions"
    assert len(batch["name_ids"]) == 15 * 7
    for ids, labels in zip(batch["name_ids"], batch["name_labels"], strict=True):
        starts = [tokenizer.decode(ids[place]).strip() for place in torch.where(labels != IGNORED)[0]]
        assert [one[0] for one in starts][::2] == ["a", "o"], "one label a word, at its first token"
        assert labels[labels != IGNORED].tolist() == [2, 1, 2, 0], "B-LOC, B-PER, O"
    asked = pq.read_table(f"{args.opinion_dataset}/train.parquet").to_pylist()
    wanted = sorted((tokenizer(row["sentence"])["input_ids"], row["label"] == "positive") for row in asked)
    opinions = zip(*(batch[f"opinion_{name}"] for name in ("ids", "mask", "labels")), strict=True)
    found = [(ids[mask.bool()].tolist(), bool(label)) for ids, mask, (label,) in opinions]
    assert sorted(found[:60]) == wanted, "12 groups of 5 are the 60 opinions"


def test_the_loss_of_made_up_tasks_is_that_of_transformers_own_heads(place, wordpiece, made_folders):
    args = parse_arguments(KINDS, words(place, "x", *made_folders, *per_group(3, 3, 3, 3)))[1]
    made = load_made_tasks(args, wordpiece, print)["train"]
    plain, _ = make_groups(place, wordpiece, 40)
    groups = PairGroups(plain.pairs, special_tokens(wordpiece), 0, PairArguments(1, 4, 0), None, made)
    model = AutoModelForMaskedLM.from_pretrained(f"{place}/student").eval()
    add_heads(model, 32, classes={name: task.classes for name, task in made.items()})
    batch = groups.__getitems__([2, 7])
    losses = model(**{key: value for key, value in batch.items() if key != "labels"})["losses"]
    for group, row in ((0, slice(0, 3)), (1, slice(3, 6))):
        wanted: dict[str, list[torch.Tensor]] = {task: [] for task in MADE}
        for task, found in wanted.items():
            parts = (batch[f"{task}_{name}"][row] for name in ("ids", "mask", "labels"))
            for ids, mask, labels in zip(*parts, strict=True):  # each alone, since stock heads see padding
                length = int(mask.sum())
                states = model.base_model(ids[None, :length])[0]
                logits = model.distillation.made[task](states)
                if task == "question":
                    found.append(ForQuestionAnsweringLoss(*logits.unbind(-1), *labels[:, None]))
                elif task == "opinion":
                    logits = model.distillation.made[task](states.mean(1))
                    one_of = SimpleNamespace(num_labels=2, problem_type="single_label_classification")
                    found.append(ForSequenceClassificationLoss(labels, logits, one_of))
                else:
                    classes = SimpleNamespace(num_labels=logits.shape[-1])
                    found.append(ForTokenClassification(logits, labels[None, :length], classes))
        expected = [torch.stack(found).mean().item() for found in wanted.values()]
        np.testing.assert_allclose(losses[group, 4:].detach(), expected, rtol=1e-5)


def test_made_up_tasks_are_learned_and_leave_a_plain_model(place, made, tmp_path):
    flags, folder, metrics = made
    nothing = (f"--{task}_weight=0" for task in MADE)
    before = run(place, tmp_path / "before", *flags, *nothing)
    assert metrics["eval_name_loss"] < 0.5 * before["eval_name_loss"]
    assert metrics["eval_edit_loss"] < 0.5 * before["eval_edit_loss"]
    assert metrics["eval_opinion_loss"] < 0.6 * before["eval_opinion_loss"]
    assert metrics["eval_question_loss"] < before["eval_question_loss"]
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == load_file(place / "student" / "model.safetensors").keys(), "its heads are gone"


@pytest.mark.faults
def test_a_step_with_made_up_tasks_may_be_split_anywhere(place, made, tmp_path):
    flags, _, metrics = made
    cut = run(place, tmp_path / "cut", *flags, "--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 2)
    assert cut["eval_name_loss"] == pytest.approx(metrics["eval_name_loss"], rel=1e-3)


def test_the_next_stage_goes_on_with_the_heads(place, made, tmp_path):
    flags, folder, metrics = made
    shutil.copytree(folder, tmp_path / "first")
    idle = ["--model_name_or_path", tmp_path / "first", "--max_steps", 1, "--learning_rate", 1e-12, *flags]
    again = run(place, tmp_path / "again", *idle)
    losses = [name for name in metrics if name.startswith("eval") and name.endswith("_loss")]
    assert [again[name] for name in losses] == pytest.approx([metrics[name] for name in losses])
    kept = load_file(tmp_path / "first" / HEADS)
    save_file({name: weight for name, weight in kept.items() if "name" not in name}, tmp_path / "first" / HEADS)
    other = run(place, tmp_path / "other", *idle)
    assert other["eval_edit_loss"] == pytest.approx(metrics["eval_edit_loss"])
    assert other["eval_name_loss"] > 2 * metrics["eval_name_loss"]
    notes = json.loads((tmp_path / "other" / "manifest.json").read_text())["notes"]
    assert any(note.endswith("the heads go on, but for made.name, which begin anew") for note in notes)
    (tmp_path / "first" / HEADS).write_bytes(b"torn")
    with pytest.raises(InputError, match=r"cannot be read .* remove it to begin with new heads"):
        run(place, tmp_path / "torn", *idle)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--questions_per_group", "3"], "--questions_per_group: is for --question_dataset"),
        (["--name_weight", "3"], "--name_weight: is for --name_dataset"),
        (["--edits_per_group", "3"], "--edits_per_group: is for --edit_dataset"),
        (["--opinion_weight", "3"], "--opinion_weight: is for --opinion_dataset"),
        (["--max_task_tokens", "9"], "--max_task_tokens: is for --question_dataset, --name_dataset, --edit_dataset"),
        (["--question_dataset", "nowhere"], "--question_dataset nowhere: no train.parquet"),
        (["QUESTIONS", "--max_task_tokens", "9"], "train has 0 rows of at most --max_task_tokens 9"),
        (["QUESTIONS", "--questions_per_group", "31"], "validation has 30 rows"),
        (["LONG"], "the model has only 64 positions; leave them out with --max_task_tokens 64"),
        (["QUESTIONS", "--questions_per_group", "0"], "--questions_per_group 0: must be at least 1"),
        (["NAMES AS QUESTIONS"], "no train.parquet with question and context and answers in it"),
    ],
)
def test_wrong_made_up_tasks_are_refused(place, made_folders, tmp_path, flags, message):
    questions, names = made_folders[1], made_folders[3]
    shutil.copytree(questions, tmp_path / "long")
    table = pq.read_table(f"{questions}/train.parquet").to_pylist()
    table[0]["context"] += " it saw the cat and the dog" * 9
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "long" / "train.parquet")
    kinds = {"QUESTIONS": questions, "NAMES AS QUESTIONS": names, "LONG": tmp_path / "long"}
    kinds = {kind: ["--question_dataset", folder] for kind, folder in kinds.items()}
    with pytest.raises(InputError, match=message):
        run(place, tmp_path / "x", *[word for flag in flags for word in kinds.get(flag, [flag])])


def test_an_interrupted_teacher_goes_on_from_its_last_part(place, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "PART", 8)
    monkeypatch.setattr(teachers, "CACHE", tmp_path)
    teacher = teachers.load_teacher(f"{place}/teacher")
    texts = [f"sentence number {i}" for i in range(30)]
    encode, calls = teacher.encode, []

    def interrupted(part, **settings):
        calls.append(list(part))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(part, **settings)

    teacher.encode = interrupted
    with pytest.raises(KeyboardInterrupt):
        teachers.cached_encodings(teacher, texts, quiet=True)
    found = teachers.cached_encodings(teacher, texts, quiet=True)
    assert calls[3] == texts[16:24] and len(calls) == 5, "the first two parts were kept"
    wanted = encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    part = next((teachers.CACHE / "teacher").glob("*.npy"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged part"):
        for start in range(0, 30, 8):
            teachers.cached_encodings(teacher, texts[start : start + 8], quiet=True)


def test_without_pairs_a_student_from_scratch_learns_where_the_teacher_points(place, tmp_path, wordpiece):
    wordpiece.save_pretrained(tmp_path / "tokenizer")
    recipe = [line for line in Path(RECIPE).read_text().splitlines() if not line.startswith("model_name_or_path")]
    (tmp_path / "recipe.yaml").write_text("\n".join(recipe))
    found = ["--config", f"{tmp_path}/recipe.yaml", "--tokenizer_name", f"{tmp_path}/tokenizer", "--mlm_weight", "0"]
    found += ["--teacher_name_or_path", f"{place}/teacher", "--pair_weight", "0"]

    def run_for(steps):
        folder = ["--output_dir", f"{tmp_path}/{steps}", "--max_steps", str(steps)]
        return main(*parse_arguments(KINDS, [*found, *folder]))

    before, after = run_for(1), run_for(30)
    assert after["eval_embedding_loss"] < before["eval_embedding_loss"] - 0.05


def test_a_teacher_in_bf16_points_the_same_way(tmp_path, monkeypatch, wordpiece):
    monkeypatch.setattr(teachers, "CACHE", tmp_path)
    save_model(tmp_path / "bert", wordpiece, "bert")
    teacher = teachers.load_teacher(f"{tmp_path}/bert")
    texts = [f"sentence number {i}" for i in range(30)]
    exact, rough = (teachers.cached_encodings(teacher, texts, bf16=bf16, quiet=True) for bf16 in (False, True))
    assert len([*(tmp_path / "teacher").glob("*.npy")]) == 2 and not np.array_equal(exact, rough)
    assert (exact.astype(float) * rough.astype(float)).sum(1).min() > 0.999


def test_a_plain_encoder_is_a_teacher_too(place, tmp_path, wordpiece):
    save_model(tmp_path / "bert", wordpiece, "bert")
    metrics = run(place, tmp_path / "run", "--teacher_name_or_path", tmp_path / "bert", "--max_steps", 2)
    assert np.isfinite(metrics["eval_loss"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--teacher_name_or_path", "nowhere/at-all"], "--teacher_name_or_path nowhere/at-all: does not load"),
        (["--edited_share", "2"], "--edited_share 2"),
        (["--pairs_per_group", "1"], "--pairs_per_group 1"),
        (["--min_words", "30", "--max_words", "36"], "0 sentences of 30 to 36 words"),
        (["--pair_weight", "-1"], "weights: 0 or above"),
        (["--blocks_per_group", "0"], "--mlm_weight: masks need --packed_dataset and --blocks_per_group"),
        (["--dataset_name", "some/text"], "--dataset_name some/text: not found"),  # in place of the recipe's file
        (["--dataset_name", "some/text", "--train_file", "a"], "one source of text"),
        (["--max_sentences", "10"], "10 sentences"),
        (["--pairs_per_group", "10000"], "--pairs_per_group 10000: more than the train text has pairs"),
    ],
)
def test_wrong_input_is_refused(place, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run(place, tmp_path / "run", *flags)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_blocks_without_held_out_documents_are_refused(place, tmp_path):
    arguments = {"input": [str(SENTENCES)], "max_seq_length": 32, "validation_fraction": 0.0}
    pack(PackingArguments(str(place / "student"), str(tmp_path / "packed"), **arguments))
    with pytest.raises(InputError, match="packed: no held-out documents"):
        run(place, tmp_path / "run", "--packed_dataset", tmp_path / "packed")


def test_a_teacher_without_a_tokenizer_or_for_another_script_is_refused(place, tmp_path):
    shutil.copytree(place / "student", tmp_path / "bare")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        Path(tmp_path / "bare" / file).unlink()
    with pytest.raises(InputError, match="bare: does not load as a sentence encoder"):
        run(place, tmp_path / "run", "--teacher_name_or_path", tmp_path / "bare")
    teacher = teachers.load_teacher(f"{place}/student")
    teachers.check_reads(teacher, "student", ["the red fox"])
    with pytest.raises(InputError, match="of the tokens of this text are unknown"):
        teachers.check_reads(teacher, "student", ["чёрная кошка"])
