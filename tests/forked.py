"""Scripts in real processes, without the seconds that each would take to import torch and transformers.

The fork server of the standard library has imported them once. A process forked from it is one like any other: it has
its own pid, environment, log and exit code, and gets its signals; only its imports are done already.
"""

import contextlib
import gc
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pretraining.run_mlm", "finetuning.run_glue", "finetuning.run_qa", "tests.tasks"])


class Forked(SERVER.Process):
    """`python script flags`, with standard output and error in the file `log`; starts at once."""

    def __init__(self, log, script, *flags, **environment):
        super().__init__(name=str(script))
        self.log, self.words = str(log), [str(script), *map(str, flags)]
        self.environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment
        with contextlib.chdir(ROOT):  # where the server, which the first process starts, finds what to import
            self.start()

    def run(self):
        """What the forked process does."""
        multiprocessing.set_start_method(None, force=True)  # a DataLoader starts its workers as it always does
        gc.freeze()  # the imports are no garbage
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
        threading.Thread(target=end_with_the_tests, daemon=True).start()
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(ROOT)
        sys.argv = self.words
        runpy.run_path(self.words[0], run_name="__main__")

    def wait(self, timeout=None):
        """The exit code; that of a process which a signal has ended is minus the signal's number."""
        self.join(timeout)
        if self.exitcode is None:
            raise subprocess.TimeoutExpired(self.words, timeout)
        return self.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def output(self):
        return Path(self.log).read_text(errors="replace")


def end_with_the_tests():
    multiprocessing.parent_process().join()
    os._exit(1)


def fork_group(folder, count, script, *flags, **environment):
    """The processes of one run in `folder`, as a launcher starts them; the log of each is beside it: folder.0.log."""
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())} | environment
    return [
        Forked(f"{folder}.{rank}.log", script, *flags, **shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]


def train_group(folder, script, *flags, **environment):
    """Two processes of a run that ends well."""
    for process in fork_group(folder, 2, script, *flags, "--output_dir", folder, **environment):
        assert process.wait(900) == 0, process.output()[-3000:]
    return folder


def deepspeed(stage):
    """What `accelerate launch --config_file shared/launch/zeroN_cpu.yaml` adds to the environment."""
    return {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": f"shared/launch/zero{stage}.json",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
        "ACCELERATE_CONFIG_DS_FIELDS": "deepspeed_config_file,zero3_init_flag",
        "ACCELERATE_MIXED_PRECISION": "no",
    }


def free_port():
    """A port of this machine that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
