"""What the fine-tuning scripts add to Trainer's arguments, and the checkpoint that they begin from."""

import math
from dataclasses import dataclass, field
from typing import Any

from transformers import EarlyStoppingCallback
from transformers.trainer_utils import IntervalStrategy

from shared.command_line import check_ranges, refuse_flags
from shared.errors import InputError
from shared.training.arguments import RunArguments

SEARCHED = ("learning_rate", "per_device_train_batch_size", "num_train_epochs", "weight_decay", "warmup_steps", "seed")


@dataclass
class CheckpointArguments:
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "The pretrained or fine-tuned checkpoint: a folder or Hub id."}
    )
    tokenizer_name: str | None = field(default=None, metadata={"help": "A tokenizer. Default: the checkpoint's."})
    random_weights: bool = field(
        default=False, metadata={"help": "Take the checkpoint's architecture alone, with new weights: a control."}
    )
    ignore_mismatched_sizes: bool = field(
        default=False, metadata={"help": "Replace the head of a checkpoint that was fine-tuned for other labels."}
    )
    attn_implementation: str | None = field(default=None, metadata={"help": "eager, sdpa or flash_attention_2."})
    dropout: float | None = field(
        default=None, metadata={"help": "Dropout of activations, not of attention. Default: the checkpoint's."}
    )
    new_head: bool = field(init=False, default=False)  # set by load_config, where labels are no longer the same

    def __post_init__(self) -> None:
        check_ranges(self, dropout=">= 0, < 1")
        if self.attn_implementation == "flex_attention":
            raise InputError(
                "--attn_implementation flex_attention: is for --isolate_documents of run_mlm.py; use sdpa"
            )


@dataclass
class FineTuningArguments(RunArguments):
    """Defaults that suit fine-tuning, several seeds and a search."""

    do_train: bool = field(default=True, metadata={"help": "Train; without it the checkpoint is used as it is."})
    do_eval: bool = field(default=True, metadata={"help": "Evaluate the validation split at the end."})
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={"help": "Which samples form a batch: group_by_length, random, sequential."},
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Rows evaluated at once by a process."})
    seeds: list[int] = field(
        default_factory=list, metadata={"help": "Train once with each, into seed-N, and report mean and deviation."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after N evaluations without a better one."}
    )
    search_trials: int = field(
        default=0, metadata={"help": "Settings to try with Optuna on a part of the training data, before training."}
    )
    search_space: list[str] = field(
        default_factory=list,
        metadata={"help": "learning_rate=1e-4,3e-4 (a choice) or learning_rate=1e-5..1e-3 (log)."},
    )
    search_fraction: float = field(
        default=0.1, metadata={"help": "Share of the training data on which trials are compared."}
    )
    search_seed: int = field(
        default=0, metadata={"help": "The seed of the search and its trials: runs with --seeds share one search."}
    )

    smooths_labels, only_trains = True, False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.search_folder = self.output_dir  # runs with other seeds share it, see run_seeds
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"--seeds {' '.join(map(str, self.seeds))}: one is named twice")
        check_ranges(self, early_stopping_patience=">= 1", search_fraction="> 0, < 1")
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            best = "--load_best_model_at_end --eval_strategy epoch --save_strategy epoch"
            raise InputError(f"--early_stopping_patience: needs {best}")
        if bool(self.search_trials) != bool(self.search_space):
            raise InputError("--search_trials and --search_space: give both or none")
        if not self.search_trials:
            refuse_flags(self, dict.fromkeys(("search_fraction", "search_seed"), "is for --search_trials"))
        if not self.do_train and self.deepspeed_plugin is not None:
            raise InputError("--do_train false: DeepSpeed evaluates only what it trains; use no launch file")
        if not self.do_train and (self.dry_run or self.search_trials):
            raise InputError("--do_train false: --dry_run and --search_trials are about training; remove one")
        if not self.given["do_eval"]:  # Trainer's arguments take it back where there is an --eval_strategy
            if self.do_train and self.given["eval_strategy"] not in ("no", IntervalStrategy.NO):
                way_out = "say --eval_strategy no too, and --load_best_model_at_end false"
                raise InputError(f"--do_eval false: contradicts --eval_strategy; {way_out}")
            self.do_eval, self.eval_strategy = False, IntervalStrategy.NO
        if self.max_tokens or self.max_hours:
            raise InputError("--max_tokens, --max_hours: fine-tuning goes by --num_train_epochs or --max_steps")
        refuse_flags(self, {"batch_ramp": "is for pretraining"})
        names = [read_space(entry)[0] for entry in self.search_space]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"--search_space: names {twice} twice; write its values once, separated by commas")
        if "num_train_epochs" in names and self.max_steps > 0:
            raise InputError("--search_space num_train_epochs: means nothing beside --max_steps; remove one")

    @property
    def callbacks(self) -> list[Any]:
        """Early stopping, if it is asked for."""
        patience = self.early_stopping_patience
        return [EarlyStoppingCallback(patience)] if patience and self.load_best_model_at_end else []  # not in trials


def read_space(entry: str) -> tuple[str, list[float] | None, tuple[float, float] | None]:
    """A line of `--search_space`: the flag, and its choices or its range. Raises InputError."""
    name, _, text = entry.partition("=")
    if name not in SEARCHED:
        raise InputError(f"--search_space {entry}: can search {', '.join(SEARCHED)}")
    is_range = ".." in text
    try:
        numbers = [float(value) for value in text.split(".." if is_range else ",")]
    except ValueError:
        numbers = []
    good = (len(numbers) == 2 and 0 < numbers[0] < numbers[1]) if is_range else numbers
    if not good or not all(map(math.isfinite, numbers)):
        raise InputError(f"--search_space {entry}: write NAME=1e-4,3e-4 or NAME=1e-5..1e-3")
    return (name, None, (numbers[0], numbers[1])) if is_range else (name, numbers, None)
