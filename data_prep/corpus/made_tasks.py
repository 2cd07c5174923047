"""Tasks that plain text sets by itself: the flags of the scripts that make them, and the folder that they write."""

import hashlib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shared.command_line import check_ranges
from shared.documents import HELP, Documents, is_held_out
from shared.files import atomic_folder, write_json

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")  # English: the next sentence begins with a capital
WORD = re.compile(r"(?:[A-Z]\.){2,}|\w+(?:['’]\w+)?|[^\w\s]")  # "U.S.", a word, or a sign
SENTENCES = 6  # of a document at most
LEAST_WORDS = 5  # of a sentence; signs count as words


@dataclass
class TaskArguments:
    input: list[str] = field(metadata={"help": HELP})
    output_dir: str = field(metadata={"help": "The folder to write; it must not hold files yet."})
    validation_fraction: float = field(default=0.01, metadata={"help": "Share of the documents held out, by hash."})
    seed: int = field(default=42, metadata={"help": "Another seed takes other parts of the same documents."})

    def __post_init__(self) -> None:
        check_ranges(self, validation_fraction="> 0, < 1")


@dataclass
class SentenceTaskArguments(TaskArguments):
    max_sentences: int = field(default=200_000, metadata={"help": "Keep as many at most, chosen by a hash."})
    max_words: int = field(default=50, metadata={"help": "Take no sentence of more words and signs."})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, max_sentences=">= 2", max_words=f">= {LEAST_WORDS}")


def choose_sentences(document: str, max_words: int, rng: random.Random) -> list[list[str]]:
    """The words of some of the sentences of a document."""
    paragraphs = [one for one in document.split("\n") if len(one.split()) >= LEAST_WORDS]
    sentences = [sentence for one in paragraphs for sentence in SENTENCE_END.split(one)]
    chosen = rng.sample(sentences, min(SENTENCES, len(sentences)))
    return [words for one in chosen if LEAST_WORDS <= len(words := WORD.findall(one)) <= max_words]


class Lowest:
    """The `most` things with the lowest hashes, each once: for validation only if all documents that hold it are."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.found: dict[bytes, tuple[bool, Any]] = {}
        self.bound = b"\xff" * 8  # the highest hash of the last cut: what is above it cannot come in

    def add(self, key: str, held_out: bool, one: Any) -> None:
        """Take a text, say, whose hash is that of `key`."""
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        if digest <= self.bound:
            self.found[digest] = (held_out and self.found.get(digest, (True,))[0], one)
            if len(self.found) > self.most + max(1000, self.most // 4):  # now and then
                self.cut()

    def cut(self) -> list[tuple[bytes, bool, Any]]:
        """Hash, whether for validation, and what was added, lowest first."""
        kept = sorted(self.found)[: self.most]
        self.found, self.bound = {digest: self.found[digest] for digest in kept}, kept[-1] if kept else self.bound
        return [(digest, *self.found[digest]) for digest in kept]


def draw_sentences(args: SentenceTaskArguments, documents: Documents) -> list[tuple[bool, list[str]]]:
    """The words of --max_sentences sentences of all documents, and whether they are for validation."""

    lowest = Lowest(args.max_sentences)
    for text in documents.progress("Choosing sentences"):
        held_out = is_held_out(text, args.validation_fraction)
        chosen = choose_sentences(text, args.max_words, random.Random(f"{args.seed} {text}"))
        documents.skipped["no sentence of a fitting length"] += not chosen
        for words in map(" ".join, chosen):
            lowest.add(words, held_out, words)
    return [(held_out, words.split()) for _, held_out, words in lowest.cut()]


def write_task(
    args: TaskArguments, documents: Documents, splits: Mapping[str, list[dict[str, Any]]], facts: dict[str, Any]
) -> dict[str, Any]:
    """Write the rows of each split as parquet, and report.json: settings, input, `facts`, what was skipped. Returns
    the report."""
    report = {"settings": vars(args) | {"output_dir": None}, "input": documents.describe(), **facts}
    report["skipped"] = dict(documents.skipped)
    with atomic_folder(args.output_dir) as folder:
        for name, rows in splits.items():
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
        write_json(folder / "report.json", report)
    return report
