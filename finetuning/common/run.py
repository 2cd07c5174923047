"""The course of a fine-tuning run, as far as it is the same for every task: start, search, dry run, training, report.

`build_trainer(args, *parts)` makes a Trainer: on the training data, or on two parts of it, and then with a
`model_init`. What data, model and Trainer are is said in the script.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from finetuning.common.scores import names_of_scores
from finetuning.common.search import search
from finetuning.common.seeds import run_seeds
from shared.tokenizer import tokenizer_hash
from shared.training.budget import check_split, describe_plan, measure_step, set_decay, set_steps
from shared.training.card import ModelCardFacts
from shared.training.record import RunRecord


def start(
    main: Callable[..., dict[str, Any]], model_args: Any, data_args: Any, training_args: Any
) -> tuple[RunRecord | None, dict[str, Any]]:
    """The record of the run that begins; or None and the results, where `--seeds` asks for several, which `main` has
    done by then."""
    if training_args.seeds:
        return None, run_seeds(main, model_args, data_args, training_args)
    return RunRecord(training_args, model_args, data_args), {}


def record_data(record: RunRecord, hashes: dict[str, str], tokenizer: Any, **more: Any) -> bool:
    """Record what the data were read from, and compare it at resume together with the tokenizer and `more`. Returns
    whether this run has finished before."""
    return record.use_inputs(hashes, {"files": hashes, "tokenizer": tokenizer_hash(tokenizer), **more})


def search_settings(build_trainer: Callable[..., Any], parts: Sequence[Any], metric: str, record: RunRecord) -> None:
    """Search on two parts of the training data, set what was found in the arguments of the run, and say it."""
    found = search(lambda args: build_trainer(args, *parts), record.args, metric)
    record.print(f"The search found {found}.")


def dry_run(
    build_trainer: Callable[..., Any], rows: Any, record: RunRecord, can_be_split: bool = True
) -> dict[str, float]:
    """Time a few steps, split one batch in two ways if the loss is one that can be split, and say what the run would
    be; see shared/training/budget.py. `rows` are the training data, with a column `length`."""
    length = max(1, round(float(np.mean(rows["length"][:]))))
    cost = measure_step(build_trainer, record.args)
    set_steps(record.args, len(rows), length, cost)
    plan = describe_plan(record.args, length, cost)
    plan |= check_split(build_trainer, record.args) if can_be_split else {}
    record.show(plan)
    return plan


def train_and_save(trainer: Any, record: RunRecord, metrics: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train and save, if that is asked for. Returns the metrics of training behind those that are given."""
    metrics, args = dict(metrics or {}), record.args
    if args.do_train:  # Trainer builds the schedule in train(), and takes a share for a number of steps
        set_decay(args, len(trainer.train_dataset))
        metrics |= trainer.train(resume_from_checkpoint=record.checkpoint).metrics
        trainer.save_model()
        trainer.save_metrics("train", metrics)
        trainer.save_state()
    return metrics


def finish(
    trainer: Any, record: RunRecord, metrics: dict[str, Any], task: str, dataset: str, what: str, **facts: Any
) -> dict[str, Any]:
    """Write the curve and the card of a model that was trained, print the scores, and return all metrics. `what` ends
    the sentence that begins with "A bert encoder"; `facts` are others of ModelCardFacts."""
    shown = names_of_scores(metrics)
    if record.args.do_train:
        title = f"A {trainer.model.config.model_type} encoder {what}"
        card = ModelCardFacts(title, task, dataset, shown, record.recipe.get("model_name_or_path"), "loss", **facts)
        record.finish(trainer, metrics, card)
    record.show({key: metrics[key] for key in shown})
    return metrics
