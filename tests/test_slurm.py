"""The Slurm script, with stand-ins for Slurm's commands: what it starts, and that it queues the job again."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from shared.training.checkpoints import checkpoints, verify

# srun starts its command once; scancel sends the signal to all of it, as Slurm does to the steps of a job.
STAND_INS = {
    "scontrol": '[ "$1" = show ] && echo 127.0.0.1 || echo "$@" >> "$CALLS"',
    "srun": 'echo "$@" >> "$CALLS"; export SLURM_NODEID=0; exec "$@"',
    "scancel": 'echo "$@" >> "$CALLS"; pkill -TERM -f "^[^ ]*python[0-9.]* .*output_dir $RUN"',
}


def submit(tmp_path, *flags):
    for name, body in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"), "RUN": str(tmp_path / "run"), "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node[1-1]", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "1",
    }  # fmt: skip
    words = ["bash", "shared/launch/slurm.sh", "shared/launch/cpu.yaml", "pretraining/run_mlm.py"]
    words += ["--config", "pretraining/recipes/smoke.yaml", "--eval_strategy", "no", *flags]
    words += ["--output_dir", tmp_path / "run"]
    return subprocess.Popen(
        list(map(str, words)), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.faults
def test_a_job_whose_time_is_up_saves_and_is_queued_again(tmp_path):
    job = submit(tmp_path, "--max_steps", 100_000, "--save_steps", 20, "--save_total_limit", 2)
    deadline = time.monotonic() + 90
    while not checkpoints(tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    output, _ = job.communicate(timeout=60)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert (
        "--machine_rank" in calls[0] and "--num_machines 1 --num_processes 1 --main_process_ip 127.0.0.1" in calls[0]
    )
    assert calls[1:] == ["--signal=TERM 4711", "requeue 4711"]
    assert job.returncode != 0 and "Saved checkpoint-" in output
    assert verify(checkpoints(tmp_path / "run")[0])


@pytest.mark.faults
def test_a_job_that_ends_or_fails_by_itself_is_not(tmp_path):
    job = submit(tmp_path, "--max_steps", 3)
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 0, output
    job = submit(tmp_path, "--learning_rate", "1")  # another recipe in the same folder
    output, _ = job.communicate(timeout=120)
    assert job.returncode != 0 and "learning_rate: 0.005 -> 1.0" in output
    assert "requeue" not in (tmp_path / "calls").read_text()
