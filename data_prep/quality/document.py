"""A text with what the rules measure of it, each computed when first asked for."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from data_prep.languages import is_latin, language_of_code, puts_spaces
from data_prep.quality.cleaning import C4Lines, clean_as_c4
from data_prep.quality.repetition import duplicate_shares, ngram_shares
from data_prep.quality.splitter import WordTable
from data_prep.quality.word_lists import WordList

_PARAGRAPH_END = re.compile(r"\n{2,}")


@dataclass
class Document:
    """A text with what the rules measure, each computed when first asked for."""

    text: str
    table: WordTable
    limits: Mapping[str, float]  # thresholds of the rules that are on, by name
    own: frozenset[str] = field(default=frozenset(), kw_only=True)  # the rules whose thresholds hold for any language
    language: str | None = None
    language_score: float | None = None
    languages: tuple[str, ...] = ()  # those that are wanted; none: all
    exact: bool = False  # measure to the end what a threshold settles earlier
    lists: Mapping[str, Mapping[str, WordList]] = field(default_factory=dict)  # kind -> language -> list
    models: Mapping[str, Callable[[str], float]] = field(default_factory=dict)  # "perplexity", "fasttext"

    def with_text(self, text: str) -> "Document":
        """The same document after a rule has changed its text; itself if it has not."""
        if text == self.text:
            return self
        changed = replace(self, text=text)
        changed.judged_as, changed.spaces = self.judged_as, self.spaces
        return changed

    @cached_property
    def spaces(self) -> bool:
        """Whether its language puts spaces between words; if the language is unknown, its script tells."""
        return puts_spaces(self.language, self.text)

    @cached_property
    def judged_as(self) -> str:
        """The language by whose rules it is judged: without one English, if its letters are Latin, else ""."""
        return language_of_code(self.language) if self.language else "en" if is_latin(self.text) else ""

    def list_of(self, kind: str) -> WordList | None:
        """The word list of a kind for its language."""
        lists = self.lists.get(kind, {})
        return lists.get(self.language or "", lists.get(self.judged_as))

    @cached_property
    def words(self) -> np.ndarray:
        return self.table.words_of(self.text)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def filled_lines(self) -> list[str]:
        return [line for line in self.text.split("\n") if line and not line.isspace()]

    @cached_property
    def duplicate_lines(self) -> tuple[float, float]:
        lines = list(filter(None, self.text.split("\n")))
        lines += [""] * (self.text.startswith("\n") + self.text.endswith("\n"))  # as a split at "\n+" gives
        return duplicate_shares(lines, len(self.text))

    @cached_property
    def duplicate_paragraphs(self) -> tuple[float, float]:
        text = self.text.strip()
        paragraphs = _PARAGRAPH_END.split(text) if "\n\n\n" in text else text.split("\n\n")
        return duplicate_shares(paragraphs, len(self.text))

    @cached_property
    def token_count(self) -> int:
        """Words and marks."""
        return len(self.words) if "words" in self.__dict__ else self.table.count_words(self.text)

    @cached_property
    def word_count(self) -> int:
        """Words that are not marks only."""
        return int(np.count_nonzero(self.words["is_word"]))

    @cached_property
    def repetition(self) -> dict[int, float]:
        """Share of the characters in the most frequent n-gram (n of 2, 3, 4) and in repeated ones (5 to 10)."""
        return ngram_shares(self.words["hash"], self.words["length"], len(self.text))

    @cached_property
    def bare_words(self) -> np.ndarray:
        return self.table.bare_words_of(self.text)

    @cached_property
    def codes(self) -> np.ndarray:
        """The code points of the text."""
        return np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), np.uint32)

    @cached_property
    def c4(self) -> C4Lines:
        return clean_as_c4(self.text, self.limits, self.spaces, self.judged_as == "en")
