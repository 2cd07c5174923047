"""Whole files from a web server, or from a folder laid out like one: resumed, retried and checked to the last byte.

Nothing here trusts the server: sizes are compared, every gzip member is decompressed (and thrown away), redirects,
waits and sizes have an upper bound.
"""

import functools
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from tqdm.auto import tqdm

from shared.errors import InputError
from shared.files import flush

CHUNK = 32 * 2**10  # small, because what follows a gzip member is copied for each member
STEP = 8 * 2**20  # bytes after which a download is flushed and noted: what a kill costs at most
ENOUGH_PROGRESS = 2**20  # after this number of new bytes the count of failures starts again
MAX_WAIT = 300.0  # seconds, of the back-off
MAX_RETRY_AFTER = 600.0  # seconds, of what a server asks for
MAX_REDIRECTS = 5
TIMEOUT = (30, 60)  # seconds, to connect and to the next byte
MAX_FILE_BYTES = 16 * 2**30  # the largest files of a crawl have 1 to 2 GiB, those of a dump 3
MAX_RATIO, RATIO_FROM = 100, 64 * 2**20  # WARC, WET and WAT files grow 3 to 10 times when decompressed
MAGIC = b"\x1f\x8b"
T = TypeVar("T")


class BadFile(Exception):
    """The file cannot be had, whatever is tried; other files may be fine."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.detail = reason, detail


class NotFound(BadFile):
    """The server has no such file."""


class Trouble(Exception):
    """All retries failed: the fault may be the file's, the server's or the network's."""


class TryAgain(Exception):
    """A failure that may pass."""

    def __init__(self, reason: str, after: float = 0.0, bad: bool = False) -> None:
        super().__init__(reason)
        self.after, self.bad = after, bad  # seconds the server asks for; if it stays, the file is bad


class _Useless(TryAgain):
    """What is there of the file is of no use."""


@dataclass
class _Reply:
    start: int  # where the bytes start in the file
    size: int | None  # of the whole file
    version: str  # what If-Range compares: ETag or Last-Modified
    chunks: Iterator[bytes]
    ended: bool = False  # there is nothing after `start`


@dataclass(frozen=True)
class Server:
    """Where files come from; see `server_at`."""

    base: str  # http(s)://... or the absolute path of a folder; no slash at its end
    retries: int = 8
    retry_wait: float = 2.0  # seconds before the first retry; doubles with each

    @property
    def folder(self) -> Path | None:
        return None if self.base.startswith(("http://", "https://")) else Path(self.base)

    def size(self, path: str) -> int | None:
        """The bytes of a file, None if the server does not say. Raises BadFile, Trouble."""
        return self._retry(path, lambda: self._size(path))

    def read(self, path: str, limit: int) -> bytes:
        """The content of a small file. Raises BadFile (above `limit` bytes too), Trouble."""
        return self._retry(path, lambda: self._read(path, limit))

    def answers(self, path: str) -> bool:
        """Whether a file can be had now, asked once."""
        try:
            with self.open(path) as reply:
                return not path.endswith(".gz") or next(reply.chunks, b"").startswith(MAGIC)
        except (TryAgain, BadFile, OSError):
            return False

    def _retry(self, path: str, attempt: Callable[[], T]) -> T:
        patience = Patience(self, path)
        while True:
            try:
                return attempt()
            except TryAgain as error:
                patience.wait(error)

    def _size(self, path: str) -> int | None:
        if self.folder is not None:
            with self.open(path) as reply:
                return reply.size
        with _wire_errors(), _session().head(f"{self.base}/{path}", timeout=TIMEOUT, allow_redirects=True) as head:
            if head.status_code in (405, 501):  # knows no HEAD
                return None
            _check_status(head)
            return _length(head)

    def _read(self, path: str, limit: int) -> bytes:
        content = bytearray()
        with self.open(path) as reply:
            for chunk in reply.chunks:
                content += chunk
                if len(content) > limit:
                    raise BadFile("too large", f"over {limit:,} bytes")
            if reply.size is not None and len(content) < reply.size:
                raise TryAgain("connection cut")
        if path.endswith(".gz") and not content.startswith(MAGIC):
            raise TryAgain("not gzip", bad=True)
        return bytes(content)

    @contextmanager
    def open(self, path: str, start: int = 0, version: str = "") -> Iterator[_Reply]:
        """A file's bytes from `start` on if it is still that version, from 0 on otherwise, in one try."""
        if self.folder is not None:
            file_path = self.folder / path
            if not file_path.is_file():
                raise NotFound("not found")
            with file_path.open("rb") as file:
                facts = os.fstat(file.fileno())
                same = version == f"{facts.st_size}-{facts.st_mtime_ns}"
                start = file.seek(start if same and start <= facts.st_size else 0)
                chunks = iter(lambda: file.read(CHUNK), b"")
                yield _Reply(start, facts.st_size, f"{facts.st_size}-{facts.st_mtime_ns}", chunks)
            return
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and version:
            headers["If-Range"] = version
        with (
            _wire_errors(),
            _session().get(f"{self.base}/{path}", headers=headers, timeout=TIMEOUT, stream=True) as reply,
        ):
            if start and reply.status_code == 416:
                # Nothing after `start`: complete, if that is the size; a longer Content-Length was a mistake.
                if _number(reply.headers.get("Content-Range", "").removeprefix("bytes */")) != start:
                    raise _Useless("the file has changed on the server")
                yield _Reply(start, start, version, iter(()), ended=True)
                return
            _check_status(reply)
            size, begin = _length(reply), 0
            if reply.status_code == 206:
                span, _, total = reply.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
                if _number(span.partition("-")[0]) != start:
                    raise _Useless("the server answers with another range")
                size, begin = _number(total), start
            # ETag first; a weak one, or none, is no use for If-Range.
            tag = reply.headers.get("ETag", "")
            tag = tag if tag.startswith('"') else reply.headers.get("Last-Modified", "")
            yield _Reply(begin, size, tag, reply.raw.stream(CHUNK, decode_content=False))


class Patience:
    """Waits between tries: `retry_wait` seconds, doubled with each failure, at most MAX_WAIT; no chance in it."""

    def __init__(self, server: Server, path: str) -> None:
        self.server, self.path, self.failures = server, path, 0

    def wait(self, error: TryAgain) -> None:
        """Raises Trouble, or BadFile, when all retries are used up."""
        if self.failures >= self.server.retries:
            raise BadFile(str(error)) if error.bad else Trouble(str(error))
        seconds = max(min(self.server.retry_wait * 2.0**self.failures, MAX_WAIT), error.after)
        self.failures += 1
        tqdm.write(
            f"{self.path}: {error}; trying again in {seconds:g} s ({self.failures} of {self.server.retries})",
            file=sys.stderr,
        )
        time.sleep(seconds)


def server_at(base_url: str, retries: int, retry_wait: float) -> Server:
    """The server of `--base_url`. Raises InputError if it is neither an http(s) address nor a folder."""
    parts = urlsplit(base_url)
    if parts.scheme in ("http", "https"):
        if not parts.netloc or parts.query or parts.fragment:
            raise InputError(f"--base_url {base_url}: must look like https://HOST/PATH, with nothing after the path")
        return Server(base_url.rstrip("/"), retries, retry_wait)
    if "://" in base_url and parts.scheme != "file":
        raise InputError(f"--base_url {base_url}: must be an http(s) address, a folder, or file:// and a folder")
    folder = Path(unquote(parts.path) if parts.scheme == "file" else base_url).absolute()
    if not base_url or not folder.is_dir():
        raise InputError(f"--base_url {base_url}: no such folder")
    return Server(str(folder), retries, retry_wait)


def check_gzip(path: Path) -> tuple[int, str]:
    """Decompress a file and throw the content away: (its gzip members, what is wrong with it or "").

    Memory is a few buffers. Time is bounded by the file's size: what decompresses to more than 100 times that, and
    more than 64 MiB, is given up there.
    """
    members = total = 0
    head = b""
    limit = max(RATIO_FROM, MAX_RATIO * path.stat().st_size)
    stream = None
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            while data:
                stream = stream or zlib.decompressobj(wbits=31)
                try:
                    content = stream.decompress(data, 2**20)
                except zlib.error:
                    return members, "damaged gzip" if members or total else "not gzip"
                if len(head) < 5:
                    head = (head + content)[:5]
                    if not b"WARC/".startswith(head):
                        return members, "not a WARC file"
                total += len(content)
                if total > limit:
                    return members, f"decompresses to over {MAX_RATIO} times its size"
                data = stream.unused_data if stream.eof else stream.unconsumed_tail
                if stream.eof:
                    members, stream = members + 1, None
    if stream is not None:
        return members, "truncated gzip"
    return members, "" if len(head) == 5 else "not a WARC file"


def download(
    server: Server, path: str, target: Path, position: int, check: Callable[[Path], tuple[int, str]] = check_gzip
) -> Iterator[tuple[int, int | None, int]]:
    """Bring a file to `target`, and yield (bytes that are safely on disk, size or None, 0) about every 8 MB.

    At the end, when it is complete, the first value of `check` takes the place of the 0; the second says what is wrong
    with the file, or is "".

    Until it is complete and checked it is `target.part`, with its version on the server in `target.part.json`.
    `position` is the last number yielded, in this run or in one that was killed: only so much of the part is trusted.
    Raises BadFile, Trouble, or OSError of the local disk.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, note = (target.with_name(target.name + end) for end in (".part", ".part.json"))
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        known = json.loads(note.read_text(encoding="utf-8"))
    best = _trim(part, position if known else 0)
    patience, damaged = Patience(server, path), 0
    while True:
        have = _trim(part, MAX_FILE_BYTES)
        try:
            if not have or have != known.get("size"):  # else all is there, only not checked
                with server.open(path, have, known.get("version", "")) as reply:
                    if not have or reply.start != have:  # the server knows no ranges, or has another version
                        _trim(part, 0)
                        known = {"size": reply.size, "version": reply.version}
                        note.write_text(json.dumps(known), encoding="utf-8")  # if lost, the file starts again
                    elif known.get("size") not in (None, reply.size) and not reply.ended:
                        raise _Useless("the file has changed on the server")
                    yield from _append(reply, part)
            found, problem = check(part)
            if not problem:
                break
            # Perhaps it was damaged on the way; a whole download is too dear to be tried more than twice.
            damaged += 1
            if damaged > min(1, server.retries):
                raise BadFile(problem)
            raise _Useless(problem, bad=True)
        except TryAgain as error:
            have = _trim(part, 0 if isinstance(error, _Useless) else MAX_FILE_BYTES)
            if have >= best + ENOUGH_PROGRESS:
                patience.failures, best = 0, have
            patience.wait(error)
    have = part.stat().st_size
    part.replace(target)
    flush(target.parent)
    note.unlink(missing_ok=True)
    yield have, have, found


def _append(reply: _Reply, part: Path) -> Iterator[tuple[int, int | None, int]]:
    limit = MAX_FILE_BYTES if reply.size is None else reply.size
    step = max(STEP, (reply.size or 0) // 64)
    kind, magic = ("bz2", b"BZ") if part.name.endswith(".bz2.part") else ("gzip", MAGIC)
    with open(part, "ab") as file:
        have = safe = file.tell()
        for chunk in reply.chunks:
            if not have and not magic.startswith(chunk[:2]):
                raise TryAgain(f"not {kind}", bad=True)
            if have + len(chunk) > limit:
                raise BadFile("too large", f"over {limit:,} bytes")
            have += file.write(chunk)
            if have - safe >= step:
                file.flush()
                flush(part)
                safe = have
                yield have, reply.size, 0
    flush(part)
    if not have:
        raise TryAgain("empty", bad=True)
    if reply.size is not None and have < reply.size:
        raise TryAgain("connection cut")


def _trim(path: Path, limit: int) -> int:
    """Cut a file, if it is there, to at most `limit` bytes; returns its size."""
    if not path.is_file():
        return 0
    if path.stat().st_size > limit:
        os.truncate(path, limit)
    return path.stat().st_size


def discard(target: Path) -> None:
    """Remove what `download` has left of a file that it gave up."""
    for end in (".part", ".part.json"):
        target.with_name(target.name + end).unlink(missing_ok=True)


@functools.cache
def _session() -> requests.Session:
    session = requests.Session()
    session.max_redirects = MAX_REDIRECTS
    session.headers["User-Agent"] = "tiny-olm data_prep/fetch_common_crawl.py"
    session.headers["Accept-Encoding"] = "identity"  # the bytes as they are
    return session


@contextmanager
def _wire_errors() -> Iterator[None]:
    try:
        yield
    except requests.TooManyRedirects as error:
        raise BadFile("too many redirects") from error
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:
        raise BadFile("redirects to an address that is not http(s)", str(error)) from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise TryAgain("no answer in time") from error
    except requests.exceptions.SSLError as error:
        raise TryAgain("no secure connection") from error
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise TryAgain("no connection") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise TryAgain("connection cut") from error


def _check_status(reply: requests.Response) -> None:
    status = reply.status_code
    if status in (200, 206):
        return
    if status in (404, 410):
        raise NotFound("not found", f"HTTP {status}")
    # Common Crawl answers 403 and 503 to those who ask too often.
    if status in (403, 408, 425, 429) or status >= 500:
        raise TryAgain(f"HTTP {status}", _retry_after(reply.headers.get("Retry-After", "")))
    raise BadFile("refused by the server", f"HTTP {status}")


def _retry_after(value: str) -> float:
    try:
        return min(urllib3.Retry().parse_retry_after(value), MAX_RETRY_AFTER)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return 0.0


def _length(reply: requests.Response) -> int | None:
    return _number(reply.headers.get("Content-Length", ""))


def _number(value: str) -> int | None:
    return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None
