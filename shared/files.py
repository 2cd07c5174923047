"""Files that are whole or not there, and their hashes."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared.errors import InputError, RunError

_TEMPORARY = re.compile(r"\..+\.\d+(\.\w+)?")  # see atomic_file

CACHE = Path(os.environ.get("TINY_OLM_CACHE", "~/.cache/tiny-olm")).expanduser()


# What a folder says that cannot be written: it is full, closed, or a file.
UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    errno.EFBIG,
}


def explain(error: OSError) -> RunError | None:
    """The error of a file that could not be written, with a way out; None for an error of another kind."""
    if error.errno not in UNWRITABLE:
        return None
    file = Path(error.filename or "output")
    move = "set TINY_OLM_CACHE to another folder" if CACHE in (file, *file.parents) else "name another folder"
    return RunError(
        f"{file}: {error.strerror or error}; make room or change its rights, or {move}; what was finished "
        "before is kept, and the same command goes on"
    )


@contextmanager
def must_be_writable(path: str | Path) -> Iterator[None]:
    """Turn an OSError of the first file or folder that is made in or beside `path`, before any work, to InputError."""
    try:
        yield
    except OSError as error:
        name, value = (
            ("TINY_OLM_CACHE", CACHE) if CACHE in (Path(path), *Path(path).parents) else ("--output_dir", path)
        )
        reason = "is a file" if Path(path).is_file() else error.strerror
        raise InputError(f"{name} {value}: cannot be written ({reason}); name another folder") from error


def content_hash(*parts: Any) -> str:
    """A short name for what was made from `parts` (anything that JSON can hold)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` when the block ends well and is removed otherwise.

    Every file is flushed to disk before the rename, so `path` is never half-written. Raises FileExistsError when
    `path` exists and is not empty.
    """
    path = Path(path)
    with must_be_writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with _named(path):
            yield temporary
        flush_tree(temporary)
        if path.is_dir() and any(path.iterdir()):
            raise FileExistsError(f"{path} exists and is not empty")
        try:
            temporary.replace(path)
        except OSError as error:  # somebody else was faster
            raise FileExistsError(f"{path}: {error.strerror}") from error
        flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name `path` in an OSError that names no file, as that of a write to a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno in UNWRITABLE and error.filename is None:
            error.filename = str(path)
        raise


def check_new_folder(path: str | Path) -> None:
    """Raise InputError when an --output_dir is a file, a folder that holds something, or cannot be made."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"--output_dir {path}: exists and is not an empty folder; name a new one")
    with must_be_writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces `path` when the block ends well and is removed otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        with _named(path):
            yield temporary
        set_mode(temporary)
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed runs have left of `atomic_file` anywhere under `folder`, which nobody else may be writing."""
    for path in folder.rglob(".*"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """What `write_json` wrote. Raises InputError for a file that was damaged since."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); remove it, or name a new folder") from error


def write_text(path: str | Path, text: str) -> None:
    """Write text, atomically. A byte of a file name that is no UTF-8 becomes `\\udcNN`, which JSON reads as it was."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def shown_path(path: str | Path) -> str:
    """A path as text for columns and pages: a byte that is no UTF-8 as `\\udcNN`."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def write_report(folder: str | Path, name: str, report: Any, page: str) -> None:
    """Write a result as NAME.json, and the page that is made of it as NAME.md."""
    write_text(Path(folder, f"{name}.md"), page)
    write_json(Path(folder, f"{name}.json"), report)


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_tree(folder: Path) -> None:
    """Flush a folder and everything in it to disk, with the modes of the umask."""
    for path in (*folder.rglob("*"), folder):
        set_mode(path)
        flush(path)


def set_mode(path: Path) -> None:
    """Give a file or folder the mode of `open` or `mkdir`: safetensors and `tempfile` let only the owner read."""
    umask = os.umask(0o077)  # there is no way to read it alone
    os.umask(umask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
