"""Checkpoints that are whole or not there: written aside, hashed, flushed, renamed; verified before they are read."""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from shared.errors import InputError
from shared.files import flush, flush_tree, sha256_of, write_json

MANIFEST = "checkpoint.json"
INCOMING, DELETING, DAMAGED = ".incoming-", ".deleting-", "damaged-"  # folders that are no checkpoints (yet, any more)


def seal(staging: Path, folder: Path, facts: dict[str, Any]) -> None:
    """Make the finished folder `staging` the checkpoint `folder`: manifest of sizes and hashes, flush, rename.

    `facts` is what a resumed run is compared with (see RunRecord.identity).
    """
    files = {}
    for path in sorted(path for path in staging.rglob("*") if path.is_file()):
        files[path.relative_to(staging).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    content = {**facts, "files": files}
    write_json(staging / MANIFEST, {"content": content, "sha256": _hash(content)})
    flush_tree(staging)
    staging.replace(folder)
    flush(folder.parent)


def move_files(staging: Path, folder: Path) -> None:
    """Move the files of the finished folder `staging` into `folder`, one by one, each of them whole."""
    flush_tree(staging)
    for file in [path for path in staging.rglob("*") if path.is_file()]:
        target = folder / file.relative_to(staging)
        target.parent.mkdir(exist_ok=True)
        file.replace(target)
    shutil.rmtree(staging)
    flush(folder)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest's facts, after every file was compared with it.

    Raises InputError that names the first file which is missing, of another size, or altered in a single bit.
    """
    try:
        stored = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        content: dict[str, Any] = stored["content"]
        if stored["sha256"] != _hash(content):
            raise ValueError("its content does not fit its own hash")
    except FileNotFoundError as error:
        raise InputError(f"{folder / MANIFEST}: missing; not a whole checkpoint of this project") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / MANIFEST}: damaged ({error})") from error
    for name, expected in content["files"].items():
        path = folder / name
        try:
            if path.stat().st_size != expected["bytes"]:
                raise InputError(f"{path}: {path.stat().st_size} bytes where {expected['bytes']} were written")
            if sha256_of(path) != expected["sha256"]:
                raise InputError(f"{path}: altered, its hash is not the one that was written")
        except FileNotFoundError as error:
            raise InputError(f"{path}: missing") from error
        except OSError as error:
            raise InputError(f"{path}: not readable ({error.strerror})") from error
    return content


def checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoint folders of a run, the newest first. What they hold is not looked at."""
    found = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    found = [path for path in found if path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True)


def newest_good(output_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is whole, and its facts; None when the run has not saved any.

    Damaged ones are named on stderr and set aside as `damaged-checkpoint-N`. Raises InputError when there are only
    damaged ones: to begin again is for the user to decide. Call it on one process, under the lock of the run.
    """
    for path in checkpoints(output_dir):
        try:
            return path, verify(path)
        except InputError as error:
            aside = _free_name(output_dir / f"{DAMAGED}{path.name}")
            path.rename(aside)
            print(f"warning: {error}; the checkpoint is set aside as {aside.name}", file=sys.stderr, flush=True)
    if aside_before := sorted(path.name for path in output_dir.glob(f"{DAMAGED}checkpoint-*")):
        raise InputError(
            f"--output_dir {output_dir}: no good checkpoint is left, only {', '.join(aside_before)}; to begin again, "
            "remove these folders or name a new --output_dir"
        )
    return None


def rotate(output_dir: Path, limit: int | None, best: str | None) -> None:
    """Keep the newest checkpoint, the one named `best`, and of the others the newest up to `limit` in all.

    Without a limit all are kept.
    """
    found = checkpoints(output_dir)
    keep = {path.name for path in found[:1]} | ({Path(best).name} if best else set())
    for path in found if limit else []:
        if path.name in keep or len(keep) < (limit or 0):
            keep.add(path.name)
        else:
            leaving = output_dir / f"{DELETING}{path.name}"
            path.rename(leaving)  # first out of sight: half-deleted, it would look damaged
            shutil.rmtree(leaving, ignore_errors=True)


def sweep(output_dir: Path) -> None:
    """Remove what a killed run was writing or deleting. Call it on one process, under the lock of the run."""
    for prefix in (INCOMING, DELETING):
        for path in output_dir.glob(f"{prefix}*"):
            shutil.rmtree(path, ignore_errors=True)
    (output_dir / "all_results.json").unlink(missing_ok=True)  # Trainer adds to it, and would trip over half of one


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while os.path.lexists(free):
        number, free = number + 1, path.with_name(f"{path.name}.{number + 1}")
    return free
