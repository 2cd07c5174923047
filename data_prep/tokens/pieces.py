"""A long text in pieces: a tokenizer takes over 100 bytes of memory for each character that it is given at once."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

CHARACTERS = 100_000  # of a piece
# Where a text is cut, best first; the cut is where the match ends. A byte-level tokenizer takes the last space before
# a word into the word, so it belongs to the piece behind.
_PLACES = (
    re.compile(r".*\S(?= [^\W_])", re.DOTALL),
    re.compile(r".*(?=\s\S)", re.DOTALL),
    re.compile(r".*[\u3001\u3002\uff01\uff0c\uff1b\uff1f.,;!?](?=[^\W_])", re.DOTALL),
)
_TIED_BEFORE = "\uff9e\uff9f"  # voicing of halfwidth kana, no mark by its category
_TIED_BEHIND = "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4"  # vowels before their letter: Thai, Lao
_JAMO = re.compile(".[\u1160-\u11ff\ud7b0-\ud7ff]")  # vowels and finals of a Korean syllable in single letters
_VIRAMA = 9  # Unicode's combining class of the mark that ties two consonants


def cut(text: str, most: int = CHARACTERS) -> Iterator[str]:
    """Pieces of at most `most` characters, of which none is lost.

    The cut is before the space before a word, so that the tokens are those of the whole; in text without spaces it is
    behind punctuation, or else between two letters, never between a letter and its marks: there a token may differ.
    """
    start = 0
    while len(text) - start > most:
        end = _place(text, start + most // 2 + 1, start + most)
        yield text[start:end]
        start = end
    yield text[start:]


def _place(text: str, low: int, high: int) -> int:
    for pattern in _PLACES:
        if (found := pattern.match(text, low - 1, high)) and found.end() >= low:
            return found.end()
    return next((place for place in range(high, low - 1, -1) if _is_boundary(text[place - 1], text[place])), high)


def _is_boundary(before: str, behind: str) -> bool:
    """Whether a letter and its marks end between two characters."""
    invisible = "Cf" in (unicodedata.category(before), unicodedata.category(behind))  # joiners
    is_mark = unicodedata.category(behind).startswith("M") or behind in _TIED_BEFORE
    is_tied = before in _TIED_BEHIND or unicodedata.combining(before) == _VIRAMA or _JAMO.match(before + behind)
    return not (invisible or is_mark or is_tied)


def cut_for(encoder: Any, text: str, most: int = CHARACTERS) -> Iterator[tuple[str, int]]:
    """`cut`, each piece as this tokenizer (`raw_text_encoder`) must be given it to go on with the one before, and how
    many characters of the text it is.

    Most take a space at the start as they take it between words, some (Llama's) put one there themselves. A text stays
    whole where neither gives the tokens of the whole, as with a tokenizer whose tokens reach over spaces.
    """
    lead: str | None = " "
    if len(text) > most:
        ids = [encoder.encode(part, add_special_tokens=False).ids for part in ("ab cd ef", "ab", " cd ef", "cd ef")]
        lead = " " if ids[1] + ids[2] == ids[0] else "" if ids[1] + ids[3] == ids[0] else None
    for number, piece in enumerate([text] if lead is None else cut(text, most)):
        yield (piece if lead or not number else piece.removeprefix(" ")), len(piece)
