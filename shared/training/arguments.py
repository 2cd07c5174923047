"""Trainer's arguments with what every script of this repository adds to them."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments
from transformers.utils import is_torch_cuda_available

from shared.errors import InputError

REFUSED = {  # flags of Trainer that no script here can follow, and why
    "ignore_data_skip": "a resumed run would read the first samples again",
    "auto_find_batch_size": "the gradient would depend on the memory that is free",
    "save_only_model": "such a checkpoint cannot be resumed; the final model is saved alone anyway",
    "save_on_each_node": "give all machines one --output_dir on a shared file system",
    "prediction_loss_only": "the scores need what the model predicts",
    "batch_eval_metrics": "the scores need the whole split, not a batch",
}
LOWER_IS_BETTER = ("loss", "error", "perplexity", "bits_per_byte")  # metrics by the end of their names


@dataclass
class RunArguments(TrainingArguments):
    """Trainer's arguments, budgets beside `max_steps` and `num_train_epochs`, the dry run, and how to treat trouble.

    `given` holds the values as typed; Trainer changes some of them.
    """

    max_tokens: int | None = field(default=None, metadata={"help": "Stop after N tokens read."})
    max_hours: float | None = field(
        default=None,
        metadata={
            "help": "Train for about N hours, estimated from a few timed steps; evaluation and saving take extra time."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Check everything, time a few steps, split one batch in two ways, print the plan."},
    )
    accept_changes: bool = field(
        default=False,
        metadata={"help": "Go on from a checkpoint although recipe, data, tokenizer or versions have changed."},
    )
    skip_nonfinite_steps: bool = field(
        default=False,
        metadata={"help": "Leave out a step whose loss or gradient is not finite, and count it, instead of stopping."},
    )
    start_timeout: float = field(
        default=60.0,
        metadata={
            "help": "Seconds after which a process that waits for a missing or silent one ends with the reason."
        },
    )
    ddp_backend: str | None = field(default=None, metadata={"help": "The backend between processes; gloo on CPUs."})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Look in every step for weights that got no gradient; no model here has any."}
    )
    # What stock Trainer hides or forgets.
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Leave NaN out of the logged loss."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Restore callbacks, early stopping among them, at resume."}
    )

    smooths_labels = False  # no field: whether the script has a loss with --label_smoothing_factor

    def __post_init__(self) -> None:
        self.given = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, asked in (
            ("ACCELERATE_MIXED_PRECISION", self.bf16 or self.fp16),
            ("ACCELERATE_DYNAMO_BACKEND", self.torch_compile),
        ):
            if os.environ.get(name, "no").lower() != "no" and not asked:
                raise InputError(
                    f"{name}={os.environ[name]}: precision and compilation change results and belong into the recipe "
                    "(bf16, fp16, torch_compile); take them out of accelerate's configuration"
                )
        deepspeed = self.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"
        if deepspeed and not is_torch_cuda_available():
            # DeepSpeed finds the CPU itself; accelerate's flag for it would turn DeepSpeed off, and without a backend
            # Trainer would take the world for one process.
            self.use_cpu, self.ddp_backend = False, self.ddp_backend or "gloo"
        super().__post_init__()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # there is no copy to make faster
        for name in ("max_tokens", "max_hours", "start_timeout"):
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
        if self.fp16 and self.device.type == "cpu":
            raise InputError("--fp16: CPUs have none, and Trainer would train in fp32 without a word; remove the flag")
        by_steps = self.load_best_model_at_end and self.eval_strategy == "steps" == self.save_strategy
        if by_steps and self.eval_steps != self.save_steps:
            raise InputError(
                f"--load_best_model_at_end, --eval_steps {self.eval_steps:g}, --save_steps {self.save_steps:g}: the "
                "best step may have no checkpoint; make these numbers equal, or set --save_strategy best"
            )
        refuse_flags(self, REFUSED)
        if not self.eval_do_concat_batches:
            raise InputError("--eval_do_concat_batches false: the scores need the whole split; remove the flag")
        if not self.smooths_labels:
            refuse_flags(self, {"label_smoothing_factor": "only run_glue.py and run_ner.py have a loss that smooths"})
        elif not 0 <= self.label_smoothing_factor < 1:
            raise InputError(f"--label_smoothing_factor {self.label_smoothing_factor}: must be from 0 to below 1")
        if not self.average_tokens_across_devices:
            raise InputError("--average_tokens_across_devices false: the gradient would depend on the processes")
        if self.train_sampling_strategy not in ("random", "sequential", "group_by_length"):
            raise InputError(f"--train_sampling_strategy {self.train_sampling_strategy}: not in this repository")
        if self.use_cpu and self.deepspeed_plugin is not None:
            raise InputError("--use_cpu: DeepSpeed takes the GPU where there is one; hide it by CUDA_VISIBLE_DEVICES=")
        if self.skip_nonfinite_steps and self.deepspeed_plugin is not None:
            raise InputError("--skip_nonfinite_steps: DeepSpeed steps before anybody can look; remove the flag")

    @property
    def samples_per_step(self) -> int:
        """Samples that all processes together read in one optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size


def refuse_flags(args: Any, reasons: dict[str, str]) -> None:
    """Raise InputError for the first of these flags that is set, with the reason."""
    for name, why in reasons.items():
        if getattr(args, name):
            raise InputError(f"--{name}: {why}; remove the flag")


def choose_best_by(args: RunArguments, names: Collection[str] | None, default: str | None = None) -> None:
    """Let `--metric_for_best_model`, or the metric of the task, decide which evaluation is best; losses and errors are
    best when they are low. `names`: those of all metrics, None where nothing is evaluated.

    Raises InputError for a name that is none: Trainer would find out at the first evaluation.
    """
    given = args.given["metric_for_best_model"]
    if given is None and default is None:
        return
    name = (given or default or "").removeprefix("eval_")
    if given and names is not None and name not in names:
        raise InputError(f"--metric_for_best_model {given}: not measured here; there are {', '.join(sorted(names))}")
    args.metric_for_best_model = name
    if args.given["greater_is_better"] is None:
        args.greater_is_better = not name.endswith(LOWER_IS_BETTER)
