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


def take_out_extensions(text: str, nested: bool = False) -> str:
    """Without comments, references, formulas and the like; what <nowiki> and <pre> hold becomes literal."""
    out, position = [], 0
    unclosed: set[str] = set()  # searched for once, so that time stays linear
    while match := _EXTENSION.search(text, position):
        out.append(text[position : match.start()])
        position = match.end()
        closing, name = match[1], (match[2] or "!--").lower()
        if name == "!--":
            end = text.find("-->", position)
            position = end + 3 if end >= 0 else len(text)
            # A comment alone on its line takes the line with it.
            rest = _COMMENT_LINE.match(text, position)
            line = text.rfind("\n", max(0, match.start() - 200), match.start()) + 1
            if rest and not text[line : match.start()].strip() and (line or match.start() < 200):
                position = rest.end()
            continue
        if closing or match[3].endswith("/"):
            out.append("" if name in ("nowiki", "pre", "poem") else REMOVED)
            continue
        close = None if name in unclosed else re.compile(rf"</{name}\s*>", re.IGNORECASE).search(text, position)
        if not close:  # never closed: MediaWiki shows the tag, we take it away
            unclosed.add(name)
            continue
        content, position = text[position : close.start()], close.end()
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
