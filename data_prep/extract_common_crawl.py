"""Turn the WARC files of a Common Crawl snapshot into documents: main text, title, dates, language, where from.

    python data_prep/extract_common_crawl.py --input data/common_crawl --output_dir data/web --languages en

Reads WARC files (preferred), or WET files, with the WAT file of the same name for the servers' Last-Modified; of a
file that is there as WARC and WET, the WARC. Compressed or plain. Writes parquet shards in the schema of
shared/rows.py, dropped/ with what was left out and why, and manifest.json.
"""

import hashlib
import importlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import unquote

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from data_prep.crawl.page import parse_date, plausible_last_modified, tidy
from data_prep.crawl.page_process import PageProcess
from data_prep.crawl.urls import clean_url, is_wikipedia, read_block_list
from data_prep.crawl.warc import Record, read_records
from data_prep.engine.run import run_stage
from data_prep.engine.stage import Outcome, StageArguments, document_phase, settings_of
from shared.command_line import run_script
from shared.errors import InputError
from shared.rows import Source, clean_text, find_sources

WARC = (".warc.gz", ".warc")
WET = (".warc.wet.gz", ".warc.wet", ".wet.gz", ".wet")
WAT = (".warc.wat.gz", ".warc.wat", ".wat.gz", ".wat")
LANGUAGE_BYTES = 1000  # of a text in UTF-8, from which its language is told: as from 2,000 in 4,300 of 4,300 articles
WAT_ENTRIES = 500_000  # ten times what a file of the crawl holds; bounds memory
WAT_LINE_BYTES = 8 * 2**20


@dataclass
class ExtractArguments:
    extractor: Literal["fast", "precise"] = field(
        default="fast",
        metadata={
            "help": "fast: resiliparse. precise: trafilatura, which is not installed by default; ten times slower."
        },
    )
    languages: list[str] = field(
        default_factory=list, metadata={"help": "Keep these languages (ISO 639-1 codes). Default: all."}
    )
    min_language_score: float = field(
        default=0.0, metadata={"help": "Drop a page whose language is less probable than this, 0 to 1."}
    )
    wikipedia: Literal["keep", "drop"] = field(
        default="drop", metadata={"help": "drop: leave Wikipedia's pages out, since they come from its dump."}
    )
    block_list: str | None = field(
        default=None, metadata={"help": "A file of domains, one a line, whose pages and subdomains are left out."}
    )
    max_record_bytes: int = field(
        default=16 * 2**20, metadata={"help": "Leave out pages larger than this, compressed or not."}
    )

    def __post_init__(self) -> None:
        if not 0 <= self.min_language_score <= 1:
            raise InputError(f"--min_language_score {self.min_language_score}: is a probability, between 0 and 1")
        if not 2**10 <= self.max_record_bytes <= 2**30:
            raise InputError(f"--max_record_bytes {self.max_record_bytes}: must be between 1024 and 1073741824")
        if self.languages:
            known = language_model().labels
            unknown = [language for language in self.languages if language not in known]
            if unknown:
                raise InputError(f"--languages {' '.join(unknown)}: not known; there are {' '.join(known)}")
        if self.extractor == "precise":
            try:
                importlib.import_module("trafilatura")
            except ImportError as error:
                need = "run pip install trafilatura lxml_html_clean"
                raise InputError(
                    f"--extractor precise: trafilatura cannot be used ({' '.join(str(error).split())}); {need}"
                ) from error


@lru_cache(maxsize=1)
def language_model() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language_of(text: str) -> tuple[str, float]:
    """The language of a text and its probability, which is rounded: its last digits differ between processors."""
    language, score = language_model().classify(
        text[:LANGUAGE_BYTES].encode()[:LANGUAGE_BYTES].decode("utf-8", "ignore")
    )
    return language, round(score, 4)


@dataclass(frozen=True)
class ExtractPages:
    """A Step: the responses of a WARC file or the conversions of a WET file, as documents."""

    args: ExtractArguments
    wats: dict[int, str]  # the WAT file of a source, by index

    def __call__(self, source: Source, position: int) -> Iterator[Outcome]:
        snapshot = snapshot_of(source.path)
        modified = read_last_modified(self.wats[source.index]) if source.index in self.wats else {}
        kinds = ("response", "conversion")
        with ExitStack() as stack:
            pages: PageProcess | None = None
            for record in read_records(source.path, position, kinds, self.args.max_record_bytes):
                outcome = Outcome(record.position, record.share, self._known(record, source, snapshot))
                if record.kind == "response" and pages is None:
                    pages = stack.enter_context(PageProcess(self.args.extractor, self.args.max_record_bytes))
                self._read(record, outcome, pages, modified)
                yield outcome

    def _known(self, record: Record, source: Source, snapshot: str) -> dict[str, Any]:
        name = Path(source.path).name
        identifier = record.headers.get("warc-record-id", "").strip("<>").lower().removeprefix("urn:uuid:")
        place = f"{name}:{record.offset}" + (f"+{record.inner}" if record.inner else "")
        return {
            "id": clean_text(identifier)[:200] or place,
            "url": clean_text(record.headers.get("warc-target-uri", "").strip("<>"))[:4000] or None,
            "date": parse_date(record.headers.get("warc-date")),
            "source": snapshot,
            "warc_file": name,
            "offset": record.offset,
            "metadata": json.dumps({"offset_in_member": record.inner}) if record.inner else None,
        }

    def _read(self, record: Record, outcome: Outcome, pages: PageProcess | None, modified: dict[bytes, str]) -> None:
        """Complete the document of an outcome, or give the reason why there is none."""
        known = outcome.document
        assert known is not None

        def drop(reason: str, detail: str = "", bad: bool = False) -> None:
            outcome.reason, outcome.detail, outcome.bad = reason, clean_text(detail), bad

        if record.problem:
            return drop(record.problem, record.detail, bad=True)
        if known["url"] is None:
            return drop("no WARC-Target-URI in the WARC header", bad=True)
        url = clean_url(record.headers["warc-target-uri"])
        if url is None:
            return drop("not an address of the web")
        known["url"] = url
        if self.args.wikipedia == "drop" and is_wikipedia(url):
            return drop("Wikipedia page")
        if self.args.block_list and read_block_list(self.args.block_list)[0].blocks(url):
            return drop("blocked domain")
        if record.too_large:
            return drop("larger than --max_record_bytes", record.headers["content-length"])
        if pages is not None and record.kind == "response":
            page = pages.read(record.block)
            if "reason" in page:
                return drop(str(page["reason"]), str(page["detail"]), bool(page["bad"]))
            known |= {"title": page["title"], "text": page["text"]}
            last_modified = cast(str | None, page["last_modified"])
        else:
            # A WET record is UTF-8 by its definition, with the page's title as its first line.
            known |= {"title": None, "text": tidy(record.block.decode("utf-8", "replace").replace("\ufffd", ""))}
            last_modified = modified.get(key_of(record.headers.get("warc-refers-to"))) or modified.get(
                key_of(record.headers.get("warc-target-uri"), record.headers.get("warc-date"))
            )
        if not known["text"]:
            return drop("no text")
        known["last_modified"] = plausible_last_modified(last_modified, known["date"])
        known["language"], known["language_score"] = language_of(known["text"])
        shown = f"{known['language']} {known['language_score']}"
        if self.args.languages and known["language"] not in self.args.languages:
            return drop("other language", shown)
        if known["language_score"] < self.args.min_language_score:
            return drop("language uncertain", shown)


def snapshot_of(path: str) -> str:
    """The crawl of a file: from its path, or what its first record says, or the file's name without suffix."""
    named = re.findall(r"CC-MAIN-\d{4}-\d{2}(?!\d)", path)
    if named:
        return str(named[-1])
    record = next(read_records(path, 0, ("warcinfo", "response", "conversion"), 2**20), None)
    if record is not None and record.kind == "warcinfo":
        fields = re.search(r"^isPartOf:[ \t]*(\S.*)$", record.block.decode("utf-8", "replace"), re.MULTILINE)
        if fields:
            return clean_text(unquote(fields[1])).strip()[:100]
    return stem_of(path)


def stem_of(path: str) -> str:
    """The name of a file without its suffix: the same for the WARC, WET and WAT file of one crawl job."""
    name = Path(path).name
    for suffix in (*WET, *WAT, *WARC):
        name = name.removesuffix(suffix)
    return name


def key_of(*parts: str | None) -> bytes:
    return hashlib.blake2b("\n".join(part or "" for part in parts).encode(), digest_size=12).digest()


@lru_cache(maxsize=1)
def read_last_modified(path: str) -> dict[bytes, str]:
    """What servers said in Last-Modified, from a WAT file: by record, and by address and date of the crawl.

    What cannot be read in it is passed over: the documents then have no such date.
    """
    found: dict[bytes, str] = {}
    for record in read_records(path, 0, ("metadata",), WAT_LINE_BYTES):
        if len(found) >= 2 * WAT_ENTRIES:
            break
        if b"ast-" not in record.block:  # spares most records the parsing
            continue
        try:
            envelope = json.loads(record.block)["Envelope"]
            header = envelope["WARC-Header-Metadata"]
            headers = envelope["Payload-Metadata"]["HTTP-Response-Metadata"]["Headers"]
            value = next((value for name, value in headers.items() if name.lower() == "last-modified"), None)
            if header["WARC-Type"] == "response" and isinstance(value, str) and (date := parse_date(value)):
                found[key_of(header["WARC-Record-ID"])] = date
                found[key_of(header["WARC-Target-URI"], header["WARC-Date"])] = date
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return found


def choose_sources(inputs: list[str]) -> tuple[list[Source], list[Source], dict[int, str]]:
    """The files to read documents from, the WAT files that go with them, and which goes with which (by index)."""
    found = find_sources(inputs, WARC + WET + WAT)
    wats = {stem_of(source.path): source for source in found if source.path.endswith(WAT)}
    warcs = {stem_of(source.path) for source in found if source.path.endswith(WARC)}
    sources: list[Source] = []
    used: dict[str, Source] = {}
    pairs: dict[int, str] = {}
    passed = 0
    for source in found:
        stem = stem_of(source.path)
        if source.path.endswith(WAT):
            continue
        if source.path.endswith(WET):
            if stem in warcs:
                passed += 1
                continue
            wat = wats.get(stem) or _wat_beside(source.path, len(found) + len(used))
            if wat:
                used[stem] = wat
                pairs[source.index] = wat.path
        sources.append(source)
    if not sources:
        raise InputError("--input: WAT files hold no text; name WARC or WET files too")
    if passed:
        print(f"{passed} WET files are left out: their WARC files are among the input")
    return sources, list(used.values()), pairs


def _wat_beside(path: str, index: int) -> Source | None:
    """The WAT file of a WET file in the same folder, or as the crawl lays them out, in wat/ beside wet/."""
    wet = Path(path)
    name = re.sub(r"\.wet(?=(\.gz)?$)", ".wat", wet.name)
    for folder in (wet.parent, wet.parent.parent / "wat" if wet.parent.name == "wet" else wet.parent):
        if (folder / name).is_file():
            return Source(index, str(folder / name), (folder / name).stat().st_size)
    return None


def main(stage_args: StageArguments, args: ExtractArguments) -> dict[str, Any]:
    sources, wats, pairs = choose_sources(stage_args.input)
    settings = settings_of(stage_args, args)
    if args.block_list:
        settings["block_list"] = read_block_list(args.block_list)[1]
    libraries = ["fastwarc", "resiliparse", "py3langid"] + ["trafilatura"] * (args.extractor == "precise")
    phase = document_phase(stage_args, sources, ExtractPages(args, pairs))
    return run_stage("extract_common_crawl", stage_args, settings, [*sources, *wats], [phase], libraries)


if __name__ == "__main__":
    run_script(main, StageArguments, ExtractArguments)
