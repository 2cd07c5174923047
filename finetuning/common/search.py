"""The search for hyperparameters, on the training data alone."""

import copy
import math
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from finetuning.common.arguments import FineTuningArguments, read_space
from shared.errors import InputError
from shared.files import read_json, write_json
from shared.training.arguments import RunArguments
from shared.training.budget import set_decay


def search(build_trainer: Callable[[RunArguments], Any], args: FineTuningArguments, metric: str) -> dict[str, Any]:
    """Find the settings with the highest `metric` by Optuna, through Trainer's own search; what was found is kept in
    search.json and not looked for again. Choices alone, with as many trials as they have combinations, are a grid:
    each combination is tried once.

    `build_trainer(args)` makes a Trainer with a `model_init`, on a part of the training data and evaluated on the rest
    of it. Sets the settings that were found in `args`, and returns them. Raises InputError if search.json is that of
    another search.
    """
    file = Path(args.search_folder, "search.json")
    asked = {"space": args.search_space, "seed": args.search_seed, "fraction": args.search_fraction}
    asked |= {"number": args.search_trials}
    if file.is_file():
        content = read_json(file)
        if content["asked"] != asked:
            raise InputError(f"{file}: holds another search ({content['asked']}); name a new --output_dir")
    else:
        content = run_trials(build_trainer, args, metric) | {"asked": asked}
        if args.process_index == 0:
            write_json(file, content)
    best: dict[str, Any] = content["best"]
    args.__dict__.update(best)
    return best


def run_trials(build_trainer: Callable[[RunArguments], Any], args: FineTuningArguments, metric: str) -> dict[str, Any]:
    """All trials, and the best of them; see `search`."""
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
    trials: list[dict[str, Any]] = []
    whole = {entry.name for entry in fields(args) if entry.type is int}
    for name, _, _ in spaces:  # Trainer casts a value to the type of the one before, which made a share of 0.1 a 0
        if name not in whole:
            setattr(trial_args, name, float(getattr(args, name)))

    def space(trial: Any) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for name, choices, bounds in spaces:
            value = (
                trial.suggest_float(name, *bounds, log=True) if bounds else trial.suggest_categorical(name, choices)
            )
            chosen[name] = int(value) if name in whole else value
        trials.append({"settings": chosen})
        planned = copy.copy(args)  # the steps of a trial are its own, and so are those of its decay
        planned.__dict__.update(chosen)
        set_decay(planned, len(trainer.train_dataset))
        trainer.args.lr_scheduler_kwargs = planned.lr_scheduler_kwargs
        return chosen

    def objective(metrics: dict[str, float]) -> float:
        trials[-1][metric] = metrics[metric]
        return metrics[metric]

    grid = {name: choices for name, choices, _ in spaces if choices}
    is_grid = len(grid) == len(spaces) and math.prod(map(len, grid.values())) == args.search_trials
    samplers = optuna.samplers
    sampler = samplers.GridSampler(grid, args.search_seed) if is_grid else samplers.TPESampler(seed=args.search_seed)
    trainer = build_trainer(trial_args)
    run = trainer.hyperparameter_search(
        hp_space=space,
        compute_objective=objective,
        n_trials=args.search_trials,
        direction="maximize",
        backend="optuna",
        sampler=sampler,
    )
    best = trials[int(run.run_id)]["settings"]
    return {"metric": metric, "best": best, "value": run.objective, "trials": trials}
