"""The models in the tree load as anybody would load them, and say what they said when they were put there."""

import json

import pytest
import torch
from conftest import ROOT
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

MODELS = sorted(path.parent for path in (ROOT / "pretraining" / "models").glob("*/config.json"))
MOST_BYTES = 12e6
SAID = json.loads((ROOT / "tests" / "data" / "models.json").read_text())


@pytest.fixture(params=MODELS, ids=lambda path: path.name)
def model(request):
    return request.param


def test_there_are_models():
    assert [path.name for path in MODELS] == sorted(SAID)


def test_it_is_small_and_holds_plain_weights(model):
    assert sum(file.stat().st_size for file in model.rglob("*") if file.is_file()) < MOST_BYTES
    assert not [file.name for file in model.rglob("*") if file.suffix in (".bin", ".pt", ".pkl", ".py")]
    assert b"site-packages" not in (model / "onnx" / "model_int8.onnx").read_bytes(), (
        "folders of the machine that made it"
    )
    loaded, info = AutoModelForMaskedLM.from_pretrained(model, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}, "a CPU computes in float32"


def test_it_fills_masks_as_before(model):
    fill = pipeline("fill-mask", str(model))
    for text, (token, score) in SAID[model.name]["masks"].items():
        best = fill(text)[0]
        assert best["token_str"] == token and best["score"] == pytest.approx(score, abs=2e-3)


def test_it_is_a_sentence_encoder(model):
    encoder = pytest.importorskip("sentence_transformers").SentenceTransformer(str(model))
    for one, two, cosine in SAID[model.name]["cosines"]:
        first, second = encoder.encode([one, two], normalize_embeddings=True)
        assert first @ second == pytest.approx(cosine, abs=2e-3)


def test_it_can_be_fine_tuned_at_once(model):
    """Every weight of the encoder is taken over; only the classifier is new."""
    _, info = AutoModelForSequenceClassification.from_pretrained(model, num_labels=3, output_loading_info=True)
    assert all(name.startswith(("classifier", "head")) for name in info["missing_keys"])


def test_the_card_names_text_and_licence(model):
    card = (model / "README.md").read_text()
    assert "license: apache-2.0" in card and "CC BY-SA 4.0" in card and "## Text" in card
    assert json.loads((model / "manifest.json").read_text())["results"]


def test_its_onnx_file_agrees_with_pytorch(model):
    """The int8 encoder, by the mean over its tokens, which compares texts."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model / "onnx" / "model_int8.onnx", providers=["CPUExecutionProvider"])
    encoder, tokenizer = AutoModel.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    for one, two, _ in SAID[model.name]["cosines"]:
        inputs = tokenizer([one, two], padding=True, return_tensors="pt")
        mask = inputs["attention_mask"][..., None]
        with torch.no_grad():
            wanted = (encoder(**inputs).last_hidden_state * mask).sum(1)
        small = session.run(["last_hidden_state"], {name: value.numpy() for name, value in inputs.items()})[0]
        found = (torch.from_numpy(small) * mask).sum(1)
        assert torch.cosine_similarity(found, wanted).min() > 0.995
