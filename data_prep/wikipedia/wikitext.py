"""Wikitext -> prose: paragraphs, section titles and lists, without templates, tables, references and markup.

`clean_wikitext` is the way in. Time is linear in the length of the text whatever it holds: every scan moves forward
only, and what is nested deeper than MAX_DEPTH is dropped. The grammar follows MediaWiki's documentation of its own
preprocessor: what an editor forgot to close ends where its surroundings end.
"""

import html
import re
from dataclasses import dataclass

from data_prep.wikipedia.templates import REMOVED, render_template, superscript
from data_prep.wikipedia.words import APPARATUS, CATEGORY_ALIASES, FILE_ALIASES, LANGUAGES, PROJECTS
from shared.rows import clean_text

MAX_DEPTH = 40  # MediaWiki's own limit for templates
MIN_PROSE = 60  # characters of a line that may be a sentence rather than the name of a source

# Noncharacters of Unicode stand for what must survive until the end. Input that holds them loses them first.
BREAK = "\ufdd1"  # an end of line inside a paragraph
_LITERAL = {ord(char): 0xFDD2 + number for number, char in enumerate("[]{}|<>'=*#:;-_~!")}
_BACK = {chr(code): chr(char) for char, code in _LITERAL.items()} | {BREAK: "\n", REMOVED: ""}
_MARKS = re.compile("[\ufdd0-\ufde3]")
_BRACKETS, _DOUBLE = re.compile(r"[\[\]{}]{2,}"), re.compile(r"\[\[|\]\]|\{\{|\}\}")
_RESERVED = re.compile("[\ufdd0-\ufdef]")


@dataclass(frozen=True)
class Names:
    """The prefixes of links that show nothing or a picture, in lower case."""

    files: frozenset[str] = FILE_ALIASES
    media: frozenset[str] = frozenset({"media"})
    categories: frozenset[str] = CATEGORY_ALIASES
    spaced: bool = True  # words of the language stand apart, so that joined lines need a space


def names_of(namespaces: dict[int, str], language: str | None = None) -> Names:
    """The prefixes of a wiki, from the namespaces that its dump lists."""

    def own(number: int) -> set[str]:
        return {namespaces[number].replace("_", " ").lower()} if namespaces.get(number) else set()

    return Names(
        FILE_ALIASES | own(6),
        frozenset({"media"} | own(-2)),
        CATEGORY_ALIASES | own(14),
        language not in ("zh", "ja", "yue", "wuu", "lzh", "gan", "th", "lo", "my", "km"),
    )


def clean_wikitext(text: str, title: str = "", names: Names = Names()) -> str:
    """The prose of a page: paragraphs, lists and section titles, with an empty line between them."""
    text = _RESERVED.sub("", clean_text(text)).replace("\r", "")
    text = _take_out_extensions(text)
    text = _resolve(text, title, names)
    text = _inline(text)
    text = _BRACKETS.sub(lambda match: "" if _DOUBLE.search(match[0]) else match[0], _sections(text, names))
    return _MARKS.sub(lambda match: _BACK[match[0]], text)


# --- 1. tags whose content is not wikitext -----------------------------------------------------------------------

_DROPPED_TAGS = (
    "ref|references|math|chem|ce|gallery|timeline|score|imagemap|syntaxhighlight|source|graph|mapframe|maplink|hiero|"
    "inputbox|categorytree|templatedata|templatestyles|indicator|includeonly|charinsert|dynamicpagelist|rss|"
    "quiz|section|languages|style|script"
)
_EXTENSION = re.compile(rf"<!--|<(/?)(nowiki|pre|poem|{_DROPPED_TAGS})(?=[\s/>])([^<>]*)>", re.IGNORECASE)
_COMMENT_LINE = re.compile(r"[ \t]*\n")
_INNER_NOWIKI = re.compile(r"</?nowiki\s*/?>", re.IGNORECASE)


class _Closers:
    """The next closing tag of each name. Each search starts where the last one ended, so all are linear together."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.next: dict[str, tuple[int, int] | None] = {}

    def after(self, name: str, position: int) -> tuple[int, int] | None:
        found = self.next.get(name, (-1, -1))
        if found is not None and found[0] < position:
            pattern = "-->" if name == "!--" else rf"</{name}\s*>"
            match = re.compile(pattern, re.IGNORECASE).search(self.text, position)
            found = self.next[name] = match.span() if match else None
        return found


def _take_out_extensions(text: str, nested: bool = False) -> str:
    """Without comments, references, formulas and the like; what <nowiki> and <pre> hold becomes literal."""
    out, position, closers = [], 0, _Closers(text)
    while match := _EXTENSION.search(text, position):
        out.append(text[position : match.start()])
        position = match.end()
        closing, name = match[1], (match[2] or "!--").lower()
        if name == "!--":
            found = closers.after(name, position)
            position = found[1] if found else len(text)
            # A comment alone on its line takes the line with it.
            rest = _COMMENT_LINE.match(text, position)
            line = text.rfind("\n", max(0, match.start() - 200), match.start()) + 1
            if rest and not text[line : match.start()].strip() and (line or match.start() < 200):
                position = rest.end()
            continue
        if closing or match[3].endswith("/"):
            out.append("" if name in ("nowiki", "pre", "poem") else REMOVED)
            continue
        found = closers.after(name, position)
        if not found:  # never closed: MediaWiki shows the tag, we take it away
            continue
        content, position = text[position : found[0]], found[1]
        if name == "nowiki":
            out.append(content.translate(_LITERAL))
        elif name == "pre":
            content = _INNER_NOWIKI.sub("", content).translate(_LITERAL)
            out.append("\n" + content.strip("\n").replace("\n", BREAK) + "\n")
        elif name == "poem":
            inside = content if nested else _take_out_extensions(content, nested=True)
            out.append("\n" + inside.strip("\n").replace("\n", BREAK) + "\n")
        else:
            out.append(REMOVED)
    out.append(text[position:])
    return "".join(out)


# --- 2. templates, tables and links: everything that nests -------------------------------------------------------

_TOKEN = re.compile(
    r"\{\{+|\}\}+|\[\[+|\]\]+|^[ \t:]*\{\||^[ \t]*\|\}(?!\}(?!\}))|</?(?i:table)\b[^<>]*>", re.MULTILINE
)
_PLAIN_LINK = re.compile(r"\[\[(?:[^\[\]{}|\n:]++\|([^\[\]{}|\n]++)|([^\[\]{}|\n:]++))\]\]")
_OPEN_LINK = re.compile(r"[^\[\]|\n]*(?:\|([^\[\]|\n]*))?\]")
_FIRST_LINE = re.compile(r"[^\n}]*\}?")


def _resolve(text: str, title: str, names: Names) -> str:
    """Replace templates, tables and links by what they show, innermost first."""
    out: list[str] = []  # pieces; the content of an open bracket starts at its place in `starts`
    kinds: list[str] = []
    starts: list[int] = []
    braces: list[int] = []  # how many of `{` are left of a run that opened
    opened = {"{": 0, "[": 0, "|": 0, "t": 0}
    position = 0

    def push(kind: str, count: int = 0) -> None:
        kinds.append(kind)
        starts.append(len(out))
        braces.append(count)
        opened[kind] += 1

    def pop() -> int:
        opened[kinds.pop()] -= 1
        braces.pop()
        return starts.pop()

    def abandon() -> None:
        """Forget an opening that was never closed: its content stays, without what stood for the markup."""
        kind = kinds[-1]
        start = pop()
        if start >= len(out):
            return
        if kind == "[":
            piece = out[start]
            if _prefix(piece) in names.files or _prefix(piece) in names.categories:
                out[start] = piece.partition("\n")[2] and "\n" + piece.partition("\n")[2]
            elif match := _OPEN_LINK.match(piece):
                label = match[1] if match[1] is not None else match[0][:-1]
                out[start] = label + piece[match.end() :]
        elif kind == "{":
            out[start] = _FIRST_LINE.sub("", out[start], count=1)

    def take(start: int) -> str:
        content = "".join(out[start:])
        del out[start:]
        return content

    text = _PLAIN_LINK.sub(lambda link: link[link.lastindex or 0], text)  # most links; the loop has the others
    for match in _TOKEN.finditer(text):
        token = match[0]
        out.append(text[position : match.start()])
        position = match.end()
        first = token[0]
        if first == "[":
            if len(token) % 2:
                out[-1] += "["
            for number in range(min(len(token) // 2, MAX_DEPTH)):
                if number:
                    out.append("")
                push("[")
        elif first == "]":
            left = len(token)
            while left >= 2:
                left -= 2
                if kinds and kinds[-1] == "[":
                    shallow = len(kinds) <= MAX_DEPTH
                    content = take(pop())
                    out.append(_show_link(content, names) if shallow else REMOVED)
            if left:
                out.append("]")
        elif token[-1] == "|" and token[-2] == "{" and first != "<":
            push("|")
        elif first == "{":
            push("{", len(token))
        elif first == "}":
            left = len(token)
            while left >= 2 and opened["{"]:
                while kinds[-1] != "{":
                    abandon()
                count = braces[-1]
                shallow = len(kinds) <= MAX_DEPTH
                content = take(starts[-1])
                used = 3 if count >= 3 and left >= 3 else 2
                if used == 3:  # a parameter, which shows its default
                    shown = content.partition("|")[2] if shallow else ""
                else:
                    shown = render_template(content, title) if shallow else REMOVED
                out.append(shown)
                left -= used
                if count - used >= 2:
                    braces[-1] = count - used
                else:
                    pop()
        elif first == "<":
            if token[1] != "/":
                push("t")
            elif opened["t"]:
                while kinds[-1] != "t":
                    abandon()
                take(pop())
                out.append(REMOVED)
        elif opened["|"]:
            while kinds[-1] != "|":
                abandon()
            take(pop())
            out.append(REMOVED)
    out.append(text[position:])
    while kinds:
        abandon()
    return "".join(out)


def _prefix(target: str) -> str:
    head, colon, _ = target[:60].partition(":")
    return head.replace("_", " ").strip().lower() if colon else ""


def _show_link(content: str, names: Names) -> str:
    target, bar, label = content.partition("|")
    if ":" in target:
        prefix = _prefix(target)
        if prefix:
            if prefix in names.files or prefix in names.categories or prefix in LANGUAGES:
                return REMOVED
            if prefix in ("http", "https", "ftp"):  # an external link in brackets too many
                return content.partition(" ")[2] or REMOVED
            if prefix in names.media and not bar:
                return REMOVED
            if prefix in PROJECTS and not bar:
                return target.partition(":")[2]
        elif not bar:
            return target.strip().lstrip(":")
    return label if bar else target


# --- 3. what stands in a line ------------------------------------------------------------------------------------


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
_SPACES = re.compile("  +")
_OPENING, _CLOSING, _PAUSES = frozenset("([«“"), frozenset(",.;:!?)]»”"), frozenset(",;:")
_EMPTY_QUOTES = re.compile(f"(?<!')('{{2,5}}){REMOVED} ?\\1(?!')")
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff\u202a-\u202e\u2066-\u2069]")


def _inline(text: str) -> str:
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
    text = _INVISIBLE.sub("", text)
    text = _SPACES.sub(" ", _WIDE_SPACES.sub(" ", text))
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
    return "" if char == "\ufffd" else clean_text(char).translate(_LITERAL).replace("\n", " ").replace("\r", " ")


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


# --- 4. lines, paragraphs and sections ---------------------------------------------------------------------------

_HEADING = re.compile(r"(={1,6})(.+?)(={1,6})\s*\Z")
_LIST = re.compile(r"([*#:;]+)\s*")
_WORD = re.compile(r"\w")
_SENTENCE_ENDS = (".", "!", "?", "…", '."', ".)", "。", "！", "？", "।", "۔", "؟")


@dataclass
class _Section:
    level: int
    title: str
    blocks: list[tuple[bool, str]]  # (is a list, text)


def _sections(text: str, names: Names) -> str:
    sections = [_Section(0, "", [])]
    blocks = sections[0].blocks
    paragraph: list[str] = []
    items: list[str] = []
    glue = " " if names.spaced else ""

    def close() -> None:
        if paragraph:
            line = glue.join(paragraph).strip(" " + BREAK)
            if _WORD.search(line):
                blocks.append((False, line))
            paragraph.clear()
        if items:
            blocks.append((True, "\n".join(items)))
            items.clear()

    for line in text.split("\n"):
        if "''" in line:
            line = _SPACES.sub(" ", strip_quotes(line))
        line = line.strip()
        if not line:
            close()
            continue
        first = line[0]
        if first == "=" and (match := _HEADING.match(line)):
            close()
            level = min(len(match[1]), len(match[3]))
            title = match[2].strip(" =" + BREAK).replace(BREAK, " ")
            sections.append(_Section(level, title, []))
            blocks = sections[-1].blocks
        elif first in "*#:;":
            marks, item = _split_item(line)
            if not _WORD.search(item):
                continue
            if marks[-1] in "*#":
                if paragraph:
                    close()
                depth = min(sum(mark in "*#" for mark in marks), 6)
                items.append("  " * (depth - 1) + "- " + item.replace(BREAK, " "))
            else:
                close()
                if marks[-1] == ";":
                    item = item.replace(" : ", ": ", 1)
                paragraph.append(item)
                close()
        elif first == "|" or (first == "-" and line.startswith("----")):
            close()
        else:
            if items:
                close()
            paragraph.append(line)
    close()
    return "\n\n".join(_kept(sections))


def _split_item(line: str) -> tuple[str, str]:
    match = _LIST.match(line)
    assert match
    return match[1], line[match.end() :].strip(" " + BREAK)


def _kept(sections: list[_Section]) -> list[str]:
    """Titles and blocks of the sections with prose. A title stays if something of its section, or below it, does."""
    apparatus_level = 0
    for section in sections:
        if apparatus_level and section.level > apparatus_level:
            is_apparatus = True
        else:
            is_apparatus = section.title.rstrip(":").casefold() in APPARATUS
            apparatus_level = section.level if is_apparatus else 0
        if is_apparatus:
            section.blocks = [
                (is_list, block)
                for is_list, block in section.blocks
                if not is_list and len(block) >= MIN_PROSE and block.endswith(_SENTENCE_ENDS)
            ]
    pending = [False] * 7  # levels at which a kept section follows
    out: list[str] = []
    for section in reversed(sections):
        below = any(pending[section.level + 1 :])
        pending[section.level + 1 :] = [False] * (6 - section.level)
        if section.blocks or below:
            pending[section.level] = True
            out += [text for _, text in reversed(section.blocks)]
            if section.title:
                out.append(section.title)
    return out[::-1]
