"""What the rules of C4 and BigScience remove from a text before they judge it: lines, words, marks of citation."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from data_prep.quality.splitter import SENTENCE_END, SPECIAL_ENDS

POLICY_PHRASES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
LINK_MARKS = ("http", "www", ".com", "href", "//")

_ENGLISH_ENDS = (".", "?", "!", '"', "'")
_ENDS = (*SENTENCE_END, *"\"'»«”“’』」）)")
_CITATION = re.compile(r"\[[0-9]*\]|\[edit\]|\[citation needed\]")
_LINKS = re.compile("|".join(map(re.escape, LINK_MARKS)))


@dataclass(frozen=True)
class C4Lines:
    """What is left of a text after C4's rules for lines, and what they saw."""

    text: str
    kept: tuple[str, ...]
    removed: int
    lorem_ipsum: int
    curly_brackets: int


def clean_as_c4(text: str, limits: Mapping[str, float], spaces: bool = True, english: bool = True) -> C4Lines:
    """Remove the lines that C4's rules (those named in `limits`) do not want; lines lose the spaces at their ends.

    Marks of citation are removed from the lines that stay. Without spaces between words, lines are not judged by
    their words or by marks at their end. C4's marks are English; in other languages all that end a sentence count.
    """
    kept: list[str] = []
    lower = text.lower()
    longest = limits.get("c4_long_words", math.inf) if spaces else math.inf
    least = int(limits.get("c4_words_per_line", 0)) if spaces else 0
    citations = "c4_citations" in limits and "[" in text
    marks = _ENGLISH_ENDS if english else _ENDS
    ends = "c4_terminal_punctuation" in limits and spaces
    javascript = "c4_javascript" in limits and "javascript" in lower
    policy = "c4_policy" in limits and any(phrase in lower for phrase in POLICY_PHRASES)
    latin, lorem, brackets = "lorem" in lower, 0, 0
    lines = text.splitlines()
    for line in lines:
        line = line.strip()
        if len(line) > longest and any(len(word) > longest for word in line.split()):
            continue
        few = least > 0 and len(line.split(None, least - 1)) < least
        if citations:
            line = _CITATION.sub("", line)
        if few or (ends and (not line.endswith(marks) or line.endswith("..."))):
            continue
        lorem += latin and "lorem ipsum" in line.lower()
        if javascript and "javascript" in line.lower():
            continue
        brackets += "{" in line
        if policy and any(phrase in line.lower() for phrase in POLICY_PHRASES):
            continue
        kept.append(line)
    return C4Lines("\n".join(kept).strip(), tuple(kept), len(lines) - len(kept), lorem, brackets)


def clean_as_bigscience(text: str, limits: Mapping[str, float]) -> str:
    """Remove what looks like a link, and words that are too long, as BigScience did before its filters.

    Other than there, lines stay lines. Runs of spaces become one, empty lines go.
    """
    links = "bigscience_links" in limits
    longest = limits.get("bigscience_long_words", math.inf)

    def wanted(piece: str) -> bool:
        if not (links and _LINKS.search(piece)) and len(piece) <= longest:
            return True
        bare = SPECIAL_ENDS.sub("", piece)
        return not (links and _LINKS.search(bare)) and (len(piece) <= longest or 0 < len(bare) <= longest)

    kept = []
    for line in text.split("\n"):
        pieces = line.split()
        if (links and _LINKS.search(line)) or (len(line) > longest and max(map(len, pieces), default=0) > longest):
            pieces = list(filter(wanted, pieces))
        if pieces:
            kept.append(" ".join(pieces))
    return "\n".join(kept)
