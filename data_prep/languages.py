"""Codes of languages, and the languages and scripts that put no spaces between words: the one list of them.

Two kinds of script are told apart. In Chinese characters and the Japanese syllabaries a character is a word or most of
one. In the scripts of South-East Asia it is a letter, as in Latin: four or five make a word, and only a dictionary
tells where it ends (Unicode's line breaking calls this class SA, https://www.unicode.org/reports/tr14/). Tibetan
divides syllables, by a mark of its own, U+0F0B: for whoever splits at punctuation its syllables are words.
"""

import re
import unicodedata

# ISO 639 codes, by script. Min Nan, Hakka and Min Dong are not among them: their Wikipedias write Latin letters.
_BY_SCRIPT = {
    "Chinese characters": "gan lzh wuu yue zh",
    "Chinese characters and syllabaries": "ja",
    "Khmer": "km",
    "Lao": "lo",
    "Myanmar": "blk mnw my rki shn",
    "Tai Le": "tdd",
    "Thai": "th",
    "Tibetan": "bo dz",
}
WITHOUT_SPACES = frozenset(code for codes in _BY_SCRIPT.values() for code in codes.split())

# The inside of a character class of `re`.
IDEOGRAPHS = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303b"  # marks of repetition, numerals
    "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001aff0-\U0001b16f"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00016fe2-\U00016ff6\U00020000-\U0003ffff"  # Chinese characters
)
LETTERS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\U000116d0-\U000116ff"  # Myanmar
    "\u1780-\u17ff\u19e0-\u19ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf\U00011700-\U0001174f"  # Tai Le, New Tai Lue, Tai Tham, Tai Viet, Ahom
)
TIBETAN = "\u0f00-\u0fff"

# Wikipedia's own codes that are not the language's.
LANGUAGE_CODES = {
    "als": "gsw", "bat-smg": "sgs", "be-x-old": "be", "be-tarask": "be", "fiu-vro": "vro", "map-bms": "jv",
    "roa-rup": "rup", "roa-tara": "nap", "simple": "en", "zh-classical": "lzh", "zh-min-nan": "nan", "zh-yue": "yue",
}  # fmt: skip
# ISO 639-2 and -3 codes of languages that have one of two letters.
_LONG = {
    "ara": "ar", "arb": "ar", "ben": "bn", "bod": "bo", "bul": "bg", "cat": "ca", "ces": "cs", "cmn": "zh",
    "dan": "da", "deu": "de", "dzo": "dz", "ell": "el", "eng": "en", "fas": "fa", "fin": "fi", "fra": "fr",
    "heb": "he", "hin": "hi", "hrv": "hr", "hun": "hu", "ind": "id", "ita": "it", "jpn": "ja", "khm": "km",
    "kor": "ko", "lao": "lo", "mya": "my", "nld": "nl", "nob": "no", "nor": "no", "pes": "fa", "pol": "pl",
    "por": "pt", "ron": "ro", "rus": "ru", "slk": "sk", "spa": "es", "srp": "sr", "swe": "sv", "tha": "th",
    "tur": "tr", "ukr": "uk", "vie": "vi", "zho": "zh",
}  # fmt: skip
UNSPACED = re.compile(f"[{IDEOGRAPHS}{LETTERS}{TIBETAN}]")
_START = 2_000  # characters by which a script is told


def language_of_code(code: str) -> str:
    """The ISO 639 code of `zh-min-nan`, `zh_TW`, `jpn_Jpan` or `EN`, without country and script."""
    code = code.strip().lower().replace("_", "-")
    head = LANGUAGE_CODES.get(code, code).partition("-")[0]
    return _LONG.get(head, head)


def puts_spaces(language: str | None, text: str) -> bool:
    """Whether words stand apart in `language`; without one, whether most letters of the text are of such scripts."""
    if language:
        return language_of_code(language) not in WITHOUT_SPACES
    start = text[:_START]
    return 2 * len(UNSPACED.findall(start)) <= sum(char.isalpha() for char in start)


def is_latin(text: str) -> bool:
    """Whether most letters of a text are Latin."""
    letters = [char for char in text[:_START] if char.isalpha()]
    return 2 * sum("LATIN" in unicodedata.name(char, "") for char in letters) >= len(letters)


_ZERO_WIDTH = re.compile("\u200b+")
_BOUNDED = re.compile(f"[{LETTERS}{TIBETAN}]")


def tidy_zero_width_spaces(text: str) -> str:
    """One zero-width space where it stands beside a letter of a script whose words it divides (Khmer, Lao, Thai,
    Burmese), none elsewhere: there it marks where a line may break inside a word or an address."""

    def show(run: re.Match[str]) -> str:
        beside = text[max(run.start() - 1, 0) : run.start()], text[run.end() : run.end() + 1]
        inside = all(char and not char.isspace() for char in beside)
        return "\u200b" if inside and any(map(_BOUNDED.match, beside)) else ""

    return _ZERO_WIDTH.sub(show, text) if "\u200b" in text else text
