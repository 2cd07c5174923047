"""A WARC file of pages that look like the web's, for benchmarks and tests: real text inside made-up furniture.

    python evaluation/bench/sample_warc.py --input corpus.parquet --pages 500 --output pages.warc.gz

Reads parquet, JSON lines or text files. Writes one gzip member a record, as Common Crawl does: a warcinfo record, then
request and response of each page. The same input, number and seed give the same bytes.
"""

import gzip
import hashlib
import html
import io
import random
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from shared.command_line import run_script
from shared.documents import Documents
from shared.errors import InputError
from shared.files import atomic_file

SNAPSHOT = "CC-MAIN-2026-43"
SECTIONS = ["Home", "News", "Sport", "Culture", "Science", "Travel", "Money", "Opinion", "Archive", "About us"]


@dataclass
class SampleArguments:
    output: str = field(metadata={"help": "The file to write, NAME.warc.gz."})
    input: list[str] = field(default_factory=list, metadata={"help": "Files or folders of text."})
    pages: int = field(default=500, metadata={"help": "Pages to write, one for each document read."})
    seed: int = field(default=42, metadata={"help": "Seed of the furniture around the text."})


def build_page(text: str, words: list[str], chance: random.Random) -> str:
    """A page of a news site, blog or shop around `text`: menus, teasers, scripts, comments, a footer."""

    def phrase(low: int, high: int) -> str:
        return html.escape(" ".join(chance.choices(words, k=chance.randint(low, high))).capitalize())

    def links(count: int, low: int = 1, high: int = 3) -> str:
        items = (
            f'<li class="item"><a href="/{i}/{chance.getrandbits(40):x}">{phrase(low, high)}</a></li>'
            for i in range(count)
        )
        return f'<ul class="list">{"".join(items)}</ul>'

    paragraphs = [html.escape(part.strip()) for part in text.split("\n") if part.strip()]
    title = paragraphs[0][:80] if paragraphs else "Untitled"
    settings = ",".join(f'"{chance.getrandbits(32):x}":[{chance.random():.6f},"{phrase(1, 2)}"]' for _ in range(200))
    teasers = "".join(
        f'<div class="card"><img src="/img/{chance.getrandbits(32):x}.jpg" alt="{phrase(2, 5)}"><h3>'
        f'<a href="/story/{i}">{phrase(4, 9)}</a></h3><span class="date">{chance.randint(1, 28)} Oct 2026</span></div>'
        for i in range(chance.randint(10, 40))
    )
    comments = "".join(
        f'<div class="comment"><b>{phrase(1, 2)}</b><p>{phrase(5, 30)}</p></div>' for _ in range(chance.randint(0, 12))
    )
    style = "".join(
        f".c{i}{{margin:{i}px;color:#{chance.getrandbits(24):06x};padding:0 {i % 7}px}}" for i in range(150)
    )
    body = "".join(f"<p>{paragraph}</p>\n" for paragraph in paragraphs)
    menu = "".join(f'<li><a href="/{name.lower()}">{name}</a></li>' for name in SECTIONS)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title} | {phrase(1, 2)}</title>'
        f'<meta name="description" content="{phrase(8, 20)}"><style>{style}</style>'
        f"<script>window.config={{{settings}}};</script></head><body><header><nav><ul>{menu}</ul></nav></header>"
        f'<div id="page"><aside class="sidebar"><h4>Most read</h4>{links(chance.randint(10, 40), 3, 8)}</aside>'
        f"<main><article><h1>{title}</h1>{body}</article>"
        f'<section class="comments">{comments}</section></main><section class="related">{teasers}</section></div>'
        f"<footer>{links(chance.randint(20, 60))}<p>&copy; 2026 {phrase(1, 3)}. All rights reserved.</p></footer>"
        f"<script>{''.join(f'track({i},{chance.random():.8f});' for i in range(300))}</script></body></html>"
    )


def build_warc(texts: Iterable[str], seed: int = 42) -> Iterator[bytes]:
    """Yield the members of a WARC file with one page for each text."""
    yield _member("warcinfo", {}, f"isPartOf: {SNAPSHOT}\r\nsoftware: sample_warc.py\r\n".encode(), "warcinfo")
    for number, text in enumerate(texts):
        chance = random.Random(f"{seed} {number}")
        words = sorted({word for word in text.split() if word.isalpha()})[:500] or ["page"]
        page = build_page(text, words, chance).encode("utf-8")
        url = f"https://www.site{chance.randint(0, 99)}.example/{chance.getrandbits(40):x}/page-{number}.html"
        reply = (
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
            f"Last-Modified: Mon, {chance.randint(1, 9):02d} Nov 2026 10:00:00 GMT\r\n"
            f"Content-Length: {len(page)}\r\n\r\n"
        ).encode()
        headers = {"WARC-Target-URI": url, "WARC-Identified-Payload-Type": "text/html"}
        request = f"GET / HTTP/1.1\r\nHost: {url.split('/')[2]}\r\n\r\n".encode()
        yield _member("request", headers, request, f"q{number}")
        yield _member("response", headers, reply + page, f"r{number}")


def _member(kind: str, headers: dict[str, str], block: bytes, name: str) -> bytes:
    content = {"response": "application/http; msgtype=response", "request": "application/http; msgtype=request"}
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{uuid.UUID(bytes=hashlib.md5(name.encode() + block).digest())}>",
        "WARC-Date": "2026-11-10T12:00:00Z",
        "Content-Type": content.get(kind, "application/warc-fields"),
        **headers,
        "Content-Length": str(len(block)),
    }
    head = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, compresslevel=6) as file:
        file.write(b"WARC/1.0\r\n" + head.encode() + b"\r\n" + block + b"\r\n\r\n")
    return buffer.getvalue()


def main(args: SampleArguments) -> Path:
    path = Path(args.output)
    if not path.name.endswith(".warc.gz"):
        raise InputError(f"--output {path}: must end in .warc.gz")
    documents = Documents(args.input)
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        for member in build_warc(islice(documents, args.pages), args.seed):
            file.write(member)
    print(f"{path}: {path.stat().st_size:,} bytes")
    return path


if __name__ == "__main__":
    run_script(main, SampleArguments)
