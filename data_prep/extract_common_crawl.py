"""Turn the WARC files of a Common Crawl snapshot into documents: main text, title, dates, language, where from.

    python data_prep/extract_common_crawl.py --input data/common_crawl --output_dir data/web --languages en

Reads WARC files (preferred), or WET files, with the WAT file of the same name for the servers' Last-Modified; of a
file that is there as WARC and WET, the WARC. Compressed or plain. Writes parquet shards in the schema of
shared/rows.py, dropped/ with what was left out and why, and manifest.json.
"""

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_prep.crawl.files import choose_sources, key_of, read_last_modified, snapshot_of
from data_prep.crawl.language import language_model, language_of
from data_prep.crawl.page import parse_date, plausible_last_modified, tidy
from data_prep.crawl.page_process import PageProcess
from data_prep.crawl.urls import clean_url, is_wikipedia, read_block_list
from data_prep.crawl.warc import Record, read_records, response_of
from data_prep.engine.run import run_stage
from data_prep.engine.stage import Outcome, StageArguments, document_phase, settings_of
from shared.command_line import check_ranges, run_script
from shared.errors import InputError, one_line
from shared.files import shown_path
from shared.rows import Source, clean_text


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
        check_ranges(self, min_language_score=">= 0, <= 1", max_record_bytes=f">= {2**10}, <= {2**30}")
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
                    f"--extractor precise: trafilatura cannot be used ({one_line(error, None)}); {need}"
                ) from error


@dataclass(frozen=True)
class ExtractPages:
    """A Step: the responses of a WARC file or the conversions of a WET file, as documents."""

    args: ExtractArguments
    wats: dict[int, str]  # the WAT file of a source, by index

    def __call__(self, source: Source, position: int) -> Iterator[Outcome]:
        snapshot = snapshot_of(shown_path(source.path))
        modified = read_last_modified(self.wats[source.index]) if source.index in self.wats else {}
        kinds = ("response", "resource", "conversion")
        with PageProcess(self.args.extractor, self.args.max_record_bytes) as pages:
            for record in read_records(source.path, position, kinds, self.args.max_record_bytes):
                outcome = Outcome(record.position, record.share, self._known(record, source, snapshot))
                self._read(record, outcome, pages, modified)
                yield outcome

    def _known(self, record: Record, source: Source, snapshot: str) -> dict[str, Any]:
        name = shown_path(Path(source.path).name)
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

    def _read(self, record: Record, outcome: Outcome, pages: PageProcess, modified: dict[bytes, str]) -> None:
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
        if record.kind != "conversion":
            page = pages.read(record.block if record.kind == "response" else response_of(record))
            if "reason" in page:
                return drop(page["reason"], page["detail"], page["bad"])
            known |= {"title": page["title"], "text": page["text"]}
            last_modified = page["last_modified"]
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
