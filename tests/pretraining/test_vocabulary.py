"""A checkpoint that goes on with another tokenizer: pretraining/vocabulary."""

import copy
import json
import math
import shutil

import numpy as np
import pytest
import torch
from conftest import SENTENCES, make_tokenizer
from test_run_mlm import run
from tokenizers import normalizers
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertTokenizer

from data_prep.extend_tokenizer import ExtensionArguments
from data_prep.extend_tokenizer import main as extend
from data_prep.train_tokenizer import TokenizerArguments, train_tokenizer
from pretraining.vocabulary.rows import build_model, count_tokens
from shared.documents import Documents
from shared.errors import InputError
from shared.model_config import ModelArguments, check_vocabulary, vocabulary_hash

WORDS = ("podcasters", "vlogging")


def reserved_tokenizer(kind, entries=4):
    args = TokenizerArguments(
        "", tokenizer_type=kind, vocab_size=(200 if kind == "wordpiece" else 400) + entries, reserved_entries=entries
    )
    return train_tokenizer(Documents([str(SENTENCES)]), args, quiet=True)[0]


def make_checkpoint(folder, model_type, tie=True):
    """A model whose numbers are all different, with its tokenizer."""
    overrides = f"hidden_size=32,intermediate_size=32,num_hidden_layers=1,tie_word_embeddings={str(tie).lower()}"
    tokenizer = reserved_tokenizer("bpe" if model_type == "roberta" else "wordpiece")
    torch.manual_seed(0)
    model = build_model(ModelArguments(model_type=model_type, config_overrides=overrides), tokenizer, 16)
    with torch.no_grad():
        model.get_output_embeddings().bias.copy_(torch.randn(len(tokenizer)))
        if not tie:
            model.get_output_embeddings().weight.copy_(torch.randn(len(tokenizer), 32))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="module", params=["bert", "roberta", "modernbert", "untied bert", "untied modernbert"])
def months(request, tmp_path_factory):
    """Folder of a checkpoint, and of its tokenizer with new words."""
    folder = tmp_path_factory.mktemp("months")
    make_checkpoint(folder / "old", request.param.split()[-1], "untied" not in request.param)
    (folder / "month.txt").write_text("\n\n".join(f"7 {word} {i}" for i in range(30) for word in WORDS))
    settings = {"min_count": 20, "validation_fraction": 0.0}
    extend(ExtensionArguments(str(folder / "old"), str(folder / "new"), [str(folder / "month.txt")], **settings))
    return folder


def go_on(folder, tokenizer, say=lambda text: None, blocks=None, **flags):
    return build_model(ModelArguments(model_name_or_path=str(folder), **flags), tokenizer, 16, say, blocks)


def rows_of(model):
    """Input rows, output rows, biases, and whether the first two are one."""
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings()
    return inputs.detach(), outputs.weight.detach(), outputs.bias.detach(), inputs is outputs.weight


def test_old_rows_are_moved_and_new_ones_start_from_their_pieces(months, tmp_path):
    old_tokenizer, new = (AutoTokenizer.from_pretrained(months / name) for name in ("old", "new"))
    before, said = AutoModelForMaskedLM.from_pretrained(months / "old").eval(), []
    model = go_on(months / "old", new, said.append).eval()
    assert (
        len(said) == 1 and f"{len(old_tokenizer) - 4} kept, 2 new (the mean of their old pieces), 0 dropped" in said[0]
    )
    assert model.config.vocab_size == before.config.vocab_size == len(new)
    old_rows, rows = rows_of(before), rows_of(model)
    assert rows[3] == old_rows[3] == (before.config.tie_word_embeddings is not False)
    there, here = old_tokenizer.get_vocab(), new.get_vocab()
    kept = [(there[token], number) for token, number in here.items() if token in there]
    assert len(kept) == len(new) - 2
    before_ids, ids = zip(*kept, strict=True)
    for old_table, table in zip(old_rows[:3], rows[:3], strict=True):
        assert torch.equal(old_table[list(before_ids)], table[list(ids)])
    special = set(old_tokenizer.all_special_ids)
    in_use = [number for token, number in there.items() if number not in special and "unused" not in token]
    for word in WORDS:
        (number,) = new(f" {word}", add_special_tokens=False)["input_ids"]
        pieces = old_tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        assert len(pieces) > 2 and number not in before_ids[: len(old_tokenizer) - 4]
        for old_table, table in zip(old_rows[:2], rows[:2], strict=True):
            mean = sum(old_table[piece] for piece in pieces) / len(pieces)
            wanted = sum(math.sqrt((old_table[n] ** 2).sum()) for n in in_use) / len(in_use)
            assert math.sqrt((table[number] ** 2).sum()) == pytest.approx(wanted, rel=1e-4)
            assert torch.cosine_similarity(table[number], mean, dim=0).item() == pytest.approx(1, abs=1e-5)
        assert rows[2][number].item() == pytest.approx(old_rows[2][pieces].mean().item(), abs=1e-5)
    # Old text has the old logits, but for the columns of new words; so has what is saved and loaded by anybody.
    text = old_tokenizer("the baker fed a horse", return_tensors="pt")
    assert torch.equal(new("the baker fed a horse", return_tensors="pt")["input_ids"], text["input_ids"])
    model.save_pretrained(tmp_path)
    new.save_pretrained(tmp_path)
    check_vocabulary(model.config, new, str(tmp_path))  # as the fine-tuning scripts do
    with torch.no_grad():
        wanted = before(**text).logits[..., list(before_ids)]
        for found in (model, AutoModelForMaskedLM.from_pretrained(tmp_path).eval()):
            assert torch.allclose(found(**text).logits[..., list(ids)], wanted, atol=1e-6)
    assert model.config.vocabulary_sha256 == vocabulary_hash(new)
    again = go_on(tmp_path, new, pytest.fail)
    assert torch.equal(again.get_input_embeddings().weight, rows[0])


def test_tokens_are_found_by_their_strings(tmp_path):
    """All numbers but those of special tokens are others; a few entries are gone."""
    old_tokenizer = make_checkpoint(tmp_path, "bert")
    words = old_tokenizer.get_vocab()
    names = sorted(words, key=words.get)
    shuffled = names[:5] + names[5:197][::-1] + ["zq"]
    new = BertTokenizer(vocab={token: number for number, token in enumerate(shuffled)})
    before, said = AutoModelForMaskedLM.from_pretrained(tmp_path), []
    model = go_on(tmp_path, new, said.append)
    assert "197 kept, 1 new (the mean of their old pieces), 3 dropped" in said[0]
    for old_table, table in zip(rows_of(before)[:3], rows_of(model)[:3], strict=True):
        assert torch.equal(table[:197], old_table[[words[token] for token in shuffled[:197]]])


def test_the_embedding_grows_to_a_multiple_of_64(months, tmp_path):
    old = AutoTokenizer.from_pretrained(months / "old")
    more = copy.deepcopy(old)
    more.add_tokens(["blog ☃", "horsy", "podcast"])
    before = AutoModelForMaskedLM.from_pretrained(months / "old")
    model = go_on(months / "old", more)
    size = model.config.vocab_size
    assert size % 64 == 0 and 0 < size - len(more) < 64
    assert [len(table) for table in rows_of(model)[:3]] == [size] * 3
    for old_table, table in zip(rows_of(before)[:3], rows_of(model)[:3], strict=True):
        assert torch.equal(old_table, table[: len(old)]) and table.isfinite().all()
    # What is not an entry is as unlikely as the least likely one.
    assert rows_of(model)[2][len(more) :].max() <= rows_of(before)[2].min()
    ids = more("the podcast", return_tensors="pt")["input_ids"]
    assert len(old) + 2 in ids
    outputs = model(input_ids=ids, labels=ids)
    outputs.loss.backward()
    assert outputs.logits.shape[-1] == size and model.get_input_embeddings().weight.grad[len(old) + 2].any()
    model.save_pretrained(tmp_path / "again")
    more.save_pretrained(tmp_path / "again")
    go_on(tmp_path / "again", more, pytest.fail)


def test_a_cased_vocabulary_starts_from_the_rows_of_its_words_in_lower_case(tmp_path):
    old = reserved_tokenizer("wordpiece")
    build_model(ModelArguments(config_overrides="hidden_size=32,num_hidden_layers=1"), old, 16).save_pretrained(
        tmp_path
    )
    old.save_pretrained(tmp_path)
    words = {token: number for token, number in old.get_vocab().items() if number < 190}
    word = next(token for token in words if token.isalpha() and len(token) > 2)
    more = {word.capitalize(): 190, word.upper(): 191, "Zq" + word: 192}
    said = []
    table = rows_of(go_on(tmp_path, BertTokenizer(vocab=words | more, do_lower_case=False), said.append))[0]
    before = rows_of(AutoModelForMaskedLM.from_pretrained(tmp_path))[0]
    own = before[old.get_vocab()[word]]
    assert torch.equal(table[190], own) and torch.equal(table[191], own) and torch.equal(table[words[word]], own)
    pieces = before[old("zq" + word, add_special_tokens=False)["input_ids"]].mean(0)
    assert len(old.tokenize("zq" + word)) > 1
    assert torch.cosine_similarity(table[192], pieces, dim=0).item() == pytest.approx(1, abs=1e-5)
    assert "190 kept, 3 new" in said[0]


def test_new_biases_follow_the_frequencies(months):
    """Where old biases are a line over log frequency, new ones lie on it."""
    new = AutoTokenizer.from_pretrained(months / "new")
    names = [new.convert_tokens_to_ids(new.tokenize(f" {word}"))[0] for word in WORDS]
    counts = np.random.default_rng(0).integers(1, 500, len(new))
    counts[names] = (7, 300)
    blocks = np.repeat(np.arange(len(new)), counts).astype(np.uint16)
    blocks = blocks[: len(blocks) // 16 * 16]
    counts = np.bincount(blocks, minlength=len(new))
    folder = shutil.copytree(months / "old", months / "biased", dirs_exist_ok=True)
    model = AutoModelForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_output_embeddings().bias.copy_(torch.from_numpy(0.5 * np.log(np.maximum(counts, 1)) - 3))
    model.save_pretrained(folder)
    found = rows_of(go_on(folder, new, blocks=blocks.reshape(-1, 16)))[2]
    assert found[names[0]].item() == pytest.approx(0.5 * math.log(7) - 3, abs=1e-3)
    assert found[names[1]].item() == pytest.approx(0.5 * math.log(300) - 3, abs=1e-3)


def test_counts_of_many_blocks_are_those_of_evenly_chosen_ones(monkeypatch):
    blocks = np.repeat(np.arange(8), 4).reshape(8, 4)
    assert count_tokens(blocks).tolist() == [4] * 8
    monkeypatch.setattr("pretraining.vocabulary.rows.COUNTED_TOKENS", 8)
    assert count_tokens(blocks).tolist() == [4, 0, 0, 0, 0, 0, 0, 4]


def test_what_does_not_fit_is_refused_with_a_way_out(tmp_path, bpe):
    tokenizer = reserved_tokenizer("wordpiece")
    old = tmp_path / "old"
    build_model(ModelArguments(config_overrides="hidden_size=32,num_hidden_layers=1"), tokenizer, 16).save_pretrained(
        old
    )

    def refused(message, other, **flags):
        with pytest.raises(InputError, match=message) as error:
            go_on(old, other, **flags)
        assert "\n" not in str(error.value)

    refused(r"has no tokenizer, so nobody knows .*save the tokenizer that it was trained with", bpe)
    bpe.save_pretrained(old)
    refused(r"has another tokenizer than it was trained with", make_tokenizer("wordpiece", 190))
    tokenizer.save_pretrained(old)
    refused(r"another kind than that of .* \(WordPiece there, BPE here\).*extend_tokenizer\.py", bpe)
    spread = BertTokenizer(vocab=tokenizer.get_vocab() | {"B": 204})
    spread.backend_tokenizer.normalizer = normalizers.NFC()
    refused(r"another kind than that of .* \(another normalizer\)", spread)
    words = tokenizer.get_vocab()
    few = {token: n for token, n in words.items() if n < 100} | {f"w{n}": n for n in range(100, 130)}
    refused(
        r"0\.769 of its entries .*under --least_shared_vocabulary 0\.8, .*lower the flag", BertTokenizer(vocab=few)
    )
    go_on(old, BertTokenizer(vocab=few), least_shared_vocabulary=0.75)
    moved = {**words, "[PAD]": words["the"], "the": words["[PAD]"]}
    refused(r"its padding token is entry \d+, that of .* is entry 0", BertTokenizer(vocab=moved))
    with pytest.raises(InputError, match=r"--least_shared_vocabulary 80\.0: must be at least 0 and at most 1"):
        ModelArguments(least_shared_vocabulary=80.0)


@pytest.mark.faults
def test_a_run_goes_on_with_new_words_and_resumes_to_the_same_bytes(tmp_path):
    tokenizer = reserved_tokenizer("wordpiece", 2)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    flags = ["--max_steps", 2, "--save_steps", 1, "--eval_strategy", "no"]
    run(tmp_path / "old", "--tokenizer_name", tmp_path / "tokenizer", "--vocab_size", 8192, *flags)
    month = tmp_path / "month.txt"
    month.write_text(SENTENCES.read_text() + "".join(f"\n\nthe {WORDS[i % 2]} saw {i} horses." for i in range(200)))
    settings = {"min_count": 80, "validation_fraction": 0.1, "min_pieces": 6}
    extend(ExtensionArguments(str(tmp_path / "old"), str(tmp_path / "new"), [str(month)], **settings))
    flags += ["--tokenizer_name", tmp_path / "new", "--vocab_size", 8192, "--train_file", month]
    flags += ["--model_name_or_path", tmp_path / "old", "--config_overrides", ""]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError, match="of its entries are in the tokenizer"):
        patch.setattr("pretraining.text.blocks.cached_blocks", lambda *_: pytest.fail("the text was packed"))
        run(tmp_path / "refused", *flags, "--least_shared_vocabulary", 1)
    run(tmp_path / "whole", *flags)
    notes = json.loads((tmp_path / "whole" / "manifest.json").read_text())["notes"]
    assert any("200 kept, 2 new (the mean of their old pieces), 0 dropped" in note for note in notes)
    (tmp_path / "resumed").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-1", tmp_path / "resumed" / "checkpoint-1")
    run(tmp_path / "resumed", *flags)
    whole, resumed = (tmp_path / name / "model.safetensors" for name in ("whole", "resumed"))
    assert whole.read_bytes() == resumed.read_bytes()
    # The new checkpoint and its tokenizer belong together.
    saved = AutoTokenizer.from_pretrained(tmp_path / "whole")
    assert saved.tokenize("the podcasters") == ["the", "podcasters"]
    go_on(tmp_path / "whole", saved, pytest.fail)
