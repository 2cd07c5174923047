"""ONNX files of several architectures: which operators they have, and that ONNX Runtime agrees with PyTorch."""

import sys
from collections import Counter

import pytest
import torch
from transformers import AutoConfig, AutoModel, set_seed

from shared.onnx_export import export, quantize

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
SIZES = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("model_type", "opset", "attentions", "rotations"),
    [
        ("bert", 24, 2, 0),
        ("modernbert", 24, 2, 4),  # queries and keys of two layers
        pytest.param("modernbert", 20, 0, 0, marks=pytest.mark.faults),  # these operators are newer
        pytest.param("nomic_bert", 24, 2, 4, marks=pytest.mark.faults),
        pytest.param(
            "roformer", 24, 0, 0, marks=pytest.mark.faults
        ),  # turns its heads in pairs, so another attention has no room
        pytest.param("deberta-v2", 24, 0, 0, marks=pytest.mark.faults),
    ],
)
def test_attention_and_rotary_positions_are_one_operator(tmp_path, model_type, opset, attentions, rotations):
    set_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(model_type, **SIZES)).eval()
    before = model.config._attn_implementation, dict(vars(sys.modules[type(model).__module__]))
    path = tmp_path / "model.onnx"
    export(model, ["input_ids", "attention_mask"], path, "last_hidden_state", opset)
    assert (model.config._attn_implementation, vars(sys.modules[type(model).__module__])) == before
    found = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert (found["Attention"], found["RotaryEmbedding"]) == (attentions, rotations)

    ids = torch.randint(5, 100, (3, 11))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    with torch.no_grad():
        wanted = model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
    quantize(path, tmp_path / "int8.onnx")
    for name, least in (("model", 0.99999), ("int8", 0.99)):
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        output = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
        cosines = torch.cosine_similarity(torch.from_numpy(output)[mask.bool()], wanted, dim=-1)
        assert cosines.min() > least
