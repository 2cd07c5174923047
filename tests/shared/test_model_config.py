import json
import shutil

import pytest
import torch
from conftest import make_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, BertForSequenceClassification
from transformers.utils import is_flash_attn_2_available

from pretraining.convert_checkpoint import ConvertArguments
from pretraining.convert_checkpoint import main as convert
from shared.errors import InputError
from shared.model_config import SIZES, ModelArguments, build_config, build_model, load_weights
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


@pytest.mark.parametrize("content", ['{"model_type": "be', "[1]"])
def test_a_damaged_configuration_names_its_flag(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"--model_name_or_path .*: damaged config\.json .*; get it anew"):
        ModelArguments(model_name_or_path=str(tmp_path))


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
    wordpiece.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"trained with another tokenizer .*leave out --tokenizer_name"):
        build_model(ModelArguments(model_name_or_path=str(tmp_path)), bpe, 16)
    with pytest.raises(InputError, match="hidden_size=30"):
        build_model(ModelArguments(config_overrides="hidden_size=30,num_attention_heads=4"), wordpiece, 16)
    with pytest.raises(InputError, match="brings its own configuration"):
        build_model(ModelArguments(model_name_or_path=str(tmp_path), config_overrides="hidden_size=2"), wordpiece, 16)
    with pytest.raises(InputError, match="nowhere"):
        build_model(ModelArguments(model_name_or_path="nowhere/at-all"), wordpiece, 16)
    AutoConfig.for_model("gpt2", n_embd=8, n_head=2, n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="gpt2 has no head that fills masks; take an encoder"):
        build_model(ModelArguments(model_name_or_path=str(tmp_path)), wordpiece, 16)


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
    facts = {"settings": {"dimensions": 24}, "inputs": [{"tokenizer": {"sha256": tokenizer_hash(wordpiece)}}]}
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


@pytest.fixture
def checkpoint(tmp_path, wordpiece):
    """A model of BERT's layout with its tokenizer, as our runs leave it."""
    folder = tmp_path / "checkpoint"
    build_model(ModelArguments(config_overrides="hidden_size=32"), wordpiece, 16).save_pretrained(folder)
    wordpiece.save_pretrained(folder)
    return folder


def go_on(folder, tokenizer, say=lambda text: None, **flags):
    return build_model(ModelArguments(model_name_or_path=str(folder), **flags), tokenizer, 16, say)


@pytest.mark.parametrize("size", [200, 190, 400])
def test_a_checkpoint_is_tied_to_its_tokenizer(checkpoint, tmp_path, size):
    """As large, smaller, larger: each row would mean another word. Its own, wherever it is stored, is taken."""
    kind = "bpe" if size == 400 else "wordpiece"
    other = make_tokenizer(kind, size)
    if size == 200:  # the same words under other numbers
        vocabulary = other.get_vocab()
        vocabulary["the"], vocabulary["e"] = vocabulary["e"], vocabulary["the"]
        other = type(other)(vocab=vocabulary)
    with pytest.raises(InputError, match=r"another tokenizer than .* is '.*' there and .* here.*own tokenizer") as e:
        go_on(checkpoint, other)
    assert str(checkpoint) in str(e.value)
    own = AutoTokenizer.from_pretrained(checkpoint)
    own.save_pretrained(tmp_path / "elsewhere")
    go_on(checkpoint, AutoTokenizer.from_pretrained(tmp_path / "elsewhere"))


def test_a_checkpoint_whose_tokenizer_is_gone_knows_it_by_its_hash(checkpoint, wordpiece):
    for file in checkpoint.glob("tokenizer*"):
        file.unlink()
    go_on(checkpoint, wordpiece)
    other = make_tokenizer("wordpiece", 190)
    with pytest.raises(InputError, match=r"another tokenizer .*by the hash in its config\.json"):
        go_on(checkpoint, other)
    other.save_pretrained(checkpoint)  # and so with another one in its place
    with pytest.raises(InputError, match=r"another tokenizer .*by the hash in its config\.json"):
        go_on(checkpoint, other)


def test_entries_may_take_the_place_of_unused_ones(tmp_path, wordpiece):
    """What the reserved entries of train_tokenizer.py are for."""
    from transformers import BertTokenizer

    words = wordpiece.get_vocab()
    reserved = BertTokenizer(vocab=words | {"[unused0]": 200, "[unused1]": 201})
    build_model(ModelArguments(config_overrides="hidden_size=32"), reserved, 16).save_pretrained(tmp_path)
    reserved.save_pretrained(tmp_path)
    go_on(tmp_path, BertTokenizer(vocab=words | {"blog": 200, "[unused1]": 201}))


def test_what_does_not_fit_names_a_way_out_that_works(checkpoint, wordpiece):
    flags = {"config_overrides": "hidden_size=32,vocab_size=150,max_position_embeddings=16"}
    with pytest.raises(InputError, match="take vocab_size out of --config_overrides"):
        build_model(ModelArguments(**flags), wordpiece, 16)
    flags = {"config_overrides": "hidden_size=32,max_position_embeddings=16"}
    with pytest.raises(InputError, match="raise max_position_embeddings in --config_overrides"):
        build_model(ModelArguments(**flags), wordpiece, 32)
    build_model(ModelArguments(config_overrides="hidden_size=32,max_position_embeddings=32"), wordpiece, 32)
    with pytest.raises(InputError, match="only 512 positions; use shorter texts or blocks"):
        build_model(ModelArguments(model_name_or_path=str(checkpoint)), wordpiece, 513)
    build_model(ModelArguments(model_name_or_path=str(checkpoint)), wordpiece, 512)


def renamed(folder, target, prefix, pickled=False):
    """A copy of the checkpoint, its weights under other names or in a pickle."""
    shutil.copytree(folder, target)
    weights = {f"{prefix}{name}": weight for name, weight in load_file(folder / "model.safetensors").items()}
    (target / "model.safetensors").unlink()
    if pickled:
        torch.save(weights, target / "pytorch_model.bin")
    else:
        save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.mark.parametrize(
    ("prefix", "pickled"),
    [("_orig_mod.", False), ("module.", False), ("model.", False), ("module._orig_mod.", False), ("", True)],
)
def test_weights_that_are_not_the_models_are_refused_and_can_be_converted(
    checkpoint, tmp_path, wordpiece, prefix, pickled
):
    folder = renamed(checkpoint, tmp_path / "wrapped", prefix, pickled)
    message = r"no weights in safetensors" if pickled else rf"encoder's are missing \(bert\..*\({prefix}bert\."
    with pytest.raises(InputError, match=message) as error:
        go_on(folder, wordpiece, pytest.fail)
    command = str(error.value).partition("run python pretraining/convert_checkpoint.py ")[2].split()
    assert command == ["--output_dir", "NEW_FOLDER", "--input", str(folder)]
    convert(ConvertArguments(input=command[3], output_dir=str(tmp_path / "new")))
    model = go_on(tmp_path / "new", AutoTokenizer.from_pretrained(tmp_path / "new"), pytest.fail)
    expected = AutoModelForMaskedLM.from_pretrained(checkpoint).state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in model.state_dict().items())


def test_an_encoder_goes_on_with_the_head_of_the_model_that_it_was(checkpoint, tmp_path, wordpiece):
    model = BertForSequenceClassification.from_pretrained(checkpoint)
    torch.nn.init.constant_(model.bert.encoder.layer[0].output.dense.weight, 3)
    model.save_pretrained(tmp_path / "classifier")
    wordpiece.save_pretrained(tmp_path / "classifier")
    args = ConvertArguments(str(tmp_path / "classifier"), str(tmp_path / "new"), str(checkpoint))
    convert(args)
    new, old = (AutoModelForMaskedLM.from_pretrained(folder).state_dict() for folder in (tmp_path / "new", checkpoint))
    for name, weight in new.items():
        changed = name == "bert.encoder.layer.0.output.dense.weight"
        assert torch.equal(weight, torch.full_like(weight, 3) if changed else old[name])
    assert AutoTokenizer.from_pretrained(tmp_path / "new").get_vocab() == wordpiece.get_vocab()

    config = AutoConfig.from_pretrained(checkpoint)
    config.num_hidden_layers += 1
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path / "deeper")
    deeper = ("deeper", "bert whose encoder.layer.*is not that of the bert of --input")
    for other, message in (deeper, ("no", "no"), ("classifier", "has no head for masks")):
        with pytest.raises(InputError, match=f"--head_from .*{message}"):
            convert(ConvertArguments(args.input, str(tmp_path / "wrong"), str(tmp_path / other)))
        assert not (tmp_path / "wrong").exists()


def test_a_pickle_of_anything_but_tensors_is_not_run(checkpoint, tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    folder = renamed(checkpoint, tmp_path / "evil", "", True)
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin: not readable as tensors"):
        convert(ConvertArguments(input=str(folder), output_dir=str(tmp_path / "new")))
    assert not (tmp_path / "new").exists()


def test_layers_that_are_missing_or_left_over_are_refused_and_a_new_head_is_told(checkpoint, tmp_path, wordpiece):
    for layers, message in ((3, r"16 of the encoder's are missing \(bert\.encoder\.layer\.2"), (1, "left over")):
        folder = shutil.copytree(checkpoint, tmp_path / f"layers{layers}")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
        with pytest.raises(InputError, match=message):
            go_on(folder, wordpiece)
    said = []
    load_weights(BertForSequenceClassification, str(checkpoint), said.append).save_pretrained(tmp_path / "classifier")
    assert len(said) == 1 and "classifier.bias" in said[0]
    wordpiece.save_pretrained(tmp_path / "classifier")
    said.clear()
    go_on(tmp_path / "classifier", wordpiece, said.append)
    assert len(said) == 1 and "no fitting weights for cls.predictions" in said[0]
