"""How long a run is: steps, tokens or hours, and what a step costs, measured on a few real ones."""

import copy
import gc
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import reduce
from transformers import PrinterCallback, TrainerCallback, TrainerState

from shared.errors import RunError
from shared.training.arguments import RunArguments
from shared.training.data_order import steps_per_epoch
from shared.training.speed import WARM_UP, flops_per_token, peak_memory

MOST = 20  # steps to time at most
ENOUGH_SECONDS = 10.0
SPLIT_TOLERANCE = 1e-3  # relative; fp32 sums in another order differ by about 1e-6
DECAY_SHARE = 0.2  # of the steps, the falling end of a warm-up-stable-decay schedule, unless the recipe says another


@dataclass(frozen=True)
class StepCost:
    """`seconds` of wall clock an optimizer step; `peak_bytes` of this process, on the GPU where it runs on one."""

    seconds: float
    peak_bytes: int
    parameters: int


def tokens_per_step(args: RunArguments, length: int) -> int:
    """Tokens that a step of a whole batch reads on all processes, padding and special tokens included."""
    return args.samples_per_step * length


def set_steps(args: RunArguments, samples: int, length: int, cost: StepCost | None) -> None:
    """Turn the budget into `args.max_steps`, and shares of the steps in the schedule into steps.

    `samples` of `length` tokens are one epoch; `cost` is needed for a budget in hours.
    """
    if args.max_tokens:
        args.max_steps = math.ceil(args.ramp.steps(args.samples_per_step, args.max_tokens / length))
    elif args.max_hours:
        assert cost is not None
        whole = args.max_hours * 3600 / cost.seconds
        args.max_steps = max(1, round(args.ramp.steps(args.samples_per_step, whole * args.samples_per_step)))
    args.max_steps = planned_steps(args, samples)
    set_decay(args, samples)


def planned_steps(args: RunArguments, samples: int) -> int:
    """--max_steps, or the steps of --num_train_epochs over so many samples."""
    if args.max_steps > 0:
        return args.max_steps
    return math.ceil(
        steps_per_epoch(samples, args.samples_per_step, args.dataloader_drop_last) * args.num_train_epochs
    )


def set_decay(args: RunArguments, samples: int) -> None:
    """Turn the share of the steps in which warm-up-stable-decay lowers the learning rate into a number of them."""
    if args.lr_scheduler_type == "warmup_stable_decay":
        steps = planned_steps(args, samples)
        settings = dict(args.lr_scheduler_kwargs or {})
        decay = float(settings.get("num_decay_steps", DECAY_SHARE))
        settings["num_decay_steps"] = round(decay * steps if decay < 1 else decay)
        args.lr_scheduler_kwargs = settings


def measure_step(build_trainer: Callable[[RunArguments], Any], args: RunArguments) -> StepCost:
    """Train a throw-away model for a few steps of one micro-batch each, and scale up to a whole batch.

    `build_trainer(args)` makes a Trainer on a fresh model; the arguments it gets save, evaluate and report nothing.
    """
    timer = _StepTimer()
    with _trial(build_trainer, args, max_steps=WARM_UP + MOST, gradient_accumulation_steps=1) as trainer:
        trainer.add_callback(timer)
        trainer.train()
        parameters = sum(getattr(p, "ds_numel", p.numel()) for p in trainer.model.parameters())  # whole under ZeRO-3
    (first, start), (last, end) = timer.ends[0], timer.ends[-1]
    seconds = (end - start) / (last - first)
    seconds = float(reduce(torch.tensor(seconds, device=args.device), "mean"))  # the same on all processes
    return StepCost(seconds * args.gradient_accumulation_steps, peak_memory(args.device), parameters)


def check_split(build_trainer: Callable[[RunArguments], Any], args: RunArguments) -> dict[str, float]:
    """Train one step, split in two ways into micro-batches, and compare: the wrong loss scaling of stock heads, and of
    most home-made losses, shows here.

    Returns the two gradient norms and losses. Raises RunError when they differ by more than SPLIT_TOLERANCE.
    """
    size, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
    if size > 1:
        other = (size // 2, accumulation * 2) if size % 2 == 0 else (1, accumulation * size)
    else:
        other = (accumulation, 1)
    found: dict[str, float] = {}
    for batch, steps in dict.fromkeys([(size, accumulation), other]):
        with _trial(
            build_trainer, args, max_steps=1, per_device_train_batch_size=batch, gradient_accumulation_steps=steps
        ) as trainer:
            trainer.args.logging_strategy, trainer.args.logging_steps = "steps", 1
            trainer.model.eval()
            trainer.model.train = lambda mode=True, model=trainer.model: model  # no dropout, whoever asks for it
            trainer.train()
            row = trainer.state.log_history[0]
        found |= {f"gradient_norm_{batch}x{steps}": row["grad_norm"], f"loss_{batch}x{steps}": row["loss"]}
    for name in ("gradient_norm", "loss"):
        values = [value for key, value in found.items() if key.startswith(name)]
        if not max(values) - min(values) <= SPLIT_TOLERANCE * max(map(abs, values)):  # not so for NaN either
            raise RunError(
                f"the gradient depends on how a batch is split: {found}; let the loss divide by num_items_in_batch"
            )
    return found


def describe_plan(args: RunArguments, length: int, cost: StepCost) -> dict[str, float]:
    """What a dry run reports, as numbers: parameters, steps, tokens, seconds and bytes of memory."""
    samples = args.samples_read(args.max_steps)
    return {
        "parameters": cost.parameters,
        "steps": args.max_steps,
        "tokens": samples * length,
        "seconds_per_step": cost.seconds,
        "tokens_per_second": tokens_per_step(args, length) / cost.seconds,
        "hours": samples / args.samples_per_step * cost.seconds / 3600,
        "peak_memory_gib": cost.peak_bytes / 2**30,
    }


def plan_steps(
    build_trainer: Callable[[RunArguments], Any], args: RunArguments, samples: int, length: int, checkpoint: str | None
) -> dict[str, float]:
    """Turn the budget into `args.max_steps`, as `set_steps` does, timing a few steps where that is needed.

    A run in hours that goes on from `checkpoint` keeps the steps that it began with. Returns what a dry run reports,
    that of `check_split` included; nothing for other runs.
    """
    if checkpoint and args.max_hours:
        args.max_steps = TrainerState.load_from_json(f"{checkpoint}/trainer_state.json").max_steps
        args.max_hours = None
    cost = measure_step(build_trainer, args) if args.dry_run or args.max_hours else None
    set_steps(args, samples, length, cost)
    if cost is None or not args.dry_run:
        return {}
    return describe_plan(args, length, cost) | check_split(build_trainer, args)


def describe_training(trainer: Any, length: int, projected: float) -> dict[str, float]:
    """Tokens trained on, and how fast, as train metrics; `length` and `projected` are those of `flops_per_token`."""
    args, steps, timed = trainer.args, trainer.state.global_step, trainer.clock.timed_steps
    before, read = args.samples_read(steps - timed), args.samples_read(steps)
    flops = flops_per_token(trainer.model.config, length, projected)
    return {"train_tokens": read * length} | trainer.speed((read - before) * length / max(1, timed), flops)


@contextmanager
def _trial(build_trainer: Callable[[RunArguments], Any], args: RunArguments, **changes: Any) -> Iterator[Any]:
    """A Trainer that leaves no trace, with some arguments changed."""
    with tempfile.TemporaryDirectory() as folder:
        trial = copy.copy(args)
        trial.output_dir, trial.push_to_hub, trial.report_to = folder, False, []
        trial.lr_scheduler_type, trial.lr_scheduler_kwargs = "constant", None
        trial.eval_strategy = trial.save_strategy = trial.logging_strategy = "no"
        trial.load_best_model_at_end, trial.disable_tqdm, trial.batch_ramp = False, True, []
        for name, value in changes.items():
            setattr(trial, name, value)
        _forget_deepspeed(trial)
        trainer = build_trainer(trial)
        trainer.is_trial = True
        trainer.remove_callback(PrinterCallback)
        yield trainer
    del trainer
    gc.collect()  # Trainer and its callbacks hold each other
    _forget_deepspeed(args)


def _forget_deepspeed(args: RunArguments) -> None:
    """Let the next Trainer put its own numbers in the place of "auto", and use the plugin, as if it were the first."""
    source = args.deepspeed or os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if args.deepspeed_plugin is not None and source:
        from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

        args.deepspeed_plugin.hf_ds_config = HfTrainerDeepSpeedConfig(source)
        AcceleratorState._reset_state()  # not that of the processes
        if args.deepspeed:
            args.deepspeed_plugin.hf_ds_config.trainer_config_process(args)


class _StepTimer(TrainerCallback):
    def __init__(self) -> None:
        self.ends: list[tuple[int, float]] = []  # step and time

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        every = 5 if args.device.type == "cuda" else 1  # in between, host and GPU work side by side as in training
        if state.global_step < WARM_UP or (state.global_step - WARM_UP) % every:
            return
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append((state.global_step, time.perf_counter()))
        if state.global_step >= WARM_UP + 3:
            enough = self.ends[-1][1] - self.ends[0][1] > ENOUGH_SECONDS
            # All processes stop at the same step, or the others would wait for ever.
            control.should_training_stop |= bool(reduce(torch.tensor(float(enough), device=args.device), "sum") > 0)
