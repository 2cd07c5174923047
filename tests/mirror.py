"""A folder laid out like the servers of Common Crawl and of Wikipedia's dumps, with text that Python brings along."""

import bz2
import gzip
import hashlib
import json
import re
from pathlib import Path
from pydoc_data.topics import topics
from xml.sax.saxutils import escape

from evaluation.bench.sample_warc import SNAPSHOT, build_warc

WIKI, DATE = "enwiki", "20261101"
SITE = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en"><siteinfo>'
    "<sitename>Wikipedia</sitename><dbname>enwiki</dbname><base>https://en.wikipedia.org/wiki/Main_Page</base>"
    '<namespaces><namespace key="0" case="first-letter" /><namespace key="6" case="first-letter">File</namespace>'
    '<namespace key="14" case="first-letter">Category</namespace></namespaces></siteinfo>'
)


def prose() -> list[str]:
    """Some hundred texts of English prose: the language reference, by groups of paragraphs, without its code marks."""
    texts = []
    for _, topic in sorted(topics.items()):
        paragraphs = [" ".join(re.sub(r'["*\[\]=<>]', "", part).split()) for part in topic.split("\n\n")]
        paragraphs = [part for part in paragraphs if len(part.split()) > 15 and part.endswith(".")]
        texts += ["\n\n".join(paragraphs[i : i + 6]) for i in range(0, len(paragraphs) - 5, 6)]
    return texts


def make_crawl(folder: Path, texts: list[str], files: int = 2) -> None:
    """A snapshot of `files` WARC files with the texts as pages."""
    root = folder / "crawl-data" / SNAPSHOT
    names = []
    for number in range(files):
        name = f"crawl-data/{SNAPSHOT}/segments/1/warc/CC-MAIN-20261110-{number:05d}.warc.gz"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"".join(build_warc(texts[number::files], seed=number)))
        names.append(name)
    (root / "warc.paths.gz").write_bytes(gzip.compress("\n".join(names).encode(), mtime=0))
    (folder / "collinfo.json").write_text(json.dumps([{"id": SNAPSHOT, "name": "October 2026 Index"}]))


def make_dump(folder: Path, texts: list[str]) -> None:
    """A dump of one file with the texts as articles, a redirect and a page of another namespace."""
    pages = [
        f"<page><title>Article {number}</title><ns>0</ns><id>{number}</id><revision><id>{9000 + number}</id>"
        f"<timestamp>2026-10-{number % 28 + 1:02d}T00:00:00Z</timestamp><model>wikitext</model>"
        f"<format>text/x-wiki</format><text xml:space=\"preserve\">'''Article''' {escape(text)} {{{{stub}}}} "
        "[[Category:Texts]]</text></revision></page>"
        for number, text in enumerate(texts, 1)
    ]
    pages.append(
        '<page><title>Old name</title><ns>0</ns><id>9998</id><redirect title="Article 1" /><revision><id>1</id>'
        "<timestamp>2026-10-01T00:00:00Z</timestamp><text>#REDIRECT [[Article 1]]</text></revision></page>"
    )
    name = f"{WIKI}-{DATE}-pages-articles.xml.bz2"
    content = bz2.compress((SITE + "\n".join(pages) + "</mediawiki>").encode())
    root = folder / WIKI / DATE
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
    facts = {"size": len(content), "sha1": hashlib.sha1(content).hexdigest(), "url": f"/{WIKI}/{DATE}/{name}"}
    status = {"jobs": {"articlesdump": {"status": "done", "files": {name: facts}}}}
    (root / "dumpstatus.json").write_text(json.dumps(status))
