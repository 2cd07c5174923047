"""What a changed flag changes, for flags of our own that no other test turns."""

import dataclasses
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SENTENCES
from datasets import Dataset
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

from data_prep import deduplicate, pack_dataset
from data_prep.engine.stage import StageArguments
from evaluation.masked.dated_text import choose_documents
from finetuning.common.arguments import CheckpointArguments
from finetuning.common.checkpoint import load_model
from finetuning.common.data import Split
from finetuning.qa.squad import QuestionArguments
from pretraining.distillation.pairs import PairArguments, PairGroups, make_pairs
from shared.rows import find_sources, read_rows
from shared.tokenizer import special_tokens

ONE, TWO = "Read our newsletter\nOne is a text of its own.", "Read our newsletter\nTwo is another text."


@pytest.mark.parametrize(
    ("flags", "texts"),
    [
        ({}, [ONE, TWO]),
        ({"min_line_chars": 15, "min_text_chars": 0}, [ONE, "Two is another text."]),
        ({"min_line_chars": 15, "min_text_chars": 21}, [ONE]),
    ],
)
def test_lengths_of_lines_and_of_what_is_left(tmp_path, flags, texts):
    rows, dates = (ONE, TWO), ("2022", "2021")  # the line stays in the newest
    lines = [json.dumps({"id": date, "date": date, "text": text}) for date, text in zip(dates, rows, strict=True)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    stage = StageArguments(str(tmp_path / "out"), [str(tmp_path / "in.jsonl")], workers=1)
    deduplicate.main(stage, deduplicate.DeduplicateArguments(remove=["line"], **flags))
    found = [row["text"] for source in find_sources([str(tmp_path / "out")]) for *_, row, _ in read_rows(source)]
    assert found == texts


def test_threads_of_the_tokenizer(tmp_path, wordpiece, monkeypatch):
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    wordpiece.save_pretrained(tmp_path / "t")
    args = (str(tmp_path / "t"), str(tmp_path / "packed"), [str(SENTENCES)])
    pack_dataset.main(pack_dataset.PackingArguments(*args, preprocessing_num_workers=3))
    assert os.environ.pop("RAYON_NUM_THREADS") == "3"  # what the tokenizers library reads


def test_columns_of_questions_may_have_other_names():
    rows = {
        "nr": ["1"],
        "frage": ["Who?"],
        "absatz": ["Ada did."],
        "antwort": [{"text": ["Ada"], "answer_start": [0]}],
    }
    args = QuestionArguments(id_column="nr", question_column="frage", context_column="absatz", answer_column="antwort")
    split = args.rename_columns(Split(Dataset.from_dict(rows), "here"), needs_answers=True)
    assert split.rows[0] == {"id": "1", "question": "Who?", "context": "Ada did.", "answers": rows["antwort"][0]}


def test_random_weights_are_not_those_of_the_checkpoint(tmp_path, wordpiece):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = AutoConfig.for_model("bert", vocab_size=len(wordpiece), **sizes)
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    wordpiece.save_pretrained(tmp_path)
    saved = AutoModelForMaskedLM.from_pretrained(tmp_path).bert.embeddings.word_embeddings.weight
    for random in (False, True):
        args = CheckpointArguments(model_name_or_path=str(tmp_path), random_weights=random)
        record = SimpleNamespace(note=print)
        model = load_model(record, args, AutoModelForSequenceClassification, config, wordpiece, 16)
        assert torch.equal(model.bert.embeddings.word_embeddings.weight, saved) is not random


def test_characters_that_are_read_of_a_dated_document(tmp_path):
    rows = [{"text": "abcdefghij" * 9, "date": "2021-05-01"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for most in (7, 4000):
        (document,), _ = choose_documents([str(tmp_path / "a.jsonl")], "year", 1.0, None, 1, most)
        assert document.text == rows[0]["text"][:most]


def test_sizes_of_a_group_of_pairs(wordpiece):
    """Of 8 sentences: each with `pairs_per_text` partners, at most `max_sentence_tokens` long, in groups."""
    args = SimpleNamespace(**dataclasses.asdict(PairArguments(pairs_per_text=3, pairs_per_group=4)))
    args.edited_share, args.max_sentence_tokens = 0.0, 5
    sentences = [f"The baker fed the {word} horse and went home in the morning" for word in "abcdefgh"]

    def encode(teacher, texts):
        vectors = np.random.default_rng(0).normal(size=(len(texts), 6))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    pairs = make_pairs(sentences, None, encode, wordpiece, args, 0)
    assert len(pairs.pairs) == 8 * 3 and {len(row) for row in pairs.ids} == {5}
    special = special_tokens(wordpiece)
    groups = PairGroups(pairs, special, wordpiece.pad_token_id, args, None)
    assert len(groups) == 24 // 4 and groups.__getitems__([0])["pair_ids"].shape == (4, 5 + 5 + 3)
