"""Real processes that die, hang, are stopped or were launched wrongly: the others say why and end, none is left."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from shared.training.checkpoints import checkpoints, verify

BIN = Path(sys.executable).parent
LONG = ["--max_steps", 100_000, "--save_steps", 20, "--save_total_limit", 2, "--eval_strategy", "no"]
TORCHRUN = ["torchrun", "--nproc_per_node", 2]
LONG_FORM = pytest.mark.faults
ZERO = ["accelerate", "launch", "--config_file", "shared/launch/zero2_cpu.yaml"]


class Started:
    """A run in the background that never outlives its test."""

    def __init__(self, folder, launcher, *flags, **environment):
        self.folder, self.log = folder, folder.with_suffix(".log")
        words = [*launcher, "pretraining/run_mlm.py", "--config", "pretraining/recipes/smoke.yaml"]
        words += ["--output_dir", folder, "--disable_tqdm", "true", *flags]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [str(BIN / words[0]), *map(str, words[1:])],
            cwd=ROOT, stdout=self.log.open("wb"), stderr=subprocess.STDOUT,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for member in self.family():
            member.kill()
        self.process.wait()

    def family(self):
        """The launcher and all below it."""
        try:
            launcher = psutil.Process(self.process.pid)
            return [launcher, *launcher.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def workers(self, count=2):
        """The training processes, once there are so many."""

        def find():
            found = [p for p in self.family()[1:] if "run_mlm.py" in " ".join(p.cmdline())]
            return sorted(found, key=lambda p: p.environ().get("RANK", "0")) if len(found) >= count else None

        return self.until(find)

    def until(self, look, timeout=90):
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
        return self.log.read_text(errors="replace")

    def end(self, timeout):
        """Exit code; fails the test when the run, or a process of it, lasts longer."""
        family = self.family()
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still there after {timeout} s:\n{self.output()[-2000:]}")
        _, left = psutil.wait_procs(family, timeout=5)
        assert not left, f"left behind: {left}\n{self.output()[-2000:]}"
        return code


@pytest.fixture(scope="module", autouse=True)
def warm_cache(tmp_path_factory):
    """Packs the text once, so that the runs of this module come to the point."""
    with Started(tmp_path_factory.mktemp("warm") / "run", ["python"], "--max_steps", 1, "--dry_run") as run:
        assert run.end(120) == 0, run.output()


@LONG_FORM
def test_a_process_that_hangs_at_the_start(tmp_path):
    with Started(tmp_path / "run", TORCHRUN, *LONG, "--start_timeout", 12) as run:
        run.workers()[1].send_signal(signal.SIGSTOP)
        assert run.end(60) != 0
        assert "processes have come to" in run.output() and "within 12 s (--start_timeout)" in run.output()


def test_a_process_that_hangs_while_training(tmp_path):
    with Started(tmp_path / "run", TORCHRUN, *LONG, "--start_timeout", 12) as run:
        run.training().workers()[1].send_signal(signal.SIGSTOP)
        assert run.end(60) != 0
        assert "process 1 of 2 gives no sign of life for 12 s" in run.output()


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=LONG_FORM)])
def test_a_process_that_dies(tmp_path, rank):
    with Started(tmp_path / "run", TORCHRUN, *LONG) as run:
        run.training().workers()[rank].kill()
        assert run.end(60) != 0
        assert "SIGKILL" in run.output()


@pytest.mark.parametrize("launcher", [["accelerate", "launch"], pytest.param(TORCHRUN, marks=LONG_FORM)])
def test_no_process_outlives_its_launcher(tmp_path, launcher):
    with Started(tmp_path / "run", launcher, *LONG) as run:
        workers = run.training().workers(1)
        run.process.kill()
        _, left = psutil.wait_procs(workers, timeout=30)
        for process in left:
            process.kill()
        assert not left
        assert "the launcher is gone" in run.output() and "Saved checkpoint-" in run.output()
        assert verify(checkpoints(tmp_path / "run")[0])


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=LONG_FORM)]
)
def test_a_signal_to_the_run_saves_and_ends_it(tmp_path, number, code):
    with Started(tmp_path / "run", ["python"], *LONG, "--dataloader_num_workers", 2) as run:
        run.training()
        for process in run.family():
            process.send_signal(number)  # as a terminal and Slurm do, to workers as well
        assert run.end(30) == code
        assert "Saved checkpoint-" in run.output() and "Traceback" not in run.output()


def test_a_signal_to_the_launcher_saves_on_all_processes(tmp_path):
    with Started(tmp_path / "run", TORCHRUN, *LONG) as run:
        run.training()
        run.process.send_signal(signal.SIGTERM)
        assert run.end(45) != 0
        assert "SIGTERM: finishing the step" in run.output() and "Saved checkpoint-" in run.output()
        assert verify(checkpoints(tmp_path / "run")[0])


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    with Started(tmp_path / "run", ["python"], *LONG) as first:
        first.training()
        with Started(tmp_path / "run", ["python"], *LONG) as second:
            second.log = tmp_path / "run.log"
            assert second.end(60) == 2
        assert first.process.poll() is None
        assert f"another run writes here (process {first.process.pid} on" in first.output()


def test_a_port_in_use_is_a_clear_error(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Started(tmp_path / "run", [*TORCHRUN, "--master_port", port], *LONG, "--start_timeout", 12) as run:
            assert run.end(60) != 0
            assert "EADDRINUSE" in run.output() or f":{port} within 12 s" in run.output()


def test_a_stale_lock_of_the_compiled_op_is_named(tmp_path):
    lock = tmp_path / "extensions" / "deepspeed_shm_comm" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    extensions = str(tmp_path / "extensions")
    with Started(tmp_path / "run", ZERO, *LONG, "--start_timeout", 12, TORCH_EXTENSIONS_DIR=extensions) as run:
        assert run.end(60) != 0
        assert f"{lock} (" in run.output() and "has left this lock behind; remove it" in " ".join(run.output().split())


@pytest.mark.parametrize(
    "launcher",
    [
        ["accelerate", "launch", "--cpu", "--num_processes", 2],
        pytest.param(["accelerate", "launch", "--num_processes", 2], marks=LONG_FORM),
        pytest.param([*ZERO[:2], "--cpu", *ZERO[2:]], marks=LONG_FORM),
    ],
)
def test_several_processes_that_are_one_are_refused(tmp_path, launcher):
    with Started(tmp_path / "run", launcher, *LONG) as run:
        assert run.end(60) != 0
    assert "asked for several processes, but has started one" in run.output()
    assert not checkpoints(tmp_path / "run")


def test_deepspeed_that_is_switched_off_is_refused(tmp_path):
    with Started(tmp_path / "run", ZERO, *LONG, ACCELERATE_USE_CPU="true") as run:
        assert run.end(60) != 0
    assert "DeepSpeed was asked for, but is not what runs here (MULTI_CPU)" in run.output()
