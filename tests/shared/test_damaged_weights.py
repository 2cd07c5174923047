"""A checkpoint that is cut short or holds NaN, or is not there, is refused by each way to load it."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM

from evaluation.cpu.checkpoint import load_checkpoint
from evaluation.masked.scores import load_model, open_checkpoints
from finetuning.common.arguments import CheckpointArguments
from finetuning.embedding.encoder import load_encoder
from pretraining.distillation.teacher import load_teacher
from shared.errors import InputError
from shared.model_config import load_weights

LOADERS = {
    "training": lambda name: load_weights(AutoModelForMaskedLM, name, print),
    "evaluation": lambda name: load_model(open_checkpoints([name])[0]),
    "CPU benchmark": lambda name: load_checkpoint(name, 16),
    "embedding": lambda name: load_encoder(CheckpointArguments(model_name_or_path=name), 16, "cpu"),
    "teacher": load_teacher,
}


@pytest.fixture
def broken(tmp_path):
    shutil.copytree(
        ROOT / "pretraining" / "models" / "tiny", tmp_path / "model", ignore=shutil.ignore_patterns("onnx")
    )
    return SimpleNamespace(name=str(tmp_path / "model"), weights=tmp_path / "model" / "model.safetensors")


@pytest.mark.parametrize("loader", LOADERS)
def test_weights_that_are_no_numbers(broken, loader):
    weights = load_file(broken.weights)
    name = next(name for name in weights if "layers.1" in name)
    weights[name].view(-1)[5] = torch.nan
    save_file(weights, broken.weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match="NaN"):
        LOADERS[loader](broken.name)


@pytest.mark.parametrize("loader", LOADERS)
def test_weights_that_are_cut_short(broken, loader):
    broken.weights.write_bytes(broken.weights.read_bytes()[:100_000])
    with pytest.raises(InputError, match="incomplete metadata"):
        LOADERS[loader](broken.name)


@pytest.mark.parametrize("loader", [name for name in LOADERS if name not in ("training", "teacher")])
def test_no_folder(tmp_path, loader):
    with pytest.raises(InputError, match=r"no such folder, and no id of the Hub|none not found"):
        LOADERS[loader](str(tmp_path / "none"))
