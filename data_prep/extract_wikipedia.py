"""Extract the articles of a Wikipedia dump as clean prose, of any language edition.

    python data_prep/extract_wikipedia.py --wiki enwiki --date 20261101 --output_dir data/wikipedia
    python data_prep/extract_wikipedia.py --input dumps/bgwiki-20261101-pages-articles.xml.bz2 --output_dir data/bg

Reads the files pages-articles*.xml*.bz2 of https://dumps.wikimedia.org (or of --base_url, a server or folder laid out
like it), which it downloads to --dump_dir, or with --input any dump files, compressed or not, Special:Export too; of
a folder the articles once, where it holds them in parts, in one piece and as multistream. Drops redirects, other
namespaces and disambiguation pages, and writes the stage's parquet shards, `dropped/` and `manifest.json`; `offset` is
the number of pages before an article in its dump file. See wikipedia/wikitext.py for what becomes of the markup, and
wikipedia/expansion.py for templates; those that are removed from within lines of text are counted in the manifest.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_prep.engine.downloads import server_at
from data_prep.engine.run import run_stage
from data_prep.engine.stage import Outcome, StageArguments, document_phase, settings_of
from data_prep.wikipedia.dump import Page, Site, read_pages
from data_prep.wikipedia.expansion import Expansion
from data_prep.wikipedia.files import DAY, fetch_dump, find_dumps
from data_prep.wikipedia.names import Names, names_of
from data_prep.wikipedia.pages import is_disambiguation, is_redirect, language_of, source_of, title_url
from data_prep.wikipedia.template_pages import load_templates, template_phase
from data_prep.wikipedia.wikitext import clean_wikitext
from shared.command_line import check_ranges, refuse_flags, run_script
from shared.errors import InputError
from shared.files import shown_path
from shared.rows import NAMES, Source, clean_text

REMOVED = "removed_templates"  # in the manifest's counts: from within lines of text, by name
CLEANING = 4  # raise it when the cleaning changes, so that a half-made folder is not continued with other text


@dataclass
class WikipediaArguments:
    """Which dump, and which of its pages."""

    wiki: str | None = field(default=None, metadata={"help": "The wiki's database: enwiki, bgwiki, simplewiki."})
    date: str | None = field(default=None, metadata={"help": "The day of the dump: 20261101."})
    dump_dir: str = field(default="data/dumps", metadata={"help": "Where downloaded dumps are kept."})
    base_url: str = field(
        default="https://dumps.wikimedia.org", metadata={"help": "A mirror, or a folder laid out like one."}
    )
    disambiguation: Literal["drop", "keep"] = field(
        default="drop", metadata={"help": "What to do with pages that list the meanings of a name."}
    )
    max_page_bytes: int = field(
        default=8 * 2**20, metadata={"help": "Larger pages of the XML are dropped (MediaWiki's own limit is 2 MiB)."}
    )
    expand_templates: bool = field(
        default=True,
        metadata={
            "help": "Read the dump's own templates first, so that those inside sentences show their words. Without it "
            "the dump is read once, and only the templates of our tables show theirs."
        },
    )

    def __post_init__(self) -> None:
        if (self.wiki is None) != (self.date is None):
            raise InputError("--wiki and --date: name both, or neither with --input")
        if self.wiki is not None and not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", self.wiki):
            raise InputError(f"--wiki {self.wiki}: is the name of a database, like enwiki or zh_yuewiki")
        if self.date is not None and not DAY.fullmatch(self.date):
            raise InputError(f"--date {self.date}: must look like 20261101")
        if self.wiki is None:
            refuse_flags(self, dict.fromkeys(("dump_dir", "base_url"), "is for a download, --wiki and --date"))
        check_ranges(self, max_page_bytes=">= 1000")


@dataclass(frozen=True)
class ReadArticles:
    """The step: one dump file's pages, and what becomes of each."""

    source_name: str | None
    disambiguation: str
    max_page_bytes: int
    templates: str | None = None  # a folder of template_pages.py

    def __call__(self, source: Source, position: int) -> Iterator[Outcome]:
        file_name = shown_path(Path(source.path).name)
        known: tuple[Site, Names, str, str] | None = None
        pages = load_templates(self.templates) if self.templates else {}
        for after, share, page, problem, site in read_pages(source, position, self.max_page_bytes):
            if known is None or known[0] is not site:
                language, code = language_of(site, file_name)
                known = (site, names_of(site.namespaces, language), language, code)
            _, names, language, code = known
            document: dict[str, Any] = dict.fromkeys(NAMES) | {
                "source": self.source_name or source_of(site, file_name),
                "warc_file": file_name,
                "offset": after - 1,
            }
            if page is None:
                yield Outcome(after, share, document, problem, bad="larger" not in problem)
                continue
            title = clean_text(page.title).strip()
            document |= {
                "id": page.number or None,
                "title": title,
                "url": title_url(site, code, title) if title else None,
                "date": page.timestamp or None,
                "language": language or None,
                "metadata": json.dumps({"revision": page.revision}) if page.revision else None,
            }
            expansion = Expansion(title, names, pages)
            reason, bad = self.judge(page, title, site)
            if not reason:
                document["text"] = clean_wikitext(page.text or "", title, names, expansion)
                reason = "" if document["text"] else "no prose"
            counts = {REMOVED: dict(expansion.removed)} if expansion.removed else {}
            yield Outcome(after, share, document, reason, bad, title if reason else "", counts=counts)

    def judge(self, page: Page, title: str, site: Site) -> tuple[str, bool]:
        """(why a page is dropped or "", whether that is damage)."""
        for value, what in ((title, "title"), (page.number, "id"), (page.timestamp, "timestamp")):
            if not value:
                return f"page has no {what}", True
        if page.text is None:
            return "page has no text", True
        spaces = {name.lower() for number, name in site.namespaces.items() if number and name}
        if page.namespace not in ("", "0") or (not page.namespace and title.partition(":")[0].lower() in spaces):
            return "other namespace", False
        if is_redirect(page):
            return "redirect", False
        if page.model not in ("", "wikitext"):
            return "not wikitext", False
        if self.disambiguation == "drop" and is_disambiguation(title, page.text):
            return "disambiguation", False
        return "", False


def main(stage_args: StageArguments, args: WikipediaArguments) -> dict[str, Any]:
    """Download what is missing, extract, and return the manifest."""
    inputs = stage_args.input
    if not inputs:
        if args.wiki is None or args.date is None:
            raise InputError("--wiki and --date, or --input: name a dump")
        inputs = fetch_dump(server_at(args.base_url, 8, 2.0), args.wiki, args.date, args.dump_dir)
    sources = find_dumps(inputs)
    name = f"{args.wiki}-{args.date}" if args.wiki else None
    phases, folder = [], None
    if args.expand_templates:
        phase, folder = template_phase(stage_args.output_dir, sources, args.max_page_bytes)
        phases.append(phase)
    step = ReadArticles(name, args.disambiguation, args.max_page_bytes, folder)
    settings = settings_of(stage_args, args) | {"cleaning": CLEANING}
    for flag in ("dump_dir", "base_url"):  # where a dump came from changes nothing in it
        del settings[flag]
    phases.append(document_phase(stage_args, sources, step))
    manifest = run_stage("extract_wikipedia", stage_args, settings, sources, phases)
    if removed := manifest and manifest["counts"].get(REMOVED):
        most = sorted(removed.items(), key=lambda item: (-item[1], item[0]))[:5]
        print(
            f"extract_wikipedia: {sum(removed.values()):,} unknown templates were removed from within lines of text "
            f"({', '.join(f'{name} {count:,}' for name, count in most)}); see counts.{REMOVED} in manifest.json"
        )
    return manifest


if __name__ == "__main__":
    run_script(main, StageArguments, WikipediaArguments)
