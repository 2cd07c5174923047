"""Templates whose content is prose, and what they show. All others are removed.

`TEMPLATES` maps a name in lower case to a function of the arguments. The list is short on purpose: templates that
stand inside sentences, in English and those that most languages share.
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

    def get(self, *names: str) -> str:
        """The first of these that is there and not empty; numbers count from 1."""
        for name in names:
            value = self.named.get(name, "")
            if not value and name.isdigit() and int(name) <= len(self.positional):
                value = self.positional[int(name) - 1]
            if value:
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


_MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip


def _as_of(arguments: Arguments) -> str:
    if arguments.get("alt"):
        return arguments.get("alt")
    date = [arguments.get("3"), arguments.get("2"), arguments.get("1")]
    if date[1].isdigit() and 1 <= int(date[1]) <= 12:
        date[1] = _MONTHS[int(date[1]) - 1]
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


def _quotation(arguments: Arguments) -> str:
    text = arguments.get("text", "quote", "1", "content")
    return f"\n\n{text}\n\n" if text else REMOVED


def _sort_name(arguments: Arguments) -> str:
    return f"{arguments.get('1')} {arguments.get('2')}".strip()


def _nth(*names: str) -> Callable[[Arguments], str]:
    return lambda arguments: arguments.get(*names) or REMOVED


def _constant(text: str) -> Callable[[Arguments], str]:
    return lambda arguments: text


def _with(before: str, after: str = "") -> Callable[[Arguments], str]:
    return lambda arguments: f"{before}{arguments.get('1')}{after}"


# Names, and what templates of these names show. Of two that share a name the first counts.
_GROUPS: list[tuple[str, Callable[[Arguments], str]]] = [
    # spaces and signs
    (
        "nbsp, space, spaces, nb5, nbsp5, thin space, thinsp, hair space, hairsp, ensp, emsp, gap",
        _constant(" "),
    ),
    ("snd, spnd, spaced ndash, spaced en dash, ndash spaced, sndash, spaced en dash space", _constant(" – ")),
    ("ndash, en dash, –", _constant("–")),
    ("mdash, em dash, —", _constant("—")),
    ("snds, spaced mdash, spaced em dash", _constant(" — ")),
    ("dot, ·, middot, spaced middot", _constant(" · ")),
    ("bull, bullet, •", _constant(" • ")),
    ("', `, apos, 's-", _constant("'")),
    ("'s", _constant("'s")),
    ('"', _with('"', '"')),
    ("!", _constant("|")),
    ("=", _constant("=")),
    ("times", _constant("×")),
    ("minus", _constant("−")),
    ("pm, +-, ±", _constant("±")),
    ("deg", _constant("°")),
    ("...", _constant("...")),
    ("shy, zwsp, zwj, zwnj, wbr, word joiner, wj, lrm, rlm", _constant("")),
    ("sharp, music sharp", _constant("♯")),
    ("flat, music flat", _constant("♭")),
    ("cent", _with("", "¢")),
    ("usd, us$", _with("US$")),
    ("gbp, £, pound sterling", _with("£")),
    ("eur, euro, €", _with("€")),
    ("inr, indian rupee, ₹", _with("₹")),
    ("jpy, yen, ¥", _with("¥")),
    ("a$, aud", _with("A$")),
    ("c$, cad", _with("C$")),
    ("nz$", _with("NZ$")),
    # text in another shape
    (
        "nowrap, nobr, nobreak, nobold, noitalic, normal, small, smaller, smalldiv, big, larger, large, huge, em, "
        "strong, code, tt, mono, kbd, var, samp, mvar, math, smallcaps, small caps, sc, sc2, allcaps, nocaps, "
        "sic, not a typo, as written, typo, abbr, abbrv, tooltip, hover title, hover, ill, interlanguage link, "
        "interlanguage link multi, link-interwiki, illm, flag, flagu, flagcountry, flagdeco, visible anchor, "
        "vanchor, linktext, nts, unbulleted, plain link, keypress, key press, angbr, overline, underline, "
        "strikethrough, title case, center, centre, block indent, blockindent, unicode, hebrew, arab, polytonic, "
        "greek, iast, iast2, ship class",
        _nth("1"),
    ),
    (
        "lang, langx, font color, color, colour, resize, font, size, lang-x, text, tlang, wikt-lang",
        _nth("2", "text"),
    ),
    ("color box, legend, background color, bg, highlight", _nth("2", "1")),
    ("audio, audio-nohelp", _nth("2")),
    ("transl, transliteration, translit", lambda arguments: (arguments.positional or [REMOVED])[-1]),
    ("sup, superscript", lambda arguments: superscript(arguments.get("1"))),
    ("sub, subscript", _nth("1")),
    ("su", lambda arguments: f"{arguments.get('p')}{arguments.get('b')}"),
    ("chem, chem2, chemical formula", lambda arguments: "".join(arguments.positional)),
    ("e", lambda arguments: f" × 10{superscript(arguments.get('1'))}"),
    ("10^", lambda arguments: f"10{superscript(arguments.get('1'))}"),
    ("circa, c., ca", lambda arguments: f"c. {arguments.get('1')}".strip()),
    ("floruit, fl.", lambda arguments: f"fl. {arguments.get('1')}".strip()),
    ("reign, r.", lambda arguments: "r. " + "–".join(arguments.positional[:2])),
    ("sortname", _sort_name),
    ("frac, fraction, sfrac, fract", _fraction),
    ("val", _value),
    ("convert, cvt", _convert),
    ("as of, asof", _as_of),
    ("nihongo, nihongo2, nihongo3, nihongo krt", _nihongo),
    ("zh, zh-cn, zh-t, zh-s, zh-tw, lang-zh", _chinese),
    ("hms", _with("HMS ")),
    ("uss", _with("USS ")),
    ("ss", _with("SS ")),
    ("ship", _sort_name),
    # paragraphs
    ("quote, blockquote, block quote, cquote, bquote, quotation, rquote, quote box, quotebox", _quotation),
    (
        "poemquote, poem quote, verse translation, cita, zitat, citation bloc, cytat, цитата, bloque cita",
        _quotation,
    ),
    # other languages
    ("unité, unidad, nombre, nb, num, число, unit", lambda arguments: " ".join(arguments.positional[:2])),
    ("siècle, s-, s", lambda arguments: "".join(arguments.positional[:2]) or REMOVED),
    ("n°, numéro", _constant("n° ")),
]
TEMPLATES = {name: function for names, function in reversed(_GROUPS) for name in names.split(", ")}


def render_template(content: str, title: str) -> str:
    """What `{{content}}` shows, or the mark of a removed thing. Templates and links in it are plain text already."""
    name, bar, rest = content.partition("|")
    key = name.replace("_", " ").strip().lower()
    function = TEMPLATES.get(key)
    if function is not None:
        return function(parse_arguments(rest) if bar else Arguments())
    if key.startswith("lang-"):
        arguments = parse_arguments(rest)
        return arguments.get("text", "1") or REMOVED
    if ":" in key:
        word, _, text = name.strip().partition(":")
        word = word.lower()
        if word in ("formatnum", "lc", "uc", "lcfirst", "ucfirst", "nowrap"):
            return {"lc": str.lower, "uc": str.upper}.get(word, str)(text.strip())
    if name.strip() in ("PAGENAME", "FULLPAGENAME", "SUBJECTPAGENAME"):
        return title
    return REMOVED
