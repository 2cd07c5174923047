"""The training losses that a run has summed up, over its interruptions: Trainer forgets them at each start."""

from typing import Any

import torch


def sums_to_keep(trainer: Any) -> dict[str, Any]:
    """What a checkpoint keeps of them; to be called by all processes."""
    return {
        "total": trainer._total_loss_scalar,
        "since_log": trainer.accelerator.gather(trainer._tr_loss).mean().item(),
        "last_log": trainer._globalstep_last_logged,
    }


def restore_sums(trainer: Any, kept: dict[str, Any]) -> None:
    """Go on from what `sums_to_keep` gave, so that the next loss that is logged is the mean since the one before."""
    trainer._total_loss_scalar, trainer._globalstep_last_logged = kept["total"], kept["last_log"]
    trainer._tr_loss.fill_(kept["since_log"])


def prepare_mean(trainer: Any, is_whole: bool) -> None:
    """Make Trainer report the mean of all processes and, where the sums are those of the `whole` run, of all steps: it
    takes the losses of this process since the last log, and divides by the steps since the last start."""
    since_log = trainer.accelerator.gather(trainer._tr_loss).mean()
    steps, before = trainer.state.global_step, trainer._initial_global_step
    if is_whole and before:
        mean = (trainer._total_loss_scalar + since_log.item()) / steps
        trainer._total_loss_scalar, since_log = mean * max(steps - before, 0.001), torch.zeros_like(since_log)
    trainer._tr_loss = since_log
