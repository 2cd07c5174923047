"""What is in a corpus, and how its snapshots differ: terms, risers, dates, domains, duplicates, lengths, drop reasons.

    python data_prep/analyse_corpus.py --input data/corpus --terms covid "climate change" --output_dir data/analysis

A snapshot is what the `source` of a document names (CC-MAIN-2026-43), or the year or month of its date (--by). Writes
README.md with tables, analysis.json with all numbers, a picture for each table, and manifest.json. Documents are
counted in parts, which any number of workers make and a killed run keeps; memory does not grow with the corpus.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_prep.corpus.analysis_page import write_tables
from data_prep.corpus.analysis_pictures import draw_pictures
from data_prep.corpus.counts import CountDocuments, Tallies, overlaps
from data_prep.corpus.statistics import correlations, months_of, quantiles, rises
from data_prep.corpus.words import normalised_words
from data_prep.engine.run import run_stage
from data_prep.engine.stage import Phase, StageArguments, Task, settings_of
from shared.command_line import check_ranges, run_script
from shared.errors import InputError
from shared.files import write_json
from shared.rows import find_sources

MAX_SNAPSHOTS = 200


@dataclass
class AnalysisArguments:
    by: Literal["source", "year", "month"] = field(
        default="source", metadata={"help": "What a snapshot is: the source of a document, or the time of its date."}
    )
    terms: list[str] = field(
        default_factory=list, metadata={"help": "Words or phrases to count in each snapshot, without case."}
    )
    compare: list[str] = field(
        default_factory=list,
        metadata={"help": "Two snapshots to find risers between. Default: the first and last of each family."},
    )
    top: int = field(default=40, metadata={"help": "Risers, fallers and domains to show."})
    min_documents: int = field(default=20, metadata={"help": "Documents that a word must be in to be a riser."})

    pictures: bool = field(default=True, metadata={"help": "Draw the tables; --pictures False is faster."})

    def __post_init__(self) -> None:
        if self.compare and len(set(self.compare)) != 2:
            raise InputError(f"--compare {' '.join(self.compare)}: name two snapshots")
        check_ranges(self, top=">= 1", min_documents=">= 1")
        self.terms = [" ".join(normalised_words(term)) for term in self.terms]
        if "" in self.terms or len(set(self.terms)) < len(self.terms):
            raise InputError("--terms: a term is empty or named twice; case and punctuation do not count")


def families(snapshots: list[str]) -> Iterator[list[str]]:
    """Snapshots of the same kind, in order: CC-MAIN-2026-43 with CC-MAIN-2026-47, not with enwiki-20261101."""
    groups: dict[str, list[str]] = {}
    for name in sorted(snapshots):
        if re.search(r"\d", name):  # "unknown" is not a point in time
            groups.setdefault(re.sub(r"[-_]?\d.*", "", name), []).append(name)
    yield from (group for group in groups.values() if len(group) > 1)


def pairs_to_compare(snapshots: list[str], compare: list[str]) -> list[tuple[str, str]]:
    """The first and last snapshot of each family, or the two that are named. Raises InputError for unknown names."""
    if unknown := set(compare) - set(snapshots):
        raise InputError(f"--compare {unknown.pop()}: no such snapshot; there are {', '.join(snapshots[:20])}")
    return [(compare[0], compare[1])] if compare else [(family[0], family[-1]) for family in families(snapshots)]


def analyse(output_dir: str, args: AnalysisArguments, manifest: dict[str, Any]) -> dict[str, Any]:
    """All numbers, from the counts of the parts."""
    tallies = Tallies(output_dir)
    snapshots = sorted(tallies.small["totals"])
    if not snapshots:
        raise InputError("--input: there is no document")
    if len(snapshots) > MAX_SNAPSHOTS:
        raise InputError(
            f"--by {args.by}: {len(snapshots)} snapshots, at most {MAX_SNAPSHOTS} can be shown; --by year, in a "
            "new --output_dir"
        )
    totals = {name: tallies.small["totals"][name] for name in snapshots}
    sizes = {name: total["documents"] for name, total in totals.items()}
    pairs = pairs_to_compare(snapshots, args.compare)
    words = tallies.largest("word", args.min_documents, {name for pair in pairs for name in pair})
    domains = tallies.largest("domain", 1, set(snapshots))
    risers = []
    for first, last in pairs:
        counts = {word: (table.get(first, 0), table.get(last, 0)) for word, table in words.items()}
        ranked = rises(counts, sizes[first], sizes[last], args.min_documents)
        risers.append(
            {"first": first, "last": last, "risers": ranked[: args.top], "fallers": ranked[::-1][: args.top]}
        )
    return {
        "snapshots": totals,
        "terms": {
            term: {
                name: {
                    kind: tallies.small[kind].get(name, {}).get(term, 0) for kind in ("term_documents", "term_uses")
                }
                for name in snapshots
            }
            for term in args.terms
        },
        "rises": risers,
        "dates": {kind: months_of(tallies.small[kind], snapshots) for kind in ("date", "last_modified")},
        "languages": {name: tallies.small["language"][name] for name in snapshots},
        "domains": {
            "distinct_counted": len(domains),
            "top": sorted(
                ({"domain": domain, "documents": table} for domain, table in domains.items()),
                key=lambda row: (-sum(row["documents"].values()), row["domain"]),
            )[: args.top],
            "correlation": correlations(domains, snapshots),
        },
        "duplicates": {kind: overlaps(output_dir, kind, snapshots) for kind in ("url", "text")},
        "lengths": {name: quantiles(tallies.small["words"][name]) for name in snapshots},
        "length_histogram": {name: tallies.small["words"][name] for name in snapshots},
        "stages": [{key: step[key] for key in ("stage", "counts")} for step in manifest["history"]],
    }


def main(stage_args: StageArguments, args: AnalysisArguments) -> dict[str, Any]:
    sources = find_sources(stage_args.input)
    settings = settings_of(stage_args, args)
    for name in ("compare", "top", "min_documents", "pictures"):  # the counts do not depend on them
        settings.pop(name)
    tasks = tuple(Task(f"{source.index:05d}", source.bytes, source) for source in sources)
    work = CountDocuments(stage_args.output_dir, stage_args.part_records, args.by, tuple(args.terms))
    manifest = run_stage("analyse_corpus", stage_args, settings, sources, [Phase("count", tasks, work)], ["numpy"])
    if not manifest:
        return {}
    output = Path(stage_args.output_dir)
    analysis = analyse(stage_args.output_dir, args, manifest)
    write_json(output / "analysis.json", analysis)
    pictures = draw_pictures(output, analysis) if args.pictures else []
    write_tables(output / "README.md", analysis, pictures, args.by)
    print(f"{len(analysis['snapshots'])} snapshots; tables and {len(pictures)} pictures: {output / 'README.md'}")
    return manifest | {"analysis": analysis}


if __name__ == "__main__":
    run_script(main, StageArguments, AnalysisArguments)
