"""A run that is stopped and resumed is one run in TensorBoard and in W&B as well."""

import json
import re
import signal
import time

import pytest
from forked import Forked

from shared.training.checkpoints import checkpoints

FLAGS = ["--config", "pretraining/recipes/smoke.yaml", "--max_steps", 400, "--save_steps", 20, "--logging_steps", 10]
FLAGS += ["--eval_strategy", "no", "--disable_tqdm", "true"]


def train_in_two_starts(folder, **environment):
    """Stopped after its first checkpoint, and started again by the same command."""
    command = ["pretraining/run_mlm.py", *FLAGS, *environment.pop("flags"), "--output_dir", folder]
    first = Forked(f"{folder}.1.log", *command, **environment)
    while not checkpoints(folder) and first.exitcode is None:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    assert first.wait(300) == 143, first.output()[-3000:]
    before = json.loads((folder / "manifest.json").read_text())
    second = Forked(f"{folder}.2.log", *command, **environment)
    assert second.wait(600) == 0, second.output()[-3000:]
    after = json.loads((folder / "manifest.json").read_text())
    assert after["resumed_from"] and not before["resumed_from"]
    return before, after


def test_tensorboard_shows_one_curve(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    train_in_two_starts(tmp_path / "run", flags=["--report_to", "tensorboard"])
    shown = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "run")).Reload()
    assert list(shown.Runs()) == ["runs"]
    assert sorted({event.step for event in shown.Scalars("runs", "train/loss")}) == list(range(10, 401, 10))


def test_wandb_goes_on_in_the_same_run(tmp_path):
    pytest.importorskip("wandb")
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    before, after = train_in_two_starts(tmp_path / "run", flags=["--report_to", "wandb"], **environment)
    folders = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(folders) == 2
    assert {re.fullmatch(r"offline-run-[\d_]+-(\w+)", name)[1] for name in folders} == {before["wandb_run_id"]}
    assert after["wandb_run_id"] == before["wandb_run_id"]
