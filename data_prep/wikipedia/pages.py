"""What kind of page this is, and where it stands: redirects, disambiguation, language, address."""

import re
from urllib.parse import quote, urlsplit

from data_prep.languages import LANGUAGE_CODES
from data_prep.wikipedia.dump import Page, Site
from data_prep.wikipedia.words import DISAMBIGUATION, DISAMBIGUATION_TITLES, LANGUAGES, REDIRECT

_TEMPLATE = re.compile(r"\{\{\s{0,9}+([^\s{}|][^{}|\n]{1,60})")
_REDIRECT = re.compile(r"\s*+#\s{0,9}([^\[\]\n:#|]{2,30}):?\s{0,9}\[\[")


def is_redirect(page: Page) -> bool:
    """By the element of the dump, or by the word of any language at the start of the text."""
    if page.redirect:
        return True
    match = _REDIRECT.match(page.text or "")
    return bool(match) and match[1].replace("_", " ").strip().lower() in REDIRECT


def is_disambiguation(title: str, text: str) -> bool:
    """By the end of the title, a template of that name, or the magic word."""
    bracket = re.search(r"[(（]([^()（）]+)[)）]\Z", title)
    if bracket and bracket[1].strip().lower() in DISAMBIGUATION_TITLES:
        return True
    names = (match[1].replace("_", " ").strip().lower() for match in _TEMPLATE.finditer(text))
    return "__DISAMBIG__" in text or any(name in DISAMBIGUATION for name in names)


def language_of(site: Site, file_name: str) -> tuple[str, str]:
    """(ISO code, Wikipedia's own code) from the site's address, its database, the file name or the XML; may be ""."""
    host = (urlsplit(site.base).hostname or "") if site.base.startswith("http") else ""
    databases = (site.database, file_name.partition("-")[0])
    found = [host.partition(".")[0]]
    found += [name[:-4].replace("_", "-") for name in databases if name.endswith("wiki")]
    for code in (*found, site.language):
        if code in LANGUAGES:
            return LANGUAGE_CODES.get(code, code), code
    return "", ""


def title_url(site: Site, code: str, title: str) -> str | None:
    """The address of a page, spelled as MediaWiki spells it."""
    if re.fullmatch(r"https?://[\w.-]+(:\d+)?/\S*", site.base):
        base = site.base.rpartition("/")[0]
    elif code:
        base = f"https://{code}.wikipedia.org/wiki"
    else:
        return None
    return f"{base}/{quote(title.replace(' ', '_'), safe=';@$!*(),/~:')}"


def source_of(site: Site, file_name: str) -> str:
    """The name of a dump: enwiki-20261101, or the wiki alone when the file name holds no date."""
    if match := re.match(r"[a-z][a-z0-9_]*-\d{8}(?=-)", file_name):
        return match[0]
    match = re.match(r"[a-z][a-z0-9_]*wiki(?=-)", file_name)
    return site.database or (match[0] if match else file_name.partition(".")[0])
