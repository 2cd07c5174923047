"""The processes of run_cpu_benchmark.py: one for each variant, started and timed in turns."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from shared.errors import RunError

SCRIPT = Path(__file__).parent / "worker.py"
EAGER, COMPILE = "eager", "compile"


class Worker:
    """A running variant; see worker.py. `start_seconds` is from the launch to the first answer."""

    def __init__(self, spec: dict[str, Any]) -> None:
        variables = {"OMP_NUM_THREADS": str(spec["threads"])}
        if spec["variant"] == COMPILE:
            variables["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(dir=spec["scratch"])
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(spec)],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            encoding="utf-8",
        )
        try:
            self.first = self._read()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - begin

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request. Raises RunError with the end of what the process said, if it has ended."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.errors.seek(0)
            said = [line for line in self.errors.read().splitlines() if line.strip()]
            raise RunError(" ".join((said or [f"ended with {code}"])[-1].split())[:400])
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


@contextlib.contextmanager
def noting_failure(found: dict[str, Any]) -> Iterator[None]:
    """Write down why a variant failed, and go on without it."""
    try:
        yield
    except RunError as error:
        found["failure"] = str(error)


def start_all(
    specs: dict[str, dict[str, Any]], starts: int, found: dict[str, dict[str, Any]], running: dict[str, Worker]
) -> None:
    """Start every variant `starts` times, in turns, and leave the last one of each in `running`.

    torch.compile is started once, with nothing compiled before. What cannot be started is a "failure" in `found`.
    """
    seconds: dict[str, list[float]] = {variant: [] for variant in specs}
    for turn in range(starts):
        is_last = turn == starts - 1
        for variant, spec in specs.items():
            if "failure" in found[variant] or (variant == COMPILE and not is_last):
                continue
            with noting_failure(found[variant]):
                worker = Worker(spec)
                seconds[variant].append(worker.start_seconds)
                if is_last:
                    running[variant] = worker
                else:
                    worker.close()
    for variant, worker in running.items():
        found[variant]["threads"][str(specs[variant]["threads"])] = {
            "start_seconds": median(seconds[variant]),
            "starts": seconds[variant],
            "start_memory_mib": worker.first["memory"]["now"],
        }


def time_all(running: dict[str, Worker], threads: int, args: Any, found: dict[str, dict[str, Any]]) -> None:
    """Time batches of one row and of `args.batch_size` at each of `args.seq_lengths`, all variants in turns, and put
    the summaries into `found`."""
    lengths, size = args.seq_lengths, args.batch_size
    calls: dict[tuple[str, int, int], list[list[float]]] = {}
    order = deque(running)
    for turn in range(args.rounds):
        for length in lengths:
            for batch in dict.fromkeys((1, size)):
                for variant in order:
                    if "failure" in found[variant]:
                        continue
                    with noting_failure(found[variant]):
                        answer = running[variant].ask(batch=batch, length=length, seconds=args.seconds)
                        calls.setdefault((variant, batch, length), []).append(answer["seconds"])
                        cell = found[variant]["threads"][str(threads)]
                        cell["peak_memory_mib"] = max(cell.get("peak_memory_mib", 0.0), answer["memory"]["peak"])
        order.rotate(-1)
        print(f"  threads: {threads}, round {turn + 1} of {args.rounds}", flush=True)
    if "failure" in found[EAGER]:
        raise RunError(f"eager PyTorch, with which the others are compared, failed: {found[EAGER]['failure']}")
    for variant in running:
        if "failure" not in found[variant]:
            cell = found[variant]["threads"][str(threads)]
            cell["latency"] = {str(n): latency(calls[variant, 1, n], calls[EAGER, 1, n]) for n in lengths}
            cell["throughput"] = {
                str(n): throughput(calls[variant, size, n], calls[EAGER, size, n], size) for n in lengths
            }


def latency(rounds: list[list[float]], base: list[list[float]]) -> dict[str, Any]:
    """Milliseconds of a call: medians over the rounds of their 50th and 95th percentiles, and how many times as fast
    as `base` it is, by the 50th. Calls are in seconds."""
    middle, slow = ([1000 * float(np.quantile(calls, q)) for calls in rounds] for q in (0.5, 0.95))
    ratios = [1000 * float(np.median(b)) / a for a, b in zip(middle, base, strict=True)]
    found = {"p50_ms": median(middle), "p95_ms": median(slow), "ratio": median(ratios)}
    return found | {"rounds": middle, "calls": sum(map(len, rounds))}


def throughput(rounds: list[list[float]], base: list[list[float]], batch_size: int) -> dict[str, Any]:
    """Rows per second, the median over the rounds, and how many times that of `base` it is."""
    rates, others = ([batch_size * len(calls) / sum(calls) for calls in side] for side in (rounds, base))
    ratios = [a / b for a, b in zip(rates, others, strict=True)]
    return {"rows_per_second": median(rates), "ratio": median(ratios), "rounds": rates}
