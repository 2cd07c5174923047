"""What the templates of a page show: those of our tables, parser functions, and those of the wiki itself.

A dump holds the pages of its templates. One that stands inside a sentence and is not in our tables is expanded from
its page, as https://www.mediawiki.org/wiki/Help:Templates describes: parameters with defaults, #if, #ifeq, #switch,
templates in templates. It is shown if it becomes a short piece of one line. What calls Lua, or is larger, is removed,
and counted by name when it is removed from within a line of text.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from data_prep.wikipedia import local_templates
from data_prep.wikipedia.extensions import take_out_extensions
from data_prep.wikipedia.marks import REMOVED, RESERVED, UNKNOWN
from data_prep.wikipedia.names import DEFAULT, Names
from data_prep.wikipedia.templates import GROUPS, Arguments, nothing, parse_arguments
from shared.rows import clean_text

MAX_BODY = 2000  # characters of a template's page, and of its arguments
MAX_SHOWN = 400  # characters that it shows
MAX_DEPTH = 8  # of templates in templates
BUDGET = 1_000_000  # characters that the expansions of a page may take together

# Names in lower case, and what templates of these names show. Of two that share a name the first counts.
TEMPLATES = {name: show for names, show in reversed(GROUPS + local_templates.GROUPS) for name in names.split(", ")}
_FOREIGN = re.compile(r"(?:lang|langx|vol|val|язык|мова)-[a-z]{2,3}(?:-\w{2,8})?2?")  # {{lang-de|Wort}} and its kin
_GERMAN = re.compile(r"[a-z]{2,3}S")  # {{enS|word}}
_NOTHING = re.compile(
    r"ipac?-\w{2,8}|[a-z]{2,3} icon|isbn|issn|oclc|doi|pmid"
)  # pronunciations, icons, numbers of books
_CENTURY = re.compile(r"[IVX]+(?:er|e) siècle(?: av\. J\.-C\.)?")
_PAGE_NAMES = frozenset({"PAGENAME", "FULLPAGENAME", "SUBJECTPAGENAME"})
_CASE: dict[str, Callable[[str], str]] = {"lc": str.lower, "uc": str.upper}
_FUNCTIONS = frozenset({"formatnum", "lc", "uc", "lcfirst", "ucfirst", "nowrap"})
_MARK = re.compile(f"{UNKNOWN[0]}(\\d+){UNKNOWN[1]}")
_NOTHING_BEFORE = f" \t*#:;'|{REMOVED}"


def _if(words: list[str]) -> str:
    return [*words, "", ""][1 if words[0].strip(REMOVED) else 2]


def _if_equal(words: list[str]) -> str:
    words = [*words, "", "", ""]
    return words[2] if words[0] == words[1] else words[3]


def _switch(words: list[str]) -> str:
    default, hit = "", False
    for number, word in enumerate(words[1:], 1):
        case, equals, value = (part.strip() for part in word.partition("="))
        hit = hit or case == words[0]
        if equals and hit:
            return value
        if equals and case == "#default":
            default = value
        elif not equals and number == len(words) - 1:
            default = case
    return default


_CHOICES: dict[str, Callable[[list[str]], str]] = {"#if": _if, "#ifeq": _if_equal, "#switch": _switch}


def template_key(name: str, names: Names) -> str:
    """The name under which a template is kept: `{{ Template:Lang_de }}` and `{{lang de}}` are one."""
    key = name.replace("_", " ").strip().lower()
    prefix, colon, rest = key.partition(":")
    return rest.strip() if colon and prefix.strip() in names.templates else key


def prepare_template(text: str) -> str | None:
    """What a template's page gives to the pages that use it; None for those that are no part of a sentence."""
    if only := re.findall(r"(?is)<onlyinclude>(.*?)</onlyinclude>", text):
        text = "".join(only)
    text = re.sub(r"(?is)<noinclude>.*?(?:</noinclude>|\Z)", "", text)
    text = re.sub(r"(?i)</?includeonly>", "", text)
    text = take_out_extensions(RESERVED.sub("", clean_text(text)).replace("\r", "")).strip()
    block = "{|" in text or re.search(r"(?i)<(?:table|div|p|center|ul|ol)\b|#invoke:|__|\[\[\s*(?:file|image):", text)
    return None if block or not 0 < len(text) <= MAX_BODY else text


@dataclass
class Expansion:
    """The templates of one page: what they show, and which of them were removed from within lines of text."""

    title: str = ""
    names: Names = DEFAULT
    pages: Mapping[str, str] = field(default_factory=dict)  # of the wiki's templates, by `template_key`
    removed: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)  # what stood between the braces, by the number in its mark
    left: int = BUDGET

    def show(self, content: str) -> str:
        """What `{{content}}` shows, or a mark. Templates and links in it are plain text, or marks, already."""
        name, bar, rest = content.partition("|")
        key = template_key(name, self.names)
        if not key and bar:  # `{{|x}}`: no template; MediaWiki shows it as it is written
            return rest
        function = TEMPLATES.get(key)
        if _NOTHING.fullmatch(key):
            return REMOVED
        if _FOREIGN.fullmatch(key) or (not function and _GERMAN.fullmatch(name.strip())):
            return parse_arguments(rest).get("text", "1") or REMOVED
        if function is not None:
            shown = function(parse_arguments(rest) if bar else Arguments())
            if shown != REMOVED or function is nothing:
                return shown
        if name.strip() in _PAGE_NAMES:
            return self.title
        if _CENTURY.fullmatch(name.strip()):
            return name.strip()
        word, colon, text = content.strip().partition(":")
        if colon and word in _CHOICES:
            return _CHOICES[word]([part.strip() for part in text.split("|")])
        if colon and word.lower() in _FUNCTIONS:
            return _CASE.get(word.lower(), str)(text.partition("|")[0].strip())
        self.unknown.append(content)
        return f"{UNKNOWN[0]}{len(self.unknown) - 1}{UNKNOWN[1]}"

    def settle(self, text: str, resolve: Callable[..., str], inside: tuple[str, ...] = ()) -> str:
        """Expand the marked templates that stand within a line of text, and remove and count the others.

        `resolve` gives the text of a template's page with its arguments; `inside` names the templates around it.
        """
        if UNKNOWN[0] not in text:
            return text
        lines = []
        for line in text.split("\n"):
            pieces = _MARK.split(line)
            shown = pieces[0]
            before = bool(inside) or bool(shown.strip(_NOTHING_BEFORE))
            for number, after in zip(pieces[1::2], pieces[2::2], strict=True):
                content = self.unknown[int(number)]
                within = (before or _goes_on(after)) and "\n" not in content.strip()
                shown += (self._expand(content, resolve, inside) if within else REMOVED) + after
                before = before or bool(after.strip(_NOTHING_BEFORE))
            lines.append(shown)
        return "\n".join(lines)

    def _expand(self, content: str, resolve: Callable[..., str], inside: tuple[str, ...]) -> str:
        name, bar, rest = content.partition("|")
        key = template_key(name, self.names)
        body = self.pages.get(key)
        loop = key in inside or len(inside) == MAX_DEPTH
        if body is not None and not loop and len(content) <= MAX_BODY and self.left > 0:
            self.left -= len(body) + len(content)
            shown = resolve(body, arguments=parse_arguments(rest) if bar else Arguments())
            self.left -= len(shown)
            if self.left > 0:
                shown = self.settle(shown.strip(), resolve, (*inside, key))
                if len(shown) <= MAX_SHOWN and "\n" not in shown:
                    return shown or REMOVED
        kind = key if key.startswith("#invoke:") else key.partition(":")[0]
        self.removed[kind.partition("\n")[0][:60].strip() or "(no name)"] += 1
        return REMOVED


def _goes_on(after: str) -> bool:
    """Whether a line that a template begins goes on as a sentence does after its first word."""
    first = after.lstrip(" '")[:1]
    return first in (",", ";", ")") or (first.isalpha() and not first.isupper())
