"""The same stages on more machines: datatrove's executors run the tasks, the stage keeps what is done.

Every machine must see the output folder and the input under the same paths.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.engine.stage import Phase, Stage, StageArguments, workers_of
from shared.errors import InputError


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
        from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor

        if args.executor == "ray":
            import ray
    except ImportError as error:
        raise InputError(
            f"--executor {args.executor}: {error.name} is not installed; pip install -r requirements-cluster.txt"
        ) from error
    logs = Path(args.output_dir, ".state", "logs").absolute()
    before: Any = None
    if args.executor == "ray" and not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), num_cpus=None if "RAY_ADDRESS" in os.environ else args.workers)
    for phase in stage.phases:
        tasks = min(len(phase.tasks), 1000)
        common: dict[str, Any] = {
            "pipeline": [PhaseStep(stage, phase)],
            "tasks": tasks,
            "workers": min(workers_of(args), tasks) if args.executor != "slurm" else args.workers or -1,
            "logging_dir": str(logs / phase.name),
            "skip_completed": False,
        }
        if args.executor == "datatrove":
            LocalPipelineExecutor(**common).run()
        elif args.executor == "ray":
            RayPipelineExecutor(**common).run()
        else:
            before = SlurmPipelineExecutor(
                **common,
                depends=before,
                time=args.slurm_time,
                partition=args.slurm_partition,
                job_name=f"{stage.name}-{phase.name}",
                qos=None,
            )
    if args.executor != "slurm":
        return True
    SlurmPipelineExecutor(
        pipeline=[FinishStep(stage)],
        tasks=1,
        logging_dir=str(logs / "finish"),
        skip_completed=False,
        depends=before,
        time=args.slurm_time,
        partition=args.slurm_partition,
        job_name=f"{stage.name}-finish",
        qos=None,
    ).run()
    print(f"{stage.name}: queued; manifest.json in {args.output_dir} is written when all jobs are done")
    return False
