"""Fine-tune models on tasks with several seeds, and say how good they are: models x tasks x seeds, from one recipe.

    python evaluation/run_benchmark.py --config evaluation/recipes/benchmark.yaml --models runs/tiny runs/tiny_modern

Each run is one of finetuning/run_glue.py, run_ner.py and run_qa.py, in this process, with the recipe of its task;
what is finished is not run again. Two controls are always there: the majority class, and the architecture of the first
model with random weights. With --learning_rates the best one is found for each model and task on a part of the
training data, then all seeds use it. Writes benchmark.json, .md and .png, with intervals and a paired test against
--baseline, and examples.safetensors, what each model made of each example, for compare_models.py. Runs that fail are
in the table with their reason, and the exit code is then 1.
"""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.tasks.bootstrap import Examples, resample
from evaluation.tasks.definitions import TASKS, make_examples, predict_majority, read_predictions
from evaluation.tasks.page import CONTROLS, MAJORITY, RANDOM, TaskResult, build_report, read_references, write_report
from evaluation.tasks.runs import check_folder, check_model, do_run, name_models, say_why
from shared.command_line import parse_arguments, refuse_flags, run_script
from shared.errors import InputError, RunError

ROOT = Path(__file__).parent.parent
PUBLISHED = Path(__file__).parent / "tasks" / "published_results.yaml"


@dataclass
class BenchmarkArguments:
    models: list[str] = field(default_factory=list, metadata={"help": "Pretrained: folders, Hub ids or NAME=FOLDER."})
    output_dir: str = field(
        default="runs/benchmark", metadata={"help": "Folder of the runs and the report; a second start goes on there."}
    )
    tasks: list[str] = field(
        default_factory=lambda: ["cola", "sst2", "mrpc", "stsb", "rte"], metadata={"help": f"Of {', '.join(TASKS)}."}
    )
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5], metadata={"help": "One run for each."})
    baseline: str | None = field(
        default=None, metadata={"help": "The model that others are tested against. Default: the first."}
    )
    dataset_root: str | None = field(
        default=None, metadata={"help": "A folder with a folder for each task, instead of the Hub."}
    )
    datasets: list[str] = field(
        default_factory=list, metadata={"help": "TASK=FOLDER, for tasks that are not in --dataset_root."}
    )
    fine_tuned: bool = field(
        default=False, metadata={"help": "Take models that were fine-tuned before, on made-up questions, say."}
    )
    learning_rates: list[str] = field(
        default_factory=list,
        metadata={"help": "A grid: each model gets the best for each task. Default: the recipes'."},
    )
    search_seed: int = field(default=0, metadata={"help": "The seed of that choice, not one of --seeds."})
    max_samples: int | None = field(
        default=None, metadata={"help": "Train on and evaluate the first N rows only, to try things out."}
    )
    overrides: list[str] = field(
        default_factory=list, metadata={"help": "NAME=value or TASK.NAME=value: flags of the fine-tuning scripts."}
    )
    references: str | None = field(
        default=None, metadata={"help": "Published results to show. Default: tasks/published_results.yaml."}
    )

    def __post_init__(self) -> None:
        for name in ("models", "tasks", "seeds", "learning_rates", "datasets"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InputError(f"--{name} {' '.join(map(str, values))}: one is named twice")
        named = [("tasks", task, task) for task in self.tasks]
        for flag in ("datasets", "overrides"):
            for entry in getattr(self, flag):
                name, equals, _ = entry.partition("=")
                if not equals:
                    raise InputError(f"--{flag} {entry}: write NAME=value")
                named += [(flag, entry, name.partition(".")[0])] if flag == "datasets" or "." in name else []
        for flag, entry, task in named:
            if task not in TASKS:
                raise InputError(f"--{flag} {entry}: there is no task {task}; there are {', '.join(TASKS)}")
        if not self.learning_rates:
            refuse_flags(self, {"search_seed": "is for --learning_rates"})
        if self.learning_rates and self.search_seed in self.seeds:
            raise InputError(f"--search_seed {self.search_seed}: is one of --seeds, which must be fresh")
        names = [*name_models(self.models, CONTROLS), *CONTROLS]
        self.baseline = self.baseline or names[0]
        if self.models and self.baseline not in names:
            raise InputError(f"--baseline {self.baseline}: there are {', '.join(names)}")


def find_data(args: BenchmarkArguments, task: str) -> dict[str, str]:
    """The flag for the data of a task, none for the Hub's. Raises InputError for a folder that is not there."""
    folder = dict(entry.split("=", 1) for entry in args.datasets).get(task)
    if folder is None and args.dataset_root is not None and "dataset_name" in TASKS[task].flags:
        folder = str(Path(args.dataset_root, task))
    if folder is not None and not Path(folder).is_dir():
        raise InputError(f"--dataset_root, --datasets: {task}: there is no folder {folder}")
    return {} if folder is None else {"dataset_name": folder}


def make_run(args: BenchmarkArguments, task: str, model: str, path: str, seed: int) -> tuple[Any, ...]:
    """The arguments of one run of a fine-tuning script. Raises InputError for a flag that it does not take."""
    from finetuning.common.arguments import CheckpointArguments, FineTuningArguments

    folder = Path(args.output_dir, "runs", task, model.replace(" ", "_"))
    flags = TASKS[task].flags | find_data(args, task) | {"model_name_or_path": path, "disable_tqdm": "true"}
    if model == RANDOM:
        flags["random_weights"] = "true"
    if args.max_samples is not None:
        flags |= {"max_train_samples": str(args.max_samples), "max_eval_samples": str(args.max_samples)}
    if args.learning_rates:
        flags |= {"search_trials": str(len(args.learning_rates)), "search_seed": str(args.search_seed)}
        flags["search_space"] = f"learning_rate={','.join(args.learning_rates)}"
    split = [(*entry.partition("=")[0].rpartition("."), entry.partition("=")[2]) for entry in args.overrides]
    for of_task, _, name, value in sorted(split, key=lambda parts: bool(parts[0])):  # the task's own win
        flags |= {name: value} if of_task in ("", task) else {}
    flags |= {"seed": str(seed), "output_dir": str(folder / f"seed-{seed}")}
    words = ["--config", str(ROOT / "finetuning" / "recipes" / f"{TASKS[task].recipe}.yaml")]
    words += [f"--{name}={value}" for name, value in flags.items()]
    run = parse_arguments((CheckpointArguments, TASKS[task].module.DataArguments, FineTuningArguments), words)
    run[-1].search_folder = str(folder)
    return run


def run_task(args: BenchmarkArguments, task: str, models: dict[str, str], show: Any) -> TaskResult:
    """All runs of a task, and its majority class."""
    outcomes: dict[str, dict[int, dict[str, Any]]] = {}
    examples: dict[str, Examples] = {}
    gold = None
    for model, path in models.items():
        outcomes[model] = {}
        for seed in args.seeds:
            run = make_run(args, task, model, path, seed)
            outcomes[model][seed] = do_run(task, run)
            show(task, model, seed, outcomes[model][seed])
        finished = [found for found in outcomes[model].values() if "value" in found]
        rows = [read_predictions(task, found["folder"], run) for found in finished]
        if rows and all(rows):
            examples[model], gold = make_examples(task, rows), [row["gold"] for row in rows[0]]
            if not np.allclose(examples[model].values(), [found["value"] for found in finished], atol=1e-4):
                raise RunError(f"{task}, {model}: its predictions do not have the scores that it reported")
    try:
        run = make_run(args, task, *next(iter(models.items())), args.seeds[0])
        rows, metrics = predict_majority(task, run, gold)
        if metrics:
            outcomes[MAJORITY] = {0: {"value": metrics[TASKS[task].metric] / TASKS[task].divisor, "metrics": metrics}}
        if rows:
            examples[MAJORITY] = make_examples(task, [rows])
    except InputError as error:  # its data are wrong, as the runs have said
        outcomes[MAJORITY] = {0: {"failure": say_why(error)}}
    if len({one.key for one in examples.values()}) > 1:
        raise RunError(f"{task}: its runs were evaluated on different rows; name a new --output_dir")
    return outcomes, examples, {name: resample(one, name) for name, one in examples.items()}


def main(args: BenchmarkArguments) -> dict[str, Any]:
    import datasets
    import transformers

    # 1. What can be wrong is found before anything runs.
    if not args.models or not args.tasks or not args.seeds:
        raise InputError("--models, --tasks, --seeds: name at least one of each")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("run_benchmark.py is one process: start it with python, without a launcher")
    models = name_models(args.models, CONTROLS)
    hashes = {name: check_model(path, args.fine_tuned) for name, path in models.items()}
    models[RANDOM] = next(iter(models.values()))
    hashes[RANDOM] = {name: value for name, value in next(iter(hashes.values())).items() if name == "config.json"}
    references = read_references(args.references or PUBLISHED, args.tasks)
    for task in args.tasks:
        make_run(args, task, *next(iter(models.items())), args.seeds[0])
    check_folder(args.output_dir, hashes)
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()  # a new head on every checkpoint is no news

    # 2. Run task by task, and report after each.
    count, start, done = len(args.tasks) * len(models) * len(args.seeds), time.time(), []

    def show(task: str, model: str, seed: int, found: dict[str, Any]) -> None:
        done.append(found)
        value = f"{TASKS[task].metric} {found['value']:.3f}" if "value" in found else f"failed: {found['failure']}"
        left = (time.time() - start) / len(done) * (count - len(done)) / 60
        print(f"[{len(done)}/{count}] {task}, {model}, seed {seed}: {value} (about {left:.0f} min left)", flush=True)

    results: dict[str, TaskResult] = {}
    for task in args.tasks:
        results[task] = run_task(args, task, models, show)
        report = build_report(args, models, hashes, results, references)
        write_report(args.output_dir, report, {task: examples for task, (_, examples, _) in results.items()})

    # 3. Say what came out.
    print(Path(args.output_dir, "benchmark.md").read_text(encoding="utf-8"))
    failed = [found for found in done if "failure" in found]
    if failed:
        first = f"{len(failed)} of {count} runs failed, the first one with: {failed[0]['failure']}"
        raise RunError(f"{first}; the same command runs them again")
    return report


if __name__ == "__main__":
    run_script(main, BenchmarkArguments)
