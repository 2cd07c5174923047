"""The trunk of a run: its model before the learning rate decays, from which the next month goes on.

The schedule, and going on from its stable phase, are those of MiniCPM (Hu et al., 2024, arXiv:2404.06395).
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from shared.errors import InputError
from shared.files import write_json
from shared.training.checkpoints import DELETING, INCOMING, seal, verify
from shared.training.environment import git_commit

FORMAT = 1
SCHEDULE = "warmup_stable_decay"
# Of a checkpoint; the optimizer stays behind, see "Going on from last month's model" in pretraining/README.md.
MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")


class KeepTrunk(TrainerCallback):
    """Keeps `output_dir/trunk`, a copy of the checkpoint of the step at which the decay begins.

    The folder appears as one, holds nothing of the clock, and is no checkpoint that `save_total_limit` counts. A run
    that was killed between the checkpoint and the copy makes the copy when it goes on.
    """

    def __init__(self, tokenizer_sha256: str) -> None:
        self.tokenizer_sha256 = tokenizer_sha256
        self.step = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.lr_scheduler_type != SCHEDULE:  # a trial of a few steps
            return
        self.step = decay_begins(args, state.max_steps)
        if not args.get_warmup_steps(state.max_steps) < self.step:
            raise InputError(
                f"--keep_trunk: the decay begins at step {self.step}, before the warm-up has ended; lower "
                "--warmup_steps or the num_decay_steps of --lr_scheduler_kwargs"
            )
        output = Path(args.output_dir)
        if state.global_step < self.step or not state.is_world_process_zero:
            return
        with suppress(InputError):  # one that is damaged is made again
            if state.global_step > self.step and check_trunk(str(output / "trunk")).get("step") == self.step:
                return
        if not (output / f"checkpoint-{self.step}").is_dir():
            raise InputError(
                f"--keep_trunk: the decay began at step {self.step}, and this run goes on from step "
                f"{state.global_step}; leave the flag out, with --accept_changes, or name a new --output_dir"
            )
        self._keep(args, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save |= state.global_step == self.step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step and state.is_world_process_zero:
            self._keep(args, state)

    def _keep(self, args: Any, state: Any) -> None:
        """Make the trunk of the checkpoint, in the place of one that was there."""
        output = Path(args.output_dir)
        trunk, staging, checkpoint = output / "trunk", output / f"{INCOMING}trunk", output / f"checkpoint-{self.step}"
        verify(checkpoint)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        for file in {file for pattern in (*MODEL_FILES, *TOKENIZER_FILES) for file in checkpoint.glob(pattern)}:
            shutil.copyfile(file, staging / file.name)
        write_json(staging / "trunk.json", self._facts(args, state))
        leaving = output / f"{DELETING}trunk"
        shutil.rmtree(leaving, ignore_errors=True)
        if trunk.is_dir():
            trunk.rename(leaving)
        seal(staging, trunk, {})
        shutil.rmtree(leaving, ignore_errors=True)

    def _facts(self, args: Any, state: Any) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "step": self.step,
            "decay_begins": self.step,
            "learning_rate": args.learning_rate,
            "schedule": {
                "type": SCHEDULE,
                "max_steps": state.max_steps,
                "warmup_steps": args.get_warmup_steps(state.max_steps),
                **(args.lr_scheduler_kwargs or {}),
            },
            "tokenizer_sha256": self.tokenizer_sha256,
            "commit": git_commit(),
        }


def decay_begins(args: Any, max_steps: int) -> int:
    """The step up to which the learning rate of a warm-up-stable-decay schedule is level; see `set_steps`."""
    settings = args.lr_scheduler_kwargs or {}
    if settings.get("num_stable_steps") is not None:
        return min(max_steps, args.get_warmup_steps(max_steps) + int(settings["num_stable_steps"]))
    return int(max_steps - settings["num_decay_steps"])


def check_schedule(keep_trunk: bool, args: Any) -> None:
    """Raise InputError when a trunk is to be kept of a schedule that has none."""
    if keep_trunk and args.lr_scheduler_type != SCHEDULE:
        kind = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
        way_out = f"set --lr_scheduler_type {SCHEDULE}, or remove the flag"
        raise InputError(f"--keep_trunk: a {kind} schedule has no stable phase; {way_out}")
    if keep_trunk and args.save_strategy == "best":
        raise InputError("--keep_trunk: its step may not be the best; say --save_strategy steps, or remove the flag")


def check_trunk(name: str | None) -> dict[str, Any]:
    """What trunk.json says of a folder that holds one; nothing of any other model.

    Raises InputError when a file is damaged, or the learning rate had begun to decay.
    """
    file = Path(name or "", "trunk.json")
    if not name or not file.is_file():
        return {}
    instead = "name a trunk that --keep_trunk kept, or any finished model"
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        late = int(facts["step"]) > int(facts["decay_begins"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--model_name_or_path {name}: its trunk.json is damaged ({error}); {instead}") from error
    if late:
        raise InputError(
            f"--model_name_or_path {name}: no trunk, it is of step {facts['step']} and its learning rate had begun to "
            f"decay at step {facts['decay_begins']}; {instead}"
        )
    try:
        verify(file.parent)
    except InputError as error:
        raise InputError(f"--model_name_or_path {name}: the trunk is damaged ({error}); {instead}") from error
    return facts
