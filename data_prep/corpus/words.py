"""Words as contamination checks and counts see them: without case, punctuation and the tokenization of treebanks."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from data_prep.languages import IDEOGRAPHS, LETTERS, TIBETAN, UNSPACED

# Of Chinese and Japanese each character is a word. Thai, Lao, Khmer, Burmese and Tibetan are cut at the marks over and
# under their letters, which are no letters for `re`: two to five letters, so that 13 of them say as much as 6 to 13
# words; 13 letters would say as little as 3.
# At most 64 letters, so that a line of a million letters is not one key of a cache.
_WORD = re.compile(f"[{IDEOGRAPHS}]|[^\\W_{IDEOGRAPHS}]{{1,64}}")
_UNSPACED_WORD = re.compile(f"[{IDEOGRAPHS}]|(?:(?=\\w)[{LETTERS}{TIBETAN}])+")
# GLUE writes "do n't" and "it 's". One space only: with `\s+` a megabyte of spaces would take hours.
_SPLIT_ENDING = re.compile(r"\s(?=n['’]t\b|['’](?:s|re|ve|ll|d|m)\b)")
PIECE = 500_000  # characters looked at together; bounds the memory that one huge text takes


def normalised_words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation and apostrophes ("It's" and "it 's" are "its")."""
    text = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(_SPLIT_ENDING.sub("", text).replace("'", "").replace("’", ""))


def words_in_pieces(text: str, overlap: int = 0) -> Iterator[list[str]]:
    """`normalised_words` in lists of bounded length; each begins with the last `overlap` words of the one before."""
    before: list[str] = []
    start = 0
    while start < len(text):
        end = start + PIECE
        if end < len(text):  # not within a word, if there is a space at all
            space = text.find(" ", end, end + 1000)
            end = space if space >= 0 else end
        words = normalised_words(text[start:end])
        yield before + words
        before = (before + words)[-overlap:] if overlap else []
        start = end


@lru_cache(maxsize=2**18)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


def word_hashes(words: list[str]) -> np.ndarray:
    """One uint64 for each word, the same on any machine."""
    return np.fromiter(map(_word_hash, words), dtype=np.uint64, count=len(words))


def count_words(text: str) -> int:
    """What stands between spaces; in scripts without spaces, the words of `normalised_words` too. For estimates."""
    words = len(text.split())
    if text.isascii() or not UNSPACED.search(text):
        return words
    return words + len(_UNSPACED_WORD.findall(text))
