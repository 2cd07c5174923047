"""Trainer's arguments with what every script of this repository adds to them."""

import importlib.util
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field, fields

import torch
from transformers import Trainer, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.utils import is_torch_cuda_available

from shared.command_line import check_ranges, refuse_flags
from shared.errors import InputError, one_line
from shared.training.batch_ramp import BatchRamp, read_ramp

REFUSED = {  # flags of Trainer that no script here can follow, and why; refused with any value but the default
    "ignore_data_skip": "a resumed run would read the first samples again",
    "auto_find_batch_size": "the gradient would depend on the memory that is free",
    "save_only_model": "such a checkpoint cannot be resumed; the final model is saved alone anyway",
    "save_on_each_node": "give all machines one --output_dir on a shared file system",
    "prediction_loss_only": "the scores need what the model predicts",
    "batch_eval_metrics": "the scores need the whole split, not a batch",
    "eval_do_concat_batches": "the scores need the whole split",
    "eval_use_gather_object": "predictions are arrays here",
    "include_for_metrics": "no metric here reads inputs or losses",
    "average_tokens_across_devices": "the gradient would depend on the processes",
    "use_liger_kernel": "its kernels are for decoders, and would change nothing",
    "liger_kernel_config": "its kernels are for decoders, and would change nothing",
    "use_cache": "encoders keep no past",
    "enable_jit_checkpoint": "every signal saves a checkpoint here anyway",
    "accelerator_config": "the order and the split of samples are those of shared/training/data_order.py",
    "parallelism_config": "models are split by DeepSpeed alone, --config_file shared/launch/zero3.yaml",
    "fsdp": "models are split by DeepSpeed alone, --config_file shared/launch/zero3.yaml",
    "fsdp_config": "models are split by DeepSpeed alone, --config_file shared/launch/zero3.yaml",
    "dataloader_multiprocessing_context": "shared/cores.py starts the processes",
    "dataloader_in_order": "the order of samples is part of the result",
    "remove_unused_columns": "a script knows which columns its model reads",
    "label_names": "a script knows what its labels are called",
    "length_column_name": "a script counts the tokens of a row itself",
    "hub_strategy": "what is pushed is the finished run",
    "hub_always_push": "what is pushed is the finished run",
    "hub_revision": "what is pushed is the main branch",
}
STEPS_BACKWARD = ("lomo", "adalomo")  # and ..._layerwise: optimizers without gradients that could be looked at
MODULES = {"azure_ml": "azureml", "flyte": "flytekit"}  # of reporters, where it is not their name
ABOVE_0 = (  # where Trainer would take 0 for never, for its default, or for a number
    *("max_tokens", "max_hours", "start_timeout", "num_train_epochs", "save_steps", "eval_steps"),
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
)
NOT_NEGATIVE = ("learning_rate", "weight_decay", "max_grad_norm", "adam_epsilon")
BELOW_1 = ("adam_beta1", "adam_beta2")
LOWER_IS_BETTER = re.compile("bits_per_byte.*|perplexity|mean_squared_error|loss|.*_loss")
OF_LABELS = ("f1_", "precision_", "recall_")  # what the names of metrics of one label begin with, which may be f1_loss


@dataclass
class RunArguments(TrainingArguments):
    """Trainer's arguments, budgets beside `max_steps` and `num_train_epochs`, the dry run, and how to treat trouble.

    `given` holds the values as typed; Trainer changes some of them.
    """

    max_tokens: int | None = field(default=None, metadata={"help": "Stop after N tokens read."})
    max_hours: float | None = field(
        default=None,
        metadata={"help": "Train for about N hours, judged by a few timed steps; evaluation and saving come on top."},
    )
    batch_ramp: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Smaller batches at first, SHARE:STEP: 0.25:1000 0.5:2000 reads a quarter of each batch "
            "before step 1000, half of it before step 2000."
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

    do_train: bool = field(default=True, metadata={"help": "Train."})
    do_eval: bool = field(default=True, metadata={"help": "Evaluate at the end."})

    # No fields: whether the script has a loss with --label_smoothing_factor, and whether it can do without training.
    smooths_labels, only_trains = False, True

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
        has_deepspeed = self.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"
        if has_deepspeed:
            leave_out_unused_op()
        if has_deepspeed and not is_torch_cuda_available():
            # DeepSpeed finds the CPU itself; accelerate's flag for it would turn DeepSpeed off, and without a backend
            # Trainer would take the world for one process.
            self.use_cpu, self.ddp_backend = False, self.ddp_backend or "gloo"
        elif (self.bf16 or self.bf16_full_eval) and not torch.accelerator.is_available():
            self.use_cpu = True  # Trainer would speak of a GPU that is not there
        self._check_numbers()
        self._check_best()
        super().__post_init__()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # there is no copy to make faster
        read_ramp(self.batch_ramp)
        epochs = self.num_train_epochs != type(self).num_train_epochs
        if sum(map(bool, (epochs, self.max_steps > 0, self.max_tokens, self.max_hours))) > 1:
            raise InputError("--num_train_epochs, --max_steps, --max_tokens, --max_hours: give one budget")
        if self.n_gpu > 1:
            raise InputError(
                f"one process sees {self.n_gpu} GPUs: use --config_file shared/launch/ddp.yaml --num_processes "
                f"{self.n_gpu}, or CUDA_VISIBLE_DEVICES=0 for one of them"
            )
        if self.fp16 and self.device.type == "cpu":
            raise InputError("--fp16: CPUs have none, and Trainer would train in fp32 without a word; remove the flag")
        refuse_flags(self, REFUSED)
        if self.only_trains:
            evaluate = "evaluation/run_mlm_eval.py evaluates a checkpoint"
            refuse_flags(self, {"do_train": evaluate, "do_eval": "every pretraining ends with one"})
            refuse_flags(self, {"do_predict": f"there is nothing to predict; {evaluate}"})
        self._check_packages()
        if not self.smooths_labels:
            refuse_flags(self, {"label_smoothing_factor": "only run_glue.py and run_ner.py have a loss that smooths"})
        check_ranges(self, label_smoothing_factor=">= 0, < 1")
        if self.train_sampling_strategy not in ("random", "sequential", "group_by_length"):
            raise InputError(f"--train_sampling_strategy {self.train_sampling_strategy}: not in this repository")
        if self.use_cpu and self.deepspeed_plugin is not None:
            raise InputError("--use_cpu: DeepSpeed takes the GPU where there is one; hide it by CUDA_VISIBLE_DEVICES=")
        if self.skip_nonfinite_steps and self.deepspeed_plugin is not None:
            raise InputError("--skip_nonfinite_steps: DeepSpeed steps before anybody can look; remove the flag")

    def _check_numbers(self) -> None:
        """Raise InputError for a number that its flag cannot mean."""
        for name in ABOVE_0:
            if self.given[name] is not None and self.given[name] <= 0:
                raise InputError(f"--{name} {self.given[name]}: must be above 0")
        for name in (*NOT_NEGATIVE, *BELOW_1):
            value = float(self.given[name])
            if not 0 <= value < (1 if name in BELOW_1 else float("inf")):
                raise InputError(f"--{name} {value:g}: must be 0 or more{', and below 1' * (name in BELOW_1)}")

    def _check_best(self) -> None:
        """Raise InputError where the best evaluation may have no checkpoint."""
        if not self.load_best_model_at_end:
            return
        evaluates, saves = (str(getattr(s, "value", s)) for s in (self.eval_strategy, self.save_strategy))
        if saves not in ("best", evaluates) or (evaluates == "no" and self.do_train):
            raise InputError(
                f"--load_best_model_at_end, --eval_strategy {evaluates}, --save_strategy {saves}: the best may lack a "
                "checkpoint; say --eval_strategy epoch --save_strategy epoch, or --load_best_model_at_end false"
            )
        steps = self.eval_steps or self.logging_steps  # as Trainer chooses
        if evaluates == "steps" == saves and steps != self.save_steps:
            raise InputError(
                f"--load_best_model_at_end, --eval_steps {steps:g}, --save_steps {self.save_steps:g}: the "
                "best step may have no checkpoint; make these numbers equal, or set --save_strategy best"
            )

    def _check_packages(self) -> None:
        """Raise InputError for an optimizer that cannot be made here, or a reporter whose package is missing."""
        optim = str(getattr(self.optim, "value", self.optim))
        if optim in STEPS_BACKWARD or optim.endswith("layerwise"):
            raise InputError(f"--optim {optim}: changes weights before gradients are looked at; take adamw_torch")
        if not (optim.startswith(("galore", "apollo")) and self.optim_target_modules):  # those are made with the model
            try:
                Trainer.get_optimizer_cls_and_kwargs(self)
            except (ImportError, ValueError, TypeError) as error:
                raise InputError(f"--optim {optim}: {one_line(error, None)}, or take adamw_torch") from error
        for name in self.report_to:
            if name not in INTEGRATION_TO_CALLBACK:
                raise InputError(f"--report_to {name}: there are {', '.join(INTEGRATION_TO_CALLBACK)}, none, all")
            if importlib.util.find_spec(MODULES.get(name, name)) is None:
                package = MODULES.get(name, name)
                raise InputError(f"--report_to {name}: not installed; pip install {package}, or use --report_to none")

    @property
    def samples_per_step(self) -> int:
        """Samples that all processes together read in one optimizer step, after any `batch_ramp`."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size

    def samples_read(self, steps: int) -> int:
        """Samples that all processes together read in the first `steps` steps."""
        return self.ramp.samples(self.samples_per_step, steps)

    @property
    def ramp(self) -> BatchRamp:
        """What `batch_ramp` says."""
        return read_ramp(self.batch_ramp)


def choose_best_by(args: RunArguments, names: Collection[str] | None, default: str | None = None) -> None:
    """Let `--metric_for_best_model`, or the metric of the task, decide which evaluation is best; losses and errors are
    best when they are low. `names`: those of all metrics, None where nothing is evaluated.

    Raises InputError for a name that is none: Trainer would find out at the first evaluation.
    """
    given = args.given["metric_for_best_model"]
    if given is None and default is None:
        if args.save_strategy != "best":
            return
        default = "loss"
    name = (given or default or "").removeprefix("eval_")
    if given and names is not None and name not in names:
        raise InputError(f"--metric_for_best_model {given}: not measured here; there are {', '.join(sorted(names))}")
    args.metric_for_best_model = name
    if args.given["greater_is_better"] is None:
        args.greater_is_better = name.startswith(OF_LABELS) or not LOWER_IS_BETTER.fullmatch(name)


def leave_out_unused_op() -> None:
    """Keep DeepSpeed's start from compiling an op that inference alone calls: for half a minute, with a compiler, and
    after a build that was killed every later start would wait for its lock."""
    import deepspeed.ops  # type: ignore[import-untyped]

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
