"""The text of a web page, from the bytes that a server sent: HTTP, encoding, HTML, main content.

Everything here reads hostile bytes with large libraries: page_process.py runs it in a process of its own.
"""

import codecs
import datetime
import email.utils
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from html import unescape
from typing import Literal

from fastwarc.warc import WarcRecord
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

from data_prep.languages import tidy_zero_width_spaces
from data_prep.wikipedia.templates import superscript
from shared.rows import clean_text

HTML = ("text/html", "application/xhtml+xml")
PLAIN = "text/plain"
MAX_DEPTH = 250  # of elements; real pages have 20 to 40, and extractors take time with its square
TITLE_CHARACTERS = 1000
LOOKS_BINARY = (
    b"%PDF-",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"RIFF",
    b"\x00\x00\x01\x00",
)
SKIPPED_ELEMENTS = [".mw-editsection", "sup.reference"]  # of MediaWiki, which many sites run on: "[edit]", "[1]"
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LATIN: tuple[str, ...] = ("utf-8", "cp1252", "cp1250", "cp1254", "cp1257", "cp1258", "macintosh", "mac_roman")
LATIN += tuple(f"iso8859-{part}" for part in (1, 2, 3, 4, 9, 10, 13, 14, 15, 16))
# Encodings of 7 bits, whose bytes are all valid UTF-8: what announces them, and Python's codecs in which to read them.
SEVEN_BITS = (
    (re.compile(rb"\x1b\$\)C"), ("iso2022_kr",)),
    (re.compile(rb"\x1b\$(?:[@B]|\([@-DOPQ])|\x1b\([IJ]"), ("iso2022_jp_2", "iso2022_jp_ext", "iso2022_jp_2004")),
    (re.compile(rb"\x1b\$[)*+][A-M]"), ()),  # ISO-2022-CN, which Python does not know
    (re.compile(rb"~\{(?:[!-w][!-~])+~\}.*~\{(?:[!-w][!-~])+~\}", re.DOTALL), ("hz",)),
)
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_HTML_START = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|meta)\b", re.IGNORECASE)
_BODY = re.compile(r"<body\b[^<>]{0,4000}>", re.IGNORECASE)
# What browsers do not show, and the parser takes for text.
_UNSEEN = re.compile(r"<(noframes|noembed|iframe|canvas|datalist)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_NOT_PROSE = re.compile(
    r"\s*(?:<\?xml|<!doctype|<(?:html|rss|feed|svg|urlset|sitemapindex)\b"
    r"|(?:#[^\n]*\s+)*(?:user-agent|sitemap|disallow)[ \t]*:)",
    re.IGNORECASE,
)
_INLINE = r"(?:</?(?:b|i|em|strong|span|small|font|var)\b[^<>]{0,200}>|\s){0,4}"
_MINUS = r"&minus;|&#8722;|&#x2212;"
_POWER = re.compile(
    rf"<sup\b[^<>]{{0,200}}>{_INLINE}((?:[0-9+\-−n./]|{_MINUS}){{1,12}}){_INLINE}</sup\s*>", re.IGNORECASE
)
# It looks back from the "<" that it finds at once: begun with the digit, it is tried at every character of the page.
_BASE = re.compile(rf"(<(?<=\d<)sub\b[^<>]{{0,200}}>){_INLINE}(\d{{1,3}}){_INLINE}</sub\s*>", re.IGNORECASE)
_INDEX = re.compile(rf"(<sub\b[^<>]{{0,200}}>){_INLINE}(\d{{1,3}}){_INLINE}</sub\s*>(?=\d)", re.IGNORECASE)
_SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]{0,4000})?\r?\n")
_TOO_DEEP = " > ".join("*" * MAX_DEPTH)
_INVISIBLE = re.compile("[\u00ad\u2060\ufeff\ufffd]")  # soft hyphen, word joiner, byte order mark, what was unreadable
_ODD_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_ODD_LINE_ENDS = re.compile("[\u2028\u2029\u0085]")
_ODD = re.compile(f"\u200b|{_ODD_LINE_ENDS.pattern}|{_INVISIBLE.pattern}|{_ODD_SPACES.pattern}")
_RUNS = re.compile(r"(?:  |\t | \t|\t\t)[ \t]*")
_EMPTY_LINES = re.compile(r"\n{3,}")


class Unwanted(Exception):
    """There is nothing to read on this page. The message is a fixed phrase; `detail` says more."""

    def __init__(self, reason: str, detail: str = "", bad: bool = False) -> None:
        super().__init__(reason)
        self.detail = detail
        self.bad = bad  # the record is damaged, rather than unwanted


@dataclass
class Page:
    title: str | None
    text: str
    last_modified: str | None  # as the server wrote it


def read_page(block: bytes, extract: Callable[[str, HTMLTree], str], max_bytes: int) -> Page:
    """The page in the block of a WARC response. Raises Unwanted."""
    if not block.startswith((b"HTTP/", b"http/")):
        raise Unwanted("no HTTP header", repr(block[:40]), bad=True)
    try:
        record = _parse_http(block, "none")
        headers = record.http_headers
        status = headers.status_code
    except (OSError, ValueError) as error:
        raise Unwanted("damaged HTTP header", str(error), bad=True) from error
    if status != 200:
        raise Unwanted("HTTP status", str(status))
    content_type = re.split("[;,]", headers.get("Content-Type") or "")[0].strip().lower()  # some servers say it twice
    if content_type and content_type not in (*HTML, PLAIN):
        raise Unwanted("MIME type", content_type)
    content = _decode_body(block, record.reader.read(), max_bytes)
    if len(content) > max_bytes:
        raise Unwanted("larger than --max_record_bytes")
    if content.startswith(LOOKS_BINARY):
        raise Unwanted("MIME type", f"{content_type or 'none'}, but not text")
    last_modified = headers.get("Last-Modified")
    label = _DECLARED.search((headers.get("Content-Type") or "").encode("latin-1", "replace"))
    is_html = content_type in HTML or (not content_type and _HTML_START.search(content[:1024]) is not None)
    html = decode(content, label[1].decode() if label else None, is_html)
    if not is_html:
        if not content_type:
            raise Unwanted("MIME type", "none")
        if _NOT_PROSE.match(html):
            raise Unwanted("MIME type", f"{content_type}, but markup or robots.txt")
        return Page(None, tidy(html), last_modified)
    html = show_scripts(_UNSEEN.sub(" ", html))
    # resiliparse takes a list near the top of the tree for a menu, which on plain pages is part of the text.
    tree = HTMLTree.parse(_BODY.sub(r"\g<0><div><div><div>", html, count=1))
    root = tree.document if tree.body is None else tree.body
    if root is None:
        raise Unwanted("no text")
    if root.query_selector(_TOO_DEEP) is not None:
        raise Unwanted("elements nested too deeply", f"more than {MAX_DEPTH}")
    title = tidy(" ".join((tree.title or "").split()))[:TITLE_CHARACTERS].strip() or None
    return Page(title, tidy(extract(html, tree)), last_modified)


def show_scripts(html: str) -> str:
    """HTML whose raised numbers are powers in plain text, as in Wikipedia's: `10<sup>9</sup>` is 10⁹, and what Unicode
    has not raised stands behind `^`. A lowered number keeps its place where another one touches it (log₁₀5), and is
    plain elsewhere (H2O). Extractors take the tags away, and 109 would stay."""
    html = _POWER.sub(lambda found: _raised(unescape(found[1])), html)
    html = _BASE.sub(lambda found: found[2].translate(_SUBSCRIPT), html)
    return _INDEX.sub(lambda found: found[2].translate(_SUBSCRIPT), html)


def _raised(power: str) -> str:
    shown = superscript(power)
    return f"^{power}" if shown == power and any(map(str.isdigit, power)) else shown


def _parse_http(block: bytes, decode_what: Literal["none", "all"]) -> WarcRecord:
    start = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\n"
    record = WarcRecord.from_bytes(b"%sContent-Length: %d\r\n\r\n%s" % (start, len(block), block))
    record.parse_http(auto_decode=decode_what, quirks_mode=True)
    return record


def _decode_body(block: bytes, raw: bytes, max_bytes: int) -> bytes:
    """The body without its transfer and content encodings; more than `max_bytes` of it at most.

    Many servers and crawlers name an encoding that the body does not have (any more): then it is taken as it is.
    """
    body = raw
    head = block[: len(block) - len(raw)]
    if re.search(rb"\ntransfer-encoding:[^\n]*chunked", head, re.IGNORECASE):
        block = head + _plain_chunks(raw)
    if re.search(rb"\n(?:content|transfer)-encoding:", head, re.IGNORECASE):
        with suppress(OSError, ValueError):
            body = _parse_http(block, "all").reader.read(max_bytes + 1) or raw
    if body.startswith(b"\x1f\x8b\x08"):  # "x-gzip", a header that was lost, or one time too often
        with suppress(zlib.error):
            body = zlib.decompressobj(31).decompress(body, max_bytes + 1)
    elif body is raw and re.search(rb"\ncontent-encoding:\s*deflate", head, re.IGNORECASE):
        with suppress(zlib.error):  # without zlib's header, as many servers send it
            body = zlib.decompressobj(-15).decompress(body, max_bytes + 1)
    return body


def _plain_chunks(raw: bytes) -> bytes:
    """A chunked body without the extensions of chunks (RFC 9112, 7.1.1), which the reader takes for text; as it is
    where it is not chunked so."""
    parts, start = [], 0
    while chunk := _CHUNK.match(raw, start):
        size = int(chunk[1], 16)
        parts.append(b"%x\r\n%s\r\n" % (size, raw[chunk.end() : chunk.end() + size]))
        start = chunk.end() + size
        if not size:
            return b"".join(parts)
        start += 2 if raw[start : start + 2] == b"\r\n" else 1
    return raw


def decode(content: bytes, label: str | None, is_html: bool) -> str:
    """Text from bytes in an unknown encoding: a byte order mark, then UTF-8 if all of it is, then what the server and
    the page say, then a guess. Bytes that do not fit are left out. Raises Unwanted."""
    for bom, name in BOMS:
        if content.startswith(bom):
            return content[len(bom) :].decode(name, "ignore")
    if b"\0" in content[:200] and (wide := _wide_encoding(content[:200])):
        return content.decode(wide, "ignore")
    if (text := _decode_seven_bits(content)) is not None:
        return text
    declared = _DECLARED.search(content[:4096]) if is_html else None
    labels = (label, declared[1].decode() if declared else None)
    names = [name for said in labels if said and (name := _known_encoding(said)) and not name.startswith("utf-16")]
    if not any(name.startswith("iso2022") for name in names):  # 7 bits: text in it would pass for UTF-8
        with suppress(UnicodeDecodeError):
            # Whatever its label: text in another encoding is next to never valid UTF-8. The last character may be cut.
            return codecs.getincrementaldecoder("utf-8")().decode(content)
        text = content.decode("utf-8", "replace")
        broken = text.count("\ufffd")
        if broken * 10 <= len(content) - len(text):  # a few bytes of something else in it
            return text.replace("\ufffd", "")
    guess = detect_encoding(content) or "utf-8"
    if len(set(names)) != 1 or (names[0] == "cp1252" and guess not in LATIN):
        # No label, or two, or that of a server's default settings: text that is not Latin would be unreadable.
        names.insert(0, guess)
    names = [name for name in (*names, guess, "cp1252") if name != "utf-8"]
    for errors in ("strict", "ignore"):
        for name in names:
            with suppress(UnicodeDecodeError, LookupError):
                return content.decode(name, errors)
    return content.decode("cp1252", "ignore")


def _decode_seven_bits(content: bytes) -> str | None:
    """Text in an encoding that shifts by escape sequences, whatever its label; None if it is in none. Raises Unwanted
    if it cannot be read: as UTF-8 it would pass for text."""
    if not content.isascii():
        return None
    for announced, names in SEVEN_BITS:
        if not announced.search(content):
            continue
        for name in names:
            with suppress(UnicodeDecodeError):
                return codecs.getincrementaldecoder(name)().decode(content)  # the last character may be cut
        if content.count(b"\x1b"):
            raise Unwanted("encoding that cannot be read", "escape sequences of ISO 2022", bad=True)
    return None


def _known_encoding(label: str) -> str | None:
    name = map_encoding_to_html5(label, False)
    # GBK's superset, and Microsoft's variants, are what browsers read under these names.
    return {"gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}.get(name, name) if name else None


def _wide_encoding(start: bytes) -> str | None:
    """UTF-16 without a byte order mark: in markup every other byte is zero, and none of those between."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    if odd > len(start) // 10 and not even:
        return "utf-16-le"
    return "utf-16-be" if even > len(start) // 10 and not odd else None


def tidy(text: str) -> str:
    """Valid text with one kind of space and line end, one space (or tab) at a time behind a line's indentation, none
    at its end, and no two empty lines in a row."""
    text = clean_text(text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.isascii() and _ODD.search(text):
        text = _ODD_SPACES.sub(" ", _INVISIBLE.sub("", _ODD_LINE_ENDS.sub("\n", text)))
        text = tidy_zero_width_spaces(text)
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    if "  " in text or "\t" in text:
        text = _RUNS.sub(_one_space, text)
    if "\n\n\n" in text:
        text = _EMPTY_LINES.sub("\n\n", text)
    return text.strip()


def _one_space(run: re.Match[str]) -> str:
    if run.start() == 0 or run.string[run.start() - 1] == "\n":
        return run[0]
    return "\t" if "\t" in run[0] else " "


def extract_fast(html: str, tree: HTMLTree) -> str:
    """The main content by resiliparse's rules, paragraphs and lists kept."""
    return extract_plain_text(
        tree, main_content=True, preserve_formatting=True, alt_texts=False, skip_elements=SKIPPED_ELEMENTS
    )


def extract_precise(html: str, tree: HTMLTree) -> str:
    """The main content by trafilatura, which leaves out more of what is not text, in ten times the time."""
    import trafilatura

    # Its memory of earlier pages (`deduplicate`) stays off: text must not depend on the order of pages.
    text = trafilatura.extract(
        html, favor_precision=True, include_comments=False, include_tables=False, deduplicate=False
    )
    return text or ""


EXTRACTORS: dict[str, Callable[[str, HTMLTree], str]] = {"fast": extract_fast, "precise": extract_precise}


def parse_date(value: str | None) -> str | None:
    """A date from a header (RFC 9110 in its three forms, and ISO 8601) as ISO 8601 in UTC; None if it is not one."""
    if not value or len(value) > 100:
        return None
    for parse in (email.utils.parsedate_to_datetime, datetime.datetime.fromisoformat):
        with suppress(ValueError, TypeError, IndexError, OverflowError):
            date = parse(value.strip())
            utc = date.astimezone(datetime.UTC) if date.tzinfo else date.replace(tzinfo=datetime.UTC)
            return utc.strftime("%Y-%m-%dT%H:%M:%SZ") if utc.year >= 1000 else None
    return None


def plausible_last_modified(value: str | None, crawled: str | None) -> str | None:
    """`parse_date` of a Last-Modified header, or None if it is before 1990 or later than the crawl."""
    date = parse_date(value)
    if date is None or date < "1990" or (crawled is not None and date > crawled):
        return None
    return date
