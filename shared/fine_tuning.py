"""What the fine-tuning scripts share: their Trainer arguments, a checkpoint with a head for the task, evaluation in
order of length, runs with several seeds, and the search for hyperparameters."""

import copy
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from transformers import AutoConfig, EarlyStoppingCallback

from shared.errors import InputError
from shared.files import write_json
from shared.model_config import check_fits
from shared.tokenizer import tokenizer_hash
from shared.training.arguments import RunArguments
from shared.training.budget import check_split, describe_plan, measure_step, set_steps
from shared.training.card import readable

SEARCH = "search.json"
SEARCHED = ("learning_rate", "per_device_train_batch_size", "num_train_epochs", "weight_decay", "warmup_steps", "seed")
NOT_RESULTS = ("_runtime", "_per_second", "_peak_memory_gib", "epoch", "_share_", "total_flos", "skipped_steps")


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
        default=None, metadata={"help": "Stop after so many evaluations without a better one."}
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

    def __post_init__(self) -> None:
        super().__post_init__()
        self.search_folder = self.output_dir  # runs with other seeds share it, see run_seeds
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"--seeds {' '.join(map(str, self.seeds))}: one is named twice")
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            raise InputError("--early_stopping_patience: needs --load_best_model_at_end, to keep the best epoch")
        if bool(self.search_trials) != bool(self.search_space):
            raise InputError("--search_trials and --search_space: give both or none")
        if not self.do_train and self.deepspeed_plugin is not None:
            raise InputError(
                "--do_train false: DeepSpeed evaluates only what it trains; start without its launch file"
            )
        if self.max_tokens or self.max_hours:
            raise InputError("--max_tokens, --max_hours: fine-tuning goes by --num_train_epochs or --max_steps")
        if not 0 < self.search_fraction < 1:
            raise InputError(f"--search_fraction {self.search_fraction}: is a share, between 0 and 1")
        for entry in self.search_space:
            read_space(entry)

    @property
    def callbacks(self) -> list[Any]:
        """Early stopping, if it is asked for."""
        return [EarlyStoppingCallback(self.early_stopping_patience)] if self.early_stopping_patience else []


def load_config(args: CheckpointArguments, task_class: Any, names: list[str] | None, **fields: Any) -> Any:
    """The configuration of the checkpoint, with the labels of the data and other fields of the task.

    A checkpoint that was fine-tuned for the same labels keeps their order, whatever that of the data; `names` None
    takes its labels as they are. Raises InputError when there is no checkpoint, or its head is for other labels.
    """
    name = args.model_name_or_path
    if not name:
        raise InputError("--model_name_or_path: name a checkpoint, for example the output_dir of run_mlm.py")
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"--model_name_or_path {name}: {' '.join(str(error).split())}") from error
    try:
        head = task_class._model_mapping[type(config)].__name__
    except KeyError as error:
        raise InputError(f"--model_name_or_path {name}: {config.model_type} has no {task_class.__name__}") from error
    before = [config.id2label[i] for i in sorted(config.id2label)] if head in (config.architectures or []) else None
    if names is None:
        if before is None:
            raise InputError(f"--model_name_or_path {name}: has no head for this task; name a fine-tuned checkpoint")
        names = before
    elif before is not None and not args.random_weights and not args.ignore_mismatched_sizes:
        if sorted(before) != sorted(names):
            raise InputError(
                f"--model_name_or_path {name}: was fine-tuned for {len(before)} labels ({_shown(before)}), and this "
                f"data has {len(names)} ({_shown(names)}); name the pretrained checkpoint, or give it a new head with "
                "--ignore_mismatched_sizes"
            )
        names = before
    config.id2label, config.label2id = dict(enumerate(names)), {label: i for i, label in enumerate(names)}
    for key, value in fields.items():
        setattr(config, key, value)
    return config


def load_model(args: CheckpointArguments, task_class: Any, config: Any, tokenizer: Any, max_seq_length: int) -> Any:
    """The model in fp32, with a new head where the checkpoint has none for the task. Raises InputError."""
    from transformers.integrations import unset_hf_deepspeed_config

    check_fits(config, tokenizer, max_seq_length)
    unset_hf_deepspeed_config()  # as in shared/model_config.py
    try:
        if args.random_weights:
            return task_class.from_config(config, attn_implementation=args.attn_implementation)
        return task_class.from_pretrained(
            args.model_name_or_path,
            config=config,
            dtype="float32",
            use_safetensors=True,
            ignore_mismatched_sizes=args.ignore_mismatched_sizes,
            attn_implementation=args.attn_implementation,
        )
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        shown = " ".join(str(error).split())[:400]
        raise InputError(f"--model_name_or_path {args.model_name_or_path}: {shown}") from error


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:8])) + (", ..." if len(names) > 8 else "")


def data_identity(hashes: dict[str, str], tokenizer: Any) -> dict[str, Any]:
    """What a resumed run compares of its data: the files, and how text becomes tokens."""
    return {"files": hashes, "tokenizer": tokenizer_hash(tokenizer)}


def longest_first(rows: Any) -> tuple[Any, np.ndarray]:
    """Rows in falling order of their column `length`, so that a batch needs little padding and the first one the most
    memory; and their places before, (rows,) int64."""
    order = np.argsort(-np.asarray(rows["length"][:]), kind="stable")
    return rows.select(order), order


def as_before(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Undo `longest_first` for an array whose first axis is the rows."""
    result = np.empty_like(values)
    result[order] = values
    return result


def names_of_scores(metrics: dict[str, Any]) -> dict[str, str]:
    """The scores among the metrics, with names for readers: what was measured on held-out data, but for its speed."""
    keys = (key for key in metrics if key.startswith(("eval_", "test_")))
    return {key: key.replace("_", " ") for key in keys if not any(part in key for part in NOT_RESULTS)}


def choose_best_by(args: FineTuningArguments, metric: str) -> None:
    """Let the task's metric, the higher the better, decide which epoch is best, unless a flag names another."""
    if args.given["metric_for_best_model"] is None:
        args.metric_for_best_model, args.greater_is_better = metric, True


def dry_run(
    build_trainer: Callable[[RunArguments], Any], args: RunArguments, rows: Any, splits: bool = True
) -> dict[str, float]:
    """Time a few steps, split one batch in two ways if the loss is one that can be split, and say what the run would
    be; see shared/training/budget.py."""
    length = max(1, round(float(np.mean(rows["length"][:]))))
    cost = measure_step(build_trainer, args)
    set_steps(args, len(rows), length, cost)
    return describe_plan(args, length, cost) | (check_split(build_trainer, args) if splits else {})


def run_seeds(main: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run `main` once with each of `--seeds`, in a folder seed-N each; what is done is not done again. The first one
    that searches does so for all.

    The last of `arguments` are the FineTuningArguments. Writes and returns means and sample standard deviations, under
    the names of the metrics with `_mean` and `_std`, and the values of each seed.
    """
    *others, training_args = arguments
    folder = Path(training_args.output_dir)
    found = []
    for seed in training_args.seeds:
        args = copy.copy(training_args)  # a second TrainingArguments would take the process group away
        changes = {"seeds": [], "seed": seed, "output_dir": str(folder / f"seed-{seed}")}
        args.given = training_args.given | changes
        for name, value in changes.items():
            setattr(args, name, value)
        found.append(main(*map(copy.copy, others), args))
    summary: dict[str, Any] = {"seeds": training_args.seeds, "runs": found}
    for name in found[0]:
        values = [run[name] for run in found if isinstance(run.get(name), (int, float))]
        if len(values) == len(found) and not any(part in name for part in NOT_RESULTS):
            summary[f"{name}_mean"] = mean(values)
            summary[f"{name}_std"] = stdev(values) if len(values) > 1 else 0.0
    if training_args.process_index == 0:
        write_json(folder / "all_results.json", summary)
        for name in summary:
            if name.endswith("_mean") and name.startswith("eval_"):
                spread = readable(summary[name.removesuffix("mean") + "std"])
                print(f"{name}: {readable(summary[name])} +- {spread} ({len(found)} seeds)", flush=True)
    return summary


def read_space(entry: str) -> tuple[str, list[float] | None, tuple[float, float] | None]:
    """A line of `--search_space`: the flag, and its choices or its range. Raises InputError."""
    name, _, text = entry.partition("=")
    if name not in SEARCHED:
        raise InputError(f"--search_space {entry}: can search {', '.join(SEARCHED)}")
    try:
        if ".." in text:
            low, high = map(float, text.split(".."))
            if not 0 < low < high:
                raise ValueError
            return name, None, (low, high)
        return name, [float(value) for value in text.split(",")], None
    except ValueError as error:
        raise InputError(f"--search_space {entry}: write NAME=1e-4,3e-4 or NAME=1e-5..1e-3") from error


def search(build_trainer: Callable[[RunArguments], Any], args: FineTuningArguments, metric: str) -> dict[str, Any]:
    """Find the settings with the highest `metric` by Optuna, through Trainer's own search; what was found is kept in
    search.json and not looked for again. Choices alone, with as many trials as they have combinations, are a grid:
    each combination is tried once.

    `build_trainer(args)` makes a Trainer with a `model_init`, on a part of the training data and evaluated on the rest
    of it. Sets the settings that were found in `args`, and returns them. Raises InputError if search.json is that of
    another search.
    """
    file = Path(args.search_folder, SEARCH)
    asked = {"space": args.search_space, "seed": args.search_seed, "fraction": args.search_fraction}
    asked |= {"number": args.search_trials}
    if file.is_file():
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["asked"] != asked:
            raise InputError(f"{file}: holds another search ({content['asked']}); name a new --output_dir")
        best: dict[str, Any] = content["best"]
    else:
        try:
            import optuna
        except ImportError as error:
            raise InputError("--search_trials: run pip install optuna") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        spaces = [read_space(entry) for entry in args.search_space]
        trial_args = copy.copy(args)
        trial_args.output_dir, trial_args.seed = os.path.join(args.search_folder, "search"), args.search_seed
        trial_args.save_strategy = trial_args.eval_strategy = "no"
        trial_args.load_best_model_at_end, trial_args.report_to = False, []
        trainer = build_trainer(trial_args)
        trials: list[dict[str, Any]] = []
        grid = {name: choices for name, choices, _ in spaces if choices}
        is_grid = len(grid) == len(spaces) and math.prod(map(len, grid.values())) == args.search_trials
        samplers = optuna.samplers

        def space(trial: Any) -> dict[str, Any]:
            chosen: dict[str, Any] = {}
            for name, choices, bounds in spaces:
                kind = type(getattr(args, name))
                value = (
                    trial.suggest_float(name, *bounds, log=True)
                    if bounds
                    else trial.suggest_categorical(name, choices)
                )
                chosen[name] = kind(value)
            trials.append({"settings": chosen})
            return chosen

        def objective(metrics: dict[str, float]) -> float:
            trials[-1][metric] = metrics[metric]
            return metrics[metric]

        run = trainer.hyperparameter_search(
            hp_space=space,
            compute_objective=objective,
            n_trials=args.search_trials,
            direction="maximize",
            backend="optuna",
            sampler=samplers.GridSampler(grid, args.search_seed)
            if is_grid
            else samplers.TPESampler(seed=args.search_seed),
        )
        best = {name: type(getattr(args, name))(value) for name, value in run.hyperparameters.items()}
        if args.process_index == 0:
            write_json(
                file, {"metric": metric, "best": best, "value": run.objective, "trials": trials, "asked": asked}
            )
    for name, value in best.items():
        setattr(args, name, value)
    return best
