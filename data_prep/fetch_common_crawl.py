"""Fetch a sample of a Common Crawl snapshot: WARC, WET or WAT files, complete and checked.

python data_prep/fetch_common_crawl.py --snapshot CC-MAIN-2026-43 --sampling_ratio 0.0001 --output_dir data/crawl
python data_prep/fetch_common_crawl.py --list_snapshots 5

Reads the lists of paths of https://data.commoncrawl.org (or of --base_url, a server or folder laid out like it) and
writes `files/SNAPSHOT/KIND/NAME.gz`, `dropped/` with what could not be had and why, and `manifest.json` with size,
hash, gzip members and path on the server of each file. A killed run goes on in the middle of a file; with a higher
ratio the same folder grows.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_prep.crawl.fetching import Download, Refuse, ask_sizes, check_disk, fetch_settings, forget_bad, grow, grows
from data_prep.crawl.lists import COMMON_CRAWL, KINDS, check_snapshots, list_path, list_snapshots, read_list, sample
from data_prep.engine.downloads import BadFile, NotFound, Server, Trouble, server_at
from data_prep.engine.run import ENOUGH_RECORDS, run_stage
from data_prep.engine.stage import Phase, StageArguments, Task
from shared.command_line import check_ranges, refuse_flags, run_script
from shared.errors import BadRecordsError, InputError
from shared.files import read_json, write_json
from shared.rows import STATE, Source

PLANNING_RETRIES = 4  # before work starts, somebody waits


@dataclass
class FetchStageArguments(StageArguments):
    """The flags of all stages, with defaults that suit a download."""

    output_dir: str = field(
        default="data/common_crawl",
        metadata={"help": "The folder to write; the same command again goes on where it stopped."},
    )
    workers: int | None = field(
        default=4, metadata={"help": "Downloads at a time. Common Crawl answers 403 to those who take too many."}
    )


@dataclass
class FetchArguments:
    """What to fetch, and from where."""

    snapshot: list[str] = field(default_factory=list, metadata={"help": "CC-MAIN-2026-43, or several."})
    sampling_ratio: list[float] = field(
        default_factory=lambda: [0.0001],
        metadata={"help": "The share of a snapshot's files, one or one a snapshot; at least one file is fetched."},
    )
    seed: int = field(default=42, metadata={"help": "Of the sample, which is the same for all kinds."})
    kind: list[str] = field(default_factory=lambda: ["warc"], metadata={"help": "warc, wet, wat, or several."})
    max_files: int | None = field(default=None, metadata={"help": "At most N files of a snapshot and kind."})
    base_url: str = field(
        default=COMMON_CRAWL, metadata={"help": "A server, or a folder or file:// address, laid out like this one."}
    )
    list_snapshots: int | None = field(default=None, metadata={"help": "Print the newest N snapshots, and no more."})
    retries: int = field(default=8, metadata={"help": "Tries after a failure that may pass (403, 429, 5xx, cut)."})
    retry_wait: float = field(default=2.0, metadata={"help": "Seconds before the first retry, doubled with each."})
    retry_bad: bool = field(
        default=False, metadata={"help": "Try again the files that an earlier run counted as bad."}
    )

    def __post_init__(self) -> None:
        if len(self.sampling_ratio) not in (1, len(self.snapshot) or 1):
            raise InputError(
                f"--sampling_ratio: {len(self.sampling_ratio)} values for {len(self.snapshot)} snapshots; give one, "
                "or one for each"
            )
        check_ranges(self, sampling_ratio="> 0, <= 1", max_files=">= 1", list_snapshots=">= 1")
        check_ranges(self, retries=">= 0", retry_wait=">= 0")
        for kind in self.kind:
            if kind not in KINDS:
                raise InputError(f"--kind {kind}: must be one of {', '.join(KINDS)}")
        for name, values in (("snapshot", self.snapshot), ("kind", self.kind)):
            if len(set(values)) < len(values):
                raise InputError(f"--{name}: {' '.join(values)}: one is named twice")


def make_plan(server: Server, stage_args: StageArguments, args: FetchArguments) -> dict[str, Any]:
    """The files to fetch with their sizes (0: unknown), and the lines of the lists that are refused.

    The sample is drawn from the names in the list of WARC files, whatever the kind, or, when the server has none,
    from those of all kinds asked for. Raises InputError, BadRecordsError.
    """
    check_snapshots(server, args.snapshot)
    plan: dict[str, Any] = {"files": [], "refused": [], "lines": 0}
    for index, snapshot in enumerate(args.snapshot):
        ratio = args.sampling_ratio[index % len(args.sampling_ratio)]
        lists = {}
        for kind in dict.fromkeys(("warc", *args.kind)):
            try:
                lists[kind] = read_list(server, snapshot, kind)
            except NotFound as error:
                if kind in args.kind:
                    there = [other for other in KINDS if server.answers(list_path(snapshot, other))]
                    hint = f"there is {', '.join(there)}" if there else "--list_snapshots 10 shows what there is"
                    missing = f"{server.base} has no {list_path(snapshot, kind)}"
                    raise InputError(f"--snapshot {snapshot} --kind {kind}: {missing}; {hint}") from error
        reference = lists["warc"][0] if "warc" in lists else {key for paths, _ in lists.values() for key in paths}
        chosen = sample(reference, ratio, args.seed, 1, args.max_files)
        for kind in sorted(args.kind):
            paths, refused = lists[kind]
            lines = len(paths) + len(refused)
            print(f"{snapshot}: {len(chosen):,} of {len(reference):,} {kind} files, {len(refused):,} lines refused")
            if lines >= ENOUGH_RECORDS and len(refused) > stage_args.max_bad_records * lines:
                raise BadRecordsError(
                    f"--max_bad_records {stage_args.max_bad_records}: {len(refused):,} of {lines:,} lines of "
                    f"{list_path(snapshot, kind)} are refused ({Counter(refused.values()).most_common(1)[0][0]})"
                )
            plan["lines"] += lines
            plan["files"] += [[paths[key], 0] for key in chosen if key in paths]
            # Of the refused lines the same share is counted, so that bad and good ones can be compared.
            plan["refused"] += [[snapshot, line, refused[line]] for line in sample(refused, ratio, args.seed, 0)]
            plan["refused"] += [
                [snapshot, f"{kind}: {key}", "only in the list of WARC files"] for key in chosen if key not in paths
            ]
    ask_sizes(server, plan["files"])
    return plan


def main(stage_args: StageArguments, args: FetchArguments) -> dict[str, Any]:
    """Fetch the sample; returns the manifest, or with --list_snapshots the list."""
    refuse_flags(stage_args, {"input": "files are read from --base_url alone", "part_records": "a file has no parts"})
    server = server_at(args.base_url, args.retries, args.retry_wait)
    planning = replace(server, retries=min(PLANNING_RETRIES, server.retries))
    output_dir, plan_file = Path(stage_args.output_dir), Path(stage_args.output_dir, STATE, "plan.json")
    settings: dict[str, Any] = {
        "snapshots": dict(zip(args.snapshot, args.sampling_ratio * len(args.snapshot), strict=False)),
        "seed": args.seed,
        "kinds": sorted(args.kind),
        "max_files": args.max_files,
        "base_url": server.base,
    }
    try:
        if args.list_snapshots:
            found = list_snapshots(planning)[: args.list_snapshots]
            for entry in found:
                print("  ".join(entry[key] for key in ("id", "from", "to", "name") if entry.get(key)))
            return {"snapshots": found}
        if not args.snapshot:
            raise InputError("--snapshot: name one, CC-MAIN-2026-43; --list_snapshots 10 shows what there is")
        # The plan is kept: to go on needs no list, and a list that changes on the server changes nothing here.
        plan = read_json(plan_file) if plan_file.is_file() else {}
        if not plan and output_dir.exists() and (output_dir.is_file() or any(output_dir.iterdir())):
            raise InputError(f"--output_dir {output_dir}: holds files that no fetch has written; name a new folder")
        # With other settings in a folder that has work in it, the old plan leads run_stage to its refusal.
        is_new = not plan or (plan["settings"] != settings and not plan_file.with_name("stage.json").is_file())
        if is_new or grows(plan["settings"], settings):
            wanted = make_plan(planning, stage_args, args) | {"settings": settings}
            check_disk(stage_args.output_dir, wanted["files"])
            plan = wanted if is_new else grow(stage_args.output_dir, plan, wanted)
            write_json(plan_file, plan)
        elif plan["settings"] == settings and not (output_dir / "manifest.json").is_file():
            check_disk(stage_args.output_dir, plan["files"])
    except (BadFile, Trouble) as error:
        raise InputError(
            f"--base_url {args.base_url}: {error}; look whether the address is right and the network is up. Common "
            "Crawl answers HTTP 403 or 503 to those who ask too often: then wait some minutes and try again"
        ) from error
    if args.retry_bad:
        forget_bad(stage_args.output_dir)
    tasks = (
        Task(f"{index:05d}", max(size, 1), Source(index, path, size))
        for index, (path, size) in enumerate(plan["files"])
    )
    phases = [
        Phase("lists", (Task("lists", 1),), Refuse(stage_args.output_dir, plan["lines"], plan["refused"])),
        Phase("files", tuple(tasks), Download(stage_args.output_dir, server)),
    ]
    settings = fetch_settings(plan | {"settings": settings})
    return run_stage("fetch_common_crawl", stage_args, settings, [], phases)


if __name__ == "__main__":
    run_script(main, FetchStageArguments, FetchArguments)
