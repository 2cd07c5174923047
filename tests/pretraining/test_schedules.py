"""What changes with the step of a run: the share of masks and the batch."""

import json
import time

import numpy as np
import pytest
from forked import Forked
from test_run_mlm import SMOKE, losses, run

from shared.errors import InputError
from shared.loss import IGNORED

SCHEDULES = ["--mlm_probability", 0.3, "--mlm_probability_end", 0.1, "--batch_ramp", "0.25:6", "0.5:12"]
FLAGS = [*SCHEDULES, "--max_steps", 30, "--save_steps", 10, "--eval_strategy", "no"]


def words(folder, *flags):
    return ["--config", SMOKE, "--output_dir", folder, "--disable_tqdm", "true", *flags]


@pytest.mark.faults
def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    run(tmp_path / "whole", *FLAGS)
    killed = tmp_path / "killed"
    process = Forked(tmp_path / "log", "pretraining/run_mlm.py", *words(killed, *FLAGS, "--save_steps", 7))
    while process.exitcode is None and not (killed / "checkpoint-7").exists():
        time.sleep(0.01)
    process.kill()
    assert process.wait(60) < 0, process.output()[-3000:]
    run(killed, *FLAGS, "--save_steps", 7)
    assert json.loads((killed / "manifest.json").read_text())["resumed_from"]
    same = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "whole", killed)]
    assert same[0] == same[1] and losses(killed) == losses(tmp_path / "whole")


def test_masks_and_batch_of_each_step_whatever_the_split_and_the_workers(tmp_path, monkeypatch):
    """As the model is given them."""
    from shared.training.trainer import ExactTrainer

    seen, original = [], ExactTrainer.training_step

    def look(self, model, inputs, *args, **kwargs):
        known = (inputs["labels"] != IGNORED).sum(1).numpy()
        seen.append((self.state.global_step, known))
        assert inputs["labels"].shape[1] == round(0.3 * 32)
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(ExactTrainer, "training_step", look)
    found = []
    for name, split in (("a", (16, 1)), ("b", (4, 4)), ("c", (8, 2))):
        flags = ["--per_device_train_batch_size", split[0], "--gradient_accumulation_steps", split[1]]
        flags += ["--dataloader_num_workers", 2] if name == "c" else []
        seen.clear()
        metrics = run(tmp_path / name, *FLAGS, *flags)
        assert metrics["train_tokens"] == (6 * 4 + 6 * 8 + 18 * 16) * 32
        steps = [np.concatenate([known for step, known in seen if step == number]) for number in range(30)]
        found.append([np.sort(known).tolist() for known in steps])
    assert found[0] == found[1] == found[2]
    for step, known in enumerate(found[0]):
        wanted = (0.3 - 0.2 * step / 29) * 30  # of a full block of 32 with two special tokens
        assert max(known) == round(wanted) and len(known) == (4 if step < 6 else 8 if step < 12 else 16)


@pytest.mark.parametrize("share", ["0", "-0.1", "1.2"])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    with pytest.raises(InputError, match=rf"--mlm_probability_end {share}"):
        run(tmp_path / "run", "--mlm_probability_end", share)


def test_budgets_count_what_is_read(tmp_path, capsys):
    flags = [*SCHEDULES, "--eval_strategy", "no", "--max_steps", -1]
    metrics = run(tmp_path / "run", *flags, "--max_tokens", (24 + 48 + 5 * 16) * 32)
    assert metrics["train_tokens"] == (24 + 48 + 5 * 16) * 32
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 17
    plan = run(tmp_path / "dry", *flags, "--max_tokens", (24 + 48 + 5 * 16) * 32, "--dry_run")
    assert (plan["steps"], plan["tokens"]) == (17, (24 + 48 + 5 * 16) * 32)
    assert plan["hours"] == pytest.approx(plan["seconds_per_step"] * (1.5 + 3 + 5) / 3600)


def test_another_end_is_another_run(tmp_path):
    run(tmp_path / "run", *FLAGS, "--max_steps", 10)
    (tmp_path / "run" / "manifest.json").unlink()
    for more, message in (
        (["--mlm_probability_end", 0.2], r"mlm_probability_end: 0\.1 -> 0\.2"),
        (["--batch_ramp", "0.25:6"], r"batch_ramp"),
    ):
        with pytest.raises(InputError, match=message):
            run(tmp_path / "run", *FLAGS, "--max_steps", 10, *more)
