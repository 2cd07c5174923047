"""Wikitext -> prose: paragraphs, section titles and lists, without templates, tables, references and markup.

`clean_wikitext` is the way in. Time is linear in the length of the text whatever it holds: every scan moves forward
only, and what is nested deeper than `brackets.MAX_DEPTH` is dropped. The grammar follows MediaWiki's documentation of
its own preprocessor: what an editor forgot to close ends where its surroundings end.
"""

import re
from dataclasses import dataclass

from data_prep.wikipedia.brackets import resolve_brackets
from data_prep.wikipedia.expansion import Expansion
from data_prep.wikipedia.extensions import take_out_extensions
from data_prep.wikipedia.inline import SPACES, show_inline, strip_quotes
from data_prep.wikipedia.marks import BREAK, RESERVED, put_back
from data_prep.wikipedia.names import DEFAULT, Names
from data_prep.wikipedia.words import APPARATUS
from shared.rows import clean_text

MIN_PROSE = 60  # characters of a line that may be a sentence rather than the name of a source
_BRACKETS, _DOUBLE = re.compile(r"[\[\]{}]{2,}"), re.compile(r"\[\[|\]\]|\{\{|\}\}")


def clean_wikitext(text: str, title: str = "", names: Names = DEFAULT, expansion: Expansion | None = None) -> str:
    """The prose of a page: paragraphs, lists and section titles, with an empty line between them.

    `expansion` brings the templates of the wiki, and counts those that are removed from within sentences.
    """
    text = RESERVED.sub("", clean_text(text)).replace("\r", "")
    text = take_out_extensions(text)
    text = resolve_brackets(text, names, expansion or Expansion(title, names))
    text = show_inline(text)
    text = _BRACKETS.sub(lambda match: "" if _DOUBLE.search(match[0]) else match[0], _sections(text, names))
    return put_back(text)


_HEADING = re.compile(r"(={1,6})(.+?)(={1,6})\s*\Z")
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
            line = SPACES.sub(" ", strip_quotes(line))
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
            item = line.lstrip("*#:;")
            marks, item = line[: len(line) - len(item)], item.strip().strip(" " + BREAK)
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
