"""Remove duplicates: of whole documents, exact and near, and of lines or paragraphs within them.

    python data_prep/deduplicate.py --input data/filtered --output_dir data/deduplicated

Reads documents (parquet or JSON lines), of one or several snapshots. Writes those that are kept as parquet with the
same columns, and to dropped/ each other one with the reason and the URL (or id) of the document that stays instead.

Exact duplicates have the same normalised text; near duplicates share a band of MinHash values, which documents of
Jaccard similarity J do with probability 1 - (1 - J ** rows) ** bands; see duplicates/minhash.py. A duplicate of a
duplicate is a duplicate. Of a group the newest document stays, or the oldest; of several such the one of the lowest
URL, then id.

With `--against FOLDER`, the corpus of last month, only what is new or has changed is kept: a document that is a
duplicate of one there is dropped.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_prep.duplicates.files import Documents, Drops
from data_prep.duplicates.groups import Groups
from data_prep.duplicates.lines import Cuts, LineMatches, Lines, without
from data_prep.duplicates.matches import Matches, match_tasks
from data_prep.duplicates.plan import Plan
from data_prep.duplicates.signatures import Signatures
from data_prep.engine.run import run_stage
from data_prep.engine.stage import Outcome, Phase, StageArguments, Task, document_phase, settings_of
from shared.command_line import check_ranges, refuse_flags, run_script
from shared.errors import InputError
from shared.rows import NAMED_ONLY, SUFFIXES, Source, check_apart, find_files, find_sources, read_rows

LEVELS = ("exact", "near", "paragraph", "line")


@dataclass
class DeduplicateArguments:
    remove: list[str] = field(
        default_factory=lambda: ["exact", "near"],
        metadata={"help": "What to remove: exact, near (whole documents); paragraph or line (within documents)."},
    )
    scope: Literal["all", "source"] = field(
        default="all", metadata={"help": "source: compare only documents of the same `source`, such as a snapshot."}
    )
    keep: Literal["newest", "oldest"] = field(default="newest", metadata={"help": "Which document of a group stays."})
    against: list[str] = field(
        default_factory=list, metadata={"help": "An earlier corpus: drop what is in it; nothing of it is written."}
    )
    bands: int = field(default=14, metadata={"help": "Bands of MinHash values; more find less similar documents."})
    rows: int = field(default=8, metadata={"help": "Values in a band; more make fewer chance finds."})
    ngram: int = field(default=5, metadata={"help": "Words in a shingle."})
    min_line_chars: int = field(default=40, metadata={"help": "A line or paragraph counts from this length on."})
    min_text_chars: int = field(
        default=100, metadata={"help": "Drop a document that has less text than this once lines are removed."}
    )
    memory_mb: int = field(default=1024, metadata={"help": "Memory that a worker may take. Changes no result."})

    def __post_init__(self) -> None:
        unknown = [name for name in self.remove if name not in LEVELS]
        if unknown or not self.remove:
            raise InputError(f"--remove {' '.join(self.remove)}: name some of {', '.join(LEVELS)}")
        if {"paragraph", "line"} <= set(self.remove):
            raise InputError("--remove: name either paragraph or line; lines include paragraphs of one line")
        check_ranges(self, bands=">= 1", rows=">= 1", ngram=">= 1", min_line_chars=">= 1", min_text_chars=">= 0")
        check_ranges(self, memory_mb=">= 256")
        if self.bands * self.rows > 10_000:
            raise InputError(f"--bands {self.bands} --rows {self.rows}: more than 10,000 values for each document")

        if "near" not in self.remove:
            refuse_flags(self, dict.fromkeys(("bands", "rows", "ngram"), "is for --remove near"))
        if not self.level:
            names = ("min_line_chars", "min_text_chars")
            refuse_flags(self, dict.fromkeys(names, "is for --remove paragraph or line"))

    @property
    def level(self) -> str:
        """Within documents: "line", "paragraph" or ""."""
        return next((name for name in ("line", "paragraph") if name in self.remove), "")


@dataclass(frozen=True)
class DropDuplicates:
    """The step that writes: what becomes of each document is known by now."""

    plan: Plan

    def __call__(self, source: Source, position: int) -> Iterator[Outcome]:
        documents = Documents(self.plan.folder("signatures"))
        drops = Drops(self.plan.folder("groups") / f"{source.index:05d}.drops")
        level, shortest = self.plan.args.level, max(self.plan.args.min_text_chars, 1)
        cuts = Cuts(self.plan, source.index) if level else None
        for end, share, row, problem in read_rows(source, position):
            if row is None:
                yield Outcome(end, share, row, problem, bad=True)
                continue
            drop = drops.at(end)
            if drop:
                survivor, exact = drop
                reason = "exact duplicate" if exact else "near duplicate"
                if survivor >> 40 >= self.plan.sources:
                    reason += " of the earlier corpus"
                url, name = documents.strings(survivor)
                yield Outcome(end, share, row, reason, detail=(url or name).decode())
                continue
            places = cuts.at(end) if cuts else []
            if places:
                row["text"] = without(row["text"], level, places)
                length = len(row["text"].strip())
                if length < shortest:
                    reason = f"too little text without repeated {level}s"
                    yield Outcome(end, share, row, reason, detail=f"{length} characters left, {len(places)} removed")
                    continue
            yield Outcome(end, share, row)
        documents.close()


def find_old_sources(against: Sequence[str], sources: Sequence[Source]) -> list[Source]:
    """The files of `--against`, numbered after those of `--input`."""
    files = find_files(against, SUFFIXES + NAMED_ONLY, "--against ")
    both = {Path(source.path).resolve() for source in sources} & {file.resolve() for file in files}
    if both:
        raise InputError(f"--against: {min(both)} is also named by --input")
    return [
        Source(number, str(file.absolute()), file.stat().st_size) for number, file in enumerate(files, len(sources))
    ]


def phases_of(
    stage_args: StageArguments, args: DeduplicateArguments, sources: list[Source], old: list[Source]
) -> list[Phase]:
    plan = Plan(stage_args.output_dir, len(sources), bool(old), stage_args.part_records, args)
    tasks = tuple(Task(f"{source.index:05d}", source.bytes, source) for source in sources + old)
    ranges = match_tasks(sources + old)
    phases = [
        Phase("signatures", tasks, Signatures(plan)),
        Phase("matches", ranges, Matches(plan, len(ranges))),
        Phase("groups", (Task("all", sum(source.bytes for source in sources)),), Groups(plan)),
    ]
    if args.level:
        phases += [
            Phase("lines", tasks[: len(sources)], Lines(plan)),
            Phase("line_matches", ranges, LineMatches(plan, len(ranges))),
        ]
    return [*phases, document_phase(stage_args, sources, DropDuplicates(plan))]


def main(stage_args: StageArguments, args: DeduplicateArguments) -> dict[str, Any]:
    sources = find_sources(stage_args.input)
    check_apart(stage_args.output_dir, args.against, "--against")
    old = find_old_sources(args.against, sources)
    settings = settings_of(stage_args, args) | {
        "remove": sorted(set(args.remove)),
        "against": len(old),  # files; their content is among the inputs
        "unicode": unicodedata.unidata_version,  # by whose tables texts are normalised
    }
    del settings["memory_mb"]
    phases = phases_of(stage_args, args, sources, old)
    manifest = run_stage("deduplicate", stage_args, settings, sources + old, phases, ("numpy", "xxhash"))
    if args.level and manifest:
        removed = {name: manifest["counts"][name] for name in ("removed_lines", "removed_bytes")}
        print(f"deduplicate: {removed['removed_lines']:,} {args.level}s removed, {removed['removed_bytes']:,} bytes")
    return manifest


if __name__ == "__main__":
    run_script(main, StageArguments, DeduplicateArguments)
