"""Measure the stages of data_prep on one core, beside datatrove's blocks and other libraries, in turns.

    pip install -r requirements-bench.txt
    python evaluation/bench/corpus.py --input corpus.parquet --dump pages-articles1.xml.bz2 --output_dir runs/bench

From the texts of `--input` it builds a WARC file of pages (sample_warc.py). Tasks: `web`, from WARC bytes to a
filtered, signed document, both variants with the same extractor; `filters` and `signatures` on the texts alone;
`wikipedia` on the dump. Each variant runs in a process of its own on one core, once a round; libraries are loaded and
warm before the clock starts. datatrove's variant identifies no language (its model is a download), ours does. Writes
bench_corpus.json and bench_corpus.md: medians, ratios within a round, peak memory of the process and its children.
"""

import bz2
import multiprocessing
import os
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from evaluation.bench.sample_warc import build_warc
from evaluation.bench.variants import WARM_UP, Rounds, middle, ratio, timed
from shared.command_line import run_script
from shared.documents import Documents
from shared.errors import InputError, RunError
from shared.files import write_report
from shared.markdown import markdown_table
from shared.rows import Source

BATCH = 64  # documents signed at once


@dataclass
class BenchArguments:
    output_dir: str = field(metadata={"help": "Folder for the JSON and Markdown tables."})
    input: list[str] = field(default_factory=list, metadata={"help": "Files or folders of text: the pages' content."})
    dump: str | None = field(default=None, metadata={"help": "A Wikipedia dump, .xml.bz2, for the task wikipedia."})
    warc: str | None = field(default=None, metadata={"help": "A WARC file, instead of the one that is built."})
    pages: int = field(default=500, metadata={"help": "Pages of the WARC file, and texts for the other tasks."})
    rounds: int = field(default=3, metadata={"help": "Rounds of each variant."})
    tasks: list[str] = field(
        default_factory=lambda: ["web", "filters", "signatures", "wikipedia"], metadata={"help": "What to measure."}
    )


@dataclass
class Material:
    """What the variants read."""

    warc: Path
    texts: list[str]
    dump: Path  # looked at by the task wikipedia alone


def our_filter() -> Callable[[dict[str, Any]], str | None]:
    """A row -> its kept text, or None: the rules of recipes/filter_web.yaml."""
    from data_prep.engine.stage import StageArguments
    from data_prep.filter_documents import FilterArguments, make_step
    from data_prep.quality.splitter import WordTable
    from shared.command_line import parse_arguments

    recipe = Path(__file__).parents[2] / "data_prep" / "recipes" / "filter_web.yaml"
    _, args = parse_arguments((StageArguments, FilterArguments), ["--config", str(recipe)])
    step, _, _ = make_step(args)
    table = WordTable()

    def keep(row: dict[str, Any]) -> str | None:
        verdict = step.judge(row, table, {})
        return None if verdict.reason else verdict.text

    return keep


def our_web(material: Material) -> tuple[int, float]:
    """One stage after the other, as they run."""
    from data_prep.duplicates.minhash import MinHash
    from data_prep.extract_common_crawl import ExtractArguments, ExtractPages

    keep, sign = our_filter(), MinHash().sign
    step = ExtractPages(ExtractArguments(), {})
    source = Source(0, str(material.warc), material.warc.stat().st_size)
    outcomes, extracting = timed_after(step(source, 0), WARM_UP)
    pages = len(outcomes)
    rows = [outcome.document for outcome in outcomes if outcome.document and not outcome.reason]
    texts, filtering = timed_after(map(keep, rows), len(rows) * WARM_UP // pages)
    kept = [text for text in texts if text is not None]
    signed = len(kept) * WARM_UP // pages
    batches = [kept[:signed], *(kept[start : start + BATCH] for start in range(signed, len(kept), BATCH))]
    _, signing = timed_after(map(sign, batches), 1)
    return pages - WARM_UP, extracting + filtering + signing


def timed_after(work: Iterable[Any], warm_up: int) -> tuple[list[Any], float]:
    """All that a stream of work yields, and the seconds that it takes after the first `warm_up` things."""
    stream = iter(work)
    first = [*islice(stream, warm_up)]
    start = time.perf_counter()
    return [*first, *stream], time.perf_counter() - start


def datatrove(function: str, source: str) -> Callable[[Material], tuple[int, float]]:
    """What datatrove does for a task."""

    def run(material: Material) -> tuple[int, float]:
        from evaluation.bench import datatrove_blocks  # here: the other variants do without it

        return getattr(datatrove_blocks, function)(getattr(material, source))

    return run


def our_filters(material: Material) -> tuple[int, float]:
    keep = our_filter()
    rows = [{"text": text, "language": "en", "language_score": 1.0} for text in material.texts]
    return timed(rows, lambda rows: [keep(row) for row in rows])


def our_signatures(material: Material) -> tuple[int, float]:
    from data_prep.duplicates.minhash import MinHash

    sign = MinHash().sign
    return timed(material.texts, lambda texts: [sign(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)])


def our_wikipedia(material: Material) -> tuple[int, float]:
    from data_prep.extract_wikipedia import ReadArticles, WikipediaArguments

    args = WikipediaArguments()
    step = ReadArticles(None, args.disambiguation, args.max_page_bytes)
    source = Source(0, str(material.dump), material.dump.stat().st_size)
    start = time.perf_counter()
    count = sum(not outcome.reason for outcome in step(source, 0))
    return count, time.perf_counter() - start


def articles(dump: Path) -> Iterable[str]:
    """The wikitext of the articles of a trusted dump."""
    with bz2.open(dump) as file:
        for _, element in ElementTree.iterparse(file):
            if element.tag.endswith("}page"):
                text = element.findtext(".//{*}text") or ""
                if element.findtext("{*}ns") == "0" and element.find("{*}redirect") is None:
                    yield text
                element.clear()


def parse_articles(material: Material, text_of: Callable[[str], str]) -> tuple[int, float]:
    start = time.perf_counter()
    return sum(bool(text_of(text)) for text in articles(material.dump)), time.perf_counter() - start


def wikitextparser_wikipedia(material: Material) -> tuple[int, float]:
    import wikitextparser

    return parse_articles(material, wikitextparser.remove_markup)


def mwparserfromhell_wikipedia(material: Material) -> tuple[int, float]:
    import mwparserfromhell

    return parse_articles(material, lambda text: mwparserfromhell.parse(text).strip_code())


VARIANTS: dict[str, dict[str, Callable[[Material], tuple[int, float]]]] = {
    "web": {"ours": our_web, "datatrove": datatrove("web", "warc")},
    "filters": {"ours": our_filters, "datatrove": datatrove("filter_texts", "texts")},
    "signatures": {"ours": our_signatures, "datatrove": datatrove("sign_texts", "texts")},
    "wikipedia": {
        "ours": our_wikipedia,
        "wikitextparser": wikitextparser_wikipedia,
        "mwparserfromhell": mwparserfromhell_wikipedia,
    },
}


def _run(task: str, variant: str, material: Material, core: int, answer: Any) -> None:
    if hasattr(os, "sched_setaffinity"):  # macOS lets no process choose
        os.sched_setaffinity(0, {core})
    answer.send(VARIANTS[task][variant](material))


def measure(task: str, variant: str, material: Material, core: int) -> dict[str, float]:
    """Run one variant in a fresh process; documents per second, and peak memory of it and its children in MiB.

    Raises RunError when it fails.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(task, variant, material, core, sender))
    process.start()
    sender.close()
    peak = 0
    while not receiver.poll(0.05):
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in family))
        except psutil.Error:  # one of them has just ended
            continue
    try:
        count, seconds = receiver.recv()
    except EOFError as error:
        raise RunError(f"{task}: {variant} failed; see above") from error
    finally:
        process.join()
    return {"documents": count, "per_second": count / seconds, "peak_mib": peak / 2**20}


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    rows = []
    for row in results:
        faster = f"{row['ratio']:.1f}" if row["ratio"] else ""
        rows.append([row["task"], row["side"], f"{row['per_second']:,.0f}", faster, f"{row['peak_mib']:,.0f}"])
    head = ["task", "variant", "documents/s", "ours is faster by", "peak memory, MiB"]
    return markdown_table(head, rows, "|---|---|---|---|---|") + "\n"


def main(args: BenchArguments) -> list[dict[str, Any]]:
    unknown = sorted(set(args.tasks) - set(VARIANTS))
    if unknown:
        raise InputError(f"--tasks {' '.join(unknown)}: there are {', '.join(VARIANTS)}")
    tasks = [task for task in args.tasks if task != "wikipedia" or args.dump]
    texts = list(islice(Documents(args.input), args.pages)) if args.input else []
    if not texts and set(tasks) - {"wikipedia"}:
        raise InputError("--input: name files of text for the pages")
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        warc = Path(args.warc) if args.warc else Path(folder, "pages.warc.gz")
        if not args.warc:
            with open(warc, "wb") as file:
                file.writelines(build_warc(texts))
        material = Material(warc, texts, Path(args.dump or ""))
        for task in tasks:
            rounds: Rounds = {variant: [] for variant in VARIANTS[task]}
            for turn in range(args.rounds):
                for variant, found in rounds.items():
                    found.append(measure(task, variant, material, core))
                    print(f"{task}, round {turn}, {variant}: {found[-1]['per_second']:,.1f}/s", flush=True)
            for variant, found in rounds.items():
                row = {"task": task, "side": variant, "documents": found[0]["documents"]}
                row["per_second"] = middle(found, "per_second")
                row["ratio"] = None if variant == "ours" else ratio(rounds["ours"], found, "per_second")
                results.append(row | {"peak_mib": max(one["peak_mib"] for one in found)})
    write_report(args.output_dir, "bench_corpus", results, table(results))
    print(table(results))
    return results


if __name__ == "__main__":
    run_script(main, BenchArguments)
