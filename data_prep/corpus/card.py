"""The data card: README.md of a corpus, with the Hub's metadata, from its manifest and reports alone."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from data_prep.engine.stage import add_counts
from shared.errors import InputError
from shared.files import read_json, write_text
from shared.markdown import markdown_table

WIKI = re.compile(r"[a-z_]+wik[a-z]*(?:-(\d{8})|$)")
WIKI_CHANGED = "20230607"  # when Wikimedia's projects went from CC BY-SA 3.0 to 4.0
CRAWL = re.compile(r"CC-MAIN-\d{4}-\d\d")
UNKNOWN = "not stated"
SPLITS = {
    "train": "[0-9]*.parquet",
    "validation": "validation/*.parquet",
    "validation_dated": "validation_dated/*.parquet",
}
# The Hub's names for numbers of up to three digits, of four, and so on.
SIZES = "n<1K 1K<n<10K 10K<n<100K 100K<n<1M 1M<n<10M 10M<n<100M 100M<n<1B 1B<n<10B 10B<n<100B 100B<n<1T"
LONG_TABLE = 40  # months or languages, above which years and the largest are shown
NOT_RULES = ("part_records", "snapshot_files", "groups", "decontaminate")
SHOWN_EXAMPLES = 3
SHOWN_LICENCES = 5


def read_licences(entries: Sequence[str]) -> dict[str, str]:
    """`SOURCE=LICENCE` entries. Raises InputError for others."""
    licences = dict(entry.partition("=")[::2] for entry in entries)
    if any(not source.strip() or not licence.strip() for source, licence in licences.items()):
        raise InputError(f"--licences {' '.join(entries)}: write each as SOURCE=LICENCE")
    return licences


def licence_of(source: str, licences: dict[str, str], stated: dict[str, dict[str, int]] | None = None) -> str:
    """The licence named for a source (or for the beginning of its name), else those that its documents state, else the
    one that is known. `stated`: of each source, licences and how many documents have them."""
    named = [name for name in licences if source.startswith(name)]
    if named:
        return licences[max(named, key=len)]
    if found := sorted((stated or {}).get(source, {}).items(), key=lambda item: (-item[1], item[0])):
        shown = [f"{licence} ({count:,} documents)" for licence, count in found[:SHOWN_LICENCES]]
        more = len(found) - len(shown)
        return "as stated by the documents: " + ", ".join(shown) + (f" and {more} others" if more else "")
    if wiki := WIKI.match(source):
        version = "4.0 or 3.0" if wiki[1] is None else "4.0" if wiki[1] >= WIKI_CHANGED else "3.0"
        return f"CC BY-SA {version}, by the authors in the history of each page"
    if CRAWL.match(source):
        return "Common Crawl's terms of use; each page keeps the rights of its publisher"
    return UNKNOWN


def write_data_card(folder: Path, manifest: dict[str, Any], licences: dict[str, str]) -> None:
    """Write README.md into the corpus."""
    reports = {Path(name).stem: read_json(folder / name) for name in manifest["files"] if name.startswith("reports/")}
    splits = {name: manifest["counts"]["splits"][name] for name in SPLITS if name in manifest["counts"]["splits"]}
    text = "\n\n".join(
        (
            "---\n" + yaml.safe_dump(_metadata(splits, licences), sort_keys=False, allow_unicode=True) + "---",
            f"# {folder.name}",
            f"{splits['train']['documents']:,} training documents, about {splits['train']['tokens']:,} tokens "
            f"({_tokens_how(manifest)}), {_size(splits['train']['text_bytes'])} of text.",
            "## Splits\n\n" + _splits(splits, manifest["settings"]),
            "## Mix\n\n" + _mix(reports["mix"], manifest),
            "## Sources and licences\n\n" + _sources(splits, licences),
            "## Dates\n\n" + _dates(splits),
            "## Languages\n\n" + _languages(splits),
            "## What each stage kept\n\n" + _stages(manifest),
            "## Rules and thresholds\n\n" + _rules(manifest),
            "## Evaluation text\n\n" + _contamination(reports.get("contamination"), manifest["settings"]),
            "## Where a row came from\n\n" + TRACE,
            "## How to load it\n\n" + LOAD.replace("FOLDER", cell(folder.name)),
        )
    )
    write_text(folder / "README.md", text + "\n")


TRACE = """Each row has its `source` (snapshot or dump). A page of a crawl has `warc_file` and `offset`, where its
record begins; an article has its revision in `metadata`. `reports/shards.json` names the input files of each shard,
`manifest.json` their SHA-256 and that of every shard. Rows that were left out are in `dropped/` with the reason.
`python data_prep/build_corpus.py --output_dir THIS_FOLDER --trace ID_OR_URL` puts it together for one row."""

LOAD = """```python
from datasets import load_dataset

corpus = load_dataset("FOLDER")
```"""


def _metadata(splits: dict[str, Any], licences: dict[str, str]) -> dict[str, Any]:
    languages = sorted({name for split in splits.values() for name in split["languages"]})
    texts = {
        licence_of(source, licences, split.get("licences")) for split in splits.values() for source in split["sources"]
    }
    wikipedia = all("CC BY-SA 4.0," in text for text in texts)
    documents = sum(split["documents"] for split in splits.values())
    size = SIZES.split()[max(len(str(documents)) - 3, 0)]
    metadata = {
        "language": [name for name in languages if re.fullmatch("[a-z]{2,3}", name)],
        "license": "cc-by-sa-4.0" if wikipedia else "other",
        "license_name": None if wikipedia else "see-sources-and-licences",
        "task_categories": ["fill-mask", "text-generation"],
        "size_categories": [size],
        "tags": ["tiny-olm"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": name, "path": SPLITS[name]} for name in splits]}
        ],
    }
    return {name: value for name, value in metadata.items() if value}


def _tokens_how(manifest: dict[str, Any]) -> str:
    settings = manifest["settings"]
    if settings["tokenizer_name"]:
        return f"counted by the tokenizer with SHA-256 {settings['tokenizer_name'][:16]}"
    return f"{settings['tokens_per_word']:g} a word"


def _splits(splits: dict[str, Any], settings: dict[str, Any]) -> str:
    how = {
        "train": "all others",
        "validation": f"by a hash of the text, {settings['validation_fraction']:.2%} of the documents",
        "validation_dated": f"dated {settings['validation_from']} or later: for measuring freshness",
    }
    rows = [
        (f"`{name}`", f"`{SPLITS[name]}`", facts["documents"], facts["tokens"], _size(facts["text_bytes"]), how[name])
        for name, facts in splits.items()
    ]
    text = markdown_table(("split", "files", "documents", "tokens", "text", "chosen"), rows)
    if "validation" not in splits and not settings["validation_fraction"]:
        text += "\n\nNothing is held out by hash here: `pack_dataset.py` does it when it packs, by the same rule."
    return text


def _mix(mix: list[dict[str, Any]], manifest: dict[str, Any]) -> str:
    total = max(sum(group["tokens_taken"] for group in mix), 1)
    rows = [
        (
            cell(group["input"]),
            group["documents"],
            group["tokens"],
            group["tokens_taken"],
            f"{group['tokens_taken'] / total:.1%}",
            f"{sum(group['passes']):.4g}",
        )
        for group in mix
    ]
    text = markdown_table(
        ("input", "documents for training", "their tokens", "tokens taken", "share", "times read"), rows
    )
    repeated = manifest["counts"].get("repeated", 0)
    return f"{text}\n\n{repeated:,} training rows are repetitions." if repeated else text


def _sources(splits: dict[str, Any], licences: dict[str, str]) -> str:
    total, stated = _sum_of(splits, "sources"), _sum_of(splits, "licences")
    licence = {name: licence_of(name, licences, stated) for name in total}
    rows = [
        (cell(name), facts["documents"], facts["tokens"], _size(facts["text_bytes"]), cell(licence.get(name, UNKNOWN)))
        for name, facts in _largest(total)
    ]
    text = markdown_table(("source", "documents", "tokens", "text", "licence"), rows)
    if UNKNOWN in licence.values():
        text += (
            "\n\nNot stated: find out where the text came from before you publish it, and name it with `--licences`."
        )
    return text


def _dates(splits: dict[str, Any]) -> str:
    months = _sum_of(splits, "months")
    unit = "month"
    if len(months) > LONG_TABLE:
        unit = "year"
        years: dict[str, dict[str, int]] = {}
        for name, facts in months.items():
            add_counts(years, {name[:4] if name[:4].isdigit() else name: facts})
        months = years
    most = max(facts["documents"] for facts in months.values())
    rows = [
        (cell(name), facts["documents"], facts["tokens"], "█" * round(30 * facts["documents"] / most))
        for name, facts in sorted(months.items())
    ]
    return "`date` is when a page was crawled, an article revised, or a text published.\n\n" + markdown_table(
        (unit, "documents", "tokens", ""), rows
    )


def _languages(splits: dict[str, Any]) -> str:
    rows = [
        (cell(name), facts["documents"], facts["tokens"]) for name, facts in _largest(_sum_of(splits, "languages"))
    ]
    return markdown_table(("language", "documents", "tokens"), rows)


def _stages(manifest: dict[str, Any]) -> str:
    rows = []
    for step in (*manifest["history"], manifest):
        counts = step["counts"]
        reasons = {**counts["dropped"], **{f"damaged: {reason}": n for reason, n in counts["bad"].items()}}
        shown = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        text = ", ".join(f"{cell(reason)} {number:,}" for reason, number in shown)
        rows.append((step["stage"], counts["in"], counts["kept"], text or "nothing"))
    return markdown_table(("stage", "in", "kept", "dropped"), rows)


def _rules(manifest: dict[str, Any]) -> str:
    lines = []
    for step in (*manifest["history"], manifest):
        settings = {name: value for name, value in step["settings"].items() if name not in NOT_RULES}
        shown = ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items())
        versions = ", ".join(f"{name} {version}" for name, version in step["versions"].items())
        lines.append(f"- **{step['stage']}** ({versions}): {cell(shown)[:3000]}")
    return "\n".join(lines)


def _contamination(report: list[dict[str, Any]] | None, settings: dict[str, Any]) -> str:
    if report is None:
        return "The documents were not compared with any evaluation set."
    rows = []
    for entry in report:
        for split, facts in entry["splits"].items():
            checked, found = facts["rows_checked"], facts["rows_found"]
            share = f"{found / max(checked, 1):.2%}"
            names = cell(entry["set"]), cell(split)
            rows.append((*names, facts["rows"], checked, found, share, entry["documents"]))
    what = "were left out" if settings["contamination"] == "drop" else "name the sets in `metadata`, `contamination`"
    text = (
        f"A document of the input holds evaluation text if {settings['ngram']} consecutive words are the same, "
        f"without case and punctuation; a text of {settings['shortest_text']} to {settings['ngram'] - 1} words must "
        f"be in it whole; shorter ones cannot be checked. Such documents {what}. Each is listed in "
        "`contamination/`; `reports/contamination.json` has the same table with n-grams and examples.\n\n"
    )
    text += markdown_table(
        ("set", "split", "rows", "rows checked", "rows found", "share", "documents with the set"), rows
    )
    examples = [
        f"- {cell(entry['set'])}: “{cell(example['ngram'])}” in {example['documents']:,} documents, "
        f"such as {cell(example['url'] or example['id'] or '')}"
        for entry in report
        for example in entry["examples"][:SHOWN_EXAMPLES]
    ]
    if examples:
        text += "\n\nThe n-grams that most of these documents begin with; many documents speak for a set phrase:\n\n"
        text += "\n".join(examples)
    return text


def _sum_of(splits: dict[str, Any], table: str) -> dict[str, dict[str, int]]:
    total: dict[str, dict[str, int]] = {}
    for split in splits.values():
        add_counts(total, split.get(table, {}))
    return total


def _largest(table: dict[str, dict[str, int]]) -> list[tuple[str, dict[str, int]]]:
    ranked = sorted(table.items(), key=lambda item: (-item[1]["documents"], item[0]))
    rest: dict[str, int] = {}
    for _, facts in ranked[LONG_TABLE:]:
        add_counts(rest, facts)
    return ranked[:LONG_TABLE] + ([(f"{len(ranked) - LONG_TABLE} others", rest)] if ranked[LONG_TABLE:] else [])


def cell(text: str) -> str:
    """Text of the documents, in a table: it must not end a cell, begin markup or HTML."""
    return re.sub(r"([|<>`\\*\[\]])", r"\\\1", " ".join(text.split()))[:300]


def _size(size: int) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size} bytes"
        size /= 1000
    return f"{size:.3g} TB"
