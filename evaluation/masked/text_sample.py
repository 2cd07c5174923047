"""A part of a large text: its first documents, and sentences chosen from all of it."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from data_prep.corpus.made_tasks import Lowest
from shared.documents import Documents, is_held_out
from shared.errors import InputError

SENTENCE_END = re.compile(r"(?<=[.!?])[\"”’)]*\s+(?=[\"“‘(]*[A-Z0-9])|\n+")
SHORTEST, LONGEST = 20, 300  # characters of a sentence


class FirstDocuments(Documents):
    """The first `most` documents of all sources; all of them if it is None."""

    def __init__(self, sources: list[str], most: int | None) -> None:
        super().__init__(sources)
        self.most = most

    def progress(self, description: str, disable: bool = False) -> Iterator[str]:
        return islice(super().progress(description, disable), self.most)

    def describe(self) -> list[dict[str, Any]]:
        return [*super().describe(), {"first": self.most}] if self.most else super().describe()


def choose_sentences(documents: FirstDocuments, held_out: float, count: int) -> list[str]:
    """The `count` sentences with the lowest hashes: an even choice that is the same whatever the order of the text.

    `held_out`: read only the documents that packing with this share holds out; 0 reads all. Sentences end in . ! or ?
    and are found by a simple rule for languages with capital letters. Raises InputError when there is none.
    """
    lowest = Lowest(count)
    for text in documents.progress("Choosing sentences"):
        if not held_out or is_held_out(text, held_out):
            for sentence in SENTENCE_END.split(text):
                if SHORTEST <= len(sentence := sentence.strip()) <= LONGEST and sentence[-1] in ".!?":
                    lowest.add(sentence, True, sentence)
    found = [sentence for *_, sentence in lowest.cut()]
    if not found:
        raise InputError(f"--pll: no sentence of {SHORTEST} to {LONGEST} characters in the text")
    return found
