"""Templates whose content is prose, and what they show: those of English and those that most languages share.

`GROUPS` gives for names in lower case a function of the arguments. Templates stand here that stand inside sentences.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from data_prep.wikipedia.marks import REMOVED


@dataclass
class Arguments:
    """What stands between the bars of `{{name|a|b=c}}`."""

    positional: list[str] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> str | None:
        """The argument of this name or number, which may be empty, or None."""
        if name.isdigit() and 1 <= int(name[:9]) <= len(self.positional):
            return self.positional[int(name) - 1]
        return self.named.get(name.lower())

    def get(self, *names: str) -> str:
        """The first of these that is there and not empty; numbers count from 1."""
        for name in names:
            if value := self.named.get(name) or self.find(name):
                return value
        return ""


_NAME = re.compile(r"[\w -]{1,40}")


def parse_arguments(text: str) -> Arguments:
    """Split what follows the name of a template. Nested templates and links must be plain text already."""
    arguments = Arguments()
    for part in text.split("|"):
        name, equals, value = part.partition("=")
        name = name.strip()
        if equals and _NAME.fullmatch(name):
            arguments.named[name.lower()] = value.strip()
        else:
            arguments.positional.append(part.strip())
    return arguments


SUPERSCRIPT = str.maketrans("0123456789+-−n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻ⁿ")
_SUPERSCRIPT = re.compile(r"[0-9+\-−n]+\Z")


def superscript(text: str) -> str:
    """`10` and `-1` as raised digits, so that a power does not read as one number; other text as it is."""
    return text.translate(SUPERSCRIPT) if _SUPERSCRIPT.match(text) else text


_NUMBER = re.compile(r"[-+−–~]?[\d.,]{0,40}\d(?:[eE][-+]?\d{1,4})?(?:[+ ]?\d{0,9}[/⁄]\d{1,9})?\Z")
_BETWEEN = {
    "-": "–", "–": "–", "to": " to ", "to(-)": " to ", "and": " and ", "and(-)": " and ", "or": " or ", "by": " by ",
    "x": " × ", "×": " × ", "+/-": " ± ", "±": " ± ",
}  # fmt: skip
_UNITS = {
    "sqmi": "sq mi", "mi2": "sq mi", "km2": "km²", "sqkm": "km²", "m2": "m²", "sqm": "m²", "cm2": "cm²",
    "ft2": "sq ft", "sqft": "sq ft", "sqyd": "sq yd", "m3": "m³", "km3": "km³", "cm3": "cm³", "cuft": "cu ft",
    "cumi": "cu mi", "cuyd": "cu yd", "cuin": "cu in", "C": "°C", "F": "°F", "acre": "acres", "foot": "feet",
    "mile": "miles",
    "inch": "inches", "pound": "pounds", "kph": "km/h", "lbs": "lb", "USgal": "US gal", "impgal": "imp gal",
    "LT": "long tons", "ST": "short tons", "m/s": "m/s", "kn": "knots", "kt": "knots", "e6acre": "million acres",
    "e6km2": "million km²", "e6sqmi": "million sq mi", "e6ha": "million ha", "USoz": "US oz", "metre": "metres",
    "meter": "meters", "kilometre": "kilometres", "tonne": "tonnes",
}  # fmt: skip


def _convert(arguments: Arguments) -> str:
    """`{{convert|5|to|8|km|mi}}` as "5 to 8 km": the measure as it was written, without its conversion."""
    words = arguments.positional
    if not words or not _NUMBER.match(words[0]):
        return REMOVED
    text, place = words[0], 1
    while place + 1 < len(words) and words[place] in _BETWEEN:
        text += _BETWEEN[words[place]] + words[place + 1]
        place += 2
    if place < len(words):
        text += f" {_UNITS.get(words[place], words[place])}"
        while place + 2 < len(words) and _NUMBER.match(words[place + 1]) and not _NUMBER.match(words[place + 2]):
            text += f" {words[place + 1]} {_UNITS.get(words[place + 2], words[place + 2])}"
            place += 2
    return text.replace("+", " ")


MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip


def _as_of(arguments: Arguments) -> str:
    if arguments.get("alt"):
        return arguments.get("alt")
    date = [arguments.get("3"), arguments.get("2"), arguments.get("1")]
    if date[1].isdigit() and 1 <= int(date[1]) <= 12:
        date[1] = MONTHS[int(date[1]) - 1]
    if arguments.get("df").lower() == "us" and date[0]:
        date = [date[1], f"{date[0]},", date[2]]
    start = "since" if arguments.get("since") else "as of"
    shown = start if arguments.get("lc") else start.capitalize()
    return " ".join(part for part in (shown, *date) if part)


def _fraction(arguments: Arguments) -> str:
    words = arguments.positional
    if len(words) == 3:
        return f"{words[0]} {words[1]}/{words[2]}"
    return "/".join(words) if len(words) == 2 else f"1/{words[0]}" if words else REMOVED


def _value(arguments: Arguments) -> str:
    number, plus_minus = arguments.get("1"), arguments.get("2")
    power, unit = arguments.get("e"), arguments.get("u", "ul")
    text = number + (f" ± {plus_minus}" if plus_minus and _NUMBER.match(plus_minus) else "")
    text += f" × 10{superscript(power)}" if power else ""
    return f"{text} {unit}".strip()


def _nihongo(arguments: Arguments) -> str:
    english, *rest = [arguments.get(number) for number in "1234"]
    rest = [text for text in rest if text]
    if not english:
        return ", ".join(rest)
    return f"{english} ({', '.join(rest)})" if rest else english


def _chinese(arguments: Arguments) -> str:
    shown = [arguments.get("c"), arguments.get("s"), arguments.get("t"), arguments.get("p")]
    return "; ".join(dict.fromkeys(text for text in shown if text)) or arguments.get("1") or REMOVED


def quotation(arguments: Arguments) -> str:
    text = arguments.get("text", "quote", "1", "content")
    return f"\n\n{text}\n\n" if text else REMOVED


def nothing(arguments: Arguments) -> str:
    """What references, anchors, pronunciations and icons show in a text."""
    return REMOVED


def joined(arguments: Arguments) -> str:
    return "".join(arguments.positional) or REMOVED


def spaced(arguments: Arguments) -> str:
    return " ".join(filter(None, arguments.positional)) or REMOVED


def _english_date(arguments: Arguments) -> str:
    """`{{birth date and age|1950|1|2}}` as "January 2, 1950": year, month and day, whatever follows."""
    year, month, day = (arguments.get(number) for number in "123")
    if not (year.isdigit() and month.isdigit() and 1 <= int(month) <= 12):
        return year or REMOVED
    name = MONTHS[int(month) - 1]
    if not day.isdigit():
        return f"{name} {year}"
    day_first = arguments.get("df").lower() in ("y", "yes")
    return f"{int(day)} {name} {year}" if day_first else f"{name} {int(day)}, {year}"


def _old_style_date(arguments: Arguments) -> str:
    day, year, old = (arguments.get(number) for number in "123")
    return f"{day} [O.S. {old}] {year}" if old else f"{day} {year}".strip()


_MUSIC = {
    "sharp": "♯", "#": "♯", "flat": "♭", "b": "♭", "natural": "♮", "n": "♮", "doublesharp": "𝄪", "x": "𝄪", "##": "𝄪",
    "doubleflat": "𝄫", "bb": "𝄫", "dim": "°", "o": "°", "diminished": "°", "halfdim": "ø", "aug": "+", "delta": "Δ",
}  # fmt: skip


def _music(arguments: Arguments) -> str:
    words = arguments.positional or [""]
    if words[0] == "time" and len(words) == 3:
        return f"{words[1]}/{words[2]}"
    return _MUSIC.get(words[0].lower(), words[-1]) or REMOVED


def _ship_class(arguments: Arguments) -> str:
    name, kind = arguments.get("1"), arguments.get("2")
    return f"{name}-class {kind}" if kind else f"{name} class"


def _height(arguments: Arguments) -> str:
    shown = [f"{arguments.get(unit)} {unit}" for unit in ("ft", "in", "m", "cm") if arguments.get(unit)]
    return " ".join(shown) or REMOVED


def _ordinal(arguments: Arguments) -> str:
    number = arguments.get("1")
    ending = {"1": "st", "2": "nd", "3": "rd"}.get(number[-1:], "th") if number[-2:-1] != "1" else "th"
    return number + ending if number.isdigit() else number or REMOVED


def nth(*names: str) -> Callable[[Arguments], str]:
    return lambda arguments: arguments.get(*names) or REMOVED


def constant(text: str) -> Callable[[Arguments], str]:
    return lambda arguments: text


def around(before: str, after: str = "") -> Callable[[Arguments], str]:
    return lambda arguments: f"{before}{arguments.get('1')}{after}"


_SHIPS = ("HMS", "USS", "SS", "HMCS", "HMAS", "HMNZS", "SMS", "MV", "RMS", "MS", "USNS", "USCGC", "CSS", "INS", "RFA")

# Names, and what templates of these names show. Of two that share a name the first counts.
GROUPS: list[tuple[str, Callable[[Arguments], str]]] = [
    # spaces and signs
    ("nbsp, space, spaces, nb5, nbsp5, thin space, thinsp, hair space, hairsp, ensp, emsp, gap", constant(" ")),
    ("snd, spnd, spaced ndash, spaced en dash, ndash spaced, sndash, spaced en dash space", constant(" – ")),
    ("ndash, en dash, –", constant("–")),
    ("mdash, em dash, —", constant("—")),
    ("snds, spaced mdash, spaced em dash", constant(" — ")),
    ("dot, ·, middot, spaced middot", constant(" · ")),
    ("bull, bullet, •", constant(" • ")),
    ("', `, apos, 's-", constant("'")),
    ("'s", constant("'s")),
    ('"', around('"', '"')),
    ("!", constant("|")),
    ("=", constant("=")),
    ("times", constant("×")),
    ("minus", constant("−")),
    ("pm, +-, ±", constant("±")),
    ("deg", constant("°")),
    ("...", constant("...")),
    ("zwsp", constant("\u200b")),
    ("shy, zwj, zwnj, wbr, word joiner, wj, lrm, rlm", constant("")),
    ("sharp, music sharp", constant("♯")),
    ("flat, music flat", constant("♭")),
    ("cent", around("", "¢")),
    ("usd, us$", around("US$")),
    ("gbp, £, pound sterling", around("£")),
    ("eur, euro, €", around("€")),
    ("inr, indian rupee, ₹", around("₹")),
    ("jpy, yen, ¥", around("¥")),
    ("a$, aud", around("A$")),
    ("c$, cad", around("C$")),
    ("nz$", around("NZ$")),
    # text in another shape
    (
        "nowrap, nobr, nobreak, nobold, noitalic, normal, small, smaller, smalldiv, big, larger, large, huge, em, "
        "strong, code, tt, mono, kbd, var, samp, mvar, math, smallcaps, small caps, sc, sc2, allcaps, nocaps, "
        "abbr, abbrv, abbrlink, tooltip, hover title, hover, flag, flagu, flagcountry, flagdeco, visible anchor, "
        "vanchor, linktext, nts, unbulleted, plain link, keypress, key press, angbr, overline, underline, "
        "strikethrough, title case, center, centre, block indent, blockindent, unicode, hebrew, arab, polytonic, "
        "greek, iast, iast2, birth-date, death-date, birth date text, b-da, d-da, birth year and age, "
        "track gauge, railgauge, gauge, abbreviation, sortname text, bold, italic, strong, dfn, pslink, no wrap",
        nth("1"),
    ),
    ("lang, langx, font color, color, colour, resize, font, size, lang-x, text, tlang, wikt-lang", nth("2", "text")),
    ("color box, legend, background color, bg, highlight", nth("2", "1")),
    ("audio, audio-nohelp", nth("2")),
    ("ill, interlanguage link, interlanguage link multi, link-interwiki, illm", nth("lt", "tekst", "1")),
    ("w, wp", nth("2", "1")),
    ("sic, not a typo, as written, typo", joined),
    ("citation needed span, cn span, clarify span, cnspan, refnec span", nth("text", "1")),
    ("music, music symbol", _music),
    ("sclass, sclass-, sclass2, sclass2-", _ship_class),
    ("ship class", nth("1")),
    (
        "birth date, birth date and age, bda, dob, death date, death date and age, death year and age, dda, "
        "start date, start-date, start date and age, end date, film date, launch date, opening date, dts",
        _english_date,
    ),
    ("oldstyledate, old style date", _old_style_date),
    ("height", _height),
    ("ordinal, nth", _ordinal),
    ("gaps", joined),
    ("bibleverse, bibleref, bibleref2, bible", lambda arguments: " ".join(filter(None, arguments.positional[:3]))),
    ("section link, slink, section-link", lambda arguments: " § ".join(filter(None, arguments.positional))),
    ("hlist, flatlist, ubl, unbulleted list, cslist", lambda arguments: ", ".join(filter(None, arguments.positional))),
    ("okina, ʻokina", constant("ʻ")),
    ("hamza", constant("ʼ")),
    ("ayin", constant("ʿ")),
    ("natural", constant("♮")),
    ("transl, transliteration, translit", lambda arguments: (arguments.positional or [REMOVED])[-1]),
    ("sup, superscript", lambda arguments: superscript(arguments.get("1"))),
    ("sub, subscript", nth("1")),
    ("su", lambda arguments: f"{arguments.get('p')}{arguments.get('b')}"),
    ("chem, chem2, chemical formula", lambda arguments: "".join(arguments.positional)),
    ("e", lambda arguments: f" × 10{superscript(arguments.get('1'))}"),
    ("10^", lambda arguments: f"10{superscript(arguments.get('1'))}"),
    ("circa, c., ca", lambda arguments: f"c. {arguments.get('1')}".strip()),
    ("floruit, fl.", lambda arguments: f"fl. {arguments.get('1')}".strip()),
    ("reign, r.", lambda arguments: "r. " + "–".join(arguments.positional[:2])),
    ("sortname, ship", lambda arguments: f"{arguments.get('1')} {arguments.get('2')}".strip()),
    ("frac, fraction, sfrac, fract", _fraction),
    ("val", _value),
    ("convert, cvt", _convert),
    ("as of, asof", _as_of),
    ("nihongo, nihongo2, nihongo3, nihongo krt", _nihongo),
    ("zh, zh-cn, zh-t, zh-s, zh-tw, lang-zh", _chinese),
    *((name.lower(), around(f"{name} ")) for name in _SHIPS),
    # paragraphs
    ("quote, blockquote, block quote, cquote, bquote, quotation, rquote, quote box, quotebox", quotation),
    ("poemquote, poem quote, verse translation, cita, zitat, citation bloc, cytat, цитата, bloque cita", quotation),
    # what stands in a sentence and is none of its words
    (
        "sfn, sfnp, sfnm, harv, harvnb, harvtxt, refn, efn, efn-ua, efn-lr, r, rp, ref, ref label, note, note label, "
        "citation needed, cn, fact, cite web, cite book, cite news, cite journal, better source needed, "
        "clarify, when, who, which, by whom, according to whom, vague, dubious, dubious - discuss, "
        "failed verification, page needed, verify source, vn, dead link, anchor, anchors, coord, ipa, respell, "
        "pronunciation, pron, flagicon, flag icon, clear, -, #tag:ref, update inline, original research inline",
        nothing,
    ),
]
