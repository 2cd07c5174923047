"""DeepSpeed ZeRO for real: two processes on this CPU, against plain runs of the same global batch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from forked import deepspeed, train_group
from safetensors.torch import load_file
from test_run_mlm import run

from shared.errors import InputError
from shared.training.checkpoints import verify
from shared.training.verify_resume import compare

BIN = Path(sys.executable).parent
RECIPE = ["pretraining/run_mlm.py", "--config", "pretraining/recipes/smoke.yaml", "--per_device_train_batch_size", 8]
FLAGS = ["--max_steps", 20, "--logging_steps", 1, "--save_steps", 10, "--eval_strategy", "no"]


def train(stage, folder):
    """Two processes that read 16 samples a step, as one does by the recipe; stage 0 is without DeepSpeed."""
    environment = deepspeed(stage) | {"TORCH_EXTENSIONS_DIR": str(folder.parent / "compiled")} if stage else {}
    return train_group(folder, *RECIPE, *FLAGS, **environment)


def launch(folder):
    """ZeRO-2 as a user starts it."""
    words = ["launch", "--main_process_port", 0, "--config_file", "shared/launch/zero2_cpu.yaml", *RECIPE, *FLAGS]
    done = subprocess.run(
        [str(BIN / "accelerate"), *map(str, words), "--output_dir", folder],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def losses(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [row["loss"] for row in history if "loss" in row]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """A plain run, whose prediction head moreover works on every position, as the stock one does."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr("shared.loss._find_head", lambda _: None)
        run(folder, *FLAGS)
    return folder


LONG_FORM = pytest.mark.faults


STAGES = [2, *(pytest.param(one, marks=LONG_FORM) for one in (1, 3, "2, launched"))]


@pytest.fixture(scope="module", params=STAGES)
def zero(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero") / "run"
    is_launched = request.param == "2, launched"
    return (2, launch(folder)) if is_launched else (request.param, train(request.param, folder))


def test_the_losses_are_those_of_one_process(zero, one_process):
    stage, folder = zero
    assert len(losses(folder)) == 20 and not (folder.parent / "compiled").exists()
    assert losses(folder) == pytest.approx(losses(one_process), abs=1e-4)
    facts = verify(folder / "checkpoint-20")
    assert (facts["engine"], facts["processes"], facts["samples_per_step"]) == (f"zero{stage}", 2, 16)


def test_the_saved_model_is_the_consolidated_one(zero):
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    _, folder = zero
    checkpoint = folder / "checkpoint-20"
    shards = [path.name for path in checkpoint.rglob("*optim_states.pt")]
    assert len(shards) == 2  # each process has written its own
    expected = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint))
    for path in (checkpoint, folder):
        found = load_file(path / "model.safetensors")
        assert found.keys() <= expected.keys() and len(found) > 10
        assert all(torch.equal(weight, expected[name]) for name, weight in found.items())


def test_resume_is_exact(zero, tmp_path):
    stage, folder = zero
    shutil.copytree(folder / "checkpoint-10", tmp_path / "run" / "checkpoint-10")
    same = compare(folder, train(stage, tmp_path / "run"))
    assert all(same.values()), same
    assert losses(tmp_path / "run") == losses(folder)


def test_two_processes_go_on_where_one_stopped(one_process, tmp_path):
    shutil.copytree(one_process / "checkpoint-10", tmp_path / "run" / "checkpoint-10")
    found, expected = losses(train(0, tmp_path / "run")), losses(one_process)
    assert found[:10] == expected[:10]
    assert found[10] == pytest.approx(expected[10], abs=1e-5)
    assert found == pytest.approx(expected, abs=1e-4)


def test_another_engine_or_number_of_processes_is_refused(zero, tmp_path):
    stage, folder = zero
    shutil.copytree(folder / "checkpoint-10", tmp_path / "run" / "checkpoint-10")
    with pytest.raises(
        InputError, match=rf"zero{stage} on 2 processes.*--config_file shared/launch/zero{stage}_cpu.yaml "
    ):
        run(tmp_path / "run", *FLAGS, "--accept_changes")
