"""How long a run is: steps, tokens or hours, and what a step costs, measured on a few real ones."""

import copy
import gc
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from accelerate.utils import DistributedType, reduce
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from shared.errors import InputError

WARM_UP = 2  # first steps, which compile and allocate, are not timed
MOST = 20  # steps to time at most
ENOUGH_SECONDS = 10.0
DECAY_SHARE = 0.2  # of the steps, the falling end of a warm-up-stable-decay schedule, unless the recipe says another


@dataclass
class BudgetArguments(TrainingArguments):
    """Trainer's arguments, with budgets beside `max_steps` and `num_train_epochs`, and the dry run."""

    max_tokens: int | None = field(default=None, metadata={"help": "Stop after so many tokens read."})
    max_hours: float | None = field(
        default=None,
        metadata={
            "help": "As many steps as fit in so many hours, by a few timed ones; evaluation and saving come on top."
        },
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Check everything, time a few steps, print the plan and train nothing."}
    )

    def __post_init__(self) -> None:
        self.given = {f.name: getattr(self, f.name) for f in fields(self)}  # as typed; Trainer changes some of them
        super().__post_init__()
        for name in ("max_tokens", "max_hours"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise InputError(f"--{name} {getattr(self, name)}: must be above 0")
        epochs = self.num_train_epochs != type(self).num_train_epochs
        if sum(map(bool, (epochs, self.max_steps > 0, self.max_tokens, self.max_hours))) > 1:
            raise InputError(
                "--num_train_epochs, --max_steps, --max_tokens, --max_hours: give one budget "
                "(--max_steps -1 takes back the one of a recipe)"
            )
        if self.n_gpu > 1:
            raise InputError(
                f"one process sees {self.n_gpu} GPUs: use --config_file shared/launch/ddp.yaml --num_processes "
                f"{self.n_gpu}, or CUDA_VISIBLE_DEVICES=0 for one of them"
            )


@dataclass(frozen=True)
class StepCost:
    """`seconds` of wall clock an optimizer step; `peak_bytes` of this process, on the GPU where it runs on one."""

    seconds: float
    peak_bytes: int
    parameters: int


def tokens_per_step(args: BudgetArguments, length: int) -> int:
    """Tokens that one optimizer step reads on all processes, padding and special tokens included."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size * length


def set_steps(args: BudgetArguments, samples: int, length: int, cost: StepCost | None) -> None:
    """Turn the budget into `args.max_steps`, and shares of the steps in the schedule into steps.

    `samples` of `length` tokens are one epoch; `cost` is needed for a budget in hours.
    """
    if args.max_tokens:
        args.max_steps = math.ceil(args.max_tokens / tokens_per_step(args, length))
    elif args.max_hours:
        assert cost is not None
        args.max_steps = max(1, round(args.max_hours * 3600 / cost.seconds))
    elif args.max_steps <= 0:
        batches = math.ceil(samples / (args.per_device_train_batch_size * args.world_size))
        args.max_steps = math.ceil(math.ceil(batches / args.gradient_accumulation_steps) * args.num_train_epochs)
    if args.lr_scheduler_type == "warmup_stable_decay":
        settings = dict(args.lr_scheduler_kwargs or {})
        decay = float(settings.get("num_decay_steps", DECAY_SHARE))
        settings["num_decay_steps"] = round(decay * args.max_steps if decay < 1 else decay)
        args.lr_scheduler_kwargs = settings


def measure_step(build_trainer: Callable[[Any], Any], args: BudgetArguments) -> StepCost:
    """Train a throw-away model for a few steps; of one micro-batch each, scaled up, where the engine allows.

    `build_trainer(args)` makes a Trainer on a fresh model; the arguments it gets save, evaluate and report nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        trial = copy.copy(args)
        trial.output_dir, trial.push_to_hub, trial.report_to = folder, False, []
        trial.max_steps = WARM_UP + MOST
        if trial.distributed_state.distributed_type != DistributedType.DEEPSPEED:  # its plugin remembers the number
            trial.gradient_accumulation_steps = 1
        trial.lr_scheduler_type, trial.lr_scheduler_kwargs = "constant", None
        trial.eval_strategy = trial.save_strategy = trial.logging_strategy = "no"
        trial.load_best_model_at_end, trial.disable_tqdm = False, True
        trainer = build_trainer(trial)
        trainer.remove_callback(PrinterCallback)
        timer = _StepTimer()
        trainer.add_callback(timer)
        trainer.train()
    seconds = (timer.ends[-1] - timer.ends[WARM_UP - 1]) / (len(timer.ends) - WARM_UP)
    seconds = float(reduce(torch.tensor(seconds, device=args.device), "mean"))  # the same on all processes
    parameters = trainer.model.num_parameters()
    if args.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    seconds *= args.gradient_accumulation_steps // trial.gradient_accumulation_steps
    del trainer
    gc.collect()  # Trainer and its callbacks hold each other
    return StepCost(seconds, peak, parameters)


def describe_plan(args: BudgetArguments, length: int, cost: StepCost) -> dict[str, float]:
    """What a dry run reports, as numbers: parameters, steps, tokens, seconds and bytes of memory."""
    return {
        "parameters": cost.parameters,
        "steps": args.max_steps,
        "tokens": args.max_steps * tokens_per_step(args, length),
        "seconds_per_step": cost.seconds,
        "tokens_per_second": tokens_per_step(args, length) / cost.seconds,
        "hours": args.max_steps * cost.seconds / 3600,
        "peak_memory_gib": cost.peak_bytes / 2**30,
    }


class _StepTimer(TrainerCallback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        if len(self.ends) >= WARM_UP + 3:
            enough = self.ends[-1] - self.ends[WARM_UP - 1] > ENOUGH_SECONDS
            # All processes stop at the same step, or the others would wait for ever.
            control.should_training_stop |= bool(reduce(torch.tensor(float(enough), device=args.device), "sum") > 0)
