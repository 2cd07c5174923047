import json
import os
import re
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, SENTENCES
from masked_models import count_tokens, save_model
from scipy.stats import spearmanr
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertModel

from data_prep.pack_dataset import pack_dataset
from evaluation.masked import dated_cloze
from evaluation.masked.copy_probe import choose_words, fill_gaps, make_gaps
from evaluation.masked.dated_cloze import (
    Cloze,
    answer_cloze,
    baselines,
    encode_choices,
    encode_contexts,
    read_cloze,
    score_choices,
)
from evaluation.masked.frequency_bands import count_hits, rank_tokens
from evaluation.masked.probe_inputs import load_scored_pairs
from evaluation.masked.probes_page import make_table
from evaluation.masked.scores import load_model, open_checkpoints, score_blocks
from evaluation.masked.sentence_similarity import cosines, encode_layers, encode_words, overlaps, random_twin, rate
from evaluation.run_probes import ProbeArguments, main
from finetuning.common.data import Split, read_rows
from shared.documents import Documents
from shared.errors import InputError

WORDS = ["man", "zebra", "house", "the house"]


def cloze_rows():
    return [
        {"text": "It seems that [MASK] walked home.", "answer": "Anna", "kind": "person", "date": "2022-05-01"},
        {"text": "[MASK] was quiet, didn't they?", "answer": "Bill", "kind": "person", "date": "2022-06-01"},
        {"text": "They saw [MASK]", "answer": "the house", "kind": "thing", "date": "2023-06-01"},
        {"text": "A cat saw the ([MASK]).", "answer": "zebra", "kind": "thing", "date": "2023-06-02"},
        {"text": "They saw the [MASK], and left.", "answer": "zebra", "kind": "thing", "date": "2023-06-03"},
    ]


def write(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def pair_rows(sentences, count=30):
    rng = np.random.default_rng(0)
    short = [text for text in sentences if len(text) < 60][: 2 * count]
    return [
        {"sentence1": a, "sentence2": b, "label": float(score)}
        for a, b, score in zip(short[::2], short[1::2], rng.integers(0, 6, count), strict=True)
    ]


@pytest.fixture(scope="module")
def sentences(texts):
    return sorted(
        {sentence.strip() for text in texts for sentence in re.split(r"(?<=[.?!])\s", text) if sentence.strip()}
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory, wordpiece, bpe, texts):
    """A BERT that knows how often words are, and a ModernBERT with random weights and another tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    counts = count_tokens(wordpiece, texts)
    return [
        save_model(folder / "counts", wordpiece, counts=counts, positions=128),
        save_model(folder / "random", bpe, "modernbert", positions=128),
    ]


class Copier(torch.nn.Module):
    """Finds at a masked place of the second text what is at that place of the first: all of it, or one token."""

    def __init__(self, vocabulary, most):
        super().__init__()
        self.config, self.device = SimpleNamespace(type_vocab_size=2), torch.device("cpu")
        self.vocabulary, self.most = vocabulary, most

    def forward(self, input_ids, masked_positions, token_type_ids):
        logits = torch.zeros(*masked_positions.shape, self.vocabulary)
        for row, (ids, types) in enumerate(zip(input_ids.tolist(), token_type_ids.tolist(), strict=True)):
            begin = types.index(1) if 1 in types else None
            for column, place in enumerate(masked_positions[row].tolist()):
                copied = begin is not None and place >= begin and column < self.most
                logits[row, column, ids[place - begin + 1] if copied else 0] = 1.0
        return SimpleNamespace(logits=logits)


def test_the_rarest_word_of_four_letters_is_masked():
    texts = ["the Cat walked home", "a cat walked to Rome", "it rained; it rained", "so it is", "the Cat walked home"]
    chosen = {text: text[slice(*span)] for text, span in choose_words(texts, 9)}
    # walked stands twice, home and Rome once, rained twice; no word of the fourth has four letters
    assert chosen == {texts[0]: "home", texts[1]: "Rome", texts[2]: "rained"}
    assert choose_words(texts[::-1], 9) == choose_words(texts, 9)
    assert choose_words(texts, 2) == choose_words(texts, 9)[:2]
    with pytest.raises(InputError, match="no sentence has a word"):
        choose_words(["so it is"], 9)


@pytest.mark.parametrize("name", [0, 1])
def test_what_is_copied_counts_when_all_its_tokens_are_found(name, models, sentences):
    (checkpoint,) = open_checkpoints([models[name]])
    chosen = choose_words(sentences, 50)
    gaps = [pair for pair in make_gaps(checkpoint, chosen) if pair]
    assert len(gaps) > 30
    both, alone = ([pair[form] for pair in gaps] for form in (0, 1))
    tokens = np.array([len(gap.targets) for gap in both])
    assert tokens.min() < tokens.max()
    vocabulary = len(checkpoint.tokenizer)
    assert fill_gaps(Copier(vocabulary, 99), both).all()
    assert not fill_gaps(Copier(vocabulary, 99), alone).any()
    assert (fill_gaps(Copier(vocabulary, tokens.min()), both) == (tokens == tokens.min())).all()
    text, (first, end) = chosen[0]
    gap = make_gaps(checkpoint, chosen[:1])[0][0]
    whole = gap.ids.copy()
    whole[gap.places] = gap.targets
    assert whole.tolist() == checkpoint.tokenizer(text, text)["input_ids"]  # with what was masked put back
    assert text[first:end] in checkpoint.tokenizer.decode(gap.targets)
    assert (gap.ids == checkpoint.tokenizer.mask_token_id).sum() == len(gap.places)


def test_sentences_that_do_not_fit_twice_are_left_out(models, texts):
    (checkpoint,) = open_checkpoints([models[0]])
    long = "quiet " * 60 + "zebra"  # 60 words fit once
    assert make_gaps(checkpoint, choose_words([long], 1)) == [None]
    assert make_gaps(checkpoint, choose_words(["the zebra\U0001f600"], 1)) == [None]  # one word, and an unknown one
    assert make_gaps(checkpoint, choose_words(["the zebra \U0001f600"], 1)) != [None]


def test_words_in_common_by_hand():
    texts = ["a cat sat", "A cat ran.", "a dog ran"]
    found = overlaps(texts, np.array([[0, 1], [1, 2], [0, 0]]))
    assert found["jaccard"].tolist() == [0.5, 0.5, 1.0]
    # "a" is in all texts and weighs nothing; cat and ran are in two of three, sat and dog in one
    two, one = np.log(3 / 2) ** 2, np.log(3) ** 2
    expected = [two / np.sqrt((two + one) * 2 * two), two / np.sqrt(2 * two * (two + one)), 1.0]
    assert found["idf"] == pytest.approx(expected, abs=1e-6)


def test_the_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 200).astype(float)
    values = (labels + 2 * rng.normal(size=200)).round(1)
    found = rate(values, labels, seed=0)
    assert found["spearman"] == pytest.approx(spearmanr(labels, values).statistic)
    low, high = found["spearman_interval"]
    assert low < found["spearman"] < high and 0.05 < high - low < 0.3


@pytest.mark.parametrize("name", [0, 1])
def test_encodings_are_means_of_every_layer(name, models):
    (checkpoint,) = open_checkpoints([models[name]])
    model, texts = load_model(checkpoint), ["It seems that Anna walked home.", "No.", "They walked home quietly."]
    found = encode_layers(model, checkpoint, texts)
    stock, tokenizer = AutoModel.from_pretrained(checkpoint.name).eval(), checkpoint.tokenizer
    assert found.shape == (3, 3, 16)
    for number, text in enumerate(texts):
        with torch.no_grad():
            outputs = stock(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        for layer, states in enumerate(outputs.hidden_states):
            np.testing.assert_allclose(found[layer, number], states[0].mean(0).numpy(), atol=1e-5)
        np.testing.assert_allclose(found[-1, number], outputs.last_hidden_state[0].mean(0).numpy(), atol=1e-5)
    words = encode_words(model, checkpoint, texts)
    ids = tokenizer(texts[1], add_special_tokens=False)["input_ids"]
    np.testing.assert_allclose(words[1], stock.get_input_embeddings().weight[ids].mean(0).detach().numpy(), atol=1e-6)
    assert cosines(found[1], np.array([[0, 0], [2, 2]])).tolist() == [1, 1]
    twins = [encode_layers(random_twin(model, seed), checkpoint, texts) for seed in (1, 1, 2)]
    assert (twins[0] == twins[1]).all() and not np.allclose(twins[0], twins[2])


def test_bands_of_frequency_count_every_target_once(models, wordpiece, texts):
    checkpoints = open_checkpoints(models)
    for checkpoint in checkpoints:
        model, tokenizer, masker = load_model(checkpoint), checkpoint.tokenizer, checkpoint.masker
        ids = np.concatenate([tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts[:300]])
        inner = ids[: len(ids) // 30 * 30].reshape(-1, 30)
        edges = np.full((len(inner), 1), tokenizer.sep_token_id)
        blocks = np.concatenate([edges, inner, edges], axis=1)
        ranks = rank_tokens(blocks, masker)
        values, counts = np.unique(inner, return_counts=True)
        assert ranks[values[counts.argmax()]] == 0 and sorted(ranks.tolist()) == [*range(len(tokenizer))]
        assert min(ranks[tokenizer.sep_token_id], ranks[tokenizer.pad_token_id]) >= len(tokenizer) - 10
        sums = count_hits(model, checkpoint, blocks, ranks, 7)
        expected = score_blocks(model, checkpoint, blocks, np.arange(len(blocks)))
        np.testing.assert_array_equal(sums.sum(1), expected[:, 1:])
        labels = masker(blocks, np.arange(len(blocks)), 0)[2]
        assert sums[:, 0, 1].sum() == (ranks[labels[labels >= 0]] < 100).sum()
        assert sums[:, 1, 1].sum() == (ranks[labels[labels >= 0]] >= 100).sum() > 0
        if checkpoint.label == "counts":  # it always names the most frequent token
            assert sums[:, 0, 0].sum() == (labels == values[counts.argmax()]).sum() and not sums[:, 1:, 0].any()


@pytest.mark.parametrize("name", [0, 1])
def test_choices_are_worth_the_sum_of_their_pieces_from_left_to_right(name, models, monkeypatch, tmp_path):
    (checkpoint,) = open_checkpoints([models[name]])
    tokenizer = checkpoint.tokenizer
    path = write(tmp_path / "c.parquet", cloze_rows())
    questions, choices = read_cloze(Split(read_rows(path), path))
    model = AutoModelForMaskedLM.from_pretrained(checkpoint.name).eval()
    monkeypatch.setattr(dated_cloze, "ROWS_AT_ONCE", 3)
    contexts = encode_contexts(checkpoint, questions, choices)
    found = score_choices(load_model(checkpoint), contexts, tokenizer.mask_token_id)
    right = answer_cloze(load_model(checkpoint), checkpoint, questions, choices)
    given_up = 0
    for number, (question, row) in enumerate(zip(questions, cloze_rows(), strict=True)):
        expected = []
        for choice in choices[question.kind]:
            before, after = row["text"].split("[MASK]")
            ids = torch.tensor([tokenizer(before + choice + after)["input_ids"]])
            sizes = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (before.rstrip(), after)]
            places = [*range(1 + sizes[0], ids.shape[1] - 1 - sizes[1])]
            total = 0.0
            for step, place in enumerate(places):
                copy = ids.clone()
                copy[0, places[step:]] = tokenizer.mask_token_id
                with torch.no_grad():
                    total += model(copy).logits[0, place].log_softmax(-1)[ids[0, place]].item()
            expected.append(total)
        kept = np.isfinite(found[number])
        given_up += (~kept).sum()
        np.testing.assert_allclose(found[number][kept], np.array(expected)[kept], atol=1e-4)
        assert kept[np.argmax(expected)] and (np.array(expected)[~kept] < max(expected)).all()
        assert right[number] == (question.answer == np.argmax(expected))
    assert given_up or name == 0


def test_the_choice_of_a_model_that_knows_how_often_words_are(tmp_path, wordpiece):
    """Each piece has a fixed probability, so that the answers' ranks follow by arithmetic."""
    counts = count_tokens(wordpiece, ["man"] * 900 + ["the"] * 300 + ["house"] * 600)
    (checkpoint,) = open_checkpoints([save_model(tmp_path / "m", wordpiece, counts=counts, positions=128)])
    model = load_model(checkpoint)
    worth = {w: sum(np.log(counts[i] / counts.sum()) for i in ids) for w, ids in
             zip(WORDS, encode_choices(checkpoint, " ", ".", WORDS), strict=True)}  # fmt: skip
    assert max(worth, key=worth.get) == "man" and min(worth, key=worth.get) == "zebra"
    questions = [Cloze("They saw ", ".", "thing", answer, "2022") for answer in (0, 1, 0)]
    choices = {"thing": ["man", "the house"]}
    assert answer_cloze(model, checkpoint, questions, choices).tolist() == [1, 0, 1]
    (scores, *_) = score_choices(model, encode_contexts(checkpoint, questions, choices), wordpiece.mask_token_id)
    assert scores[0] == pytest.approx(worth["man"], abs=1e-5)
    assert answer_cloze(model, checkpoint, questions, {"thing": ["man", "Man"]}).tolist() == [0.5, 0.5, 0.5]
    chance, frequent = baselines(questions, choices)
    assert chance.tolist() == [0.5] * 3 and frequent.tolist() == [1, 0, 1]


def test_unknown_answers_are_never_chosen(models):
    (checkpoint,) = open_checkpoints(models[:1])
    assert encode_choices(checkpoint, " ", ".", ["\u4eba\U0001f600", "man"])[0] == ()
    questions = [Cloze("They saw ", ".", "thing", 0, "2022")]
    model = load_model(checkpoint)
    assert answer_cloze(model, checkpoint, questions, {"thing": ["\u4eba\U0001f600", "man"]}).tolist() == [0]


def probe(output_dir, models, **flags):
    flags |= {"max_seq_length": 32} if "text" in flags else {}
    return main(ProbeArguments(models=models, output_dir=str(output_dir), **flags))


def test_all_probes_of_two_models(tmp_path, models, sentences):
    pairs = [
        {"sentence_good": "the man", "sentence_bad": "the zebra", "linguistics_term": "t", "field": "f", "UID": uid}
        for uid in ("one", "two")
    ]
    (tmp_path / "blimp").mkdir()
    (tmp_path / "blimp" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs * 25))
    flags = {
        "stsb": write(tmp_path / "stsb.parquet", pair_rows(sentences)),
        "text": [str(SENTENCES)],
        "blimp": str(tmp_path / "blimp"),
        "cloze": write(tmp_path / "cloze.parquet", cloze_rows()),
        "max_blocks": 100,
    }
    report = probe(tmp_path / "out", models, **flags)
    found = report["models"]["counts"]
    assert found["blimp"]["pairs"] == 40 and found["blimp"]["accuracy"] == 1.0
    assert found["copy"]["copy_gain"] == 0 and found["copy"]["found_with"] == found["copy"]["found_without"]
    assert found["frequency"]["accuracy"] == found["frequency"]["most_frequent_token"] > 0
    assert found["frequency"]["blocks"] == 100 and found["frequency"]["rarer"] == {"targets": 0}
    bands = [found["frequency"][name] for name in ("top 100", "101 to 2,000")]
    assert sum(band["targets"] for band in bands) == found["frequency"]["targets"]
    assert [row["year"] for row in found["cloze"]["by_year"]] == ["2022", "2023"]
    assert [(row["kind"], row["choices"], row["questions"]) for row in found["cloze"]["by_kind"]] == [
        ("person", 2, 2),
        ("thing", 2, 3),
    ]
    assert found["cloze"]["chance"] == 0.5 and found["cloze"]["most_frequent_answer"] == pytest.approx(3 / 5)
    similarity = found["similarity"]
    assert similarity["spearman"] == similarity["layers"][-1]["spearman"] and len(similarity["layers"]) == 3
    written = json.loads((tmp_path / "out" / "probes.json").read_text())
    assert (tmp_path / "out" / "probes.md").read_text() == make_table(written) == make_table(report)
    assert "not measured" not in make_table(written) and "40 pairs of 2 paradigms" in make_table(written)
    again = probe(tmp_path / "again", models, **flags)
    for row in (*report["models"].values(), *again["models"].values()):
        row.pop("seconds")
    assert again["models"] == report["models"]


def test_a_probe_without_input_is_not_measured(tmp_path, models):
    report = probe(tmp_path / "out", models[:1], copy_text=[str(SENTENCES)], max_samples=20)
    assert [*report["models"]["counts"]] == ["copy", "seconds"]
    lines = make_table(report).splitlines()
    named = {line.split("|")[1].strip("* "): line.split("|")[2].strip() for line in lines if line.startswith("| ")}
    assert named["copy gain"].startswith("+0.0 (")
    for name in ("STS-B, zero-shot**, last layer", "masked accuracy", "dated cloze"):
        assert named[name] == "not measured"


def test_wrong_input_is_named_before_anything_is_written(tmp_path, models, texts, wordpiece):
    config = BertConfig(vocab_size=len(wordpiece), hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    BertModel(config).save_pretrained(tmp_path / "headless")
    wordpiece.save_pretrained(tmp_path / "headless")
    good, number = cloze_rows(), [0]

    def cloze(change):
        number[0] += 1
        return {"cloze": write(tmp_path / f"c{number[0]}.parquet", [good[0], good[1] | change, *good[2:]])}

    (tmp_path / "empty.parquet").write_bytes(b"")
    write(tmp_path / "half.parquet", [{"text": "a [MASK]", "answer": "b"}])
    write(tmp_path / "pairs.parquet", [{"sentence1": "a", "sentence2": "b"}])
    same = write(tmp_path / "same.parquet", [{"sentence1": "a", "sentence2": "b", "label": 1.0}] * 3)
    words = write(tmp_path / "words.parquet", [{"sentence1": "a", "sentence2": "b", "label": "high"}] * 3)
    no_rows = write(tmp_path / "none.parquet", good)
    pq.write_table(pq.read_table(no_rows).slice(0, 0), no_rows)
    (tmp_path / "short.txt").write_text("so it is\n")
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "pretraining" / "models" / "tiny")
    pack_dataset(Documents([str(SENTENCES)]), tokenizer, tmp_path / "packed", 64, 0.0, quiet=True)
    (tmp_path / "latin.csv").write_bytes(b"sentence1,sentence2,label\ncaf\xe9,b,1\n")
    cases = [
        (cloze({"text": "no gap"}), r"c1\.parquet: row 2 \(of 5\): text holds \[MASK\] 0 times"),
        (cloze({"text": "[MASK] and [MASK]"}), r"c2\.parquet: row 2 \(of 5\): text holds \[MASK\] 2 times"),
        (cloze({"text": "the [MASK]n man"}), r"row 2 \(of 5\): a letter or digit touches \[MASK\]"),
        (cloze({"answer": " "}), r"row 2 \(of 5\): answer is empty"),
        (cloze({"answer": None}), r"row 2: column answer is empty"),
        (cloze({"kind": "other"}), r"row 1 \(of 5\): the only answer of kind 'person'"),
        (cloze({"date": "spring"}), r"row 2 \(of 5\): 'spring' is not a date"),
        (cloze({"text": "quiet " * 200 + "[MASK]"}), r"question 2: its text is longer than counts takes"),
        ({"cloze": str(tmp_path / "half.parquet")}, r"half\.parquet: has no column kind"),
        ({"cloze": str(tmp_path / "empty.parquet")}, r"empty\.parquet: the file is empty"),
        ({"cloze": no_rows}, r"--cloze .*none\.parquet: holds no rows"),
        ({"cloze": str(tmp_path / "nowhere.parquet")}, r"--cloze .*nowhere"),
        ({"stsb": str(tmp_path / "pairs.parquet")}, r"pairs\.parquet: has no column label"),
        ({"stsb": str(tmp_path / "nowhere")}, r"^--stsb .*nowhere, configuration stsb: cannot be loaded"),
        (
            {"stsb": str(tmp_path / "latin.csv")},
            r"^--stsb .*latin\.csv: line 2: .*--file_encoding .*here save the file as parquet",
        ),
        ({"stsb": same}, r"same\.parquet: column label needs at least two scores that differ"),
        ({"stsb": words}, r"words\.parquet: column label holds what is no number"),
        ({"blimp": str(tmp_path / "nowhere.zip")}, r"--blimp .*nowhere\.zip"),
        ({"text": [str(tmp_path / "nowhere.txt")]}, r"--text .*nowhere\.txt: no such file"),
        ({"copy_text": [str(tmp_path / "short.txt")]}, r"--copy_text"),
        ({}, "give at least one of them"),
        ({"text": [same], "validation_fraction": 2.0}, "--validation_fraction 2.0"),
        ({"stsb": same, "max_blocks": 0}, "--max_blocks 0"),
        ({"text": [str(tmp_path / "packed")], "max_seq_length": 256}, "the blocks of --text are of 64 tokens"),
    ]
    for flags, message in cases:
        with pytest.raises(InputError, match=message):
            probe(tmp_path / "out", models[:1], **flags)
    with pytest.raises(InputError, match="BertModel cannot fill in masks"):
        probe(tmp_path / "out", [str(tmp_path / "headless")], stsb=same)
    assert not (tmp_path / "out").exists()


@pytest.mark.data
@pytest.mark.skipif("TINY_OLM_DATA" not in os.environ, reason="TINY_OLM_DATA names no data folder")
def test_real_inputs_are_read_whole():
    data = os.environ["TINY_OLM_DATA"]
    path = f"{data}/probes/current_events_cloze/validation.parquet"
    questions, choices = read_cloze(Split(read_rows(path), path))
    assert len(questions) == 1251 and {kind: len(found) for kind, found in choices.items()} == {
        "country": 117,
        "person": 35,
    }
    texts, pairs, labels = load_scored_pairs(f"{data}/glue/stsb")
    assert len(pairs) == len(labels) == 1500 and len(texts) > 2000 and labels.max() == 5
