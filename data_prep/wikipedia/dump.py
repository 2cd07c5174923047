"""Pages of a MediaWiki dump, one after another: from *.xml.bz2 of one stream or many, or from plain XML.

The file is cut into pages before any XML is parsed, so that a damaged page costs that page alone, a document type
declaration is never interpreted (entity bombs stay small) and memory is bounded by the largest page allowed.
"""

import bz2
import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from io import BufferedReader
from xml.etree import ElementTree

from shared.rows import LOST, Source

CHUNK = 1 << 20
MAX_HEAD = 4 << 20  # bytes before the first page: the site's names are a few thousand
_PAGE_START, _PAGE_END, _END = re.compile(rb"<page[\s>]"), b"</page>", b"</mediawiki>"


@dataclass(frozen=True)
class Site:
    """What a dump says of its wiki."""

    database: str = ""  # enwiki
    base: str = ""  # https://en.wikipedia.org/wiki/Main_Page
    language: str = ""  # xml:lang of the whole file
    namespaces: dict[int, str] = field(default_factory=dict)


@dataclass
class Page:
    """One page, with its last revision. What is missing is empty, `text` None."""

    title: str = ""
    namespace: str = ""
    number: str = ""
    redirect: bool = False
    revision: str = ""
    timestamp: str = ""
    model: str = ""
    text: str | None = None


class Damaged(Exception):
    """The file ends before it should; the message is the reason."""


def read_pages(
    source: Source, start: int, max_page_bytes: int, only: bytes = b""
) -> Iterator[tuple[int, float, Page | None, str, Site]]:
    """Yield (position after it, share of the file read, page or None, what is wrong or "", site).

    A position is the number of pages before it; `start` is one. Pages before it are passed over without being parsed,
    and so are pages in whose XML `only` does not stand.
    """
    site, position = Site(), 0
    with open(source.path, "rb") as file:
        try:
            for kind, content in _cut(_pieces(file, source.path.endswith(".bz2")), max_page_bytes):
                if kind == "head":
                    site = read_site(content)
                    if b"<!DOCTYPE" not in content and b"<!ENTITY" not in content:
                        continue
                    problem, page = "document type declaration, not read", None
                elif position < start or only not in content:
                    position += 1
                    continue
                elif kind == "page":
                    page, problem = parse_page(content)
                else:
                    page, problem = None, kind
                position += 1
                if position > start:
                    yield position, file.tell() / max(source.bytes, 1), page, problem, site
        except Damaged as error:
            if position >= start:
                yield position + 1, 1.0, None, str(error), site


def _pieces(file: BufferedReader, compressed: bool) -> Iterator[bytes]:
    """The decompressed bytes of a dump as UTF-8, in pieces of bounded size. Raises Damaged behind the last one."""
    content = bz2.BZ2File(file) if compressed else file  # a dump may be many streams, one behind the other
    pieces = iter(partial(content.read1, CHUNK), b"")
    try:
        if content.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            pieces = codecs.iterencode(codecs.iterdecode(pieces, "utf-16", "replace"), "utf-8")
        yield from pieces
    except (EOFError, OSError) as error:
        raise Damaged(f"damaged {'bz2' if compressed else 'file'}: {LOST}") from error


def _cut(pieces: Iterator[bytes], max_page_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield ("head", what stands before the first page), then of each page ("page", bytes) or (problem, b"")."""
    buffer = bytearray()
    state = "head"  # head, between, page, or skip: inside a page that is too large
    searched, is_open = 0, False  # a dump that opens with <mediawiki> closes it; a single stream of one does neither
    for piece in pieces:
        buffer += piece
        while True:
            if state in ("head", "between"):
                match = _PAGE_START.search(buffer, searched)
                if not match:
                    if state == "between":
                        is_open = is_open and _END not in buffer
                        del buffer[: 1 - len(_END)]
                        searched = 0
                    elif len(buffer) > MAX_HEAD:
                        raise Damaged(f"no page in it, not a MediaWiki dump: {LOST}")
                    else:
                        searched = max(0, len(buffer) - 6)
                    break
                if state == "head":
                    is_open = b"<mediawiki" in buffer[: match.start()]
                    yield "head", bytes(buffer[: match.start()])
                del buffer[: match.start()]
                state, searched = "page", 5
            end = buffer.find(_PAGE_END, searched)
            again = _PAGE_START.search(buffer, searched, end if end >= 0 else len(buffer))
            if again:  # the end of the page before is missing
                yield "page is not closed", b""
                del buffer[: again.start()]
                state, searched = "page", 5
                continue
            if end < 0:
                if state == "page" and len(buffer) > max_page_bytes:
                    state = "skip"
                if state == "skip":
                    del buffer[:-7]
                searched = max(5 if state == "page" else 0, len(buffer) - 7)
                break
            end += len(_PAGE_END)
            if state == "skip" or end > max_page_bytes:
                yield "page is larger than --max_page_bytes", b""
            else:
                yield "page", bytes(buffer[:end])
            del buffer[:end]
            state, searched = "between", 0
    if state == "head":
        yield "head", bytes(buffer)
        raise Damaged(f"no page in it, not a MediaWiki dump: {LOST}")
    if state != "between" or is_open:
        raise Damaged(f"file ends {'before </mediawiki>' if state == 'between' else 'inside a page'}: {LOST}")


def parse_page(content: bytes) -> tuple[Page | None, str]:
    """The page in `<page>...</page>`, or None and what is wrong with it."""
    try:
        page = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return None, "page is not well-formed XML"
    revision = [ElementTree.Element("revision"), *page.findall("revision")][-1]
    return Page(
        page.findtext("title", ""),
        page.findtext("ns", ""),
        page.findtext("id", ""),
        page.find("redirect") is not None,
        revision.findtext("id", ""),
        revision.findtext("timestamp", ""),
        revision.findtext("model", ""),
        revision.findtext("text"),
    ), ""


def read_site(head: bytes) -> Site:
    """The names of a wiki from what stands before the first page; what is missing or damaged stays empty."""
    language = re.search(rb'<mediawiki\b[^<>]{0,2000}\bxml:lang="([a-zA-Z-]{2,20})"', head)
    info = ElementTree.Element("siteinfo")
    first, last = head.find(b"<siteinfo"), head.find(b"</siteinfo>")
    if 0 <= first < last:
        with suppress(ElementTree.ParseError):
            info = ElementTree.fromstring(head[first : last + len(b"</siteinfo>")])
    spaces = {space.get("key", ""): (space.text or "").strip() for space in info.iter("namespace")}
    database = info.findtext("dbname", "").strip()
    return Site(
        database if re.fullmatch(r"[a-z0-9_]{2,60}", database) else "",
        info.findtext("base", "").strip(),
        language[1].decode().lower() if language else "",
        {int(key): name for key, name in spaces.items() if re.fullmatch(r"-?[0-9]{1,6}", key)},
    )
