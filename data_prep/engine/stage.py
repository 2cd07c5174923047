"""Stages of data_prep: work in tasks, kept piece by piece, so that a killed stage goes on and any number of workers
writes the same bytes.

A stage has phases, a phase has tasks that do not depend on each other. A task is a generator of parts; as soon as the
files of a part are in place, a record of it is written to `OUTPUT/.state/`, and the work of parts with a record is
never done again. What a part holds depends on the settings and the input alone, never on time or on other tasks.
`.state/stage.json` holds settings, inputs (by hash) and library versions: a folder made with others is refused.
"""

import dataclasses
import fcntl
import importlib.metadata
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any, Literal, Protocol

import pyarrow as pa
from tqdm.auto import tqdm

from shared.errors import BadRecordsError, InputError, RunError
from shared.files import atomic_file, sha256_of, sweep, write_json
from shared.rows import SCHEMA, STATE, Source, write_rows

FORMAT = 1  # of the state folder
ENOUGH_RECORDS = 1000  # before this many, the share of bad ones is looked at only when the stage ends
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
        default=0.05, metadata={"help": "Stop with exit code 3 when more than this share of the records is damaged."}
    )
    part_records: int = field(
        default=2000, metadata={"help": "Records read for one part: what a kill costs at most, and a shard's size."}
    )

    def __post_init__(self) -> None:
        self.output_dir = os.path.abspath(self.output_dir)  # a worker may have another working directory
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers {self.workers}: must be at least 1")
        if self.part_records < 1:
            raise InputError(f"--part_records {self.part_records}: must be at least 1")
        if not 0 <= self.max_bad_records <= 1:
            raise InputError(f"--max_bad_records {self.max_bad_records}: is a share, between 0 and 1")
        if self.executor == "slurm" and not self.slurm_partition:
            raise InputError("--executor slurm: name the partition, --slurm_partition")


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


class Work(Protocol):
    """Does one task, from `position`, where part `number` starts. Can be pickled: it may run on another machine."""

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]: ...


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


class Step(Protocol):
    """Reads one source from a position on and says what becomes of each record. Can be pickled."""

    def __call__(self, source: Source, position: int) -> Iterator[Outcome]: ...


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


def file_facts(path: Path, rows: int) -> dict[str, Any]:
    """Rows, bytes and SHA-256 of a file that is complete."""
    return {"rows": rows, "bytes": path.stat().st_size, "sha256": sha256_of(path)}


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
        counts, size, share, records = new_counts(), 0, 0.0, 0
        for outcome in self.step(task.source, position):
            position, share = outcome.position, outcome.share
            counts["in"] += 1
            records += 1
            if outcome.reason:
                counts["bad" if outcome.bad else "dropped"][outcome.reason] += 1
                known = outcome.document or {}
                row = {name: known.get(name) for name in DROPPED.names}
                row |= {"reason": outcome.reason, "detail": outcome.detail[:1000]}
                rows.setdefault("dropped", []).append(row)
            else:
                assert outcome.document is not None
                counts["kept"] += 1
                text_bytes = len(outcome.document["text"].encode())
                counts["text_bytes"] += text_bytes
                size += text_bytes
                rows.setdefault("", []).append(outcome.document)
            for name, more in outcome.extra.items():
                rows.setdefault(name, []).extend(more)
            if records >= self.part_records or size >= PART_BYTES:
                yield self._write(task, number, rows, Part(position, share, counts, {}))
                number += 1
                rows, counts, size, records = {}, new_counts(), 0, 0
        yield self._write(task, number, rows, Part(position, 1.0, counts, {}, last=True))

    def _write(self, task: Task, number: int, rows: dict[str, list[dict[str, Any]]], part: Part) -> Part:
        schemas = {"": SCHEMA, "dropped": DROPPED} | self.schemas
        for folder, content in sorted(rows.items()):
            name = f"{folder}/{task.name}-{number:05d}.parquet".lstrip("/")
            path = Path(self.output_dir, name)
            with atomic_file(path) as temporary:
                write_rows(temporary, content, schemas[folder])
            part.files[name] = file_facts(path, len(content))
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
        if done and done[-1]["last"]:
            return
        before = done[-1]["share"] if done else 0.0
        number = len(done)
        for part in phase.work(task, done[-1]["position"] if done else 0, number):
            write_json(self._record(phase, task, number), vars(part))
            number += 1
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
        counts |= {name: dict(sorted(counts[name].items())) for name in ("dropped", "bad")}
        manifest = {
            "format": FORMAT,
            "stage": self.name,
            "settings": self.settings,
            "versions": self.versions,
            "inputs": self.inputs,
            "counts": counts,
            "files": {name: facts for name, facts in sorted(files.items()) if not name.startswith(STATE)},
            "history": self.history,
        }
        write_json(Path(self.output_dir, "manifest.json"), manifest)
        return manifest

    def _record(self, phase: Phase, task: Task, number: int) -> Path:
        return self.state / phase.name / f"{task.name}-{number:05d}.json"


def run_stage(
    name: str,
    args: StageArguments,
    settings: dict[str, Any],
    sources: Sequence[Source],
    phases: Sequence[Phase],
    libraries: Sequence[str] = (),
) -> dict[str, Any]:
    """Run what is left of a stage, and return its manifest.

    `settings` are all values that the output depends on (see `settings_of`), `libraries` the packages whose version
    it depends on. Prints a closing line. Raises InputError when the folder was made with other settings or input,
    RunError when a worker died, BadRecordsError when too many records are damaged.
    """
    start = time.time()
    output_dir = Path(args.output_dir)
    if output_dir.is_dir() and any(output_dir.iterdir()) and not (output_dir / STATE).is_dir():
        raise InputError(f"--output_dir {output_dir}: holds files that no stage has written; name a new folder")
    inputs = [
        {"file": Path(source.path).name, "bytes": source.bytes, "sha256": digest}
        for source, digest in zip(sources, _hashes(sources), strict=True)
    ]
    versions = {library: importlib.metadata.version(library) for library in ("pyarrow", *libraries)}
    stage = Stage(name, str(output_dir), settings, inputs, list(phases), versions, history_of(args.input))
    stage.state.mkdir(parents=True, exist_ok=True)
    with _only_run(stage.state):
        _check_settings(stage)
        sweep(output_dir)
        if (output_dir / "manifest.json").is_file() and all(
            stage.is_done(phase, task) for phase in stage.phases for task in phase.tasks
        ):
            manifest = json.loads((output_dir / "manifest.json").read_text(encoding="utf-8"))
            print(f"{name}: already complete in {output_dir}")
        elif args.executor == "local":
            for phase in stage.phases:
                _run_local(stage, phase, args)
            manifest = stage.finish()
        else:
            from data_prep.engine.executors import run_elsewhere

            if not run_elsewhere(stage, args):  # queued
                return {}
            manifest = stage.finish()
    _check_bad(manifest["counts"], args.max_bad_records, 0)
    seconds = time.time() - start
    write_json(stage.state / "time.json", {"seconds": seconds, "workers": workers_of(args)})
    print(closing_line(name, manifest["counts"], seconds))
    return manifest


def history_of(inputs: Sequence[str]) -> list[dict[str, Any]]:
    """Stage, settings and counts of all stages that led to these folders, the earliest first."""
    found: list[dict[str, Any]] = []
    for entry in inputs:
        path = Path(entry, "manifest.json")
        if path.is_file() and Path(entry, STATE).is_dir():
            manifest = json.loads(path.read_text(encoding="utf-8"))
            own = {key: manifest[key] for key in ("stage", "settings", "versions", "counts")}
            found += [step for step in (*manifest["history"], own) if step not in found]
    return found


def closing_line(name: str, counts: dict[str, Any], seconds: float) -> str:
    """Documents in, kept, dropped and damaged by reason, bytes and seconds, in one line."""
    line = f"{name}: {counts['in']:,} in, {counts['kept']:,} kept"
    for title in ("dropped", "bad"):
        reasons = sorted(counts[title].items(), key=lambda item: (-item[1], item[0]))
        if reasons:
            line += f", {sum(counts[title].values()):,} {title} ("
            line += ", ".join(f"{reason} {count:,}" for reason, count in reasons) + ")"
    rate = counts["in"] / max(seconds, 1e-9)
    size = counts.get("file_bytes", counts["text_bytes"])
    return line + f", {size:,} bytes{'' if 'file_bytes' in counts else ' of text'}, {seconds:.1f} s ({rate:,.0f}/s)"


def workers_of(args: StageArguments) -> int:
    """`--workers`, or the cores this process may use."""
    return args.workers or len(os.sched_getaffinity(0))


def _hashes(sources: Sequence[Source]) -> Iterator[str]:
    total = sum(source.bytes for source in sources)
    with tqdm(total=total, desc="Hashing input", unit="B", unit_scale=True, delay=2) as bar:
        for source in sources:
            yield sha256_of(source.path)
            bar.update(source.bytes)


def _check_settings(stage: Stage) -> None:
    now = {
        "format": FORMAT,
        "stage": stage.name,
        "settings": stage.settings,
        "inputs": stage.inputs,
        "versions": stage.versions,
    }
    now = json.loads(json.dumps(now))
    path = stage.state / "stage.json"
    if not path.is_file():
        write_json(path, now)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if before == now:
        return
    flat_before, flat_now = _flat(before), _flat(now)
    different = sorted(key for key in flat_before | flat_now if flat_before.get(key) != flat_now.get(key))
    shown = "; ".join(f"{key} was {flat_before.get(key)!r}, is {flat_now.get(key)!r}" for key in different[:5])
    raise InputError(
        f"--output_dir {stage.output_dir}: was made with other settings or input: {shown}; name a new folder, or "
        "remove this one"
    )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: leaf for name in value for key, leaf in _flat(value[name], f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): value}


@contextmanager
def _only_run(state: Path) -> Iterator[None]:
    with open(state / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"--output_dir {state.parent}: another run is writing this folder") from error
        yield


def _check_bad(counts: dict[str, Any], limit: float, enough: int) -> None:
    bad = sum(counts["bad"].values())
    if counts["in"] >= enough and bad > limit * counts["in"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts["bad"].items()))
        raise BadRecordsError(
            f"--max_bad_records {limit}: {bad:,} of {counts['in']:,} records are damaged ({reasons}); "
            "look at dropped/ in the output folder, then run again with a higher share"
        )


_stage: Any = None  # in a worker
_queue: Any = None  # in a worker: where parts are reported


def _start_worker(stage: Stage, queue: Any) -> None:
    """Leave when the parent is gone, however it went, and let it alone answer Ctrl-C."""
    global _stage, _queue
    _stage, _queue = stage, queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(phase: int, task: int) -> None:
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    chosen = _stage.phases[phase]
    _stage.run_task(chosen, chosen.tasks[task], lambda weight, counts: _queue.put((weight, counts)))


def _run_local(stage: Stage, phase: Phase, args: StageArguments) -> None:
    """Run a phase on this machine, under a progress bar."""
    counts = new_counts()
    waiting = []
    total = sum(task.weight for task in phase.tasks)
    with tqdm(total=total, desc=f"{stage.name}: {phase.name}", unit="B", unit_scale=True) as bar:
        for task in phase.tasks:
            parts = stage.parts(phase, task)
            for part in parts:
                add_counts(counts, part["counts"])
            bar.update((parts[-1]["share"] if parts else 0.0) * task.weight)
            if not (parts and parts[-1]["last"]):
                waiting.append(task)
        bar.initial = bar.n  # so that the rate is that of this run

        def note(weight: float, more: dict[str, Any]) -> None:
            add_counts(counts, more)
            bar.update(weight)
            bar.set_postfix_str(f"{counts['in']:,} in, {counts['kept']:,} kept")
            _check_bad(counts, args.max_bad_records, ENOUGH_RECORDS)

        waiting.sort(key=lambda task: -task.weight)  # a long task that starts last would keep one worker
        workers = min(workers_of(args), len(waiting))
        if workers <= 1:
            for task in waiting:
                stage.run_task(phase, task, note)
            return
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        pool = ProcessPoolExecutor(workers, context, _start_worker, (stage, queue))
        try:
            place = next(number for number, other in enumerate(stage.phases) if other is phase)
            numbers = {task.name: number for number, task in enumerate(phase.tasks)}
            futures = {pool.submit(_work, place, numbers[task.name]) for task in waiting}
            while futures:
                finished, futures = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                with suppress(Empty):
                    while True:
                        note(*queue.get_nowait())
        except BaseException as error:
            for process in multiprocessing.active_children():
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise RunError(
                    f"{stage.name}: a worker was killed, perhaps for memory; what is done is kept: run the same "
                    "command again, with fewer --workers"
                ) from error
            raise
        finally:
            pool.shutdown(cancel_futures=True)
