"""The files of a run that finds entities: its tags, where it errs, and the scores of each type."""

from pathlib import Path
from typing import Any

import numpy as np

from finetuning.common.error_analysis import write_json_lines
from finetuning.ner.conll import write_predictions
from finetuning.ner.errors import write_entity_errors
from finetuning.ner.sentences import Sentences
from finetuning.ner.tags import as_label
from shared.files import write_json


def write_report(
    folder: Path,
    prefix: str,
    sentences: Sentences,
    found: list[list[str]],
    confidence: list[np.ndarray],
    scheme: str,
    types: dict[str, Any],
) -> None:
    """Write what a split gave: the test split (`prefix` "test") as predictions.conll, others as an error analysis with
    the tags of each sentence in errors/predictions.jsonl; and the scores of each type, if there are any, as JSON.

    `found` are the predicted tags, `confidence` their probabilities, by sentence and word.
    """
    if prefix == "test":
        write_predictions(folder / "predictions.conll", sentences.words, found, confidence, scheme)
    else:
        write_entity_errors(folder / "errors", sentences, found, confidence)
        pairs = enumerate(zip(sentences.tags or [], found, strict=True))
        rows = (
            {
                "index": i,
                "gold": [as_label(tag, scheme) for tag in gold],
                "prediction": [as_label(t, scheme) for t in row],
            }
            for i, (gold, row) in pairs
        )
        write_json_lines(folder / "errors" / "predictions.jsonl", rows)
    if types:
        write_json(folder / f"{prefix}_report.json", types)
