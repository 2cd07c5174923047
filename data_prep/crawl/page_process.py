"""A process of its own that reads web pages, so that a page that crashes a parser, or keeps it busy for ever, costs
no more than itself. It is limited in processor time for each page, which unlike a clock does not depend on what else
the machine does, and in memory."""

import json
import math
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from shared.errors import RunError

SECONDS = {"fast": 10, "precise": 60}  # of processor time for one page
MEMORY_BYTES = 2**30  # of address space
USED_BYTES = 2**29  # of it, at which a process is replaced: what is left for a page must not depend on earlier ones
TOO_MUCH = "too much for the extractor"
READY = b"ready\n"


class PageProcess:
    """Reads pages in another process, started for the first one. Use it in a `with` block; after it none is left."""

    def __init__(self, extractor: str, max_bytes: int, seconds: int | None = None) -> None:
        words = (extractor, max_bytes, seconds or SECONDS[extractor])
        self.command = [sys.executable, "-m", "data_prep.crawl.page_process", *map(str, words)]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "PageProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def read(self, block: bytes) -> dict[str, Any]:
        """`title`, `text` and `last_modified` of the page in the block of a WARC response; or `reason`, `detail` and
        `bad`, why there is none. Raises RunError when the process does not start."""
        process = self.process or self._start()
        assert process.stdin and process.stdout
        try:
            process.stdin.writelines((b"%d\n" % len(block), block))
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
        except (BrokenPipeError, ValueError):  # it has been ended, perhaps within its answer
            answer = {"reason": TOO_MUCH, "detail": f"ended with code {process.wait()}", "bad": False, "last": True}
        if answer.pop("last"):
            self._stop()
        return answer

    def _start(self) -> "subprocess.Popen[bytes]":
        root = str(Path(__file__).parents[2])
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
        if self.process.stdout.readline() != READY:
            self._stop()
            raise RunError(f"the process that reads pages does not start; try {' '.join(self.command)}")
        return self.process

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()  # closes the pipes and waits
            self.process = None


def serve(extractor: str, max_bytes: int, seconds: int) -> None:
    """Read pages, each the number of its bytes in a line and the bytes, and answer in a line of JSON, until the other
    side is gone."""
    from data_prep.crawl.page import EXTRACTORS, Unwanted, read_page

    if extractor == "precise":
        import trafilatura  # noqa: F401, now rather than in the time of the first page
    extract = EXTRACTORS[extractor]
    pages, answers = sys.stdin.buffer, sys.stdout.buffer
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    answers.write(READY)
    answers.flush()
    while size := pages.readline():
        block = pages.read(int(size))
        # At this much time the kernel ends the process.
        _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds)
        try:
            answer: dict[str, Any] = vars(read_page(block, extract, max_bytes))
        except Unwanted as error:
            answer = {"reason": str(error), "detail": error.detail, "bad": error.bad}
        except Exception as error:  # whatever a parser raises is this page's affair alone
            answer = {"reason": TOO_MUCH, "detail": f"{type(error).__name__}: {error}", "bad": False}
        answer["last"] = answer.get("reason") == TOO_MUCH or _address_space() > USED_BYTES
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


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
