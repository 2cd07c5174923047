import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForMaskedLM
from transformers.utils import is_flash_attn_2_available

from shared.errors import InputError
from shared.model_config import SIZES, ModelArguments, build_config, build_model
from shared.tokenizer import tokenizer_hash


@pytest.mark.parametrize("model_type", ["bert", "roberta", "modernbert"])
@pytest.mark.parametrize("size", SIZES)
def test_named_sizes(wordpiece, model_type, size):
    config = build_config(ModelArguments(model_type=model_type, model_size=size), wordpiece, 128)
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == SIZES[size]
    assert config.vocab_size == len(wordpiece) and config.pad_token_id == wordpiece.pad_token_id
    assert config.max_position_embeddings >= 512


def test_tiny_is_googles_tiny():
    from transformers import BertConfig, BertForMaskedLM

    layers, width, heads = SIZES["tiny"]
    google = BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width
    )
    assert BertForMaskedLM(google).num_parameters() == pytest.approx(4.4e6, rel=0.02)


def test_overrides(wordpiece):
    args = ModelArguments(
        config_overrides="hidden_size=64, hidden_dropout_prob=0,hidden_act=relu,tie_word_embeddings=false"
    )
    config = build_config(args, wordpiece, 128)
    assert (config.hidden_size, config.hidden_dropout_prob, config.hidden_act) == (64, 0.0, "relu")
    assert config.tie_word_embeddings is False


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("hiden_size=64", "did you mean hidden_size"),
        ("hidden_size=big", "not of type int"),
        ("tie_word_embeddings=perhaps", "not of type bool"),
        ("hidden_size", "not of type int"),
    ],
)
def test_wrong_overrides_are_refused(wordpiece, overrides, message):
    with pytest.raises(InputError, match=message):
        build_config(ModelArguments(config_overrides=overrides), wordpiece, 128)


def test_blocks_must_fit_the_positions(bpe):
    for model_type, longest in (("bert", 16), ("roberta", 14)):
        args = ModelArguments(model_type=model_type, config_overrides="max_position_embeddings=16,hidden_size=32")
        model = build_model(args, bpe, longest)
        ids = bpe("the baker " * 50, return_tensors="pt", truncation=True, max_length=longest)
        assert model(**ids).logits.shape[1] == longest
        with pytest.raises(InputError, match=f"only {longest} positions"):
            build_model(args, bpe, longest + 1)


def test_long_blocks_get_the_positions_they_need(bpe):
    assert build_config(ModelArguments(model_type="roberta"), bpe, 1024).max_position_embeddings == 1026


def test_vocabulary_must_fit_the_embedding(tmp_path, wordpiece, bpe):
    build_model(ModelArguments(config_overrides="hidden_size=32"), wordpiece, 16).save_pretrained(tmp_path)
    again = build_model(ModelArguments(model_name_or_path=str(tmp_path)), wordpiece, 16)
    assert again.config.hidden_size == 32
    with pytest.raises(InputError, match="400 entries, but the model embeds only 200"):
        build_model(ModelArguments(model_name_or_path=str(tmp_path)), bpe, 16)
    with pytest.raises(InputError, match="hidden_size=30"):
        build_model(ModelArguments(config_overrides="hidden_size=30,num_attention_heads=4"), wordpiece, 16)
    with pytest.raises(InputError, match="brings its own configuration"):
        build_model(ModelArguments(model_name_or_path=str(tmp_path), config_overrides="hidden_size=2"), wordpiece, 16)
    with pytest.raises(InputError, match="nowhere"):
        build_model(ModelArguments(model_name_or_path="nowhere/at-all"), wordpiece, 16)


def test_attention_implementation(tmp_path, wordpiece):
    args = ModelArguments(config_overrides="hidden_size=32")
    assert build_model(args, wordpiece, 16).config._attn_implementation == "sdpa"  # the library's choice
    args = ModelArguments(config_overrides="hidden_size=32", attn_implementation="eager")
    model = build_model(args, wordpiece, 16)
    assert model.config._attn_implementation == "eager"
    model.save_pretrained(tmp_path)
    assert "attn_implementation" not in (tmp_path / "config.json").read_text()
    for name in ("eager", "sdpa"):
        args = ModelArguments(model_name_or_path=str(tmp_path), attn_implementation=name)
        assert build_model(args, wordpiece, 16).config._attn_implementation == name
    assert AutoModelForMaskedLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_unavailable_attention_is_refused(tmp_path, wordpiece):
    config = AutoConfig.for_model("mpnet", vocab_size=200, hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="--attn_implementation sdpa: MPNetForMaskedLM does not support"):
        build_model(ModelArguments(model_name_or_path=str(tmp_path), attn_implementation="sdpa"), wordpiece, 16)
    if not is_flash_attn_2_available():
        with pytest.raises(InputError, match="--model_type bert --attn_implementation flash_attention_2: FlashAtt"):
            build_model(ModelArguments(attn_implementation="flash_attention_2"), wordpiece, 16)


def test_embeddings_start_from_word_vectors(wordpiece, bpe, tmp_path):
    size = len(wordpiece)
    vectors = torch.randn(size, 40, generator=torch.Generator().manual_seed(0))
    vectors[7] = 0  # a token that never occurred
    facts = {"settings": {"dimensions": 24}, "inputs": {"tokenizer": {"sha256": tokenizer_hash(wordpiece)}}}
    (tmp_path / "report.json").write_text(json.dumps(facts))
    save_file({"embedding.weight": vectors}, tmp_path / "model.safetensors")
    flags = {"model_type": "modernbert", "config_overrides": "hidden_size=32,intermediate_size=32"}
    torch.manual_seed(0)
    plain = build_model(ModelArguments(**flags), wordpiece, 32).get_input_embeddings().weight
    torch.manual_seed(0)
    rows = (
        build_model(ModelArguments(**flags, word_vectors=str(tmp_path)), wordpiece, 32).get_input_embeddings().weight
    )
    cosines = torch.nn.functional.cosine_similarity(rows[:, :24], vectors[:, :24], dim=1)
    others = torch.arange(size) != 7
    assert torch.allclose(cosines[others], torch.ones(size - 1), atol=1e-5)
    assert torch.allclose(rows[others, :24].norm(dim=1), plain[:, :24].norm(dim=1).mean().expand(size - 1))
    assert torch.equal(rows[7], plain[7]) and torch.equal(rows[:, 24:], plain[:, 24:])
    with pytest.raises(InputError, match="counted with another tokenizer"):
        build_model(ModelArguments(**flags, word_vectors=str(tmp_path)), bpe, 32)
    with pytest.raises(InputError, match=r"--word_vectors nowhere: not a folder"):
        build_model(ModelArguments(**flags, word_vectors="nowhere"), wordpiece, 32)
    with pytest.raises(InputError, match="remove one of the two flags"):
        ModelArguments(model_name_or_path="a", word_vectors="b")
