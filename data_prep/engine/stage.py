"""Stages of data_prep: work in tasks, kept piece by piece, so that a killed stage goes on and any number of workers
writes the same bytes.

A stage has phases, a phase has tasks that do not depend on each other. A task is a generator of parts; as soon as the
files of a part are in place, a record of it is written to `OUTPUT/.state/`, and the work of parts with a record is
never done again. What a part holds depends on the settings and the input alone, never on time or on other tasks.
`.state/stage.json` holds settings, inputs (by hash) and library versions: a folder made with others is refused.
"""

import dataclasses
import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from shared.command_line import check_ranges, refuse_flags
from shared.cores import available_cores
from shared.errors import InputError, RunError
from shared.files import atomic_file, sha256_of, write_json
from shared.rows import SCHEMA, STATE, Source, write_rows

FORMAT = 1  # of the state folder
MOST_NAMES = 1000  # in one count of a manifest
PART_BYTES = 64 * 2**20  # of text, after which a part is written early: bounds memory
DROPPED = pa.schema(
    {
        "id": pa.string(),
        "url": pa.string(),
        "source": pa.string(),
        "warc_file": pa.string(),
        "offset": pa.int64(),
        "reason": pa.string(),
        "detail": pa.string(),  # the measured value, the surviving duplicate, the error
    }
)


@dataclass
class StageArguments:
    """The flags that all stages of data_prep share."""

    output_dir: str = field(metadata={"help": "The folder to write; the same command again goes on where it stopped."})
    input: list[str] = field(default_factory=list, metadata={"help": "Files or folders to read, several."})
    workers: int | None = field(default=None, metadata={"help": "Processes. Default: one for each core."})
    executor: Literal["local", "datatrove", "slurm", "ray"] = field(
        default="local",
        metadata={"help": "local: a pool of processes. Others: datatrove's executors (requirements-cluster.txt)."},
    )
    slurm_partition: str | None = field(default=None, metadata={"help": "The partition, with --executor slurm."})
    slurm_time: str = field(default="24:00:00", metadata={"help": "The time limit of a job, with --executor slurm."})
    max_bad_records: float = field(
        default=0.05,
        metadata={
            "help": "Stop with exit code 3 when more than this share of the records is damaged, or the rest "
            "of a file is lost, which may be any share of it. 1 allows both."
        },
    )
    part_records: int = field(
        default=2000, metadata={"help": "Records read for one part: what a kill costs at most, and a shard's size."}
    )

    def __post_init__(self) -> None:
        self.output_dir = os.path.abspath(self.output_dir)  # a worker may have another working directory
        check_ranges(self, workers=">= 1", part_records=">= 1", max_bad_records=">= 0, <= 1")
        if self.executor == "slurm" and not self.slurm_partition:
            raise InputError("--executor slurm: name the partition, --slurm_partition")
        if self.executor != "slurm":
            refuse_flags(self, dict.fromkeys(("slurm_partition", "slurm_time"), "is for --executor slurm"))
        if self.executor == "slurm" and shlex.quote(self.output_dir) != self.output_dir:
            raise InputError(
                f"--output_dir {self.output_dir}: --executor slurm writes the path into a shell script; name a folder "
                "without spaces, quotes and other signs that a shell reads"
            )


NO_SETTINGS = ("output_dir", "input", "workers", "executor", "slurm_partition", "slurm_time", "max_bad_records")


@dataclass(frozen=True)
class Task:
    """One independent piece of a phase."""

    name: str  # names its files: letters, digits, dashes
    weight: int  # its share of the progress bar; bytes of input as a rule
    source: Source | None = None


@dataclass
class Part:
    """What a task yields when the files of a part are in place under their final names."""

    position: int  # where the work goes on after it
    share: float  # of the task that is done, 0 to 1
    counts: dict[str, Any]  # see `new_counts`
    files: dict[str, dict[str, Any]]  # {path under the output folder: facts}; see `file_facts`
    last: bool = False


# Does a task from a position on, where the part of this number starts. Can be pickled: it may run on another machine.
Work = Callable[[Task, int, int], Iterator[Part]]


@dataclass(frozen=True)
class Phase:
    """Tasks that may run in any order and at the same time."""

    name: str
    tasks: tuple[Task, ...]
    work: Work


@dataclass
class Outcome:
    """What became of one record that a `Step` has read."""

    position: int  # to start from, to read the next one
    share: float  # of the source that is read, 0 to 1
    document: dict[str, Any] | None = None  # the kept document; of a dropped one what is known, for the record
    reason: str = ""  # why it was dropped; empty: it is kept
    bad: bool = False  # it was damaged, rather than unwanted
    detail: str = ""
    extra: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # rows for other folders
    counts: dict[str, Any] = field(default_factory=dict)  # more to count, see `add_counts`


# Reads one source from a position on and says what becomes of each record. Can be pickled.
Step = Callable[[Source, int], Iterator[Outcome]]


def new_counts() -> dict[str, Any]:
    """Counts of one part; `add_counts` sums them over parts."""
    return {"in": 0, "kept": 0, "text_bytes": 0, "dropped": Counter(), "bad": Counter()}


def add_counts(total: dict[str, Any], more: dict[str, Any]) -> None:
    """Add numbers to numbers and mappings to mappings, in place."""
    for name, value in more.items():
        if isinstance(value, dict):
            add_counts(total.setdefault(name, {}), value)
        else:
            total[name] = total.get(name, 0) + value


def most_frequent(counts: dict[str, int], most: int = MOST_NAMES) -> dict[str, int]:
    """The `most` most frequent of counts by name, and the sum of all others."""
    if len(counts) <= most:
        return counts
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return dict(ordered[:most]) | {"(all others)": sum(count for _, count in ordered[most:])}


def file_facts(path: Path, rows: int) -> dict[str, Any]:
    """Rows, bytes and SHA-256 of a file that is complete."""
    return {"rows": rows, "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def write_parquet(
    output_dir: str, name: str, rows: list[dict[str, Any]], schema: pa.Schema
) -> dict[str, dict[str, Any]]:
    """Write a file of the output folder; returns its facts by its name, as a `Part` has them."""
    path = Path(output_dir, name)
    with atomic_file(path) as temporary:
        write_rows(temporary, rows, schema)
    return {name: file_facts(path, len(rows))}


@dataclass(frozen=True)
class MapDocuments:
    """The work of stages that look at one record at a time: runs a `Step` and writes parts of `part_records`.

    Kept documents go to `OUTPUT/00003-00001.parquet` (source 3, part 1), all others to the same name in
    `OUTPUT/dropped/`, with the reason; `extra` rows to folders of their own, with the schemas named here.
    """

    output_dir: str
    step: Step
    part_records: int
    schemas: dict[str, pa.Schema] = field(default_factory=dict)

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]:
        assert task.source is not None
        rows: dict[str, list[dict[str, Any]]] = {}
        counts = new_counts()
        for outcome in self.step(task.source, position):
            position = outcome.position
            counts["in"] += 1
            add_counts(counts, outcome.counts)
            if outcome.reason:
                counts["bad" if outcome.bad else "dropped"][outcome.reason] += 1
                known = outcome.document or {}
                row = {name: known.get(name) for name in DROPPED.names}
                row |= {"reason": outcome.reason, "detail": outcome.detail[:1000]}
                rows.setdefault("dropped", []).append(row)
            else:
                assert outcome.document is not None
                counts["kept"] += 1
                counts["text_bytes"] += len(outcome.document["text"].encode())
                rows.setdefault("", []).append(outcome.document)
            for name, more in outcome.extra.items():
                rows.setdefault(name, []).extend(more)
            if counts["in"] >= self.part_records or counts["text_bytes"] >= PART_BYTES:
                yield self._write(task, number, rows, Part(position, outcome.share, counts, {}))
                number += 1
                rows, counts = {}, new_counts()
        yield self._write(task, number, rows, Part(position, 1.0, counts, {}, last=True))

    def _write(self, task: Task, number: int, rows: dict[str, list[dict[str, Any]]], part: Part) -> Part:
        schemas = {"": SCHEMA, "dropped": DROPPED} | self.schemas
        for folder, content in sorted(rows.items()):
            name = f"{folder}/{task.name}-{number:05d}.parquet".lstrip("/")
            part.files |= write_parquet(self.output_dir, name, content, schemas[folder])
        return part


def document_phase(
    args: StageArguments, sources: Sequence[Source], step: Step, schemas: dict[str, pa.Schema] | None = None
) -> Phase:
    """The usual phase: one task for each source."""
    tasks = tuple(Task(f"{source.index:05d}", source.bytes, source) for source in sources)
    return Phase("documents", tasks, MapDocuments(args.output_dir, step, args.part_records, schemas or {}))


def settings_of(args: StageArguments, *more: Any) -> dict[str, Any]:
    """The flags on which the output depends."""
    return {
        name: value
        for arguments in (args, *more)
        for name, value in dataclasses.asdict(arguments).items()
        if name not in NO_SETTINGS
    }


def workers_of(args: StageArguments) -> int:
    """`--workers`, or the cores this process may use."""
    return args.workers or available_cores()


@dataclass
class Stage:
    """A stage as one value, which an executor may send to another machine."""

    name: str
    output_dir: str
    settings: dict[str, Any]
    inputs: list[dict[str, Any]]
    phases: list[Phase]
    versions: dict[str, str]
    history: list[dict[str, Any]]  # stage, settings and counts of the stages before, from the manifests of the inputs

    @property
    def state(self) -> Path:
        return Path(self.output_dir, STATE)

    @property
    def made_with(self) -> dict[str, Any]:
        """What the output depends on. A folder that was made with something else is refused."""
        return {
            "format": FORMAT,
            "stage": self.name,
            "settings": self.settings,
            "versions": self.versions,
            "inputs": self.inputs,
        }

    def parts(self, phase: Phase, task: Task) -> list[dict[str, Any]]:
        """The records of a task's finished parts, in order; the first that is missing or not right ends them."""
        found: list[dict[str, Any]] = []
        while True:
            try:
                record = json.loads(self._record(phase, task, len(found)).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return found
            for name, facts in record["files"].items():
                path = Path(self.output_dir, name)
                if not path.is_file() or path.stat().st_size != facts["bytes"]:
                    return found
            found.append(record)
            if record["last"]:
                return found

    def is_done(self, phase: Phase, task: Task) -> bool:
        parts = self.parts(phase, task)
        return bool(parts) and bool(parts[-1]["last"])

    def run_task(self, phase: Phase, task: Task, note: Callable[[float, dict[str, Any]], None]) -> None:
        """Do what is left of a task. `note` is told of each part: its share of the task, its counts."""
        done = self.parts(phase, task)
        last: dict[str, Any] = done[-1] if done else {"last": False, "share": 0.0, "position": 0}
        if last["last"]:
            return
        before = last["share"]
        for number, part in enumerate(phase.work(task, last["position"], len(done)), len(done)):
            write_json(self._record(phase, task, number), vars(part))
            note((part.share - before) * task.weight, part.counts)
            before = part.share

    def finish(self) -> dict[str, Any]:
        """Write the manifest from the records. Raises RunError if a task has not finished."""
        counts, files = new_counts(), {}
        for phase in self.phases:
            for task in phase.tasks:
                parts = self.parts(phase, task)
                if not parts or not parts[-1]["last"]:
                    raise RunError(f"{self.name}: task {task.name} of {phase.name} has not finished; run it again")
                for part in parts:
                    add_counts(counts, part["counts"])
                    files.update(part["files"])
        for name, value in counts.items():
            if isinstance(value, dict):
                counts[name] = dict(sorted(most_frequent(value).items()))
        manifest = self.made_with | {
            "counts": counts,
            "files": {name: facts for name, facts in sorted(files.items()) if not name.startswith(STATE)},
            "history": self.history,
        }
        write_json(Path(self.output_dir, "manifest.json"), manifest)
        return manifest

    def _record(self, phase: Phase, task: Task, number: int) -> Path:
        return self.state / phase.name / f"{task.name}-{number:05d}.json"
