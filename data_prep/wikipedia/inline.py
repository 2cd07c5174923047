"""What stands in a line of wikitext: tags, external links, bold and italic marks, entities, and the gaps that removed
things leave.
"""

import html
import re

from data_prep.languages import tidy_zero_width_spaces
from data_prep.wikipedia.marks import BREAK, LITERAL, REMOVED
from data_prep.wikipedia.templates import superscript
from shared.rows import clean_text


def _tag_names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BLOCK_TAGS = _tag_names("p div blockquote center ul ol dl table tr hr h1 h2 h3 h4 h5 h6 caption dt dd section")
_INLINE_TAGS = _tag_names(
    "b i u s em strong small big sub sup span font code tt kbd samp var cite abbr q ruby rt rp rb rtc del ins strike "
    "mark time wbr bdi bdo dfn td th thead tbody tfoot col colgroup data noinclude onlyinclude includeonly nowiki pre "
    "poem a img input label acronym ref references translate tvar nobr gallery math link meta"
)
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)\b([^<>]*)>")
_UNFINISHED_TAG = re.compile(r"<(?:/?ref|/?span|/?div|/?font|!--)\b[^<>\n]*")
_POWER = re.compile(r"<sup>([0-9+\-−n]{1,12})</sup>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,7}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_MAGIC_WORD = re.compile(r"__[^\W\d_](?:[^\W_]|_(?!_))*+__")
_VARIANT = re.compile(r"-\{([^{}\n]*)\}-")
_EXTERNAL_LINK = re.compile(
    r"\[(?:(?:https?|ftps?|irc|ircs|gopher|telnet|nntp|git|svn):)?//[^\s\[\]<>\"]*+([^\[\]\n]*+)\]"
    r"|\[(?:mailto|news|tel|urn):[^\s\[\]<>\"]++([^\[\]\n]*+)\]",
    re.IGNORECASE,
)
_WIDE_SPACES = re.compile("[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
SPACES = re.compile("  +")
_OPENING, _CLOSING, _PAUSES = frozenset("([«“"), frozenset(",.;:!?)]»”"), frozenset(",;:")
_EMPTY_QUOTES = re.compile(f"(?<!')('{{2,5}}){REMOVED} ?\\1(?!')")
_INVISIBLE = re.compile("[\u00ad\u200e\u200f\u2060\ufeff\u202a-\u202e\u2066-\u2069]")


def show_inline(text: str) -> str:
    """Without tags, external links, bold and italic marks; entities decoded, once; gaps tidied."""
    if "__" in text:
        text = _MAGIC_WORD.sub(lambda match: match[0] if match[0] != match[0].upper() else "", text)
    if "-{" in text:
        text = _VARIANT.sub(lambda match: _show_variant(match[1]), text)
    if "<" in text:
        text = _POWER.sub(lambda match: superscript(match[1]), text)
        text = _TAG.sub(_show_tag, text)
        text = _UNFINISHED_TAG.sub("", text)
    text = _EXTERNAL_LINK.sub(lambda match: (match[1] or match[2] or "").strip() or REMOVED, text)
    if "&" in text:
        text = _ENTITY.sub(_decode, text)
    text = tidy_zero_width_spaces(_INVISIBLE.sub("", text))
    text = SPACES.sub(" ", _WIDE_SPACES.sub(" ", text))
    return _close_gaps(_EMPTY_QUOTES.sub(REMOVED, text))


def _close_gaps(text: str) -> str:
    """Close the gaps that removed things left: "A (; b) , c" becomes "A (b), c". Other punctuation stays as it is."""
    out = [""]
    for number, right in enumerate(text.split(REMOVED)):
        if number:
            left = out[-1]
            if left.rstrip(" ,;:")[-1:] in _OPENING:
                left, right = left.rstrip(" ,;:"), right.lstrip(" ,;:")
                for _ in range(3):
                    if left[-1:] + right[:1] not in ("()", "[]"):
                        break
                    left, right = left[:-1].rstrip(" "), right[1:]
            after = right.lstrip(" ")
            if after[:1] in _CLOSING:
                left, right = left.rstrip(" "), after
                if left[-1:] in _PAUSES and after[:1] in ",;:.)":
                    left = left[:-1]
            elif left[-1:] == " " and right[:1] == " ":
                right = right[1:]
            out[-1] = left
        # The last piece is short, so that cutting its end costs little however often it is done.
        out += (right[:-64], right[-64:]) if len(right) > 64 else (right,) if right else ()
    return "".join(out)


def _show_tag(match: re.Match[str]) -> str:
    name = match[2].lower()
    if name == "br":
        return BREAK
    if name == "li":
        return "" if match[1] else "\n* "
    if name in _BLOCK_TAGS:
        return "\n\n"
    return "" if name in _INLINE_TAGS else match[0]


def _show_variant(text: str) -> str:
    """Of the spellings of a language with several scripts, the first."""
    flags, bar, rest = text.partition("|")
    if bar and flags.strip() in ("T", "H", "-", "A;T"):
        return ""
    first = (rest if bar else text).partition(";")[0]
    code, colon, shown = first.partition(":")
    return shown.strip() if colon and re.fullmatch(r"\s*[a-z]{2,3}(-[a-z]+)*\s*", code) else first


def _decode(match: re.Match[str]) -> str:
    """The character of an entity; one that would be markup is marked as literal."""
    char = html.unescape(match[0])
    return "" if char == "\ufffd" else clean_text(char).translate(LITERAL).replace("\n", " ").replace("\r", " ")


_QUOTES = re.compile("('{2,})")


def strip_quotes(line: str) -> str:
    """Without the marks of bold and italic, read as MediaWiki reads them: `l'''amour''` holds one apostrophe."""
    parts = _QUOTES.split(line)
    bold = italic = 0
    single: list[int] = []
    for index in range(1, len(parts), 2):
        length = len(parts[index])
        if length == 4 or length > 5:
            spare = 1 if length == 4 else length - 5
            parts[index - 1] += "'" * spare
            length -= spare
        bold += length in (3, 5)
        italic += length in (2, 5)
        if length == 3:
            single.append(index)
    if bold % 2 and italic % 2 and single:
        # One bold mark is an apostrophe and an italic one: best after a word of one letter, then of more letters.
        before = [parts[index - 1] for index in single]
        rank = [2 if text[-1:] in (" ", "") else 0 if text[-2:-1] in (" ", "") else 1 for text in before]
        parts[single[rank.index(min(rank))] - 1] += "'"
    return "".join(parts[::2])
