"""Tags whose content is not wikitext: comments, references, formulas, and what is shown as it is written."""

import re

from data_prep.wikipedia.marks import BREAK, LITERAL, REMOVED

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


def take_out_extensions(text: str, nested: bool = False) -> str:
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
            out.append(content.translate(LITERAL))
        elif name == "pre":
            content = _INNER_NOWIKI.sub("", content).translate(LITERAL)
            out.append("\n" + content.strip("\n").replace("\n", BREAK) + "\n")
        elif name == "poem":
            inside = content if nested else take_out_extensions(content, nested=True)
            out.append("\n" + inside.strip("\n").replace("\n", BREAK) + "\n")
        else:
            out.append(REMOVED)
    out.append(text[position:])
    return "".join(out)
