"""Thresholds from which on a label is given, tuned for F1: of each of several labels, or the second of two classes."""

from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve

from finetuning.common.checkpoint import MULTI
from finetuning.glue.predictions import THRESHOLDS, as_probabilities
from finetuning.glue.scores import score
from finetuning.metrics.glue_tasks import main_metric
from shared.errors import InputError


def check_tuning(asked: bool, config: Any, for_training: bool, has_validation: bool) -> None:
    """Raise InputError where there are no thresholds to tune, or no rows to tune them on, though this is `asked` for.
    A model that is trained again keeps no thresholds of before."""
    if for_training:
        vars(config).pop(THRESHOLDS, None)
    if asked and config.problem_type != MULTI and config.num_labels != 2:
        raise InputError("--tune_thresholds: is for two classes, or rows with any number of labels; remove the flag")
    if asked and not (for_training and has_validation):
        raise InputError("--tune_thresholds: needs --do_train, and --do_eval with a validation split")


def best_threshold(is_on: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold of a label with the highest F1, (rows,) each; a probability of at least that is a yes.

    It is 0.5 if that is as good as any. Else it lies in the middle between the lowest probability that it lets in and
    the one below, so that rounding decides nothing; of equally good ones the nearest to 0.5, then the higher one.
    """
    if not is_on.any():
        return 0.5
    precision, recall, lowest = precision_recall_curve(is_on, probabilities)
    scores = (2 * precision * recall / np.maximum(precision + recall, 1e-300))[: len(lowest)]
    below = np.concatenate([[0.0], lowest[:-1]])
    middles = np.where((below < 0.5) & (lowest >= 0.5), 0.5, (below + lowest) / 2)
    best = middles[scores >= scores.max() - 1e-12]
    return float(min(best[::-1], key=lambda threshold: abs(threshold - 0.5)))


def tune_thresholds(gold: Any, logits: np.ndarray, problem_type: str) -> list[float]:
    """The best threshold of each label, or of the second of two classes, for the rows of `gold`, labels as the loss
    takes them."""
    is_on, probabilities = np.asarray(gold[:]), as_probabilities(logits, problem_type)
    if problem_type != MULTI:
        is_on, probabilities = is_on[:, None], probabilities[:, 1:]
    return [best_threshold(*pair) for pair in zip((is_on == 1).T, probabilities.T, strict=True)]


def score_and_tune(trainer: Any, metric: Any, gold: Any, logits: np.ndarray, is_tuned: bool) -> dict[str, float]:
    """The scores of a split. To tune is to save the thresholds that are best for it in the model's configuration, and
    to report them, and what the scores would be without them, beside the scores."""
    config, found = trainer.model.config, {}
    facts = (logits, list(config.label2id), config.problem_type)
    if is_tuned:
        untuned = score(metric, gold, *facts)
        found = {f"untuned_{name}": untuned[name] for name in ("macro_f1", main_metric(metric.config_name))}
        thresholds = tune_thresholds(gold, logits, config.problem_type)
        setattr(config, THRESHOLDS, thresholds)
        trainer.save_model()
        names = facts[1][-len(thresholds) :]
        found |= {f"threshold_{name}": value for name, value in zip(names, thresholds, strict=True)}
    return score(metric, gold, *facts, getattr(config, THRESHOLDS, None)) | found
