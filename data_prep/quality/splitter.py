"""Text to words, as the published quality filters count them, and words to arrays, so that counting is fast.

The filters of FineWeb and datatrove were run on the words of spaCy's English tokenizer: punctuation marks are words of
their own, "don't" is two words, "e-mail" three. The steps of that tokenizer are documented at
https://spacy.io/usage/linguistic-features#how-tokenizer-works; this module follows them with rules of its own, and
`evaluation/bench/filters.py` measures how often the decisions agree. What stands between two spaces is split once and
then looked up.
"""

import math
import re
import struct
from collections.abc import Callable, Iterable

import numpy as np
import regex
import xxhash

LONGEST_PIECE = 512  # characters between two spaces; longer ones (binary data, text without spaces) are cut simply
LONGEST_SUFFIX = 64  # so that time stays proportional to length
MOST_PIECES = 400_000  # known at a time; then all are forgotten: bounds memory

_PRONOUNS = {
    "i": "'m 'll 'd 've m d ve",
    "you": "'ll 'd 've 're ll d ve re",
    "he": "'ll 'd 's d s",
    "she": "'ll 'd 's s",
    "it": "'ll 'd 's ll d",
    "we": "'ll 'd 've 're d ve",
    "they": "'ll 'd 've 're ll d ve re",
    **dict.fromkeys(("who", "what", "when", "where", "why", "how", "there", "that"), "'ll 'd 's 're 've ll d s re ve"),
    "this": "'ll 'd 's ll d s",
    **dict.fromkeys(("these", "those"), "'ll 'd 're 've ll d re ve"),
    **dict.fromkeys(("could", "might", "must", "should", "would"), "'ve ve"),
    "let": "'s",
}
_NOT = "ai are ca could dare did do does had has have is may might must need ought sha should was were wo would"  # n't
_WHOLE = (  # abbreviations and short forms whose marks belong to the word
    "and/or w/o ma'am o'clock O'clock 'em 'll 're 's 'S 'd 'cause 'Cause 'cos 'cuz 'bout "
    "doin' goin' nothin' somethin' lovin' havin' ol' C++ "
    "Adm. Bros. Co. co. Corp. Dr. Gen. Gov. Inc. Jr. Ltd. Messrs. Mr. Mrs. Ms. Mt. Prof. Ph.D. Rep. Rev. Sen. St. "
    "a.m. p.m. e.g. E.g. i.e. I.e. vs. v.s. D.C. N.C. N.D. N.H. N.J. N.M. N.Y. S.C. "
    "Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec. "
    "Ala. Ariz. Ark. Calif. Colo. Conn. Del. Fla. Ga. Ia. Id. Ill. Ind. Kan. Kans. Ky. La. Mass. Md. Mich. Minn. "
    "Miss. Mo. Mont. Neb. Nebr. Nev. Okla. Ore. Pa. Tenn. Va. Wash. Wis. ä. ö. ü. "
    ":) :-) ;) ;-) :( :-( :D :P :/ :| =) (: (; :O :o <3 </3 ^_^ :3 XD xD -_- o_O \\n \\t"
)


def _fixed_splits() -> dict[str, tuple[str, ...]]:
    """Pieces that are split in a way of their own, or not at all though they hold marks."""
    splits: dict[str, tuple[str, ...]] = {}
    for word, endings in _PRONOUNS.items():
        for ending in endings.split():
            splits[word + ending] = (word, ending)
            if ending in ("'ll", "'d"):
                splits[word + ending + "'ve"] = (word, ending, "'ve")
    for word in _NOT.split():
        splits |= {f"{word}n't": (word, "n't"), f"{word}nt": (word, "nt"), f"{word}n't've": (word, "n't", "'ve")}
    splits |= {
        "cannot": ("can", "not"),
        "gonna": ("gon", "na"),
        "gotta": ("got", "ta"),
        "y'all": ("y'", "all"),
        "c'mon": ("c'm", "on"),
    }
    for hour in range(1, 13):
        splits |= {f"{hour}{half}": (str(hour), half) for half in ("am", "pm", "a.m.", "p.m.")}
    splits |= {parts[0].title() + "".join(parts[1:]): (parts[0].title(), *parts[1:]) for parts in splits.values()}
    splits |= {whole: (whole,) for whole in _WHOLE.split()}
    splits |= {f"{letter}.": (f"{letter}.",) for letter in "abcdefghijklmnopqrstuvwxyz"}
    return splits | {key.replace("'", "’"): tuple(part.replace("'", "’") for part in splits[key]) for key in splits}


_FIXED = _fixed_splits()
_MARK = r"[…,:;!?¿؟¡()\[\]{}<>_#*&。？！，、；：～·।،۔؛٪'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉⟦⟧]|……|\p{So}"
_UNITS = (
    "km²|km³|km|m²|m³|m|dm|cm²|cm³|cm|mm²|mm³|mm|ha|µm|nm|yd|in|ft|kg|g|mg|µg|t|lb|oz|m/s|km/h|kmh|mph|hPa|Pa|mbar|"
    "mb|MB|kb|KB|gb|GB|tb|TB|T|G|M|K|%"
)
_PREFIX = regex.compile(rf"\.\.+|……|{_MARK}|[§%=—–]|\+(?![0-9])|(?:US|C|A)?\$|\p{{Sc}}")
_SUFFIX = regex.compile(
    rf"(?:\.\.+|……|{_MARK}|'[sS]|’[sS]|[—–]|(?<=[0-9])\+|(?<=°[FfCcKk])\.|(?<=[0-9])(?:US\$|C\$|A\$|\p{{Sc}})"
    rf"|(?<=[0-9])(?:{_UNITS})|(?<=[0-9\p{{Ll}}\p{{Lo}}%²+\-]|{_MARK})\.|(?<=[\p{{Lu}}\p{{Lo}}][\p{{Lu}}\p{{Lo}}])\.)$"
)
_QUOTE = r"['\"”“`‘´’‚„»«]"
_INFIX = regex.compile(
    rf"\.\.+|…|\p{{So}}|(?<=[0-9])[+\-*^](?=[0-9-])|(?<=\p{{Ll}}|\p{{Lo}}|{_QUOTE})\.(?=\p{{Lu}}|\p{{Lo}}|{_QUOTE})"
    r"|(?<=\p{L}),(?=\p{L})|(?<=[\p{L}0-9])(?:---?|——|[-–—~])(?=\p{L})|(?<=[\p{L}0-9])[:<>=/](?=\p{L})"
)
_ADDRESS = regex.compile(
    r"(?:[\w+.-]{2,}://)?(?:\S+@)?"
    r"(?:(?:[1-9][0-9]{0,2}(?:\.[0-9]{1,3}){3})|(?:[^\W_](?:[\w-]*[^\W_])?\.)+[\p{Ll}\p{Lo}]{2,63})"
    r"(?::[0-9]{2,5})?(?:[/?#]\S*)?"
)
_COMMON = re.compile(
    r"""(["“(\['‘$£€]?)(?:([0-9]+(?:[.,][0-9]+)*)|([A-Za-z]+(?:-[A-Za-z]+)*))((?:'s|’s)?)([.,;:!?)\]"”]*)"""
)
_HYPHENS = re.compile("(-)")
_SIMPLE = regex.compile(r"[\p{L}\p{M}\p{N}]{1,256}|[^\p{L}\p{M}\p{N}]")


def split_piece(piece: str) -> list[str]:
    """The words of a piece of text that holds no white space."""
    if piece in _FIXED:
        return list(_FIXED[piece])
    if piece.isalpha():
        return [piece]
    if len(piece) > LONGEST_PIECE:
        return _SIMPLE.findall(piece)
    if (common := _COMMON.fullmatch(piece)) and (words := _split_common(*common.groups())):
        return words
    front: list[str] = []
    back: list[str] = []
    while piece and piece not in _FIXED:
        before = _PREFIX.match(piece)
        start = before.end() if before else 0
        rest = piece[start:]
        if start and rest in _FIXED:
            front.append(piece[:start])
            piece = rest
            break
        after = _SUFFIX.search(piece, max(start, len(piece) - LONGEST_SUFFIX))
        end = after.start() if after else len(piece)
        if after and piece[:end] in _FIXED:
            back.append(piece[end:])
            piece = piece[:end]
            break
        if not before and not after:
            break
        if before:
            front.append(piece[:start])
        if after:
            back.append(piece[end:])
        piece = piece[start:end]
    if piece:
        front += _FIXED.get(piece) or _split_inside(piece)
    return front + back[::-1]


def _split_common(opening: str, number: str, word: str, genitive: str, closing: str) -> list[str] | None:
    """The same as the loop in `split_piece` finds, for most pieces and fast; None if the loop has to look."""
    body = number or word
    if "." in closing and (".." in closing or not (number or body[-1].islower()) or f"{body}." in _FIXED):
        return None
    if opening and (opening + body in _FIXED or opening + body + genitive in _FIXED or body in _FIXED):
        return None
    words = [opening] if opening else []
    words += [body] if "-" not in body else _HYPHENS.split(body)
    if body in _FIXED:
        words[-1:] = _FIXED[body]
    if genitive:
        words.append(genitive)
    return words + list(closing)


def _split_inside(piece: str) -> list[str]:
    if piece.isalnum() or _ADDRESS.fullmatch(piece):
        return [piece]
    words, start = [], 0
    for match in _INFIX.finditer(piece):
        if match.start() == 0:
            continue
        if match.start() > start:
            words.append(piece[start : match.start()])
        words.append(match.group())
        start = match.end()
    return [*words, piece[start:]] if start < len(piece) else words


# All marks that end a sentence in some script, and all characters that do not make a word.
SENTENCE_END = frozenset([*regex.findall(r"\p{Sentence_Terminal}", "".join(map(chr, range(0x20000)))), *"؞⸼៖៙៚"])
_NO_WORD = regex.compile(
    r"[\p{Cc}!-/:-@\[-`{-~—–…“”„’«»´、。〈〉《》「」【】━％（），．：；？！～∶►１\p{Sentence_Terminal}]+"
)
_PUNCTUATION = regex.compile(r"\p{P}+")
SPECIAL = r"\p{P}\p{S}\p{Z}\p{C}0-9"  # BigScience's "special characters": marks, symbols, spaces, digits
SPECIAL_ENDS = regex.compile(rf"^[{SPECIAL}]+|[{SPECIAL}]+$")
_NEXT_SENTENCE = re.compile(b"e[ep]*w")

# What the rules ask of a word, as 16 bytes, so that the words of a text are one array.
WORD = np.dtype(
    [
        ("hash", "<u8"),
        ("length", "<u4"),  # in characters
        ("is_word", "?"),  # it holds a character that is not a mark
        ("has_letter", "?"),
        ("kind", "S1"),  # e: ends a sentence, p: another mark, w: neither
        ("unused", "S1"),
    ]
)
_pack = struct.Struct("<QI??cx").pack


def hash_of(word: str) -> int:
    """64 bits, the same on any machine."""
    return xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))


def _record(word: str) -> bytes:
    if word.isalpha():
        return _pack(hash_of(word), len(word), True, True, b"w")
    if word.isalnum():
        return _pack(hash_of(word), len(word), True, any(map(str.isalpha, word)), b"w")
    kind = b"e" if word in SENTENCE_END else b"p" if _PUNCTUATION.fullmatch(word) else b"w"
    return _pack(hash_of(word), len(word), not _NO_WORD.fullmatch(word), any(map(str.isalpha, word)), kind)


class _Known(dict[str, bytes]):
    """Remembers what `make` said of a piece."""

    def __init__(self, make: Callable[[str], bytes]) -> None:
        self.make = make

    def __missing__(self, piece: str) -> bytes:
        value = self[piece] = self.make(piece)
        return value


class WordTable:
    """The words of texts as arrays of WORD. What stands between two spaces is split once and then remembered."""

    def __init__(self) -> None:
        self._words = _Known(_record)
        self._pieces = _Known(self._split)
        self._bare_pieces = _Known(self._strip)

    def _split(self, piece: str) -> bytes:
        if piece.isalpha() and piece not in _FIXED:
            return self._words[piece]
        return b"".join(map(self._words.__getitem__, split_piece(piece)))

    def _strip(self, piece: str) -> bytes:
        bare = SPECIAL_ENDS.sub("", piece.lower())
        return self._words[bare] if bare else b""

    def words_of(self, text: str) -> np.ndarray:
        """The words of `text` in order, an array of WORD."""
        return np.frombuffer(b"".join(map(self._pieces.__getitem__, text.split())), WORD)

    def count_words(self, text: str) -> int:
        """How many words `words_of` would give."""
        return sum(map(len, map(self._pieces.__getitem__, text.split()))) // WORD.itemsize

    def bare_words_of(self, text: str) -> np.ndarray:
        """The lower-case words without marks and digits at their ends, as BigScience counts them."""
        return np.frombuffer(b"".join(map(self._bare_pieces.__getitem__, text.split())), WORD)

    def sentences_in(self, lines: Iterable[str], enough: float = math.inf) -> int:
        """How many sentences stand in these lines, counted until there are `enough`: a new one starts after a mark
        that ends one, and with each line that is not empty."""
        count = 0
        for line in filter(None, lines):
            if count >= enough:
                break
            count += 1 + len(_NEXT_SENTENCE.findall(self.words_of(line)["kind"].tobytes()))
        return count

    def trim(self) -> None:
        """To be called between two texts: forget all when too much is known."""
        if len(self._words) + len(self._pieces) + len(self._bare_pieces) > MOST_PIECES:
            for known in (self._words, self._pieces, self._bare_pieces):
                known.clear()
