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
    """Write what a split gave: a test split (`prefix` "test") as predictions.conll, a validation split as an error
    analysis with the tags of each sentence in errors/predictions.jsonl, further ones of either under their own names;
    and the scores of each type, if there are any, as JSON.

    `found` are the predicted tags, `confidence` their probabilities, by sentence and word.
    """
    if prefix.startswith("test"):
        file = folder / f"{prefix}_predictions.conll".removeprefix("test_")
        write_predictions(file, sentences.words, found, confidence, scheme)
    else:
        errors = folder / prefix.replace("eval", "errors", 1)
        write_entity_errors(errors, sentences, found, confidence)
        pairs = enumerate(zip(sentences.tags or [], found, strict=True))
        rows = (
            {
                "index": i,
                "gold": [as_label(tag, scheme) for tag in gold],
                "prediction": [as_label(t, scheme) for t in row],
            }
            for i, (gold, row) in pairs
        )
        write_json_lines(errors / "predictions.jsonl", rows)
    if types:
        write_json(folder / f"{prefix}_report.json", types)
