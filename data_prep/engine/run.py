"""Runs a stage: what is left of it, in a pool of processes on this machine or by an executor on others.

A folder is written by one run at a time, is refused when it was made with other settings, input or library versions,
and may hold too many damaged records only to the share that is allowed.
"""

import fcntl
import importlib.metadata
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any

import pyarrow as pa
from tqdm.auto import tqdm

from data_prep.engine.executors import run_elsewhere
from data_prep.engine.stage import Phase, Stage, StageArguments, Task, add_counts, new_counts, workers_of
from shared.errors import BadRecordsError, InputError, RunError
from shared.files import must_be_writable, sha256_of, shown_path, sweep, write_json
from shared.rows import LOST, STATE, Source, check_apart

ENOUGH_RECORDS = 1000  # before this many, the share of bad ones is looked at only when the stage ends


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
    check_apart(args.output_dir, args.input)
    if output_dir.is_dir() and any(output_dir.iterdir()) and not (output_dir / STATE).is_dir():
        raise InputError(f"--output_dir {output_dir}: holds files that no stage has written; name a new folder")
    with must_be_writable(output_dir):
        (output_dir / STATE).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output_dir / STATE).close()
    inputs = [
        {"file": Path(source.path).name, "bytes": source.bytes, "sha256": sha256_of(source.path)}
        for source in tqdm(sources, desc="Hashing input", unit="file", delay=2)
    ]
    versions = {library: importlib.metadata.version(library) for library in ("pyarrow", *libraries)}
    stage = Stage(name, str(output_dir), settings, inputs, list(phases), versions, history_of(args.input))
    with _only_run(stage.state):
        _check_settings(stage)
        sweep(output_dir)
        _check_files(stage)
        done = [stage.is_done(phase, task) for phase in stage.phases for task in phase.tasks]
        manifest = _finished(output_dir / "manifest.json") if all(done) else {}
        if manifest:
            print(f"{name}: already complete in {output_dir}")
        else:
            if args.executor == "local":
                for phase in stage.phases:
                    _run_local(stage, phase, args)
            elif not run_elsewhere(stage, args):  # queued
                return {}
            manifest = stage.finish()
    _check_bad(stage, manifest["counts"], args.max_bad_records, 0)
    seconds = time.time() - start
    if not any(done):  # else the counts are not those of this run
        write_json(stage.state / "time.json", {"seconds": seconds, "workers": workers_of(args)})
    print(closing_line(name, manifest["counts"], None if any(done) else seconds))
    return manifest


def _finished(path: Path) -> dict[str, Any]:
    """The manifest of a stage; empty if it is not there or not whole, and so has to be written (again)."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) and {"counts", "files"} <= manifest.keys() else {}


def history_of(inputs: Sequence[str]) -> list[dict[str, Any]]:
    """Stage, settings and counts of all stages that led to these folders, the earliest first."""
    found: list[dict[str, Any]] = []
    for entry in inputs:
        manifest = _finished(Path(entry, "manifest.json"))
        if manifest and Path(entry, STATE).is_dir():
            own = {key: manifest[key] for key in ("stage", "settings", "versions", "counts")}
            found += [step for step in (*manifest["history"], own) if step not in found]
    return found


def closing_line(name: str, counts: dict[str, Any], seconds: float | None) -> str:
    """Documents in, kept, dropped and damaged by reason, bytes and, of a run that did it all, seconds, in one line."""
    line = f"{name}: {counts['in']:,} in, {counts['kept']:,} kept"
    for title in ("dropped", "bad"):
        reasons = sorted(counts[title].items(), key=lambda item: (-item[1], item[0]))
        if reasons:
            line += f", {sum(counts[title].values()):,} {title} ("
            line += ", ".join(f"{reason} {count:,}" for reason, count in reasons) + ")"
    size = counts.get("file_bytes", counts["text_bytes"])
    line += f", {size:,} bytes{'' if 'file_bytes' in counts else ' of text'}"
    return line if seconds is None else f"{line}, {seconds:.1f} s ({counts['in'] / max(seconds, 1e-9):,.0f}/s)"


def _check_settings(stage: Stage) -> None:
    now = json.loads(json.dumps(stage.made_with))
    path = stage.state / "stage.json"
    if not path.is_file():
        write_json(path, now)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path}: damaged, so that nobody knows what made the rest; name a new --output_dir, or remove this one"
        ) from error
    if before == now:
        return
    flat_before, flat_now = _flat(before), _flat(now)
    different = sorted(key for key in flat_before | flat_now if flat_before.get(key) != flat_now.get(key))
    shown = "; ".join(_difference(key, flat_before.get(key), flat_now.get(key)) for key in different[:5])
    raise InputError(
        f"--output_dir {stage.output_dir}: was made with other settings or input: {shown}; name a new folder, or "
        "remove this one"
    )


def _check_files(stage: Stage) -> None:
    """Raise InputError for a file of a finished part that is no longer what was written. One that is missing, or of
    another size, is made again."""
    parts = [part for phase in stage.phases for task in phase.tasks for part in stage.parts(phase, task)]
    facts = {name: facts for part in parts for name, facts in part["files"].items()}
    files = {name: found["sha256"] for name, found in facts.items() if "sha256" in found}  # what later phases delete
    for name, digest in tqdm(files.items(), desc="Verifying what is finished", delay=2):
        path = Path(stage.output_dir, name)
        if sha256_of(path) != digest:
            raise InputError(f"{path}: changed since it was written; remove it, and the same command makes it again")


def _difference(name: str, before: Any, now: Any) -> str:
    """What changed, of long lists (of files) in numbers with one for all."""
    if not (isinstance(before, list) and isinstance(now, list) and len(before) + len(now) > 2):
        return f"{name} was {before!r}, is {now!r}"
    old, new = ({json.dumps(one): one for one in some} for some in (before, now))
    gone, more = ([one for key, one in a.items() if key not in b] for a, b in ((old, new), (new, old)))
    if not gone and not more:
        return f"{name} has another order"
    return f"{name} has {len(more)} new of {len(now)} and lacks {len(gone)} of {len(before)}, like {(more or gone)[0]}"


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


def _check_bad(stage: Stage, counts: dict[str, Any], limit: float, enough: int) -> None:
    if limit < 1 and any(reason.endswith(LOST) for reason in counts["bad"]):
        raise BadRecordsError(
            f"{'; '.join(_lost_files(stage))}; fetch it again and name a new --output_dir, or "
            "--max_bad_records 1: goes on without what is lost"
        )
    bad = sum(counts["bad"].values())
    if counts["in"] >= enough and bad > limit * counts["in"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts["bad"].items()))
        raise BadRecordsError(
            f"--max_bad_records {limit}: {bad:,} of {counts['in']:,} records are damaged ({reasons}); "
            "look at dropped/ in the output folder, then run again with a higher share"
        )


def _lost_files(stage: Stage) -> list[str]:
    """The files that end before they should, each with the reason."""
    return sorted(
        {
            f"{shown_path(task.source.path)}: {reason}"
            for phase in stage.phases
            for task in phase.tasks
            if task.source
            for part in stage.parts(phase, task)
            for reason in part["counts"].get("bad", {})
            if reason.endswith(LOST)
        }
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


def _work(phase: int, task: Task) -> None:
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    _stage.run_task(_stage.phases[phase], task, lambda weight, counts: _queue.put((weight, counts)))


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
            _check_bad(stage, counts, args.max_bad_records, ENOUGH_RECORDS)

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
            place = stage.phases.index(phase)
            futures = {pool.submit(_work, place, task) for task in waiting}
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
