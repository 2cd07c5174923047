"""Measure fine-tuning speed: finetuning/run_glue.py against the stock path, in turns.

    python evaluation/bench/glue.py --model_name_or_path runs/tiny_modern --output_dir runs/bench

Both are whole scripts in processes of their own (run_glue.py and stock_glue.py): same checkpoint, rows, epochs,
batch size, learning rate and seed. The stock path pads to 128 tokens. Each round runs every variant once, with a seed
of its own; samples per second are those of Trainer, over the whole training without evaluation and saving. Writes
bench_finetuning.json, a list of rows, and bench_finetuning.md.
"""

import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from evaluation.bench.variants import (
    HELP,
    Rounds,
    Variants,
    describe,
    middle,
    ratio,
    read_variants,
    run_variant,
    versions_of,
)
from shared.command_line import check_ranges, run_script
from shared.errors import InputError
from shared.files import write_report
from shared.markdown import markdown_table

TARGETS = {"sst2": 4.0, "mrpc": 1.8}  # how often faster than the stock path it has to be
TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "qnli", "rte", "wnli")  # with one validation set


@dataclass
class BenchArguments:
    output_dir: str = field(metadata={"help": "Folder for the JSON and Markdown tables."})
    model_name_or_path: str = field(metadata={"help": "The pretrained checkpoint of all variants."})
    tasks: list[str] = field(default_factory=lambda: [*TARGETS], metadata={"help": f"Of {', '.join(TASKS)}."})
    dataset_name: str = field(
        default="nyu-mll/glue", metadata={"help": "GLUE on the Hub, or a folder with a folder for each task."}
    )
    learning_rate: float = field(default=3e-4, metadata={"help": "The highest one; it falls linearly to 0."})
    batch_size: int = field(default=32, metadata={"help": "Rows in a step."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Times that every row is read."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first N rows only."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate the first N rows only."})
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3], metadata={"help": "One round for each."})
    variants: list[str] = field(default_factory=list, metadata={"help": HELP})

    def __post_init__(self) -> None:
        make_variants(self)
        if not self.tasks or not set(self.tasks) <= set(TASKS):
            raise InputError(f"--tasks {' '.join(self.tasks)}: there are {', '.join(TASKS)}")
        check_ranges(self, batch_size=">= 1", num_train_epochs="> 0", learning_rate="> 0")
        if not self.seeds:
            raise InputError("--seeds: name one or more")


def make_variants(args: BenchArguments) -> Variants:
    ours = ["finetuning/run_glue.py", "--eval_strategy", "no", "--save_strategy", "no"]
    return read_variants(args.variants, ours, ["evaluation/bench/stock_glue.py"])


def measure(args: BenchArguments, task: str) -> dict[str, Any]:
    """One row of the table: every variant once with each seed, in turns, each round beginning with another."""
    from finetuning.metrics.glue_tasks import main_metric  # here, so that --help need not wait for scipy

    folder, model = Path(args.dataset_name, task), Path(args.model_name_or_path)
    flags = {
        "task_name": task,
        "dataset_name": folder.resolve() if folder.is_dir() else args.dataset_name,
        "model_name_or_path": model.resolve() if model.is_dir() else args.model_name_or_path,
        "learning_rate": args.learning_rate,
        "per_device_train_batch_size": args.batch_size,
        "num_train_epochs": args.num_train_epochs,
        "max_train_samples": args.max_train_samples,
        "max_eval_samples": args.max_eval_samples,
    }
    variants = make_variants(args)
    found: Rounds = {name: [] for name in variants}
    score = main_metric(task)
    order = deque(variants)
    for seed in args.seeds:
        for name in order:
            command, variables = variants[name]
            with tempfile.TemporaryDirectory() as output:
                results = run_variant(command, flags | {"seed": seed}, variables, Path(output))
            found[name].append(results)
            rate, value = results["train_samples_per_second"], results[f"eval_{score}"]
            print(f"  {task}, seed {seed}, {name}: {rate:,.1f} samples/s, {score} {value:.3f}", flush=True)
        order.rotate(-1)
    return {
        "task": task,
        "model": model.name,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "epochs": args.num_train_epochs,
        "max_train_samples": args.max_train_samples,
        "seeds": args.seeds,
        "metric": score,
        "target": TARGETS.get(task),
        "sides": {name: summarize(rounds, found["stock"], score) for name, rounds in found.items()},
        **describe(variants, found),
    }


def summarize(rounds: list[dict[str, Any]], stock: list[dict[str, Any]], score: str) -> dict[str, Any]:
    """Medians of the speed, and of its ratio to the stock path round by round; mean and deviation of the score."""
    speed, scores = "train_samples_per_second", [results[f"eval_{score}"] for results in rounds]
    return {
        "samples_per_second": middle(rounds, speed),
        "ratio": ratio(rounds, stock, speed),
        "eval_samples_per_second": middle(rounds, "eval_samples_per_second"),
        "score": mean(scores),
        "score_deviation": stdev(scores) if len(scores) > 1 else 0.0,
        "rounds": [{"samples_per_second": r[speed], "score": s} for r, s in zip(rounds, scores, strict=True)],
    }


def make_table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, a line for each variant; a ratio below the target says so."""
    head = ["task", "model", "variant", "samples/s", "to stock", "evaluation, samples/s", "score"]
    found = []
    for row in rows:
        for name, cell in row["sides"].items():
            ratio = f"**{cell['ratio']:.2f}**"
            if name == "ours" and row["target"]:
                ratio += f" (target {row['target']:g}{'' if cell['ratio'] >= row['target'] else ', missed'})"
            score = f"{row['metric']} {cell['score']:.3f} ± {cell['score_deviation']:.3f}"
            cells = [row["task"], row["model"], name, f"{cell['samples_per_second']:,.0f}"]
            cells += ["1" if name == "stock" else ratio, f"{cell['eval_samples_per_second']:,.0f}", score]
            found.append(cells)
    first = rows[0]
    settings = f"batch {first['batch_size']}, learning rate {first['learning_rate']:g}, epochs {first['epochs']:g}"
    settings += f" of the first {first['max_train_samples']:,} rows" if first["max_train_samples"] else ""
    table = markdown_table(head, found, "|---" * len(head) + "|")
    device = "; ".join(first[name] for name in ("device", "products") if name in first)
    return f"{table}\n\n{device}; {settings}; {len(first['seeds'])} rounds; {versions_of(first)}.\n"


def main(args: BenchArguments) -> list[dict[str, Any]]:
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for task in args.tasks:
        rows.append(measure(args, task))
        write_report(args.output_dir, "bench_finetuning", rows, make_table(rows))
    print(make_table(rows))
    return rows


if __name__ == "__main__":
    run_script(main, BenchArguments)
