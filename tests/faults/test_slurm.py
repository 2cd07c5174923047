"""Slurm for real, on a cluster of one node that lives as long as these tests: `make test-cluster`."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import test_stage
from cluster import Cluster, missing_programs
from conftest import ROOT
from test_stage import SCRIPT, content, run

from data_prep.engine.stage import StageArguments
from shared.errors import InputError
from shared.training.checkpoints import checkpoints, verify

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(missing_programs()), reason=f"Slurm is not here: {', '.join(missing_programs())}"),
]
corpus, whole = test_stage.corpus, test_stage.whole  # fixtures
PART, PATIENCE = 50, 1800  # records of a part; seconds


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder) as cluster:
        yield cluster


def start_stage(cluster, corpus, folder, *flags):
    """Queue the stage by the Python of these tests, whose environment the jobs do not know."""
    words = [sys.executable, SCRIPT, "--input", corpus, "--output_dir", folder, "--part_records", PART]
    words += ["--executor", "slurm", "--slurm_partition", "all", "--slurm_time", "10", *flags]
    return subprocess.run(list(map(str, words)), cwd=ROOT, env=cluster.environment, capture_output=True, text=True)


def test_a_stage_whose_jobs_are_killed_goes_on_to_the_same_bytes(cluster, corpus, whole, tmp_path):
    folder = tmp_path / "out"
    state = folder / ".state" / "documents"
    queued = start_stage(cluster, corpus, folder, "--delay", 0.05)
    assert queued.returncode == 0 and "even: queued as" in queued.stdout, queued.stderr
    cluster.until(lambda: len(list(state.glob("[!.]*.json"))) > 3 or cluster.is_idle(), PATIENCE)

    again = start_stage(cluster, corpus, folder)
    assert again.returncode == 2 and "queued or running" in again.stderr
    way_out = again.stderr[again.stderr.index("scancel") :].split()
    cluster.ask("scancel", "--signal=KILL", *way_out[1:])
    cluster.until(cluster.is_idle, PATIENCE)  # the jobs that wait for it leave as well
    assert not (folder / "manifest.json").exists()
    done = {path: path.stat().st_mtime_ns for path in state.glob("[!.]*.json")}
    assert done

    assert start_stage(cluster, corpus, folder).returncode == 0
    cluster.until(cluster.is_idle, PATIENCE)
    assert content(folder) == content(whole) | {".state/slurm.json": (folder / ".state/slurm.json").read_bytes()}
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert "already complete" in start_stage(cluster, corpus, folder).stdout


def test_what_slurm_refuses_is_said(cluster, corpus, tmp_path, monkeypatch):
    refused = start_stage(cluster, corpus, tmp_path / "out", "--slurm_partition", "none")
    assert refused.returncode == 2
    assert "invalid partition" in refused.stderr and "error: --slurm_partition none" in refused.stderr
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="no sbatch on the PATH"):
        run(corpus, tmp_path / "other", executor="slurm", slurm_partition="all")
    with pytest.raises(InputError, match="without spaces"):
        StageArguments(str(tmp_path / "my out"), executor="slurm", slurm_partition="all")


def train(cluster, folder, *flags, **sbatch):
    """Submit a training of two processes, and return the number of the job."""
    words = ["sbatch", "--parsable", "--cpus-per-task=2", f"--output={folder}.log"]
    words += [f"--{name}={value}" for name, value in sbatch.items()]
    words += ["shared/launch/slurm.sh", "shared/launch/zero2_cpu.yaml", "pretraining/run_mlm.py"]
    words += ["--config", "pretraining/recipes/smoke.yaml", "--eval_strategy", "no", "--output_dir", folder, *flags]
    environment = cluster.environment | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(list(map(str, words)), cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def state(cluster, job):
    """What Slurm knows of a job, by name."""
    words = cluster.ask("scontrol", "--oneliner", "show", "job", job).split()
    return dict(word.partition("=")[::2] for word in words)


def wait_for_end(cluster, job, folder):
    over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
    cluster.until(lambda: state(cluster, job)["JobState"] in over, PATIENCE)
    return state(cluster, job), Path(f"{folder}.log").read_text()


def send(number, folder):
    """Send a signal to the processes that train."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(folder) in words and any(word.endswith("run_mlm.py") for word in words[1:3]):
            process.send_signal(number)


STEPS = ["--max_steps", 300, "--save_steps", 20, "--save_total_limit", 2, "--start_timeout", 600]


def test_a_run_whose_time_is_up_goes_on_by_itself_to_the_same_bits(cluster, tmp_path):
    job = train(cluster, tmp_path / "cut", *STEPS, time=60)
    log = tmp_path / "cut.log"
    cluster.until(lambda: checkpoints(tmp_path / "cut") or cluster.is_idle(), PATIENCE)
    send(signal.SIGSTOP, tmp_path / "cut")  # Slurm looks at the time twice a minute, and these runs are short
    start = time.mktime(time.strptime(state(cluster, job)["StartTime"], "%Y-%m-%dT%H:%M:%S"))
    cluster.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={int((time.time() - start) / 60) + 2}")
    cluster.until(lambda: "the time is nearly up" in log.read_text() or cluster.is_idle(), PATIENCE)
    send(signal.SIGCONT, tmp_path / "cut")
    cluster.ask("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    facts, text = wait_for_end(cluster, job, tmp_path / "cut")
    assert (facts["JobState"], facts["Restarts"], facts["ExitCode"]) == ("COMPLETED", "1", "0:0"), text[-3000:]
    assert "SIGTERM: finishing the step and saving" in text and "Going on from" in text

    whole = train(cluster, tmp_path / "whole", *STEPS, time=60)
    facts, text = wait_for_end(cluster, whole, tmp_path / "whole")
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "0"), text[-3000:]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    last = verify(checkpoints(cut)[0])
    assert (last["engine"], last["processes"]) == ("zero2", 2)
    assert json.loads((cut / "trainer_state.json").read_text())["global_step"] == 300


def test_a_run_that_fails_by_itself_is_not_queued_again(cluster, tmp_path):
    job = train(cluster, tmp_path / "run", "--learning_rate", "high", time=10)
    facts, text = wait_for_end(cluster, job, tmp_path / "run")
    assert (facts["JobState"], facts["Restarts"]) == ("FAILED", "0")
    assert "--learning_rate" in text
