"""Languages and scripts that put no spaces between words: the one list of them.

Two kinds of script are told apart. In Chinese characters and the Japanese syllabaries a character is a word or most of
one. In the scripts of South-East Asia it is a letter, as in Latin: four or five make a word, and only a dictionary
tells where it ends (Unicode's line breaking calls this class SA, https://www.unicode.org/reports/tr14/). Tibetan
divides syllables, by a mark of its own, U+0F0B: for whoever splits at punctuation its syllables are words.
"""

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
