"""Fingerprints of texts: one hash of the normalised text, and MinHash keys by which similar texts meet.

A text is normalised (Unicode NFKC, case folded, punctuation and symbols turned to spaces, but for C++ and C#) and cut
into words. An emoji is a word, and so is each character of a script that is written without spaces; Tibetan, whose
syllables are divided by a mark, is cut there. What is compared are sets of `ngram` consecutive words (shingles); a
text of fewer words is one shingle. A function that gives the smallest hash of a set agrees on two sets with
probability J, their Jaccard similarity (Broder 1997, "On the resemblance and containment of documents"). `bands` x
`rows` such functions are taken; two texts meet if all `rows` values of any band agree, so with probability

    1 - (1 - J ** rows) ** bands        (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3)

which for 14 x 8 is 5% at J = 0.5, 21% at 0.6, 56% at 0.7, 92% at 0.8 and 99.96% at 0.9.

The functions are h_i(x) = low(x) + m_i * high(x) modulo 2**32, of the two halves of a 64-bit hash x (the idea of
double hashing: Kirsch and Mitzenmacher 2006). With x random, each h_i alone is a random function, because low(x) is,
and any two are independent but for the few low bits in which m_i - m_j is even. Against a * x + b modulo a prime it
costs one 32-bit multiplication, of which a core does eight at a time. That the formula above holds with it is measured
by evaluation/bench/deduplicate.py and by a test.

Everything is a function of the text alone: no random state, and the same bits on every machine, as all arithmetic is
modulo 2**64 and bytes are read as little-endian. Only Python's tables of Unicode can differ between its versions.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_prep.languages import IDEOGRAPHS, LETTERS

U64 = NDArray[np.uint64]
PIECE = 2**20  # characters normalised at a time, which bounds what one huge text takes
BLOCK = 2**14  # shingles hashed at a time, which stay in a core's cache

# Punctuation, symbols, spaces and controls outside ASCII. Marks are not among them: in many scripts they are vowels.
_BETWEEN = re.compile(
    "["
    + "".join(
        chr(c)
        for c in range(0x80, 0x10000)
        if (kind := unicodedata.category(chr(c)))[0] in "PSZ" or kind in ("Cc", "Cf")
    )
    + "]"
)
_OWN_WORD = re.compile(f"[{IDEOGRAPHS}{LETTERS}\U0001f000-\U0001faff]")  # the last: emoji
# ASCII: letters to lower case, digits stay, the rest to spaces. The bytes of other characters stay. Two bytes that
# UTF-8 never has stand for signs that belong to a name: C, C++ and C# are three words. The pattern looks back from the
# sign: one that begins with a look back is tried at every byte.
_ASCII = bytes(c if c >= 0x80 else ord(chr(c).lower()) if chr(c).isalnum() else 0x20 for c in range(254)) + b"+#"
_IN_NAMES = rb"[0-9A-Za-z\x80-\xff]"
_NAME_SIGNS = re.compile(rb"(?:\+(?<=%b\+)\+?|#(?<=%b#))(?!%b|[+#])" % (_IN_NAMES, _IN_NAMES, _IN_NAMES))
_HIDE = bytes.maketrans(b"+#", b"\xfe\xff")


def words_of(text: str) -> list[bytes]:
    """The normalised words of a text, in UTF-8."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).casefold()
        text = _OWN_WORD.sub(r" \g<0> ", _BETWEEN.sub(" ", text))
    content = text.encode("utf-8", "surrogatepass")
    if b"+" in content or b"#" in content:
        content = _NAME_SIGNS.sub(lambda found: found[0].translate(_HIDE), content)
    return content.translate(_ASCII).split()


def pieces_of(text: str) -> Iterator[list[bytes]]:
    """The words of a text, about `PIECE` characters at a time; a word is cut only where it is longer than that."""
    start = 0
    while len(text) - start > PIECE:
        end = start + PIECE
        space = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
        end = space if space > start else end
        yield words_of(text[start:end])
        start = end
    yield words_of(text[start:] if start else text)


def hash_of_words(text: str, seed: int = 0) -> int | None:
    """64 bits of the normalised text, None if it has no words."""
    state = xxhash.xxh3_64(seed=seed)
    empty = True
    for words in pieces_of(text):
        if words:
            state.update(b" ".join(words) + b" ")
            empty = False
    return None if empty else state.intdigest()


def hash_of_bytes(text: str) -> int:
    """64 bits of the text as it is, less blanks around it: what is compared of a text without words."""
    return xxhash.xxh3_64_intdigest(text.strip().encode("utf-8", "surrogatepass"))


def mix(values: U64) -> U64:
    """Spread 64-bit values over all 64 bits, one to one (the last steps of splitmix64: Steele, Lea, Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def constants(count: int, name: int) -> U64:
    """`count` fixed numbers that look random, another series for each `name`."""
    return mix(np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(name << 32))


class MinHash:
    """Signs texts. The settings alone decide what it returns."""

    def __init__(self, bands: int = 14, rows: int = 8, ngram: int = 5) -> None:
        self.bands, self.rows, self.ngram = bands, rows, ngram
        self.multipliers = (constants(bands * rows, 1) >> np.uint64(32)).astype(np.uint32)
        self.places = constants(ngram, 2) | np.uint64(1)  # what a word's hash is multiplied by, at each place
        self.band_names = constants(bands, 3)

    def sign(self, texts: Sequence[str]) -> tuple[U64, U64, NDArray[np.bool_]]:
        """Return hashes of the normalised texts (n), keys of the bands (n, bands), and which texts have words (n).

        The keys of a text without words mean nothing.
        """
        exact = np.zeros(len(texts), np.uint64)
        minima, has_words = self.minima(texts, exact)
        keys = np.broadcast_to(self.band_names, (len(texts), self.bands))
        for row in range(self.rows):
            keys = mix(keys + minima[:, row :: self.rows])
        return exact, keys, has_words

    def minima(self, texts: Sequence[str], exact: U64 | None = None) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """The smallest value of each function on each text (n, bands * rows), and which texts have words (n).

        The share of equal values in two rows estimates the Jaccard similarity. Values of band b stand at
        [b * rows : (b + 1) * rows]. Writes the hashes of the normalised texts into `exact`.
        """
        minima = np.full((len(texts), self.bands * self.rows), 0xFFFFFFFF, np.uint32)
        has_words = np.zeros(len(texts), bool)
        blocks: list[U64] = []
        owners: list[int] = []
        size = 0
        for index, text in enumerate(texts):
            state = xxhash.xxh3_64()
            rest: U64 = np.zeros(0, np.uint64)  # the last words of the piece before, whose shingles go on in this one
            count = 0
            for words in pieces_of(text):
                if not words:
                    continue
                state.update(b" ".join(words) + b" ")
                hashes = np.frombuffer(b"".join(map(xxhash.xxh3_64_digest, words)), ">u8").astype(np.uint64)
                hashes = np.concatenate([rest, hashes])
                count += len(words)
                rest = hashes[max(len(hashes) - self.ngram + 1, 0) :]
                shingles = self.shingles(hashes)
                for start in range(0, len(shingles), BLOCK):
                    blocks.append(shingles[start : start + BLOCK])
                    owners.append(index)
                    size += len(blocks[-1])
                    if size >= BLOCK:
                        self._lower(minima, blocks, owners)
                        blocks, owners, size = [], [], 0
            if 0 < count < self.ngram:
                blocks.append(self.shingles(np.concatenate([rest, np.zeros(self.ngram - count, np.uint64)])))
                owners.append(index)
                size += 1
            has_words[index] = count > 0
            if exact is not None:
                exact[index] = state.intdigest() if count else hash_of_bytes(text)
        self._lower(minima, blocks, owners)
        return minima, has_words

    def shingles(self, hashes: U64) -> U64:
        """The hash of each run of `ngram` words, given the words' hashes; none if there are fewer."""
        count = max(len(hashes) - self.ngram + 1, 0)
        total = np.zeros(count, np.uint64)
        for place, factor in enumerate(self.places):
            total += hashes[place : place + count] * factor
        return mix(total)

    def _lower(self, minima: NDArray[np.uint32], blocks: list[U64], owners: list[int]) -> None:
        """Lower `minima[owner]` to the smallest values on the shingles of each block."""
        if not blocks:
            return
        shingles = np.concatenate(blocks)
        high, low = (shingles >> np.uint64(32)).astype(np.uint32), shingles.astype(np.uint32)
        starts = np.cumsum([0, *map(len, blocks[:-1])])
        found = np.empty((len(blocks), len(self.multipliers)), np.uint32)
        values = np.empty_like(low)
        for column, multiplier in enumerate(self.multipliers):
            np.multiply(high, multiplier, out=values)
            np.add(values, low, out=values)
            found[:, column] = np.minimum.reduceat(values, starts)
        np.minimum.at(minima, owners, found)  # a long text has several blocks
