"""The rules by which a web page is kept or dropped: measures of a text, their published thresholds, and where these
were published. Pure functions of one document.

- Gopher: Rae et al. 2021, https://arxiv.org/abs/2112.11446, appendix A.1.1 and table A1.
- C4: Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.2, with what its published code adds.
- FineWeb: Penedo et al. 2024, https://arxiv.org/abs/2406.17557, section 3.6.
- BigScience: Laurençon et al. 2022 (ROOTS), https://arxiv.org/abs/2303.03915, the thresholds for English in
  bigscience-workshop/data-preparation (01b_oscar_cleaning_and_filtering), which OLM ran.

Where the published threshold holds for English alone, other languages have theirs in by_language.py.

Where papers leave room (what a word is, which n-gram counts), the reading is datatrove's, with which FineWeb was made.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import regex

from data_prep.languages import language_of_code
from data_prep.quality.by_language import limits_for
from data_prep.quality.cleaning import clean_as_bigscience
from data_prep.quality.document import Document
from data_prep.quality.repetition import duplicate_shares, group_sizes, rolling_hashes
from data_prep.quality.splitter import SENTENCE_END, SPECIAL

CHARACTER_NGRAM, WORD_NGRAM = 10, 5  # of BigScience's repetition ratios
Measure = Callable[[Document], float | None]
_SPECIAL_RUN = regex.compile(rf"[{SPECIAL}]+")


def character_repetition(document: Document) -> float | None:
    """Share of the most frequent 10-grams of characters (the square root of their number, repeated ones alone)."""
    codes = document.codes.astype(np.uint64)
    if len(codes) < CHARACTER_NGRAM:
        return 0.0
    sizes = np.sort(group_sizes(np.sort(rolling_hashes(codes, CHARACTER_NGRAM))))[::-1]
    top = min(int(math.sqrt(len(sizes))), int(np.count_nonzero(sizes > 1)))
    return float(sizes[:top].sum() / sizes.sum())


def word_repetition(document: Document) -> float | None:
    """Share of the 5-grams of words that occur more than once."""
    words = document.bare_words
    if len(words) < WORD_NGRAM:
        return 0.0
    keys = rolling_hashes(words["hash"], WORD_NGRAM)
    sizes = group_sizes(np.sort(keys))
    return float(sizes[sizes > 1].sum() / len(keys))


@cache
def _special_table() -> np.ndarray:
    """For each code point whether it is one of BigScience's special characters."""
    table = np.zeros(sys.maxunicode + 1, bool)
    for match in _SPECIAL_RUN.finditer("".join(map(chr, range(len(table))))):
        table[match.start() : match.end()] = True
    return table


def special_characters(document: Document) -> float | None:
    """Share of the characters that are marks, symbols, spaces or digits."""
    return int(np.count_nonzero(_special_table()[document.codes])) / max(len(document.codes), 1)


def _share_in_list(kind: str) -> Measure:
    def measure(document: Document) -> float | None:
        words, wanted = document.bare_words, document.list_of(kind)
        if wanted is None or not len(words):
            return None
        return sum(map(wanted.hashes.__contains__, words["hash"].tolist())) / len(words)

    return measure


def _bad_words(document: Document) -> float | None:
    bad = document.list_of("bad_words")
    return None if bad is None else bad.found_in(document.text, document.spaces)


def _gopher_stop_words(document: Document) -> float | None:
    wanted = document.list_of("gopher_stop_words")
    return None if wanted is None else len(wanted.hashes.intersection(document.words["hash"].tolist()))


def _model(kind: str) -> Measure:
    return lambda document: document.models[kind](document.text) if kind in document.models else None


def _per_word(count: Callable[[str], int]) -> Measure:
    return lambda document: count(document.text) / document.token_count if document.token_count else None


def _share_of(lines_of: Callable[[Document], list[str]], test: Callable[[str, Document], bool]) -> Measure:
    def measure(document: Document) -> float | None:
        lines = lines_of(document)
        return sum(test(line, document) for line in lines) / len(lines) if lines else None

    return measure


def _mean_word_length(document: Document) -> float | None:
    words = document.words
    return float(words["length"][words["is_word"]].mean()) if document.word_count else None


def _words_with_letter(document: Document) -> float | None:
    words = document.words
    return int(np.count_nonzero(words["has_letter"])) / len(words) if len(words) else None


def _duplicate_characters(document: Document) -> float | None:
    lines = document.filled_lines
    share = duplicate_shares(lines, len(document.text.replace("\n", "")))[1]
    return share if lines else None


def _sentences(document: Document) -> float | None:
    enough = math.inf if document.exact else document.limits["c4_sentences"]
    return document.table.sentences_in(document.c4.kept, enough)


def _lines_per_word(document: Document) -> float | None:
    lines, pieces = document.text.count("\n"), len(document.text.split())
    if not document.exact and pieces and lines / pieces <= document.limits["fineweb_list"]:
        return lines / pieces  # there are at least as many words as pieces
    return lines / document.token_count if document.token_count else None


# Rules that need words of the language.
LISTS = {
    "gopher_stop_words": "gopher_stop_words", "bigscience_stop_words": "stop_words",
    "bigscience_flagged_words": "flagged_words", "c4_bad_words": "bad_words",
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One rule: a document stays if its measure is at least, or at most, the threshold.

    A measure of None means that the rule has nothing to say about this document. A rule without a measure changes the
    text (a line, a word or a mark goes) or is a number that another rule uses.
    """

    name: str
    about: str  # why a document is dropped, in words; or what is done to the text
    keep: Literal["at least", "at most", "changes the text", "is used"]
    threshold: float | None = None
    measure: Measure | None = None
    spaces_only: bool = False  # says nothing of languages that put no spaces between words

    def is_silent(self, document: Document) -> bool:
        """Whether it says nothing of the language of a document: there are no spaces, or no list of words."""
        return (self.spaces_only and not document.spaces) or (
            self.name in LISTS and document.list_of(LISTS[self.name]) is None
        )

    def value(self, document: Document) -> float | None:
        """What is measured, or None where the rule does not apply."""
        if self.measure is None or (self.spaces_only and not document.spaces):
            return None
        return self.measure(document)

    def accepts(self, value: float | None, threshold: float) -> bool:
        if value is None:
            return True
        return value >= threshold if self.keep == "at least" else value <= threshold


def _top_ngram(n: int, threshold: float) -> Rule:
    about = f"one {n}-gram of words makes up too much"
    return Rule(f"gopher_top_{n}_gram", about, "at most", threshold, lambda d: d.repetition[n], True)


def _repeated_ngrams(n: int, threshold: float) -> Rule:
    about = f"too much in repeated {n}-grams of words"
    return Rule(f"gopher_repeated_{n}_grams", about, "at most", threshold, lambda d: d.repetition[n], True)


# The sets in the order in which they are applied, which is that of FineWeb; each rule's threshold as published.
RULE_SETS: dict[str, tuple[Rule, ...]] = {
    "language": (
        Rule("language_score", "language not certain enough", "at least", 0.65, lambda d: d.language_score),
    ),
    "gopher_repetition": (
        Rule("gopher_duplicate_paragraphs", "too many duplicate paragraphs", "at most", 0.3,
             lambda d: d.duplicate_paragraphs[0]),
        Rule("gopher_duplicate_paragraph_characters", "too much text in duplicate paragraphs", "at most", 0.2,
             lambda d: d.duplicate_paragraphs[1]),
        Rule("gopher_duplicate_lines", "too many duplicate lines", "at most", 0.3, lambda d: d.duplicate_lines[0]),
        Rule("gopher_duplicate_line_characters", "too much text in duplicate lines", "at most", 0.2,
             lambda d: d.duplicate_lines[1]),
        _top_ngram(2, 0.2), _top_ngram(3, 0.18), _top_ngram(4, 0.16),
        _repeated_ngrams(5, 0.15), _repeated_ngrams(6, 0.14), _repeated_ngrams(7, 0.13),
        _repeated_ngrams(8, 0.12), _repeated_ngrams(9, 0.11), _repeated_ngrams(10, 0.1),
    ),
    "gopher_quality": (
        Rule("gopher_min_words", "too few words", "at least", 50, lambda d: d.word_count, True),
        Rule("gopher_max_words", "too many words", "at most", 100_000, lambda d: d.word_count, True),
        Rule("gopher_min_word_length", "words too short on average", "at least", 3, _mean_word_length, True),
        Rule("gopher_max_word_length", "words too long on average", "at most", 10, _mean_word_length, True),
        Rule("gopher_hashes", "too many hash signs for its words", "at most", 0.1, _per_word(lambda t: t.count("#")),
             True),
        Rule("gopher_ellipses", "too many ellipses for its words", "at most", 0.1,
             _per_word(lambda t: t.count("...") + t.count("…")), True),
        Rule("gopher_bullet_lines", "too many lines are bullet points", "at most", 0.9,
             _share_of(lambda d: d.lines, lambda line, d: line.lstrip().startswith(("•", "-")))),
        Rule("gopher_ellipsis_lines", "too many lines end in an ellipsis", "at most", 0.3,
             _share_of(lambda d: d.lines, lambda line, d: line.rstrip().endswith(("...", "…")))),
        Rule("gopher_words_with_letter", "too few words hold a letter", "at least", 0.8, _words_with_letter, True),
        Rule("gopher_stop_words", "too few stop words", "at least", 2, _gopher_stop_words),
    ),
    "c4": (
        Rule("c4_long_words", "lines with a word longer than this go", "changes the text", 1000),
        Rule("c4_citations", "[1], [edit] and [citation needed] go", "changes the text"),
        Rule("c4_terminal_punctuation", "lines that do not end as a sentence does go", "changes the text"),
        Rule("c4_words_per_line", "lines with fewer words go", "changes the text", 3),
        Rule("c4_javascript", "lines that mention Javascript go", "changes the text"),
        Rule("c4_policy", "lines on cookies, privacy and terms of use go", "changes the text"),
        Rule("c4_lorem_ipsum", "holds lorem ipsum", "at most", 0, lambda d: d.c4.lorem_ipsum),
        Rule("c4_curly_bracket", "holds a curly bracket", "at most", 0, lambda d: d.c4.curly_brackets),
        Rule("c4_sentences", "too few sentences", "at least", 5, _sentences, True),
        Rule("c4_bad_words", "holds bad words", "at most", 0, _bad_words),
    ),
    "fineweb": (
        Rule("fineweb_line_punctuation", "too few lines end as a sentence does", "at least", 0.12,
             _share_of(lambda d: d.filled_lines, lambda line, d: line[-1] in SENTENCE_END)),
        Rule("fineweb_short_lines", "too many short lines", "at most", 0.67,
             _share_of(lambda d: d.filled_lines, lambda line, d: len(line) <= d.limits["fineweb_short_line_length"]),
             True),
        Rule("fineweb_short_line_length", "characters up to which a line is short", "is used", 30),
        Rule("fineweb_duplicate_characters", "too much text in duplicate lines", "at most", 0.01,
             _duplicate_characters),
        Rule("fineweb_list", "too many lines for its words", "at most", 0.3, _lines_per_word, True),
    ),
    "bigscience": (
        Rule("bigscience_links", "words with http, www, .com, href or // go", "changes the text"),
        Rule("bigscience_long_words", "words longer than this go", "changes the text", 25),
        Rule("bigscience_min_words", "too few words", "at least", 20, lambda d: len(d.bare_words), True),
        Rule("bigscience_max_words", "too many words", "at most", 100_000, lambda d: len(d.bare_words), True),
        Rule("bigscience_character_repetition", "too much repetition of characters", "at most", 0.106,
             character_repetition),
        Rule("bigscience_word_repetition", "too much repetition of words", "at most", 0.19, word_repetition, True),
        Rule("bigscience_special_characters", "too many special characters", "at most", 0.4, special_characters),
        Rule("bigscience_stop_words", "too few stop words", "at least", 0.3, _share_in_list("stop_words"), True),
        Rule("bigscience_flagged_words", "too many flagged words", "at most", 0.01,
             _share_in_list("flagged_words"), True),
        Rule("bigscience_language_score", "language not certain enough", "at least", 0.8, lambda d: d.language_score),
    ),
    "models": (
        Rule("max_perplexity", "perplexity too high", "at most", 1500, _model("perplexity")),
        Rule("min_fasttext_score", "fastText score too low", "at least", 0.5, _model("fasttext")),
    ),
}  # fmt: skip
RULES = {rule.name: rule for rules in RULE_SETS.values() for rule in rules}


@dataclass
class Judgement:
    """What the rules say of a document."""

    text: str  # as the rules leave it
    reason: str = ""  # the first rule that drops it, in words; empty: it stays
    detail: str = ""
    judged_as: str = ""  # the language
    skipped: tuple[str, ...] = ()  # rules that say nothing of that language
    values: dict[str, tuple[Any, Any, bool]] = field(default_factory=dict)  # rule -> value, threshold, accepted


def judge(document: Document) -> Judgement:
    """Apply the rules that `document.limits` names, in the order of RULE_SETS; stop at the first that drops it, unless
    `document.exact`. What a set of rules changes in the text is changed for all that follow."""
    verdict = Judgement(document.text)
    wanted = {language_of_code(language) for language in document.languages}
    verdict.judged_as = document.judged_as or "unknown"
    asked = document.limits
    document = replace(document, limits=limits_for(asked, document.own, document.judged_as))
    verdict.skipped = tuple(name for name in asked if name not in document.limits or RULES[name].is_silent(document))
    if document.languages:
        accepted = document.language is not None and language_of_code(document.language) in wanted
        verdict.values["language"] = (document.language, " ".join(document.languages), accepted)
        if not accepted:
            verdict.reason, verdict.detail = "language: not one of those wanted", f"language {document.language}"
            if not document.exact:
                return verdict
    for name, rules in RULE_SETS.items():
        active = [rule for rule in rules if rule.name in document.limits]
        if name == "bigscience" and any(rule.keep == "changes the text" for rule in active):
            document = document.with_text(clean_as_bigscience(document.text, document.limits))
        for rule in active:
            if rule.measure is None:
                continue
            threshold = document.limits[rule.name]
            value = rule.value(document)
            accepted = rule.accepts(value, threshold)
            verdict.values[rule.name] = (value, threshold, accepted)
            if not accepted and not verdict.reason:
                verdict.reason = f"{name.split('_')[0]}: {rule.about}"
                verdict.detail = f"{rule.name} {_short(value)}, {rule.keep} {_short(threshold)}"
                if not document.exact:
                    return verdict
        if name == "c4" and active:
            document = document.with_text(document.c4.text)
        if not document.text.strip() and not verdict.reason:
            verdict.reason = "nothing is left of its text" if verdict.text.strip() else "no text"
            if not document.exact:
                return verdict
    verdict.text = document.text
    return verdict


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
