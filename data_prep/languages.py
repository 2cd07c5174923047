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
# Codes of three letters of the languages that have one of two: of ISO 639-3, the older ones of libraries in ISO 639-2,
# and members of a macrolanguage by which large corpora name it.
_LONG = dict(
    re.findall(
        r"(\w+) (\w+)",
        """
    aar aa, abk ab, afr af, aka ak, amh am, ara ar, arg an, asm as, ava av, ave ae, aym ay, aze az, bak ba,
    bam bm, bel be, ben bn, bis bi, bod bo, bos bs, bre br, bul bg, cat ca, ces cs, cha ch, che ce, chu cu, chv cv,
    cor kw, cos co, cre cr, cym cy, dan da, deu de, div dv, dzo dz, ell el, eng en, epo eo, est et, eus eu, ewe ee,
    fao fo, fas fa, fij fj, fin fi, fra fr, fry fy, ful ff, gla gd, gle ga, glg gl, glv gv, grn gn, guj gu, hat ht,
    hau ha, heb he, her hz, hin hi, hmo ho, hrv hr, hun hu, hye hy, ibo ig, ido io, iii ii, iku iu, ile ie, ina ia,
    ind id, ipk ik, isl is, ita it, jav jv, jpn ja, kal kl, kan kn, kas ks, kat ka, kau kr, kaz kk, khm km, kik ki,
    kin rw, kir ky, kom kv, kon kg, kor ko, kua kj, kur ku, lao lo, lat la, lav lv, lim li, lin ln, lit lt, ltz lb,
    lub lu, lug lg, mah mh, mal ml, mar mr, mkd mk, mlg mg, mlt mt, mon mn, mri mi, msa ms, mya my, nau na, nav nv,
    nbl nr, nde nd, ndo ng, nep ne, nld nl, nno nn, nob no, nor no, nya ny, oci oc, oji oj, ori or, orm om, oss os,
    pan pa, pli pi, pol pl, por pt, pus ps, que qu, roh rm, ron ro, run rn, rus ru, sag sg, san sa, sin si, slk sk,
    slv sl, sme se, smo sm, sna sn, snd sd, som so, sot st, spa es, sqi sq, srd sc, srp sr, ssw ss, sun su, swa sw,
    swe sv, tah ty, tam ta, tat tt, tel te, tgk tg, tgl tl, tha th, tir ti, ton to, tsn tn, tso ts, tuk tk, tur tr,
    twi tw, uig ug, ukr uk, urd ur, uzb uz, ven ve, vie vi, vol vo, wln wa, wol wo, xho xh, yid yi, yor yo, zha za,
    zho zh, zul zu, alb sq, arm hy, baq eu, bur my, chi zh, cze cs, dut nl, fre fr, geo ka, ger de, gre el, ice is,
    mac mk, mao mi, may ms, per fa, rum ro, slo sk, tib bo, wel cy, als sq, arb ar, azj az, cmn zh, ekk et, khk mn,
    lvs lv, npi ne, ory or, pbt ps, pes fa, plt mg, swh sw, uzn uz, ydd yi, zsm ms
    """,
    )
)
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
