"""The scores of predicted tags, of each scheme as its field has them."""

from collections import Counter
from typing import Any

import numpy as np

from finetuning.ner.sentences import Sentences


def main_metric(scheme: str) -> str:
    """The name of the metric by which the best epoch is chosen."""
    return "accuracy" if scheme == "POS" else "f1"


def score(metric: Any, found: list[list[str]], sentences: Sentences, scheme: str) -> tuple[dict[str, float], dict]:
    """The scores of predicted tags, and those of each type.

    Of entities, precision, recall and F1, and `outside_accuracy`, that of saying O to every word; in IO an entity is a
    run of equal labels. Of POS, accuracy, `macro_f1`, the mean of the F1 of all labels, and `majority_accuracy`, that
    of saying the most frequent label to every word.
    """
    gold = sentences.tags or []
    more = {}
    if scheme == "IO":  # seqeval has no such scheme: by runs in IOB2, where a word can be wrong by its prefix alone
        more["accuracy"] = float(np.mean(np.concatenate(gold) == np.concatenate(found)))
        gold, found, scheme = *(Sentences([[]], tags).in_scheme("IOB2").tags for tags in (gold, found)), "IOB2"
    counts = Counter(tag for tags in gold for tag in tags)
    scores = metric.compute(predictions=found, references=gold, scheme="BIOES" if scheme == "POS" else scheme)
    types = scores.pop("types")
    scores |= more
    by_type = {f"f1_{kind}": of_type["f1"] for kind, of_type in types.items()}
    if scheme != "POS":
        return scores | {"outside_accuracy": counts["O"] / counts.total()} | by_type, types
    # A label of one word is right or wrong: over all words, precision, recall and F1 are the accuracy.
    scores = {"accuracy": scores["accuracy"], "macro_f1": sum(by_type.values()) / len(by_type)}
    scores["majority_accuracy"] = max(counts.values()) / counts.total()
    names = ("precision", "recall", "f1", "support")
    return scores | by_type, {kind: {name: of_type[name] for name in names} for kind, of_type in types.items()}
