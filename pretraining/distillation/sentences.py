"""Sentences of a text, and edited copies of them: what student and teacher both read."""

import heapq
import re
from dataclasses import dataclass, field, fields

import numpy as np

from shared.command_line import check_ranges
from shared.documents import Documents, hash_of_text, is_held_out
from shared.errors import InputError
from shared.files import CACHE, content_hash, read_json, write_json

# A sentence ends at its mark when a space follows; lines are paragraphs of their own.
ENDS = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\n+")
DELETED = 0.6  # share of the edits of a copy that take a word out; the others put another word in its place


@dataclass
class SentenceArguments:
    max_sentences: int = field(default=100_000, metadata={"help": "Sentences of the text that are used, by hash."})
    max_eval_sentences: int = field(default=2_000, metadata={"help": "Sentences of held-out documents to evaluate."})
    min_words: int = field(default=6, metadata={"help": "Fewest words of a sentence, between spaces."})
    max_words: int = field(default=36, metadata={"help": "Most words of a sentence."})
    edited_share: float = field(
        default=0.25, metadata={"help": "Copies with some words deleted or replaced, as a share of the sentences."}
    )
    validation_fraction: float = field(
        default=0.01, metadata={"help": "Share of documents held out by hash; as the blocks were packed."}
    )

    def __post_init__(self) -> None:
        if not 1 <= self.min_words <= self.max_words:
            raise InputError(f"--min_words {self.min_words} --max_words {self.max_words}: the first is the smaller")
        check_ranges(self, edited_share=">= 0, <= 1", validation_fraction="> 0, < 1")


def cached_sentences(documents: Documents, args: SentenceArguments, quiet: bool) -> dict[str, list[str]]:
    """What `choose_sentences` gives, from the cache where it has been done before."""
    settings = [getattr(args, name.name) for name in fields(SentenceArguments)]
    file = CACHE / f"sentences-{content_hash(documents.describe(), settings)}.json"
    if not file.is_file():
        write_json(file, choose_sentences(documents, args, quiet))
    found: dict[str, list[str]] = read_json(file)
    return found


def choose_sentences(documents: Documents, args: SentenceArguments, quiet: bool) -> dict[str, list[str]]:
    """The sentences of `train` and of `validation` with the smallest hashes, in the order of these, each once and in
    one of the two.

    Which ones they are depends on the text alone, not on the order of documents; a larger number only adds. Raises
    InputError when a split has fewer than 64 sentences.
    """
    wanted = {"train": args.max_sentences, "validation": args.max_eval_sentences}
    heaps: dict[str, list[tuple[int, str]]] = {"train": [], "validation": []}
    taken: dict[str, set[int]] = {"train": set(), "validation": set()}
    for text in documents.progress("Choosing sentences", disable=quiet):
        split = "validation" if is_held_out(text, args.validation_fraction) else "train"
        heap, known = heaps[split], taken[split]
        for sentence in map(str.strip, ENDS.split(text)):
            if not args.min_words <= sentence.count(" ") + 1 <= args.max_words:
                continue
            key = -hash_of_text(sentence)  # heapq keeps the smallest at the top, and the largest hash is to go first
            if key in known or (len(heap) == wanted[split] and key <= heap[0][0]):
                continue
            known.add(key)
            if len(heap) < wanted[split]:
                heapq.heappush(heap, (key, sentence))
            else:
                known.remove(heapq.heappushpop(heap, (key, sentence))[0])
    found = {split: [sentence for _, sentence in sorted(heap, reverse=True)] for split, heap in heaps.items()}
    train = set(found["train"])
    found["validation"] = [sentence for sentence in found["validation"] if sentence not in train]
    for split, sentences in found.items():
        if len(sentences) < 64:
            raise InputError(
                f"{len(sentences)} sentences of {args.min_words} to {args.max_words} words between spaces in the "
                f"{split} documents; give more text, or change --min_words, --max_words or --validation_fraction"
            )
    return found


def add_copies(sentences: list[str], share: float) -> tuple[list[str], np.ndarray]:
    """The sentences followed by edited copies of the first ones; and of each text its sentence's number, int64.

    Up to a third of the words of a copy are deleted or replaced by words of the sentence's neighbour.
    """
    count = round(share * len(sentences))
    copies = [_edit(sentences[i], sentences[i - 1]) for i in range(count)]
    return sentences + copies, np.concatenate([np.arange(len(sentences)), np.arange(count)])


def _edit(sentence: str, other: str) -> str:
    rng = np.random.default_rng(hash_of_text(sentence))
    words, others = sentence.split(" "), other.split(" ")
    for _ in range(rng.integers(1, max(2, len(words) // 3 + 1))):
        place = rng.integers(len(words))
        if rng.random() < DELETED and len(words) > 2:
            words.pop(place)
        else:
            words[place] = others[rng.integers(len(others))]
    return " ".join(words)
