"""The settings of optimizer and schedule that are the new ones when a run goes on with changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OPTIMIZER_SETTINGS = ("weight_decay", "betas", "eps")


@contextmanager
def keep_settings(optimizer: Any, scheduler: Any) -> Iterator[None]:
    """What is loaded into the two inside this block brings its state, but not its settings and learning rates; only
    for schedules that are factors of the learning rate."""
    groups = [{k: group[k] for k in OPTIMIZER_SETTINGS if k in group} for group in optimizer.param_groups]
    lambdas = getattr(scheduler, "lr_lambdas", None)
    rates = list(scheduler.base_lrs) if lambdas else []
    yield
    if lambdas:
        scheduler.base_lrs = rates
        scheduler._last_lr = [rate * at(scheduler.last_epoch) for rate, at in zip(rates, lambdas, strict=True)]
        for group, settings, first, now in zip(optimizer.param_groups, groups, rates, scheduler._last_lr, strict=True):
            group.update(settings | {"initial_lr": first, "lr": now})
