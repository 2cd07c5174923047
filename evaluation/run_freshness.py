"""Is a model up to date? Bits per byte on dated text, and new words, for several models in one figure.

    python evaluation/run_freshness.py --models runs/to_2021 runs/to_2026 --cutoff 2021-12 2026-07 --input news.parquet

--input: parquet or JSON lines with `text` and `date`, of which documents are measured that packing with
--validation_fraction (here --held_out) keeps out of training. With --cutoff, the freshness gain over the oldest model:
how much further ahead a model is on text that the old one could not know than on text that it could. --new_words:
words with the date of first use. Dated facts are a part of run_probes.py (--cloze).
Writes freshness.json, freshness.md and pictures of each part.
"""

from shared.early import answer_early

answer_early(__file__, __name__)  # --help and wrong flags, before the seconds that the next imports take

import datetime
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evaluation.masked.dated_text import (
    Bucket,
    Days,
    check_unseen,
    choose_documents,
    early_and_late,
    fill_buckets,
    freshness_gain,
    parse_date,
    score_documents,
)
from evaluation.masked.freshness_page import draw_all, make_table
from evaluation.masked.new_words import NewWord, rate_words, read_new_words
from evaluation.masked.scores import load_model, open_checkpoints, publish
from evaluation.tasks.bootstrap import interval, resample_sums
from shared.command_line import check_ranges, run_script
from shared.errors import InputError
from shared.training.memory import keep_memory

NEW_WORDS = str(Path(__file__).parent / "masked" / "new_words.yaml")


@dataclass
class FreshnessArguments:
    models: list[str] = field(default_factory=list, metadata={"help": "Checkpoints: folders, Hub ids or NAME=FOLDER."})
    cutoff: list[str] = field(
        default_factory=list,
        metadata={"help": "Date of the newest training text: of each model, or of the first one alone, the old one."},
    )
    input: list[str] = field(default_factory=list, metadata={"help": "Dated text: parquet, JSON lines, or folders."})
    new_words: str | None = field(
        default=None, metadata={"help": "Words with the date of first use. Default: masked/new_words.yaml; or 'none'."}
    )
    output_dir: str = field(default="runs/freshness", metadata={"help": "The folder for results, table, pictures."})
    period: Literal["year", "quarter", "month"] = field(
        default="year", metadata={"help": "What dates are put together by."}
    )
    held_out: float = field(
        default=0.01, metadata={"help": "Share of documents to measure; no more than any model held out in packing."}
    )
    max_samples: int | None = field(default=None, metadata={"help": "At most N documents of a period."})
    min_documents: int = field(default=20, metadata={"help": "Leave periods with fewer documents out."})
    max_characters: int = field(default=4000, metadata={"help": "Read the first N characters of a document."})
    max_seq_length: int = field(default=128, metadata={"help": "Tokens in a block; no block holds two documents."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Blocks in one forward pass."})
    seed: int = field(default=0, metadata={"help": "Of the bootstrap."})
    dry_run: bool = field(default=False, metadata={"help": "Count documents, look at dates and cutoffs, and stop."})

    def __post_init__(self) -> None:
        check_ranges(self, held_out="> 0, <= 1", min_documents=">= 1", max_seq_length=">= 16")
        check_ranges(self, per_device_eval_batch_size=">= 1")
        if self.cutoff and len(self.cutoff) not in (1, len(self.models)):
            raise InputError(f"--cutoff: {len(self.cutoff)} dates for {len(self.models)} models: one for each, or one")
        if self.cutoff and len(self.models) < 2:
            raise InputError("--cutoff: a gain is over an older model; name two models or more")
        self.cutoffs  # noqa: B018  a date that does not parse is refused now

    @property
    def cutoffs(self) -> list[Days | None]:
        """The cutoff of each model, None where it is unknown."""
        try:
            dates: list[Days | None] = [parse_date(text) for text in self.cutoff]
        except ValueError as error:
            raise InputError(f"--cutoff: {error}") from error
        return dates + [None] * (len(self.models) - len(dates))


def oldest(cutoffs: list[Days | None]) -> int | None:
    """The place of the earliest cutoff, None where there is none."""
    known = [(cutoff.last, number) for number, cutoff in enumerate(cutoffs) if cutoff]
    return min(known)[1] if known else None


def plan_gains(names: list[str], cutoffs: list[Days | None]) -> dict[int, tuple[list[str], list[str]]]:
    """Early and late periods for each model but the oldest; nothing without a cutoff. Raises InputError."""
    old = oldest(cutoffs)
    others = [] if old is None else [number for number in range(len(cutoffs)) if number != old]
    return {number: early_and_late(names, cutoffs[old], cutoffs[number]) for number in others}


def summarize_text(buckets: list[Bucket], labels: list[str], cutoffs: list[Days | None]) -> dict[str, Any]:
    """The periods, and with a cutoff the gain of each model over the one with the earliest cutoff."""
    report: dict[str, Any] = {"periods": []}
    for bucket in buckets:
        row = {"name": bucket.name, "documents": bucket.documents, "bytes": bucket.bytes}
        row["models"] = {
            label: {"bits_per_byte": float(value), "bits_per_byte_interval": interval(samples)}
            for label, value, samples in zip(labels, bucket.bits_per_byte, bucket.samples.T, strict=True)
        }
        report["periods"].append(row)
    old = oldest(cutoffs)
    if old is not None:
        report["old"] = labels[old]
        report["gains"] = {
            labels[number]: freshness_gain(buckets, old, number, *periods)
            for number, periods in plan_gains([bucket.name for bucket in buckets], cutoffs).items()
        }
    return report


def summarize_words(
    words: list[NewWord], found: dict[str, list[dict[str, Any]]], cutoffs: list[Days | None], seed: int
) -> dict[str, Any]:
    """The words of each model, and their means with 95% intervals over words; with a cutoff also the gain of each:
    its advantage on the words that the oldest model could not know, less that of the oldest."""
    names = ("tokens", "tokens_controls", "advantage", "rank", "chance_rank")
    means = {}
    for label, rows in found.items():
        values = np.array([[row[name] for name in names] for row in rows])
        samples = resample_sums(values, seed) / len(values)
        means[label] = {name: float(values[:, i].mean()) for i, name in enumerate(names)}
        means[label] |= {f"{name}_interval": interval(samples[:, i]) for i, name in enumerate(names)}
    report: dict[str, Any] = {"means": means, "words": found}
    old = oldest(cutoffs)
    if old is not None:
        report["gains"] = {}
        known, of_old = cutoffs[old].last, [*found.values()][old]
        for number, (label, rows) in enumerate(found.items()):
            last = cutoffs[number].last if cutoffs[number] and cutoffs[number].last > known else datetime.date.max
            late = [i for i, word in enumerate(words) if known < word.date.first <= last]
            if number != old and late:
                pairs = [rows[i]["advantage"] - of_old[i]["advantage"] for i in late]
                samples = resample_sums(np.array(pairs)[:, None], seed)[:, 0] / len(late)
                gain = {"gain": float(np.mean(pairs)), "gain_interval": interval(samples)}
                report["gains"][label] = gain | {"words": [words[i].term for i in late]}
    return report


def main(args: FreshnessArguments) -> dict[str, Any]:
    words_file = None if args.new_words == "none" else args.new_words or NEW_WORDS
    if not args.input and words_file is None:
        raise InputError("--input, --new_words: give at least one of them")
    checkpoints = open_checkpoints(args.models, args.max_seq_length)
    labels = [checkpoint.label for checkpoint in checkpoints]
    words: list[NewWord] = read_new_words(words_file) if words_file else []
    documents, no_documents, shares = [], {}, {}
    if args.input:
        shares = check_unseen(checkpoints, args.input, args.held_out)
        limits = (args.max_samples, args.min_documents, args.max_characters)
        documents, no_documents = choose_documents(args.input, args.period, args.held_out, *limits)
        print(f"{len(documents):,} held-out documents; left out: {no_documents}", flush=True)
    periods = Counter(document.bucket for document in documents)
    plan_gains(sorted(periods), args.cutoffs if documents else [])
    if args.dry_run:
        print(f"Held-out documents of each {args.period}: {dict(sorted(periods.items()))}. Nothing was measured.")
        return {}
    keep_memory()

    text_scores, rated = [], {}
    for checkpoint in checkpoints:
        model = load_model(checkpoint)
        if documents:
            sizes = (args.max_seq_length, args.per_device_eval_batch_size)
            text_scores.append(score_documents(model, checkpoint, documents, *sizes))
        if words:
            rated[checkpoint.label] = rate_words(model, checkpoint, words)
        print(f"{checkpoint.label}: measured", flush=True)

    cutoffs = {label: str(cutoff.last) if cutoff else None for label, cutoff in zip(labels, args.cutoffs, strict=True)}
    report: dict[str, Any] = {"models": labels, "cutoffs": cutoffs, "settings": asdict(args)}
    if documents:
        buckets = fill_buckets(documents, text_scores, args.seed)
        report["text"] = summarize_text(buckets, labels, args.cutoffs)
        report["text"] |= {"left_out": no_documents, "held_out_in_training": shares}
    if words:
        report["new_words"] = summarize_words(words, rated, args.cutoffs, args.seed)
    draw_all(report, Path(args.output_dir))
    return publish(args.output_dir, "freshness", report, make_table)


if __name__ == "__main__":
    run_script(main, FreshnessArguments)
