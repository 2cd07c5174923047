"""Words that came into use at a known date: how a model cuts them up, and how it rates them beside old words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from evaluation.masked.dated_text import Days, parse_date
from evaluation.masked.scores import Checkpoint, encode_sentences, score_sentences
from shared.errors import InputError

PLACE = "{}"  # of the word in its sentence


@dataclass(frozen=True)
class NewWord:
    term: str
    first_use: str
    sentence: str
    controls: tuple[str, ...]

    @property
    def date(self) -> Days:
        return parse_date(self.first_use)


def read_new_words(path: str) -> list[NewWord]:
    """Read a file like new_words.yaml. Raises InputError that names the entry which is wrong."""
    try:
        entries = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--new_words {path}: not readable: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"--new_words {path}: must be a list of entries; see evaluation/masked/new_words.yaml")
    words = []
    for number, entry in enumerate(entries, 1):
        where = f"--new_words {path}, entry {number}"
        keys = ("term", "first_use", "sentence", "controls")
        if not isinstance(entry, dict) or any(not entry.get(key) for key in keys):
            raise InputError(f"{where}: needs {', '.join(keys)}")
        if entry["sentence"].count(PLACE) != 1:
            raise InputError(f"{where}: the sentence must hold {PLACE} once")
        try:
            parse_date(entry["first_use"])
        except ValueError as error:
            raise InputError(f"{where}: first_use: {error}") from error
        words.append(NewWord(entry["term"], entry["first_use"], entry["sentence"], tuple(entry["controls"])))
    return sorted(words, key=lambda word: word.date)


def rate_words(model: Any, checkpoint: Checkpoint, words: Sequence[NewWord]) -> list[dict[str, Any]]:
    """For each word: its tokens, what its sentence is worth with it beside its controls, and its rank among them.

    A sentence is worth its pseudo-log-likelihood in nats. `rank` 1: the word is rated above all controls;
    `chance_rank` is that of a model that knows none of them; `advantage` is the value with the word less the mean with
    a control.
    Raises InputError for a sentence that is too long for the model.
    """
    pairs = [(word.sentence, term) for word in words for term in (word.term, *word.controls)]
    texts = [sentence.replace(PLACE, term) for sentence, term in pairs]
    spans = [(start := sentence.index(PLACE), start + len(term)) for sentence, term in pairs]
    whole = encode_sentences(checkpoint, texts)
    parts = encode_sentences(checkpoint, texts, spans)
    if None in whole or None in parts:
        raise InputError(f"--new_words: a sentence is too long for {checkpoint.label}, or a word has no token in it")
    scores = score_sentences(model, [s for s in whole if s], checkpoint.tokenizer.mask_token_id)
    pieces = [sentence.ids[sentence.scored] for sentence in parts if sentence]
    found, start = [], 0
    for word in words:
        part = slice(start, start + 1 + len(word.controls))
        start = part.stop
        value, *controls = (array.sum() for array in scores[part])
        others, counts = np.array(controls), [len(ids) for ids in pieces[part]]
        found.append(
            {
                "term": word.term,
                "first_use": word.first_use,
                "tokens": counts[0],
                "tokens_controls": float(np.mean(counts[1:])),
                "has_unknown_token": bool(checkpoint.tokenizer.unk_token_id in pieces[part][0]),
                "value": float(value),
                "advantage": float(value - others.mean()),
                "rank": float(1 + (others > value).sum() + 0.5 * (others == value).sum()),
                "chance_rank": 1 + len(others) / 2,
            }
        )
    return found
