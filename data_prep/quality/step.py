"""The step of filter_documents.py: judges one document after the other, and tells why."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_prep.engine.stage import Outcome
from data_prep.quality.document import Document
from data_prep.quality.models import load_fasttext, load_kenlm
from data_prep.quality.personal_data import mask_personal_data
from data_prep.quality.rules import RULES, Judgement, judge
from data_prep.quality.splitter import WordTable
from data_prep.quality.word_lists import WordList
from shared.errors import InputError
from shared.rows import Source, read_rows

MAX_CHARACTERS = 5_000_000  # of a document; longer ones are not text that a model is meant to read, and bound memory
EXPLAIN = pa.schema(
    {"id": pa.string(), "url": pa.string(), "decision": pa.string(), "values": pa.string()}  # values: JSON, by rule
)


@dataclass(frozen=True)
class Filter:
    """The step: judges one document after the other."""

    limits: dict[str, float]
    languages: tuple[str, ...]
    lists: dict[str, dict[str, WordList]]
    mask_pii: bool = False
    explain: bool = False
    fasttext: tuple[str, str] | None = None  # model, label
    kenlm: tuple[str, str | None] | None = None  # model, SentencePiece model
    own: frozenset[str] = frozenset()  # rules whose thresholds hold for any language, since the user has set them

    def models(self) -> dict[str, Callable[[str], float]]:
        """The models that were named, loaded once a process."""
        models = {}
        if self.fasttext:
            models["fasttext"] = load_fasttext(*self.fasttext)
        if self.kenlm:
            models["perplexity"] = load_kenlm(*self.kenlm)
        return models

    def judge(self, row: dict[str, Any], table: WordTable, models: dict[str, Any], exact: bool = False) -> Judgement:
        """What the rules say of one row. `exact`: measure with every rule, and to the end."""
        text = row["text"]
        if len(text) > MAX_CHARACTERS:
            return Judgement(text, f"longer than {MAX_CHARACTERS:,} characters", f"{len(text):,}")
        table.trim()
        language, score = row["language"], row["language_score"]
        document = Document(
            text,
            table,
            self.limits,
            language,
            score,
            self.languages,
            exact or self.explain,
            self.lists,
            models,
            own=self.own,
        )
        verdict = judge(document)
        if self.mask_pii and not verdict.reason:
            verdict.text = mask_personal_data(verdict.text)
        return verdict

    def __call__(self, source: Source, position: int) -> Iterator[Outcome]:
        table, models = WordTable(), self.models()
        for place, share, row, problem in read_rows(source, position):
            if row is None:
                yield Outcome(place, share, None, problem, bad=True)
                continue
            verdict = self.judge(row, table, models)
            extra = {"explain": [explanation(row, verdict)]} if self.explain else {}
            row["text"] = verdict.text
            counts = {"judged_as": {verdict.judged_as: 1}, "skipped_rules": dict.fromkeys(verdict.skipped, 1)}
            yield Outcome(place, share, row, verdict.reason, detail=verdict.detail, extra=extra, counts=counts)


def explanation(row: dict[str, Any], verdict: Judgement) -> dict[str, Any]:
    """One row of OUTPUT/explain/."""
    values = {
        rule: round(value, 6) if isinstance(value, float) else value for rule, (value, *_) in verdict.values.items()
    }
    values_json = json.dumps(values, ensure_ascii=False)
    return {"id": row["id"], "url": row["url"], "decision": verdict.reason or "kept", "values": values_json}


def tell_why(step: Filter, sources: list[Source], key: str) -> None:
    """Print what every rule says of the documents with this URL or id. Raises InputError if there is none."""
    table, models, found = WordTable(), step.models(), 0
    for source in sources:
        for _, _, row, _ in read_rows(source):
            if row is None or key not in (row["id"], row["url"]):
                continue
            found += 1
            verdict = step.judge(row, table, models, exact=True)
            print(f"{row['url'] or row['id']}: {len(row['text']):,} characters, language {row['language']}")
            for rule, (value, threshold, accepted) in verdict.values.items():
                shown = "does not apply" if value is None else f"{value:.4g}" if isinstance(value, float) else value
                limit = f"{RULES[rule].keep} {threshold:g}" if rule in RULES else f"one of {threshold}"
                print(f"  {rule:40} {shown!s:>15}   {limit:18}{'' if accepted else ' drops it'}")
            if verdict.skipped:
                print(
                    f"  skipped, since they say nothing of language {verdict.judged_as}: {' '.join(verdict.skipped)}"
                )
            if verdict.reason:
                print(f"dropped: {verdict.reason} ({verdict.detail})")
            else:
                print(f"kept: {len(verdict.text):,} characters are left")
    if not found:
        raise InputError(f"--why {key}: no document of the input has this url or id")
