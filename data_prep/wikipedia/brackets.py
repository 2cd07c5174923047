"""Templates, tables and links: everything that nests. Each is replaced by what it shows, innermost first."""

import re
from functools import partial

from data_prep.wikipedia.expansion import Expansion
from data_prep.wikipedia.marks import REMOVED, TABLE
from data_prep.wikipedia.names import Names
from data_prep.wikipedia.templates import Arguments
from data_prep.wikipedia.words import LANGUAGES, PROJECTS

MAX_DEPTH = 40  # MediaWiki's own limit for templates

_TOKEN = re.compile(
    r"\{\{+|\}\}+|\[\[+|\]\]+|^[ \t:]*\{\||^[ \t]*\|\}(?!\}(?!\}))|</?(?i:table)\b[^<>]*>", re.MULTILINE
)
_PLAIN_LINK = re.compile(r"\[\[(?:[^\[\]{}|\n:]++\|([^\[\]{}|\n]++)|([^\[\]{}|\n:]++))\]\]")
_OPEN_LINK = re.compile(r"[^\[\]|\n]*(?:\|([^\[\]|\n]*))?\]")
_FIRST_LINE = re.compile(r"[^\n}]*\}?")
_TABLE_LINE = re.compile(r"\s*(?:[|!]|</?(?:t[rdh]|thead|tbody|tfoot|caption)\b)", re.IGNORECASE)


def resolve_brackets(text: str, names: Names, expansion: Expansion) -> str:
    """Replace templates, tables and links by what they show, on the page of `expansion`."""
    resolve = partial(_resolve, names=names, expansion=expansion)
    text = expansion.settle(resolve(text, arguments=None), resolve)
    return _drop_open_tables(text) if TABLE in text else text


def _resolve(text: str, names: Names, expansion: Expansion, arguments: Arguments | None) -> str:
    """Of an article, or with `arguments` of a template's own page; unknown templates are marked."""
    text = _PLAIN_LINK.sub(lambda link: link[link.lastindex or 0], text)  # most links; the loop has the others
    brackets = _Brackets(names, expansion, arguments)
    position = 0
    for match in _TOKEN.finditer(text):
        brackets.out.append(text[position : match.start()])
        position = match.end()
        brackets.read(match[0])
    brackets.out.append(text[position:])
    while brackets.kinds:
        brackets.abandon()
    return "".join(brackets.out)


def _drop_open_tables(text: str) -> str:
    """Without the rows of tables that were never closed. A cell ends with its paragraph: MediaWiki shows all that
    follows such a table in its last cell, and most of that is the article."""
    before, *tables = text.split(TABLE)
    kept = [before]
    for table in tables:
        in_cell = True
        for number, line in enumerate(table.split("\n")):
            in_cell = number == 0 or bool(_TABLE_LINE.match(line)) or (in_cell and not _ends_cell(line))
            if not in_cell:
                kept.append("\n" + line)
    return "".join(kept)


def _ends_cell(line: str) -> bool:
    return not line.strip(f" \t{REMOVED}") or line.startswith("=")


class _Brackets:
    """What is open at a place in the text: links `[`, templates and parameters `{`, tables `|`, HTML tables `t`."""

    def __init__(self, names: Names, expansion: Expansion, arguments: Arguments | None) -> None:
        self.names, self.expansion, self.arguments = names, expansion, arguments
        self.out: list[str] = []  # pieces; the content of an open bracket starts at its place in `starts`
        self.kinds: list[str] = []
        self.starts: list[int] = []
        self.braces: list[int] = []  # how many of `{` are left of a run that opened
        self.opened = {"[": 0, "{": 0, "|": 0, "t": 0}

    def read(self, token: str) -> None:
        """Open or close what a token stands for; the text before it is in `out`."""
        first = token[0]
        if first == "[":
            self._open_links(len(token))
        elif first == "]":
            self._close_links(len(token))
        elif token[-1] == "|" and token[-2] == "{" and first != "<":
            self._push("|")
        elif first == "{":
            self._push("{", len(token))
        elif first == "}":
            self._close_braces(len(token))
        elif first == "<" and token[1] != "/":
            self._push("t")
        else:
            self._close_table("t" if first == "<" else "|")

    def abandon(self) -> None:
        """Forget an opening that was never closed: its content stays, without what stood for the markup."""
        kind = self.kinds[-1]
        start = self._pop()
        if start >= len(self.out):
            return
        piece = self.out[start]
        if kind == "[":
            if _prefix(piece) in self.names.files or _prefix(piece) in self.names.categories:
                self.out[start] = piece.partition("\n")[2] and "\n" + piece.partition("\n")[2]
            elif match := _OPEN_LINK.match(piece):
                label = match[1] if match[1] is not None else match[0][:-1]
                self.out[start] = label + piece[match.end() :]
        elif kind in "|t":
            self.out[start] = TABLE + piece
        else:
            self.out[start] = _FIRST_LINE.sub("", piece, count=1)

    def _open_links(self, length: int) -> None:
        if length % 2:
            self.out[-1] += "["
        for number in range(min(length // 2, MAX_DEPTH)):
            if number:
                self.out.append("")
            self._push("[")

    def _close_links(self, left: int) -> None:
        while left >= 2:
            left -= 2
            if self.kinds and self.kinds[-1] == "[":
                shallow = len(self.kinds) <= MAX_DEPTH
                content = self._take(self._pop())
                self.out.append(_show_link(content, self.names) if shallow else REMOVED)
        if left:
            self.out.append("]")

    def _close_braces(self, left: int) -> None:
        while left >= 2 and self.opened["{"]:
            while self.kinds[-1] != "{":
                self.abandon()
            count = self.braces[-1]
            shallow = len(self.kinds) <= MAX_DEPTH
            content = self._take(self.starts[-1])
            used = 3 if count >= 3 and left >= 3 else 2
            if used == 3:
                shown = self._parameter(content) if shallow else ""
            else:
                shown = self.expansion.show(content) if shallow else REMOVED
            self.out.append(shown)
            left -= used
            if count - used >= 2:
                self.braces[-1] = count - used
            else:
                self._pop()

    def _parameter(self, content: str) -> str:
        """What a parameter shows: its argument, or its default."""
        name, _, default = content.partition("|")
        value = self.arguments.find(name.strip()) if self.arguments else None
        return default if value is None else value

    def _close_table(self, kind: str) -> None:
        if kind == "t" and not self.opened[kind]:
            kind = "|"  # both are one <table> of HTML, which </table> ends; "|}" ends those of "{|" alone
        if not self.opened[kind]:
            return
        while self.kinds[-1] != kind:
            self.abandon()
        self._take(self._pop())
        self.out.append(REMOVED)

    def _push(self, kind: str, count: int = 0) -> None:
        self.kinds.append(kind)
        self.starts.append(len(self.out))
        self.braces.append(count)
        self.opened[kind] += 1

    def _pop(self) -> int:
        self.opened[self.kinds.pop()] -= 1
        self.braces.pop()
        return self.starts.pop()

    def _take(self, start: int) -> str:
        content = "".join(self.out[start:])
        del self.out[start:]
        return content


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
