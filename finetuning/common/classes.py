"""Classes, for the scripts that choose among them: what the data call them, and what they weigh in the loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from finetuning.common.checkpoint import MULTI, REGRESSION
from finetuning.common.data import LabelledDataArguments
from shared.command_line import refuse_flags
from shared.errors import InputError
from shared.loss import IGNORED, WeightedLoss, cross_entropy_loss, multi_label_loss, regression_loss


@dataclass
class ClassArguments(LabelledDataArguments):
    class_names: list[str] = field(
        default_factory=list,
        metadata={"help": "What this data calls the classes of a fine-tuned checkpoint, in the order of its classes."},
    )
    class_weights: list[str] = field(
        default_factory=list,
        metadata={"help": "Weights of the classes in the loss: balanced, or LABEL=2.5 for one or more labels."},
    )
    focal_gamma: float = field(
        default=0.0, metadata={"help": "Exponent of the focal loss, of which 2 is usual; 0 is cross-entropy."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.focal_gamma < 0:
            raise InputError(f"--focal_gamma {self.focal_gamma:g}: must be 0 or more")
        if len(set(self.class_names)) < len(self.class_names):
            raise InputError(f"--class_names {' '.join(self.class_names)}: one is named twice")


def choose_loss(
    args: ClassArguments, training_args: Any, problem_type: str, names: Sequence[str], rows: Any | None
) -> Callable[..., torch.Tensor]:
    """The loss that the flags ask for, a `compute_loss_func`. `rows`: the training data, with a column `labels` as the
    loss takes them; None without training. Raises InputError."""
    multi, flags = problem_type == MULTI, (args.class_weights, args.focal_gamma, training_args.label_smoothing_factor)
    if problem_type == REGRESSION:
        refuse_flags(args, dict.fromkeys(("class_weights", "focal_gamma"), "numbers have no classes"))
        refuse_flags(training_args, {"label_smoothing_factor": "numbers have no classes"})
        return regression_loss
    if multi:
        refuse_flags(training_args, {"label_smoothing_factor": "is for one label a row, and here it has any number"})
    if not any(flags):
        return multi_label_loss if multi else cross_entropy_loss
    weights = None
    if args.class_weights:
        if rows is None:
            raise InputError("--class_weights: weigh what is trained on, and --do_train is off; remove the flag")
        balanced = args.class_weights == ["balanced"]
        weights = balanced_weights(rows["labels"], len(names), multi) if balanced else _read_weights(args, names)
    return WeightedLoss(weights, training_args.label_smoothing_factor, args.focal_gamma, multi)


def balanced_weights(labels: Any, classes: int, multi: bool) -> list[float]:
    """Weights that make up for how often a class occurs: targets / (classes x its targets), as scikit-learn's
    `balanced`; of several labels the rows without one for each row with it. 1 for a class that never occurs.

    `labels`: a class for each row, a list of classes for the tokens of each, or with `multi` zeros and ones.
    """
    if multi:
        targets = np.asarray(labels[:])
        found = targets.sum(0)
        weights = (len(targets) - found) / np.maximum(found, 1)
        return np.where((found > 0) & (found < len(targets)), weights, 1.0).tolist()
    targets = np.concatenate([np.atleast_1d(row) for row in labels])
    targets = targets[targets != IGNORED]
    found = np.bincount(targets, minlength=classes)
    return np.where(found > 0, len(targets) / (np.count_nonzero(found) * np.maximum(found, 1)), 1.0).tolist()


def _read_weights(args: ClassArguments, names: Sequence[str]) -> list[float]:
    weights = dict.fromkeys(names, 1.0)
    for entry in args.class_weights:
        name, _, text = entry.rpartition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = -1.0
        if name not in weights or not 0 < weight < float("inf"):
            way_out = f"write balanced, or LABEL=2.5 with a number above 0 and one of {', '.join(names)}"
            raise InputError(f"--class_weights {entry}: {way_out}")
        weights[name] = weight
    return list(weights.values())
