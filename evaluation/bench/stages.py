"""Run real files through every stage, one worker each, and tell what each kept and how fast it was.

    python evaluation/bench/stages.py --crawl crawl/ --dump dumps/ --output_dir runs/stages

`--crawl` names WARC, WET and WAT files or folders of them, `--dump` Wikipedia dumps. The WARC files among them are
laid out like a crawl first, and fetched from there. Damaged files may be among them: no share of bad records stops it.
Leaves the folder of each stage, and stages.json and stages.md with a row for each. Seconds are without the start of
Python, and without what the dumps and the crawl would take to download.
"""

import gzip
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.corpus.card import cell
from shared.command_line import parse_arguments, run_script
from shared.errors import InputError
from shared.files import check_new_folder, write_json, write_report
from shared.markdown import markdown_table
from shared.rows import find_sources

SNAPSHOT = "CC-MAIN-2026-43"  # any name of the right form
RECIPES = Path(__file__).parents[2] / "data_prep" / "recipes"


@dataclass
class BenchArguments:
    output_dir: str = field(metadata={"help": "Folder for the stages' folders and the table; empty or new."})
    crawl: list[str] = field(default_factory=list, metadata={"help": "WARC, WET and WAT files, or folders of them."})
    dump: list[str] = field(default_factory=list, metadata={"help": "Wikipedia dump files."})


def lay_out_crawl(paths: list[str], folder: Path) -> Path:
    """Copy the compressed WARC files to a folder laid out like Common Crawl's server; return it."""
    names = []
    for source in find_sources(paths, (".warc.gz",)):
        name = f"crawl-data/{SNAPSHOT}/segments/1/warc/{source.index:03d}-{Path(source.path).name}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.path, folder / name)
        names.append(name)
    (folder / f"crawl-data/{SNAPSHOT}/warc.paths.gz").write_bytes(gzip.compress("\n".join(names).encode()))
    write_json(folder / "collinfo.json", [{"id": SNAPSHOT, "name": "real files"}])
    return folder


def plan(args: BenchArguments, folder: Path) -> Iterator[tuple[str, Any, list[str]]]:
    """What to run: a name for the table and the folder, the script as a module, its flags."""
    from data_prep import (  # here, because `make_table` needs none of them
        analyse_corpus,
        build_corpus,
        deduplicate,
        extract_common_crawl,
        extract_wikipedia,
        fetch_common_crawl,
        filter_documents,
    )

    mirror = lay_out_crawl(args.crawl, folder / "mirror")
    fetch = ["--snapshot", SNAPSHOT, "--sampling_ratio", "1", "--base_url", str(mirror)]
    yield "fetch", fetch_common_crawl, fetch
    yield "web", extract_common_crawl, ["--input", *args.crawl]
    yield "wikipedia", extract_wikipedia, ["--input", *args.dump]
    for name in ("web", "wikipedia"):
        flags = ["--config", str(RECIPES / f"filter_{name}.yaml"), "--input", str(folder / name)]
        yield f"{name}_filtered", filter_documents, flags
    filtered = [str(folder / "web_filtered"), str(folder / "wikipedia_filtered")]
    yield "deduplicated", deduplicate, ["--input", *filtered]
    yield "corpus", build_corpus, ["--input", str(folder / "deduplicated")]
    yield "analysis", analyse_corpus, ["--input", str(folder / "corpus")]


def run(module: Any, flags: list[str], output: Path) -> dict[str, Any]:
    """One stage in this process: its counts and seconds."""
    own = [getattr(module, name) for name in vars(module) if name.endswith("Arguments") and name != "StageArguments"]
    types = [kind for kind in own if kind.__module__ == module.__name__]
    if not any(issubclass(kind, module.StageArguments) for kind in types):  # fetching has its own form of them
        types.insert(0, module.StageArguments)
    common = ["--output_dir", str(output), "--workers", "1", "--max_bad_records", "1"]
    arguments = parse_arguments(types, [*flags, *common])
    start = time.perf_counter()
    manifest = module.main(*arguments)
    counts = manifest["counts"]
    return {key: counts[key] for key in ("in", "kept", "dropped", "bad")} | {"seconds": time.perf_counter() - start}


def make_table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    shown = []
    for row in rows:
        reasons = row["dropped"] | {f"damaged: {reason}": count for reason, count in row["bad"].items()}
        ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        why = ", ".join(f"{cell(reason)} {count:,}" for reason, count in ranked) or "nothing"
        speed = f"{row['in'] / row['seconds']:,.0f}"
        shown.append((f"`{row['name']}`", row["in"], row["kept"], f"{row['seconds']:.1f}", speed, why))
    return markdown_table(("stage", "in", "kept", "seconds", "a second", "dropped"), shown)


def main(args: BenchArguments) -> list[dict[str, Any]]:
    folder = Path(args.output_dir)
    if not args.crawl or not args.dump:
        raise InputError("--crawl and --dump: name files of both")
    check_new_folder(folder)  # a stage that is done would take no time
    rows = []
    for name, module, flags in plan(args, folder):
        script = module.__name__.removeprefix("data_prep.")
        rows.append({"name": name, "script": script} | run(module, flags, folder / name))
    write_report(folder, "stages", rows, make_table(rows) + "\n")
    print(make_table(rows))
    return rows


if __name__ == "__main__":
    run_script(main, BenchArguments)
