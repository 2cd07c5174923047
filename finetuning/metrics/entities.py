"""Precision, recall and F1 of named entities, without the network; seqeval counts.

    metric = evaluate.load("finetuning/metrics/entities.py")
    metric.compute(predictions=[["B-PER"]], references=[["B-PER"]], scheme="IOB2")

An entity is right when its type, its first and its last word are. There are two ways to read tags:

- default, as the scorer of CoNLL 2000 does: any tag of a type begins or continues an entity (`O I-PER` is one).
- strict: what the scheme does not write is no entity (`O I-PER` in IOB2 is none).

A score that is 0/0, of a type that is in neither predictions nor references, is 0.0.
"""

from typing import Any

import datasets
import evaluate
from seqeval.metrics import accuracy_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as default_scores
from seqeval.metrics.v1 import precision_recall_fscore_support as strict_scores
from seqeval.scheme import IOB1, IOB2, IOBES
from seqeval.scheme import Entities as StrictEntities

SCHEMES = {"IOB1": IOB1, "IOB2": IOB2, "BIOES": IOBES}
Tags = list[list[str]]


class Entities(evaluate.Metric):
    """`predictions` and `references` are sentences: lists of tags, of the same length in both.

    `compute` returns `precision`, `recall` and `f1` over all entities (micro averages), the same with `strict_` before
    the name, `accuracy` (of words), and in `types` these six for each type with its `support`, the entities of the
    references.
    """

    def _info(self) -> evaluate.MetricInfo:
        sentences = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description="Precision, recall and F1 of named entities, in default and strict mode.",
            citation="Tjong Kim Sang and Buchholz, 2000: Introduction to the CoNLL-2000 Shared Task: Chunking",
            features=datasets.Features({"predictions": sentences, "references": sentences}),
        )

    def _compute(self, predictions: Tags, references: Tags, scheme: str = "IOB2") -> dict[str, Any]:
        if scheme not in SCHEMES:
            raise ValueError(f"entities: unknown scheme {scheme!r}; there are {', '.join(SCHEMES)}")
        if not any(references):
            raise ValueError("entities: nothing to score, there are no words")
        for number, (found, gold) in enumerate(zip(predictions, references, strict=True)):
            if len(found) != len(gold):
                raise ValueError(f"entities: sentence {number}: {len(found)} predictions and {len(gold)} references")
        both = [references, predictions]
        default = {kind for tags in both for kind, _, _ in get_entities(tags)}
        strict = set().union(*(StrictEntities(tags, SCHEMES[scheme]).unique_tags for tags in both))
        result: dict[str, Any] = {}
        keys = ("precision", "recall", "f1", "support")
        types = {kind: {mode + key: 0.0 for mode in ("", "strict_") for key in keys[:3]} for kind in default | strict}
        for mode, kinds, scores, more in (
            ("", default, default_scores, {}),
            ("strict_", strict, strict_scores, {"scheme": SCHEMES[scheme]}),
        ):
            micro = scores(*both, average="micro", zero_division=0, **more)
            result |= {mode + key: float(value) for key, value in zip(keys[:3], micro[:3], strict=True)}
            # seqeval gives the scores of the types that it finds, sorted.
            by_type = zip(*scores(*both, average=None, zero_division=0, **more), strict=True)
            for kind, values in zip(sorted(kinds), by_type, strict=True):
                types[kind] |= {mode + key: float(value) for key, value in zip(keys[:3], values[:3], strict=True)}
                if not mode:
                    types[kind]["support"] = int(values[3])
        result["accuracy"] = float(accuracy_score(*both))
        return result | {"types": dict(sorted(types.items()))}
