"""The same stages on more machines: datatrove's executors run the tasks, the stage keeps what is done.

Every machine must see the output folder and the input under the same paths.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.engine.stage import Phase, Stage, StageArguments, workers_of
from shared.errors import InputError
from shared.files import read_json, write_json

ROOT = Path(__file__).parents[2]


class PhaseStep:
    """A step of a datatrove pipeline: does the tasks of a phase that are this rank's."""

    def __init__(self, stage: Stage, phase: Phase) -> None:
        self.stage, self.phase = stage, phase

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        for task in self.phase.tasks[rank::world_size]:
            self.stage.run_task(self.phase, task, lambda weight, counts: None)
        yield from ()


class FinishStep:
    """The last step, where nobody waits: writes the manifest."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        self.stage.finish()
        yield from ()


def run_elsewhere(stage: Stage, args: StageArguments) -> bool:
    """Run all phases, each after the one before. Returns False if they are only queued (Slurm).

    Tasks with a record are skipped by the stage itself, so datatrove's own completion files, which do not know the
    settings, are not used. Raises InputError when datatrove or Ray is not installed.
    """
    try:
        import dill
        from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor

        if args.executor == "ray":
            import ray
    except ImportError as error:
        raise InputError(
            f"--executor {args.executor}: {error.name} is not installed; pip install -r requirements-cluster.txt"
        ) from error
    if args.executor == "slurm":
        dill.settings["recurse"] = True  # with what a step of the script itself uses: the jobs do not run that script
        _queue(stage, args, SlurmPipelineExecutor)
        return False
    if args.executor == "ray" and not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), num_cpus=None if "RAY_ADDRESS" in os.environ else args.workers)
    executor = LocalPipelineExecutor if args.executor == "datatrove" else RayPipelineExecutor
    for phase in stage.phases:
        common = _phase_arguments(stage, phase)
        executor(**common, workers=min(workers_of(args), common["tasks"])).run()
    return True


def _phase_arguments(stage: Stage, phase: Phase) -> dict[str, Any]:
    return {
        "pipeline": [PhaseStep(stage, phase)],
        "tasks": min(len(phase.tasks), 1000),
        "logging_dir": str(_logs(stage) / phase.name),
        "skip_completed": False,
    }


def _logs(stage: Stage) -> Path:
    return (stage.state / "logs").absolute()


def _queue(stage: Stage, args: StageArguments, executor: Any) -> None:
    """Queue an array of jobs for each phase that has not finished, and one that writes the manifest.

    Each waits for the one before, and leaves the queue when that one fails. Raises InputError when Slurm does not take
    a job, and when jobs of an earlier start are still there: two would write the same files.
    """
    if shutil.which("sbatch") is None:
        raise InputError(
            "--executor slurm: there is no sbatch on the PATH; start it where you submit jobs, or leave --executor out"
        )
    record = stage.state / "slurm.json"
    if record.is_file():
        jobs = read_json(record)
        asked = ["squeue", "--noheader", "--format=%A", f"--jobs={','.join(jobs)}"]
        waiting = sorted(set(subprocess.run(asked, capture_output=True, text=True).stdout.split()))
        if waiting:
            raise InputError(
                f"--output_dir {stage.output_dir}: jobs of this stage are queued or running; wait for them, or end "
                f"them: scancel {' '.join(waiting)}"
            )
    common = {
        "time": args.slurm_time,
        "partition": args.slurm_partition,
        "qos": None,
        "sbatch_args": {"kill-on-invalid-dep": "yes"},
        # A job has the environment of the one who queues it, who need not have activated this one.
        "env_command": f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH" '
        f'PYTHONPATH={shlex.quote(str(ROOT))}:"$PYTHONPATH"',
    }
    steps = [
        _phase_arguments(stage, phase) | {"job_name": f"{stage.name}-{phase.name}", "workers": args.workers or -1}
        for phase in stage.phases
        if not all(stage.is_done(phase, task) for task in phase.tasks)
    ]
    steps.append({"pipeline": [FinishStep(stage)], "tasks": 1, "logging_dir": str(_logs(stage) / "finish")})
    steps[-1] |= {"job_name": f"{stage.name}-finish", "skip_completed": False}
    jobs, before = [], None
    for step in steps:
        before = executor(**common, **step, depends=before)
        try:
            before.run()
        except subprocess.CalledProcessError as error:
            raise InputError(
                f"--slurm_partition {args.slurm_partition} --slurm_time {args.slurm_time}: sbatch does not take the "
                "job; its reason stands above (sinfo lists the partitions)"
            ) from error
        finally:
            jobs += [str(before.job_id)] if before.job_id else []
            write_json(record, jobs)
    print(f"{stage.name}: queued as {' '.join(jobs)}; manifest.json in {args.output_dir} is written when all are done")
