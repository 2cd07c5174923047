"""The work of fetch_common_crawl.py: is there disk for it, the refused lines, the files one by one."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from data_prep.crawl.lists import list_path
from data_prep.engine.downloads import BadFile, Server, Trouble, check_gzip, discard, download
from data_prep.engine.stage import DROPPED, Part, Task, file_facts, new_counts, write_parquet
from shared.errors import InputError, RunError
from shared.files import content_hash, read_json, write_json
from shared.rows import STATE

MARGIN = 1.02  # of disk, over the bytes to come


def ask_sizes(server: Server, files: list[list[Any]]) -> None:
    """Fill in the bytes of each file."""

    def ask(path: str) -> int:
        try:
            return server.size(path) or 0
        except BadFile:
            return 0  # the download will say why
        except Trouble:
            if server.answers(list_path(*path.split("/")[1:5:3])):
                return 0
            raise

    with ThreadPoolExecutor(4) as pool, tqdm(total=len(files), desc="Asking for sizes", unit="file", delay=2) as bar:
        for entry, size in zip(files, pool.map(ask, [path for path, _ in files]), strict=True):
            entry[1] = size
            bar.update()


def local_path(output_dir: str, path: str) -> Path:
    _, snapshot, _, _, kind, name = path.split("/")
    return Path(output_dir, "files", snapshot, kind, name)


def check_disk(output_dir: str, files: list[list[Any]]) -> None:
    """Print bytes to come and free disk. Raises InputError if they do not fit."""
    missing = 0
    for path, size in files:
        target = local_path(output_dir, path)
        part = target.with_name(target.name + ".part")
        if not target.is_file():
            missing += max(0, size - (part.stat().st_size if part.is_file() else 0))
    folder = next(parent for parent in (Path(output_dir), *Path(output_dir).parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    total, unknown = sum(size for _, size in files), sum(size == 0 for _, size in files)
    line = f"{len(files):,} files, {total:,} bytes, {missing:,} of them to come"
    line += f" and {unknown:,} files of unknown size" if unknown else ""
    print(f"{line}; {free:,} bytes of disk are free")
    if missing * MARGIN > free:
        raise InputError(
            f"--output_dir {output_dir}: {missing:,} bytes are to come and {free:,} are free; name a folder on "
            "another disk, or lower --sampling_ratio"
        )


@dataclass(frozen=True)
class Refuse:
    """The work of counting the lines of the lists, and of recording the refused ones."""

    output_dir: str
    lines: int
    refused: list[list[str]]  # snapshot, line, reason

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]:
        counts = new_counts() | {"in": len(self.refused), "list_lines": self.lines}
        counts["bad"].update(reason for _, _, reason in self.refused)
        rows = [{"id": line, "source": snapshot, "reason": reason} for snapshot, line, reason in self.refused]
        files = write_parquet(self.output_dir, f"dropped/{task.name}.parquet", rows, DROPPED) if rows else {}
        yield Part(0, 1.0, counts, files, last=True)


@dataclass(frozen=True)
class Download:
    """The work of fetching one file, `task.source.path` on the server."""

    output_dir: str
    server: Server

    def __call__(self, task: Task, position: int, number: int) -> Iterator[Part]:
        assert task.source is not None
        path = task.source.path
        target = local_path(self.output_dir, path)
        counts = new_counts() | {"in": 1}
        try:
            members, problem = check_gzip(target) if target.is_file() else (0, "missing")  # killed before the record
            if problem:
                for have, size, members in download(self.server, path, target, position):
                    if not members:
                        yield Part(have, min(have / (size or task.weight), 0.99), new_counts(), {})
        except (BadFile, Trouble) as error:
            if isinstance(error, Trouble) and not self.server.answers(list_path(*path.split("/")[1:5:3])):
                raise RunError(
                    f"{self.server.base}/{path}: {error}, {self.server.retries} times and more, and the server has no "
                    "answer to anything else; what is done is kept: wait some minutes, then run the same command "
                    "again, perhaps with fewer --workers"
                ) from error
            discard(target)
            reason, detail = (error.reason, error.detail) if isinstance(error, BadFile) else (str(error), "")
            counts["bad"][reason] += 1
            row = {"id": path, "source": path.split("/")[1], "warc_file": target.name, "reason": reason}
            row["detail"] = detail
            files = write_parquet(self.output_dir, f"dropped/{task.name}.parquet", [row], DROPPED)
        except OSError as error:
            raise RunError(
                f"{target}: {error}; what is done is kept: when it is mended, run the same command again"
            ) from error
        else:
            counts |= {"kept": 1, "file_bytes": target.stat().st_size}
            name = target.relative_to(self.output_dir).as_posix()
            files = {name: file_facts(target, members) | {"path": path}}
        yield Part(position, 1.0, counts, files, last=True)


def forget_bad(output_dir: str) -> None:
    """Remove the records of files that could not be had, so that they are tried again."""
    records = list(Path(output_dir, STATE, "files").glob("*.json"))
    bad = {record.name.split("-")[0] for record in records if read_json(record)["counts"]["bad"]}
    for record in records:  # a file has several: one for each part
        if record.name.split("-")[0] in bad:
            record.unlink()
    if bad:
        Path(output_dir, "manifest.json").unlink(missing_ok=True)


def grows(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two settings of a fetch differ in nothing but higher ratios of the same snapshots."""
    ratios, higher = before["snapshots"], now["snapshots"]
    same = before | {"snapshots": 0} == now | {"snapshots": 0} and ratios.keys() == higher.keys()
    return same and ratios != higher and all(higher[name] >= ratio for name, ratio in ratios.items())


def grow(output_dir: str, before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The plan of a larger sample, in which the files of the smaller one keep their places, so that none is fetched
    again. The list of refused lines is made anew. Raises InputError if the server no longer lists some of them.
    """
    sizes = dict(now["files"])
    missing = [path for path, _ in before["files"] if path not in sizes]
    if missing:
        raise InputError(
            f"--sampling_ratio: the larger sample lacks {len(missing):,} files of the smaller one ({missing[0]}), "
            "since the lists of the server have changed; name a new --output_dir"
        )
    old = {path for path, _ in before["files"]}
    state = Path(output_dir, STATE)
    Path(output_dir, "manifest.json").unlink(missing_ok=True)
    for record in (state / "lists").glob("*.json"):
        record.unlink()
    if (state / "stage.json").is_file():
        stage = read_json(state / "stage.json")
        write_json(state / "stage.json", stage | {"settings": fetch_settings(now)})
    return now | {"files": before["files"] + [entry for entry in now["files"] if entry[0] not in old]}


def fetch_settings(plan: dict[str, Any]) -> dict[str, Any]:
    """What the output of a fetch depends on: its settings, and what they chose from the lists."""
    paths = sorted(path for path, _ in plan["files"])
    return plan["settings"] | {"paths": content_hash(paths, plan["refused"])}
