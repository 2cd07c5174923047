"""The dry run: what the run would be, from a few steps."""

from collections.abc import Callable
from typing import Any

import numpy as np

from shared.training.arguments import RunArguments
from shared.training.budget import check_split, describe_plan, measure_step, set_steps


def dry_run(
    build_trainer: Callable[[RunArguments], Any], args: RunArguments, rows: Any, splits: bool = True
) -> dict[str, float]:
    """Time a few steps, split one batch in two ways if the loss is one that can be split, and say what the run would
    be; see shared/training/budget.py."""
    length = max(1, round(float(np.mean(rows["length"][:]))))
    cost = measure_step(build_trainer, args)
    set_steps(args, len(rows), length, cost)
    return describe_plan(args, length, cost) | (check_split(build_trainer, args) if splits else {})
