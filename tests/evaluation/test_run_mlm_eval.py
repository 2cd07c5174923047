import json
import math

import numpy as np
import pytest
import torch
from conftest import SENTENCES
from masked_models import count_tokens, save_model
from transformers import AutoModelForMaskedLM, BertConfig, BertForSequenceClassification, BertModel, EvalPrediction

from data_prep.pack_dataset import pack_dataset
from evaluation.masked.eval_page import make_table
from evaluation.masked.scores import (
    TOKENS_AT_ONCE,
    cut_documents,
    encode_sentences,
    load_model,
    losses_and_hits,
    open_checkpoints,
    score_blocks,
    score_sentences,
)
from evaluation.masked.text_sample import FirstDocuments, choose_sentences
from evaluation.run_mlm_eval import EvalArguments, main
from evaluation.tasks.bootstrap import interval, resample_sums
from pretraining.masking import EVALUATION, MaskedBlocks, make_masker
from pretraining.run_mlm import compute_metrics
from shared.blocks import open_blocks
from shared.documents import Documents
from shared.errors import InputError
from shared.loss import IGNORED, sum_over_targets
from shared.tokenizer import raw_text_encoder

TEXTS = ["It seems that Anna walked home.", "No.", "They (all of them) kept unbelievably quiet, didn't they?"]


@pytest.fixture(scope="module")
def random_model(tmp_path_factory, wordpiece):
    return save_model(tmp_path_factory.mktemp("models") / "random", wordpiece)


@pytest.fixture(scope="module")
def counting_model(tmp_path_factory, wordpiece, texts):
    return save_model(tmp_path_factory.mktemp("models") / "counts", wordpiece, counts=count_tokens(wordpiece, texts))


def run(output_dir, *models, **flags):
    flags = {"input": [str(SENTENCES)], "max_seq_length": 32} | flags
    return main(EvalArguments(models=[*models], output_dir=str(output_dir), **flags))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "modernbert"])
@pytest.mark.parametrize("within_word", [True, False])
def test_pseudo_log_likelihoods_are_those_of_hiding_one_token_at_a_time(tmp_path, tokenizer, model_type, within_word):
    (checkpoint,) = open_checkpoints([save_model(tmp_path / "m", tokenizer, model_type)])
    sentences = encode_sentences(checkpoint, TEXTS)
    found = score_sentences(load_model(checkpoint), sentences, tokenizer.mask_token_id, within_word)
    model = AutoModelForMaskedLM.from_pretrained(checkpoint.name).eval()
    hidden_with_others = 0
    for text, scores in zip(TEXTS, found, strict=True):
        encoding = tokenizer(text)
        ids, words, expected = encoding["input_ids"], encoding.word_ids(), []
        for place, word in enumerate(words):
            if word is not None:
                hidden = [p == place or (within_word and p > place and words[p] == word) for p in range(len(ids))]
                hidden_with_others += sum(hidden) > 1
                copy = [tokenizer.mask_token_id if h else i for h, i in zip(hidden, ids, strict=True)]
                with torch.no_grad():
                    logits = model(torch.tensor([copy])).logits[0, place]
                expected.append(logits.log_softmax(-1)[ids[place]].item())
        np.testing.assert_allclose(scores, expected, atol=2e-4)
    assert bool(hidden_with_others) == within_word


def test_equal_sentences_get_equal_scores_however_they_are_batched(monkeypatch, random_model, texts):
    (checkpoint,) = open_checkpoints([random_model])
    model, mask = load_model(checkpoint), checkpoint.tokenizer.mask_token_id
    sentences = encode_sentences(checkpoint, [*texts[:20], *texts[:20]])
    sentences = [sentence for sentence in sentences if sentence]
    at_once = score_sentences(model, sentences, mask)
    half = len(at_once) // 2
    assert all((a == b).all() for a, b in zip(at_once[:half], at_once[half:], strict=True))
    monkeypatch.setitem(TOKENS_AT_ONCE, "cpu", 50)
    for a, b in zip(at_once, score_sentences(model, sentences, mask), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_span_and_texts_that_do_not_fit(random_model):
    (checkpoint,) = open_checkpoints([random_model])
    text = "Anna likes [MASK] quiet walks."
    (sentence,) = encode_sentences(checkpoint, [text], [(11, 17)])
    ids = sentence.ids[sentence.scored].tolist()
    assert ids == checkpoint.encoder.encode(" [MASK]", add_special_tokens=False).ids  # as text, not as the mask
    assert checkpoint.tokenizer.mask_token_id not in sentence.ids
    assert encode_sentences(checkpoint, ["", "word " * 100]) == [None, None]


def test_losses_and_hits_are_those_of_training(random_model):
    logits = torch.randn(5, 7, 50)
    labels = torch.randint(0, 50, (5, 7))
    labels[0, :3] = logits[0, :3].argmax(-1)
    labels[1:3, 4:] = IGNORED
    losses, hits = losses_and_hits(logits, labels)
    expected = sum_over_targets(logits, labels)
    torch.testing.assert_close(losses.float(), expected[:, 0])
    assert hits.tolist() == expected[:, 1].tolist() and hits[0] >= 3


def test_the_numbers_are_those_of_the_training_run_on_its_blocks(tmp_path, random_model, wordpiece):
    pack_dataset(Documents([str(SENTENCES)]), wordpiece, tmp_path / "packed", 32, 0.1, quiet=True)
    packed = open_blocks(tmp_path / "packed")
    dataset = MaskedBlocks(
        packed.splits["validation"], make_masker(wordpiece, EVALUATION, seed=0), wordpiece.pad_token_id
    )
    batch = dataset.__getitems__(range(len(dataset)))
    (checkpoint,) = open_checkpoints([random_model])
    with torch.no_grad():
        logits = load_model(checkpoint)(**{k: v for k, v in batch.items() if k != "labels"}).logits
    facts = packed.manifest["splits"]["validation"]
    prediction = EvalPrediction(sum_over_targets(logits, batch["labels"]).numpy(), batch["labels"].numpy())
    expected = compute_metrics(prediction, facts["tokens"] / facts["bytes"])
    for number, flags in enumerate(({"input": [str(tmp_path / "packed")]}, {"validation_fraction": 0.1})):
        found = run(tmp_path / str(number), random_model, **flags)["models"]["random"]
        most_frequent = found["most_frequent_token_accuracy"]
        assert most_frequent == pytest.approx(expected["most_frequent_token_accuracy"])
        for name in ("perplexity", "masked_accuracy", "bits_per_byte"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4)
            low, high = found[f"{name}_interval"]
            assert low <= found[name] <= high
    assert found["documents"] == facts["documents"]
    part = run(tmp_path / "part", random_model, input=[str(tmp_path / "packed")], max_samples=2)["models"]["random"]
    assert part["blocks"] == 2 and not {"documents", "tokens", "bytes"} & {*part}  # those of two blocks, nobody knows


def test_a_model_of_word_counts_is_measured_as_arithmetic_says(tmp_path, counting_model, wordpiece, texts):
    found = run(tmp_path, counting_model, pll=True, pll_samples=50)["models"]["counts"]
    counts = count_tokens(wordpiece, texts)
    shares = counts / counts.sum()
    entropy = -(shares * np.log(shares)).sum()
    assert found["loss"] == pytest.approx(entropy, abs=0.1)
    assert found["most_frequent_token_accuracy"] == pytest.approx(found["masked_accuracy"])
    sentences = choose_sentences(FirstDocuments([str(SENTENCES)], None), 0, 50)
    ids = [id for s in sentences for id in wordpiece(s, add_special_tokens=False)["input_ids"]]
    loss = -np.log(shares[ids]).mean()
    assert found["pll_loss"] == pytest.approx(loss, abs=1e-4) and found["sentences"] == 50
    bits = loss * len(ids) / sum(len(s.encode()) for s in sentences) / math.log(2)
    assert found["pll_bits_per_byte"] == pytest.approx(bits, abs=1e-4)


def test_models_with_different_tokenizers_read_the_same_text_and_runs_repeat(tmp_path, random_model, bpe):
    other = save_model(tmp_path / "other", bpe, "roberta")
    flags = {"pll": True, "pll_samples": 20, "max_samples": 60}
    first = run(tmp_path / "one", random_model, other, **flags)
    run(tmp_path / "two", random_model, other, **flags)
    one, two = (json.loads((tmp_path / name / "mlm_eval.json").read_text()) for name in ("one", "two"))
    for report in (one, two):
        for row in report["models"].values():
            row.pop("tokens_per_second")
        report["settings"].pop("output_dir")
    assert one == two
    a, b = first["models"].values()
    assert a["bytes"] == b["bytes"] and a["documents"] == b["documents"] == 60 and a["tokens"] != b["tokens"]
    assert a["sentences"] == b["sentences"] and not b["paired_with_first"]
    assert b["bits_per_byte_minus_first"] == pytest.approx(b["bits_per_byte"] - a["bits_per_byte"])
    assert (tmp_path / "one" / "mlm_eval.md").read_text() == make_table(first)
    assert all(f"{row['bits_per_byte']:.3f}" in make_table(one) for row in one["models"].values())


def test_speed_is_reported_when_asked_for(tmp_path, random_model):
    speed = run(tmp_path, random_model, measure_speed=True, per_device_eval_batch_size=8)["models"]["random"]["speed"]
    assert speed["evaluation_tokens_per_second"] > 0 and 0 < speed["ratio_to_forward"] < 20


def test_documents_are_cut_without_loss_and_masked_alike_in_any_company(random_model, wordpiece, texts):
    (checkpoint,) = open_checkpoints([random_model])
    texts = [" ".join(texts[:9]), texts[3], " ".join(texts[5:30])]
    keys = np.array([5_000, 900, 77_000])
    blocks, _, owner, tokens = cut_documents(checkpoint, texts, keys, 16)
    special = {wordpiece.pad_token_id, wordpiece.cls_token_id, wordpiece.sep_token_id}
    for number, text in enumerate(texts):
        expected = wordpiece(text, add_special_tokens=False)["input_ids"]
        assert tokens[number] == len(expected)
        assert sorted(i for i in blocks[owner == number].ravel() if i not in special) == sorted(expected)
    model = load_model(checkpoint)

    def sums(chosen):
        parts = cut_documents(checkpoint, [texts[i] for i in chosen], keys[chosen], 16)
        scores = score_blocks(model, checkpoint, parts[0], parts[1], batch_size=3)
        return [scores[parts[2] == i].sum(0) for i in range(len(chosen))]

    np.testing.assert_allclose(sums([0, 1, 2])[2], sums([2])[0], rtol=1e-4)


def test_a_long_document_is_tokenized_in_pieces(random_model, wordpiece, texts, monkeypatch):
    (checkpoint,) = open_checkpoints([random_model])
    text, given = " ".join(texts * 20)[:300_000], []
    encoder = raw_text_encoder(wordpiece)

    class Watched:
        def encode(self, piece, **flags):
            return encoder.encode(piece, **flags)

        def encode_batch_fast(self, pieces, **flags):
            given.extend(map(len, pieces))
            return encoder.encode_batch_fast(pieces, **flags)

    monkeypatch.setattr("data_prep.pack_dataset.raw_text_encoder", lambda tokenizer: Watched())
    blocks, _, _, tokens = cut_documents(checkpoint, [text], np.array([5]), 64)
    expected = encoder.encode(text, add_special_tokens=False).ids
    assert max(given) <= 100_000 < sum(given) and tokens.tolist() == [len(expected)]
    assert blocks[:, 1:-1].ravel()[: len(expected)].tolist() == expected  # all of one length but the last


def test_the_bootstrap_gives_the_standard_error_of_a_mean():
    values = np.random.default_rng(1).normal(3, 2, (400, 1))
    low, high = interval(resample_sums(values, seed=0)[:, 0] / 400)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert (resample_sums(values, seed=0) == resample_sums(values, seed=0)).all()


def test_sentences_are_the_same_whatever_the_order_of_the_text(tmp_path, texts):
    lines = [f"{text.strip()} This is sentence number {number}." for number, text in enumerate(texts)]
    (tmp_path / "a.txt").write_text("\n\n".join(lines))
    (tmp_path / "b.txt").write_text("\n\n".join(lines[::-1] + lines))
    a, b = (choose_sentences(FirstDocuments([str(tmp_path / f"{name}.txt")], None), 0, 10) for name in "ab")
    assert a == b and len(set(a)) == 10


def test_models_have_the_names_that_tell_them_apart(tmp_path, wordpiece):
    for folder in ("may/tiny", "june/tiny", "lr=1/mini"):
        save_model(tmp_path / folder, wordpiece)
    may, june, mini = (str(tmp_path / folder) for folder in ("may/tiny", "june/tiny", "lr=1/mini"))
    assert [one.label for one in open_checkpoints([may, june, mini])] == [may, june, "mini"]
    named = open_checkpoints([f"old={may}", june, mini])
    assert [(one.label, one.name) for one in named] == [("old", may), ("tiny", june), ("mini", mini)]


def test_wrong_input_is_named_before_anything_is_written(tmp_path, random_model, wordpiece, bpe):
    config = BertConfig(
        vocab_size=200, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path / "classifier")
    BertModel(config).save_pretrained(tmp_path / "headless")
    headless = json.loads((tmp_path / "headless" / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (tmp_path / "headless" / "config.json").write_text(json.dumps(headless))
    for name in ("classifier", "headless"):
        wordpiece.save_pretrained(tmp_path / name)
    pack_dataset(Documents([str(SENTENCES)]), bpe, tmp_path / "packed", 32, 0.1, quiet=True)
    no_mask = save_model(tmp_path / "no_mask", wordpiece)
    settings = json.loads((tmp_path / "no_mask" / "tokenizer_config.json").read_text()) | {"mask_token": None}
    (tmp_path / "no_mask" / "tokenizer_config.json").write_text(json.dumps(settings))
    packed = [str(tmp_path / "packed")]
    cases = [
        ([], {}, "--models"),
        ([random_model, random_model], {}, "each once"),
        ([f"a={random_model}", f"a={tmp_path}"], {}, "--models a=.*: another model has this name"),
        ([str(tmp_path / "nowhere")], {}, "nowhere"),
        ([str(tmp_path / "classifier")], {}, "BertForSequenceClassification cannot fill in masks"),
        ([str(tmp_path / "headless")], {}, "has no weights for"),
        ([no_mask], {}, "no mask_token"),
        ([random_model], {"max_seq_length": 128}, "only 64 positions"),
        ([random_model], {"input": []}, "--input"),
        ([random_model], {"input": ["nowhere.txt"]}, "nowhere.txt"),
        ([random_model], {"input": packed}, "packed by another tokenizer"),
        ([random_model], {"input": packed, "pll": True}, "--pll: needs text"),
        ([random_model], {"input": packed, "max_seq_length": 64}, "the blocks of --input are of 32 tokens"),
        ([random_model], {"max_samples": 0}, "--max_samples 0"),
        ([random_model], {"validation_fraction": 1.5}, "--validation_fraction 1.5"),
    ]
    for models, flags, message in cases:
        with pytest.raises(InputError, match=message):
            run(tmp_path / "out", *models, **flags)
    assert not (tmp_path / "out").exists()
