"""Extract the articles of a Wikipedia dump as clean prose, of any language edition.

    python data_prep/extract_wikipedia.py --wiki enwiki --date 20261101 --output_dir data/wikipedia
    python data_prep/extract_wikipedia.py --input dumps/bgwiki-20261101-pages-articles.xml.bz2 --output_dir data/bg

Reads the files pages-articles*.xml*.bz2 of https://dumps.wikimedia.org (or of --base_url, a server or folder laid out
like it), which it downloads to --dump_dir, or with --input any dump files, compressed or not, Special:Export too; of
a folder the articles once, where it holds them in parts, in one piece and as multistream. Drops redirects, other
namespaces and disambiguation pages, and writes the stage's parquet shards, `dropped/` and `manifest.json`; `offset` is
the number of pages before an article in its dump file. See wikipedia/wikitext.py for what becomes of the markup.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from tqdm.auto import tqdm

from data_prep.engine.downloads import BadFile, NotFound, Patience, Server, Trouble, TryAgain, server_at
from data_prep.engine.run import run_stage
from data_prep.engine.stage import Outcome, StageArguments, document_phase, settings_of
from data_prep.wikipedia.dump import Page, Site, read_pages
from data_prep.wikipedia.wikitext import Names, clean_wikitext, names_of
from data_prep.wikipedia.words import DISAMBIGUATION, DISAMBIGUATION_TITLES, LANGUAGE_CODES, LANGUAGES, REDIRECT
from shared.command_line import run_script
from shared.errors import InputError, RunError
from shared.files import flush
from shared.rows import NAMES, Source, clean_text, find_sources

CLEANING = 2  # raise it when the cleaning changes, so that a half-made folder is not continued with other text
SUFFIXES = (".xml", ".bz2")
JOB = "articlesdump"  # in dumpstatus.json: the articles in parts; the "recombine" jobs hold them once more
DAY = re.compile(r"\d{8}")
_DUMP = re.compile(r"[a-z][a-z0-9_]*-(?:\d{8}|latest)-")
_ARTICLES = re.compile(r"pages-articles(?P<multi>-multistream)?(?P<part>\d*)\.xml")
_TEMPLATE = re.compile(r"\{\{\s{0,9}+([^\s{}|][^{}|\n]{1,60})")
_REDIRECT = re.compile(r"\s*+#\s{0,9}([^\[\]\n:#|]{2,30}):?\s{0,9}\[\[")


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

    def __post_init__(self) -> None:
        if (self.wiki is None) != (self.date is None):
            raise InputError("--wiki and --date: name both, or neither with --input")
        if self.wiki is not None and not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", self.wiki):
            raise InputError(f"--wiki {self.wiki}: is the name of a database, like enwiki or zh_yuewiki")
        if self.date is not None and not DAY.fullmatch(self.date):
            raise InputError(f"--date {self.date}: must look like 20261101")
        if self.max_page_bytes < 1000:
            raise InputError(f"--max_page_bytes {self.max_page_bytes}: must be at least 1000")


def fetch_dump(server: Server, wiki: str, date: str, dump_dir: str) -> list[str]:
    """Download the articles of a dump, as its dumpstatus.json lists them; returns the files. What is there is kept."""
    folder = Path(dump_dir, f"{wiki}-{date}")
    try:
        jobs = json.loads(server.read(f"{wiki}/{date}/dumpstatus.json", 64 * 2**20))["jobs"]
        job = jobs.get(JOB, {})
        if job.get("status") != "done":
            raise InputError(
                f"--date {date}: the articles of this dump are not finished (status {job.get('status', 'missing')}); "
                "try again later, or take an earlier one"
            )
        listed = sorted(job["files"].items(), key=lambda item: [int(part) for part in re.findall(r"\d+", item[0])])
        for name, facts in listed:
            if not re.fullmatch(rf"{wiki}-{date}-pages-articles\d*\.xml(-p\d+p\d+)?\.bz2", name):
                raise ValueError(f"unexpected file name {name!r}")
            facts["size"] = int(facts["size"])
        missing = sum(facts["size"] for name, facts in listed if not (folder / name).is_file())
        folder.mkdir(parents=True, exist_ok=True)
        if missing > (free := shutil.disk_usage(folder).free):
            raise InputError(f"--dump_dir {dump_dir}: {missing:,} bytes are to come and {free:,} are free")
        with tqdm(total=missing, desc=f"Fetching {wiki}-{date}", unit="B", unit_scale=True, delay=1) as bar:
            for name, facts in listed:
                fetch_file(server, f"{wiki}/{date}/{name}", folder / name, facts["size"], facts.get("sha1", ""), bar)
    except NotFound as error:
        raise InputError(f"--wiki {wiki} --date {date}: no such dump at {server.base}{_days(server, wiki)}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{server.base}/{wiki}/{date}/dumpstatus.json: cannot be understood: {error}") from error
    except (BadFile, Trouble) as error:
        raise RunError(f"--base_url {server.base}: {error}; what has come is kept, run it again later") from error
    return [str(folder / name) for name, _ in listed]


def fetch_file(server: Server, path: str, target: Path, size: int, sha1: str, bar: tqdm) -> None:
    """Bring one file of known size and hash to `target`, from where `target.part` ends. Raises BadFile, Trouble."""
    if target.is_file() and target.stat().st_size == size:
        return
    part, patience = target.with_name(target.name + ".part"), Patience(server, path)
    while True:
        try:
            have = part.stat().st_size if part.is_file() else 0
            start = have
            if have < size:
                with server.open(path, have) as reply, open(part, "ab") as file:
                    file.truncate(reply.start)  # the server may not know ranges
                    have = start = reply.start
                    for chunk in reply.chunks:
                        have += file.write(chunk)
                        bar.update(len(chunk))
                        if have > size:
                            break
            if have < size:
                raise TryAgain("connection cut")
            with open(part, "rb") as file:
                if have > size or (sha1 and hashlib.file_digest(file, "sha1").hexdigest() != sha1):
                    part.unlink()
                    raise TryAgain("size or SHA-1 differs from dumpstatus.json", bad=True)
            break
        except TryAgain as error:
            if have - start > 2**20 and not error.bad:
                patience.failures = 0
            patience.wait(error)
    flush(part)
    part.replace(target)
    flush(target.parent)


def _days(server: Server, wiki: str) -> str:
    with suppress(BadFile, Trouble, OSError):
        if server.folder is not None:
            found = [path.name for path in (server.folder / wiki).iterdir()]
        else:
            found = re.findall(r'href="(\d{8})/"', server.read(f"{wiki}/", 2**20).decode("utf-8", "replace"))
        if days := sorted(day for day in found if DAY.fullmatch(day)):
            return "; there are " + ", ".join(days[-12:])
    return ""


def find_dumps(inputs: Sequence[str]) -> list[Source]:
    """The dump files of `--input`; of a folder, where it holds the articles of a dump, these alone, and once."""
    files: list[str] = []
    for name in inputs:
        if not Path(name).is_dir():
            files.append(name)
            continue
        found = sorted(path for path in Path(name).rglob("*") if path.is_file() and path.name.endswith(SUFFIXES))
        if not found:
            raise InputError(f"--input {name}: no file in this folder ends in {' or '.join(SUFFIXES)}")
        dumps: dict[tuple[Path, str], dict[int, list[Path]]] = {}
        for path in found:
            match = _DUMP.match(path.name)
            articles = _ARTICLES.match(path.name, match.end()) if match else None
            # They may be there in parts (best: several workers), in one piece and as multistream.
            kind = 2 * bool(articles["multi"]) + (not articles["part"]) if articles else 4
            dumps.setdefault((path.parent, match[0] if match else path.name), {}).setdefault(kind, []).append(path)
        files += [str(path) for kinds in dumps.values() for path in kinds[min(kinds)]]
    return find_sources(files, SUFFIXES)


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


@dataclass(frozen=True)
class ReadArticles:
    """The step: one dump file's pages, and what becomes of each."""

    source_name: str | None
    disambiguation: str
    max_page_bytes: int

    def __call__(self, source: Source, position: int) -> Iterator[Outcome]:
        file_name = Path(source.path).name
        known: tuple[Site, Names, str, str] | None = None
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
            reason, bad = self.judge(page, title, site)
            if not reason:
                document["text"] = clean_wikitext(page.text or "", title, names)
                reason = "" if document["text"] else "no prose"
            yield Outcome(after, share, document, reason, bad, title if reason else "")

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
    step = ReadArticles(name, args.disambiguation, args.max_page_bytes)
    settings = settings_of(stage_args, args) | {"cleaning": CLEANING}
    for flag in ("dump_dir", "base_url"):  # where a dump came from changes nothing in it
        del settings[flag]
    return run_stage("extract_wikipedia", stage_args, settings, sources, [document_phase(stage_args, sources, step)])


if __name__ == "__main__":
    run_script(main, StageArguments, WikipediaArguments)
