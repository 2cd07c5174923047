"""The same stages on more machines: datatrove's executors run the tasks, the stage keeps what is done.

Every machine must see the output folder and the input under the same paths.
"""

import os
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.engine.stage import Phase, Stage, StageArguments, workers_of
from shared.errors import InputError
from shared.files import read_json, write_json

ROOT = Path(__file__).parents[2]


def _do_tasks(stage: Stage, phase: Phase, data: Any, rank: int, world_size: int) -> None:
    """A step of a datatrove pipeline: does the tasks of a phase that are this rank's."""
    for task in phase.tasks[rank::world_size]:
        stage.run_task(phase, task, lambda weight, counts: None)


def _finish(stage: Stage, data: Any, rank: int, world_size: int) -> None:
    """The last step, where nobody waits: writes the manifest."""
    stage.finish()


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
        pipeline = _pipeline(stage, phase)
        executor(**pipeline, workers=min(workers_of(args), pipeline["tasks"])).run()
    return True


def _pipeline(stage: Stage, phase: Phase | None) -> dict[str, Any]:
    """The arguments of the executor of a phase, or of the job that writes the manifest."""
    return {
        "pipeline": [partial(_do_tasks, stage, phase) if phase else partial(_finish, stage)],
        "tasks": min(len(phase.tasks), 1000) if phase else 1,
        "logging_dir": str(stage.state / "logs" / (phase.name if phase else "finish")),
        "skip_completed": False,
    }


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
    phases = [phase for phase in stage.phases if not all(stage.is_done(phase, task) for task in phase.tasks)]
    jobs, before = [], None
    for phase in (*phases, None):
        name = f"{stage.name}-{phase.name if phase else 'finish'}"
        pipeline = _pipeline(stage, phase)
        before = executor(**common, **pipeline, job_name=name, workers=args.workers or -1, depends=before)
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
