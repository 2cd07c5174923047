"""Measure what a model costs on a CPU, and what faster forms of it lose: torch.compile, bf16, ONNX Runtime, int8.

    python evaluation/run_cpu_benchmark.py --config evaluation/recipes/cpu.yaml --models runs/sst2 \
        --input sst2_folder --task_name sst2

Each variant is a process of its own; they are timed in turns, and a ratio is the median of the ratios to eager PyTorch
of each round. Reads models for sequence classification, token classification or masked-language modelling, and
--input: labelled rows for a sequence classifier, text for the others, made-up rows without it. Writes
cpu_benchmark.json and cpu_benchmark.md, and for each model the folders onnx, onnx_int8 and onnx_static with
model.onnx, tokenizer, configuration and the lines that load them.
"""

from shared.early import answer_early

answer_early(__file__, __name__)  # --help and wrong flags, before the seconds that the next imports take

import contextlib
import dataclasses
import importlib.metadata
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from evaluation.cpu.checkpoint import TASKS, load_checkpoint
from evaluation.cpu.inputs import Rows, compare, read_rows
from evaluation.cpu.page import TITLES, make_table
from evaluation.cpu.processes import EAGER, Worker, start_all, time_all
from evaluation.tasks.runs import name_models
from shared import onnx_export as export
from shared.command_line import check_ranges, refuse_flags, run_script
from shared.cores import available_cores
from shared.errors import InputError, RunError, one_line
from shared.files import check_new_folder, write_report
from shared.training.environment import git_commit, hardware, versions

STATIC = "onnx_static"  # needs rows to calibrate on
VARIANTS = tuple(TITLES)
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


@dataclass
class CpuBenchmarkArguments:
    models: list[str] = field(metadata={"help": "Checkpoints: folders, Hub ids or NAME=FOLDER."})
    output_dir: str = field(metadata={"help": "A new folder for tables and exported models."})
    variants: list[str] = field(
        default_factory=lambda: ["eager", "torch_int8", "onnx", "onnx_int8"],
        metadata={"help": f"Of {', '.join(VARIANTS)}. compile takes a minute to start."},
    )
    input: str | None = field(
        default=None, metadata={"help": "Labelled file, or folder of which validation is used; text for other tasks."}
    )
    calibration_input: str | None = field(
        default=None, metadata={"help": "Rows to calibrate onnx_static on. Default: the train split of --input."}
    )
    task_name: str | None = field(default=None, metadata={"help": "The task of GLUE that --input is."})
    text_column: str = field(default="sentence", metadata={"help": "The column of the text, without --task_name."})
    text_pair_column: str | None = field(default=None, metadata={"help": "The column of the second text of a pair."})
    label_column: str = field(default="label", metadata={"help": "The column of the label."})
    max_samples: int | None = field(default=None, metadata={"help": "Compare on the first N rows only."})
    max_seq_length: int = field(default=128, metadata={"help": "Tokens of a row that is compared; longer are cut."})
    seq_lengths: list[int] = field(default_factory=lambda: [16, 64, 128], metadata={"help": "Tokens of timed rows."})
    threads: list[int] = field(default_factory=list, metadata={"help": "Threads. Default: 1, and all cores."})
    batch_size: int = field(default=32, metadata={"help": "Rows at once for throughput and for the comparison."})
    rounds: int = field(default=5, metadata={"help": "Rounds in which all variants take turns."})
    seconds: float = field(default=0.5, metadata={"help": "About how long a variant is timed in each turn."})
    starts: int = field(default=3, metadata={"help": "Starts of each variant (compile: one)."})

    def __post_init__(self) -> None:
        if unknown := [name for name in self.variants if name not in VARIANTS]:
            raise InputError(f"--variants {unknown[0]}: there are {', '.join(VARIANTS)}")
        self.variants = [name for name in VARIANTS if name in {EAGER, *self.variants}]
        self.threads = self.threads or sorted({1, available_cores()})
        check_ranges(self, threads=">= 1", rounds=">= 1", seconds="> 0", starts=">= 1", batch_size=">= 1")
        check_ranges(self, seq_lengths=">= 8", max_seq_length=">= 8")
        if self.input is None and (self.task_name or self.calibration_input):
            raise InputError("--task_name, --calibration_input: need --input")
        columns = ("text_column", "text_pair_column", "label_column")
        if self.input is None:
            refuse_flags(self, dict.fromkeys((*columns, "max_samples"), "is for --input"))
        if self.task_name:
            refuse_flags(self, dict.fromkeys(columns, "--task_name says which columns there are"))
        if STATIC not in self.variants:
            refuse_flags(self, {"calibration_input": f"is for --variants {STATIC}"})
        if STATIC in self.variants and self.input is None:
            raise InputError(f"--variants {STATIC}: needs --input, and rows to calibrate on")
        name_models(self.models)

    @property
    def most_tokens(self) -> int:
        """Of a row, whether compared or timed."""
        return max(self.max_seq_length, *self.seq_lengths)


def write_variants(
    folder: Path, model: Any, tokenizer: Any, rows: Rows, args: CpuBenchmarkArguments
) -> dict[str, dict[str, Any]]:
    """The ONNX folders of a model. For each variant the size of its file, or the reason why there is none."""
    found: dict[str, dict[str, Any]] = {variant: {"threads": {}} for variant in args.variants}
    for variant in [name for name in args.variants if name.startswith("onnx")]:
        source = None if variant == "onnx" else folder / "onnx" / "model.onnx"
        calibration = rows.calibration if variant == STATIC else None
        title = f"{folder.name}, {TITLES[variant]}"
        try:
            if source is not None and not source.is_file():
                raise RunError("there is no ONNX file to quantize")
            export.write_folder(folder / variant, model, tokenizer, title, args.max_seq_length, source, calibration)
            found[variant]["file_bytes"] = (folder / variant / "model.onnx").stat().st_size
        except Exception as error:  # the exporter raises dozens of its own
            found[variant]["failure"] = f"{type(error).__name__}: {one_line(error)}"
    return found


def measure(name: str, path: str, args: CpuBenchmarkArguments) -> dict[str, Any]:
    """All numbers of one model; its exported forms are written into a folder of its name."""
    task, model, tokenizer = load_checkpoint(path, args.most_tokens)
    names = export.input_names(model, tokenizer)
    rows = read_rows(path, task, model, tokenizer, names, args)
    print(f"{name}: {args.variants}", flush=True)
    variants = write_variants(Path(args.output_dir, name), model, tokenizer, rows, args)
    facts = {"path": path, "task": task, "model_type": model.config.model_type, "data": rows.describe()}
    facts["parameters"] = sum(values.numel() for values in model.parameters())
    spec = {"class": TASKS[task], "vocab_size": model.config.vocab_size, "input_names": names}
    spec["max_seq_length"] = args.max_seq_length
    del model  # from here on the processes have it
    weights = cached_file(path, "model.safetensors", _raise_exceptions_for_missing_entries=False)
    for variant in args.variants:
        if not variant.startswith("onnx"):
            variants[variant]["file_bytes"] = Path(weights).stat().st_size if weights else None
    for threads in args.threads:
        running: dict[str, Worker] = {}
        with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
            specs = {}
            for variant in variants:
                folder = str(Path(args.output_dir, name, variant)) if variant.startswith("onnx") else path
                specs[variant] = spec | {"variant": variant, "folder": folder, "threads": threads, "scratch": scratch}
            stack.callback(lambda running=running: [worker.close() for worker in running.values()])
            start_all(specs, args.starts, variants, running)
            if threads == args.threads[0]:
                compare(running, rows, Path(scratch), variants)
            time_all(running, threads, args, variants)
    return facts | {"variants": variants}


def main(args: CpuBenchmarkArguments) -> dict[str, Any]:
    check_new_folder(args.output_dir)
    if any(name.startswith("onnx") for name in args.variants):
        export.check_installed("--variants")
    for path in name_models(args.models).values():
        load_checkpoint(path, args.most_tokens)  # all of them are looked at before the first is measured
    report: dict[str, Any] = {
        "kind": "cpu_benchmark",
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "hardware": hardware("cpu"),
        "versions": versions() | {name: importlib.metadata.version(name) for name in PACKAGES},
        "settings": dataclasses.asdict(args),
        "models": {},
    }
    for name, path in name_models(args.models).items():
        report["models"][name] = measure(name, path, args)
        report["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_report(args.output_dir, "cpu_benchmark", report, make_table(report))
    print(make_table(report))
    cells = [(name, *cell) for name, model in report["models"].items() for cell in model["variants"].items()]
    failed = [f"{name}, {TITLES[one]}: {found['failure']}" for name, one, found in cells if "failure" in found]
    if failed:
        raise RunError(f"{len(failed)} variants failed, the others are measured: {'; '.join(failed)}")
    return report


if __name__ == "__main__":
    run_script(main, CpuBenchmarkArguments)
