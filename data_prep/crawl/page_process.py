"""A process of its own that reads web pages, so that a page that crashes a parser, or keeps it busy for ever, costs
no more than itself. It is limited in processor time for each page, which unlike a clock does not depend on what else
the machine does, and in memory."""

import json
import math
import os
import resource
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from shared.errors import RunError

SECONDS = {"fast": 10, "precise": 60}  # of processor time for one page
MEMORY_BYTES = 2**30  # of address space
USED_BYTES = 2**29  # of it, at which a process is replaced: what is left for a page must not depend on earlier ones
TOO_MUCH = "too much for the extractor"
_LENGTH = struct.Struct("<Q")


class PageProcess:
    """Reads pages in another process. Use it in a `with` block; after it no process is left.

    Raises RunError when the process does not start.
    """

    def __init__(self, extractor: str, max_bytes: int, seconds: int | None = None) -> None:
        words = (extractor, max_bytes, seconds or SECONDS[extractor])
        self.command = [sys.executable, "-m", "data_prep.crawl.page_process", *map(str, words)]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "PageProcess":
        self._start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def read(self, block: bytes) -> dict[str, str | bool | None]:
        """`title`, `text` and `last_modified` of the page in the block of a WARC response; or `reason`, `detail` and
        `bad`, why there is none."""
        if self.process is None:
            self._start()
        assert self.process is not None and self.process.stdin and self.process.stdout
        try:
            _send(self.process.stdin, block)
            answer: dict[str, str | bool | None] = json.loads(_receive(self.process.stdout))
        except (BrokenPipeError, EOFError):
            answer = {
                "reason": TOO_MUCH,
                "detail": f"ended with code {self.process.wait()}",
                "bad": False,
                "last": True,
            }
        if answer.pop("last"):
            self._stop()
        return answer

    def _start(self) -> None:
        root = str(Path(__file__).parent.parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=2**20,  # a page fits in
            stderr=subprocess.DEVNULL,  # what parsers complain about would spoil the progress bar
            # One thread each: the workers share the cores, and a thread's stack counts as address space.
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self.process.stdout
        try:
            _receive(self.process.stdout)
        except EOFError as error:
            self._stop()
            raise RunError(f"the process that reads pages does not start; try {' '.join(self.command)}") from error

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()  # closes the pipes and waits
            self.process = None


def _send(stream: IO[bytes], message: bytes) -> None:
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    """One message. Raises EOFError when the other side is gone."""
    length = stream.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        raise EOFError
    size = _LENGTH.unpack(length)[0]
    message = stream.read(size)
    if len(message) < size:
        raise EOFError
    return message


def serve(extractor: str, max_bytes: int, seconds: int) -> None:
    """Answer until the other side is gone."""
    from data_prep.crawl.page import EXTRACTORS, Unwanted, read_page

    if extractor == "precise":
        import trafilatura  # noqa: F401, now rather than in the time of the first page
    extract = EXTRACTORS[extractor]
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    _send(answers, b"ready")
    while True:
        try:
            block = _receive(requests)
        except EOFError:
            return
        # At this much time the kernel ends the process.
        _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds)
        answer: dict[str, str | bool | None]
        try:
            page = read_page(block, extract, max_bytes)
            answer = {"title": page.title, "text": page.text, "last_modified": page.last_modified}
        except Unwanted as error:
            answer = {"reason": str(error), "detail": error.detail, "bad": error.bad}
        except Exception as error:  # whatever a parser raises is this page's affair alone
            answer = {"reason": TOO_MUCH, "detail": f"{type(error).__name__}: {error}", "bad": False}
        answer["last"] = answer.get("reason") == TOO_MUCH or _address_space() > USED_BYTES
        _send(answers, json.dumps(answer).encode())


def _address_space() -> int:
    """What this process uses of it, in bytes; 0 where the system does not tell."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()
    return 0


def _limit(what: int, value: int) -> None:
    """Set a limit of this process, if the system takes it: macOS refuses that of memory."""
    most = resource.getrlimit(what)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(what, (value if most == resource.RLIM_INFINITY else min(value, most), most))


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
