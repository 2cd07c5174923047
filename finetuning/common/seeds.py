"""Runs with several seeds, and their mean and standard deviation."""

import copy
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from finetuning.common.scores import NOT_RESULTS
from shared.files import write_json
from shared.training.card import readable


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
        vars(args).update(changes)
        found.append(main(*map(copy.copy, others), args))
    summary: dict[str, Any] = {"seeds": training_args.seeds, "runs": found}
    for name in found[0]:
        values = [run[name] for run in found if isinstance(run.get(name), (int, float))]
        if len(values) == len(found) and not any(part in name for part in NOT_RESULTS):
            summary[f"{name}_mean"] = mean(values)
            summary[f"{name}_std"] = stdev(values) if len(values) > 1 else 0.0
    if training_args.process_index == 0 and not training_args.dry_run:
        write_json(folder / "all_results.json", summary)
        for name in summary:
            if name.endswith("_mean") and name.startswith("eval_"):
                spread = readable(summary[name.removesuffix("mean") + "std"])
                print(f"{name}: {readable(summary[name])} +- {spread} ({len(found)} seeds)", flush=True)
    return summary
