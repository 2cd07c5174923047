"""Real processes that die, hang, are stopped or were launched wrongly: the others say why and end, none is left.

Most are forked (forked.py); what a launcher itself does is tried with the launcher.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from forked import Forked, deepspeed, fork_group

from shared.training.checkpoints import checkpoints, verify

BIN = Path(sys.executable).parent
SMOKE = ["pretraining/run_mlm.py", "--config", "pretraining/recipes/smoke.yaml", "--disable_tqdm", "true"]
LONG = ["--max_steps", 100_000, "--save_steps", 20, "--save_total_limit", 2, "--eval_strategy", "no"]
TORCHRUN = ["torchrun", "--nproc_per_node", 2]
ZERO = ["accelerate", "launch", "--config_file", "shared/launch/zero2_cpu.yaml"]
WAIT = 6  # seconds of --start_timeout in tests that wait for its end
LONG_FORM = pytest.mark.faults


class Run:
    """A run in the background that never outlives its test."""

    def __init__(self, folder, processes):
        self.folder, self.processes = folder, processes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for member in self.family():
            member.kill()
        for process in self.processes:
            process.wait()

    def family(self):
        """The processes that were started, and all below them."""
        found = []
        for process in self.processes:
            try:
                member = psutil.Process(process.pid)
                found += [member, *member.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return found

    def until(self, look, timeout=300):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
            time.sleep(0.05)
        pytest.fail(f"nothing came in {timeout} s:\n{self.output()[-2000:]}")

    def training(self):
        self.until(lambda: checkpoints(self.folder))
        return self

    def output(self):
        logs = sorted(self.folder.parent.glob(f"{self.folder.name}*.log"))
        return "".join(path.read_text(errors="replace") for path in logs)

    def end(self, timeout):
        """The exit code of the first process; fails the test when the run, or a process of it, lasts longer."""
        family = self.family()
        try:
            codes = [process.wait(timeout) for process in self.processes]
        except subprocess.TimeoutExpired:
            pytest.fail(f"still there after {timeout} s:\n{self.output()[-2000:]}")
        _, left = psutil.wait_procs(family, timeout=5)
        assert not left, f"left behind: {left}\n{self.output()[-2000:]}"
        return codes[0]


def start(folder, *flags, processes=1, **environment):
    """A run of one process as `python` starts it, or of several as a launcher does."""
    words = [*SMOKE, "--output_dir", folder, *flags]
    if processes == 1:
        return Run(folder, [Forked(f"{folder}.log", *words, **environment)])
    return Run(folder, fork_group(folder, processes, *words, **environment))


def launch(launcher, folder, *flags):
    """A run that a launcher starts, as a user does."""
    words = [str(BIN / launcher[0]), *map(str, [*launcher[1:], *SMOKE, "--output_dir", folder, *flags])]
    with Path(f"{folder}.log").open("wb") as log:
        process = subprocess.Popen(
            words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        )
    return Run(folder, [process])


@pytest.fixture(scope="module", autouse=True)
def warm_cache(tmp_path_factory):
    """Packs the text once, so that the runs of this module come to the point."""
    with start(tmp_path_factory.mktemp("warm") / "run", "--max_steps", 1, "--dry_run") as run:
        assert run.end(120) == 0, run.output()


@LONG_FORM
def test_a_process_that_hangs_at_the_start(tmp_path):
    with start(tmp_path / "run", *LONG, "--start_timeout", WAIT, processes=2) as run:
        run.processes[1].send_signal(signal.SIGSTOP)
        assert run.processes[0].wait(120) == 1
        assert "processes have come to" in run.output() and f"within {WAIT} s (--start_timeout)" in run.output()


def test_a_process_that_hangs_while_training(tmp_path):
    with start(tmp_path / "run", *LONG, "--start_timeout", WAIT, processes=2) as run:
        run.training().processes[1].send_signal(signal.SIGSTOP)
        assert run.processes[0].wait(120) == 1
        assert f"process 1 of 2 gives no sign of life for {WAIT} s" in run.output()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies(tmp_path, rank):
    with start(tmp_path / "run", *LONG, processes=2) as run:
        run.training().processes[rank].kill()
        assert run.processes[1 - rank].wait(120) == 1
        assert re.search(
            r"Connection (reset|closed) by peer|the process that holds the run together is gone", run.output()
        )


@pytest.mark.faults
@pytest.mark.parametrize("launcher", [["accelerate", "launch"], TORCHRUN])
def test_no_process_outlives_its_launcher(tmp_path, launcher):
    with launch(launcher, tmp_path / "run", *LONG) as run:
        _, *workers = run.training().family()
        assert workers
        run.processes[0].kill()
        _, left = psutil.wait_procs(workers, timeout=120)
        for process in left:
            process.kill()
        assert not left
        assert "the launcher is gone" in run.output() and "Saved checkpoint-" in run.output()
        assert verify(checkpoints(tmp_path / "run")[0])


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=LONG_FORM),
        pytest.param(signal.SIGHUP, 129, marks=LONG_FORM),
    ],
)
def test_a_signal_to_the_run_saves_and_ends_it(tmp_path, number, code):
    with start(tmp_path / "run", *LONG, "--dataloader_num_workers", 2) as run:
        run.training()
        assert len(run.family()) == 3
        for process in run.family():
            process.send_signal(number)  # as a terminal and Slurm do, to workers as well
        assert run.end(60) == code
        assert "Saved checkpoint-" in run.output() and "Traceback" not in run.output()


@pytest.mark.faults
def test_a_signal_to_the_launcher_saves_on_all_processes(tmp_path):
    with launch(TORCHRUN, tmp_path / "run", *LONG) as run:
        run.training().processes[0].send_signal(signal.SIGTERM)
        assert run.end(300) != 0
        assert "SIGTERM: finishing the step" in run.output() and "Saved checkpoint-" in run.output()
        assert verify(checkpoints(tmp_path / "run")[0])


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    with start(tmp_path / "run", *LONG) as first:
        first.training()
        second = Forked(tmp_path / "second.log", *SMOKE, "--output_dir", tmp_path / "run", *LONG)
        with Run(tmp_path / "second", [second]) as run:
            assert run.end(60) == 2
        assert first.processes[0].exitcode is None
        assert f"another run writes here (process {first.processes[0].pid} on" in second.output()


def test_a_port_in_use_is_a_clear_error(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = [*LONG, "--start_timeout", WAIT]
        with start(tmp_path / "run", *flags, processes=2, MASTER_PORT=str(port)) as run:
            assert run.end(300) != 0
            assert "EADDRINUSE" in run.output() or f":{port} within {WAIT} s" in run.output()


@pytest.mark.faults
@pytest.mark.parametrize(
    "launcher",
    [
        ["accelerate", "launch", "--cpu", "--num_processes", 2],
        ["accelerate", "launch", "--num_processes", 2],
        [*ZERO[:2], "--cpu", *ZERO[2:]],
    ],
)
def test_several_processes_that_are_one_are_refused(tmp_path, launcher):
    with launch(launcher, tmp_path / "run", *LONG) as run:
        assert run.end(300) != 0
    assert "asked for several processes, but has started one" in run.output()
    assert not checkpoints(tmp_path / "run")


def test_deepspeed_that_is_switched_off_is_refused(tmp_path):
    with start(tmp_path / "run", *LONG, processes=2, **deepspeed(stage=2), ACCELERATE_USE_CPU="true") as run:
        assert run.end(300) != 0
    assert "DeepSpeed was asked for, but is not what runs here (MULTI_CPU)" in run.output()
