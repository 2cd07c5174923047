"""The report of run_benchmark.py: its result file, made of runs, and Markdown and picture, made of the result file."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import yaml

from evaluation.tasks.bootstrap import RESAMPLES, Examples, Sample, average, describe, holm, p_value
from evaluation.tasks.definitions import TASKS
from shared.errors import InputError, one_line
from shared.figures import new_figure, save_figure
from shared.files import atomic_file, read_json, write_json, write_text
from shared.markdown import escape, markdown_table

CONTROLS = RANDOM, MAJORITY = "random weights", "majority class"
SIGNIFICANT = 0.05
METRICS = {"matthews_correlation": "Matthews", "accuracy": "accuracy", "pearson": "Pearson", "f1": "F1"}
OTHER_METRICS = ("f1", "spearmanr", "mismatched_accuracy", "precision", "recall", "strict_f1", "exact_match")
REFERENCE_KEYS = ("model", "parameters", "split", "protocol", "source", "scores")


# Of one task: what came out by model and seed (`value` and `metrics`, or `failure`), examples and samples by model.
TaskResult = tuple[dict[str, dict[int, dict[str, Any]]], dict[str, Examples], dict[str, Sample]]


def read_references(path: str | Path, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """The published results that have a score of one of the tasks. Raises InputError for a file of another form."""
    try:
        rows = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or []
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"--references {path}: cannot be read: {one_line(error, None)}") from error
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        missing = [key for key in REFERENCE_KEYS if not isinstance(row, dict) or key not in row]
        if missing:
            raise InputError(f"--references {path}: entry {number}: has no {missing[0]}")
        for task, scores in row["scores"].items():
            metric = TASKS[task].metric if task in TASKS else "of a known task"
            if not isinstance(scores, dict) or not isinstance(scores.get(metric), (int, float)):
                raise InputError(f"--references {path}: entry {number}: {task}: there must be a number {metric}")
    return [row for row in rows if set(row["scores"]) & set(tasks)]


def build_report(
    args: Any,
    models: dict[str, str],
    hashes: dict[str, dict[str, str]],
    results: dict[str, TaskResult],
    references: list[dict[str, Any]],
) -> dict[str, Any]:
    """All that tables and pictures need, of the tasks that have been run so far.

    `results` has what `run_benchmark.run_task` returned of each task.
    """
    names = [*models, MAJORITY]
    samples = {task: found[2] for task, found in results.items()}
    report: dict[str, Any] = {
        "kind": "benchmark",
        "settings": {"seeds": args.seeds, "tasks": args.tasks, "baseline": args.baseline, "resamples": RESAMPLES}
        | {name: getattr(args, name) for name in ("learning_rates", "search_seed", "max_samples", "overrides")},
        "tasks": {},
        "models": {name: {"path": models.get(name), "hashes": hashes.get(name), "parameters": None} for name in names},
        "results": {name: {} for name in names},
        "averages": {},
        "comparisons": [],
        "references": references,
    }
    for task, (outcomes, examples, _) in results.items():
        report["tasks"][task] = {"metric": TASKS[task].metric, "script": TASKS[task].script, "rows": None}
        if one := next(iter(examples.values()), None):
            report["tasks"][task] |= {"rows": one.parts.shape[1], "score": one.score, "key": one.key}
        for name, runs in outcomes.items():
            report["results"][name][task] = summarize(runs, samples[task].get(name))
            for found in runs.values():
                if "value" in found and "folder" in found:
                    _add_facts(report, task, name, Path(found["folder"]))
    report["averages"] = {name: _average(report, samples, name) for name in names}
    report["comparisons"] = _compare(report, samples, names)
    return report


def summarize(runs: dict[int, dict[str, Any]], sample: Sample | None) -> dict[str, Any]:
    """One cell: mean and sample deviation over the seeds, the intervals, other metrics, and what failed."""
    values = {str(seed): found["value"] for seed, found in runs.items() if "value" in found}
    failures = {str(seed): found["failure"] for seed, found in runs.items() if "failure" in found}
    cell: dict[str, Any] = {"seeds": values, "failures": failures}
    if values:
        found = [run["metrics"] for run in runs.values() if "value" in run]
        others = [key for key in OTHER_METRICS if all(key in row for row in found)]
        cell |= _spread([*values.values()])
        cell["metrics"] = {key: _spread([row[key] for row in found]) for key in others}
    return cell | ({} if sample is None else describe(sample))


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else None}


def _add_facts(report: dict[str, Any], task: str, name: str, folder: Path) -> None:
    """What the folder of a run says of itself: parameters, learning rate, hardware, versions."""
    manifest, search = read_json(folder / "manifest.json"), folder.parent / "search.json"
    report |= {key: manifest[key] for key in ("hardware", "versions", "commit")}
    report["models"][name]["parameters"] = count_parameters(folder / "model.safetensors")
    cell = report["results"][name][task]
    cell["seconds"] = cell.get("seconds", 0.0) + manifest["seconds"]
    chosen = read_json(search)["best"] if search.is_file() else manifest["recipe"]
    cell["learning_rate"] = chosen.get("learning_rate")


def count_parameters(path: Path) -> int | None:
    """The numbers in a file of weights, by its header; None without such a file."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    with safe_open(path, "numpy") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def _average(report: dict[str, Any], samples: dict[str, dict[str, Sample]], name: str) -> dict[str, Any] | None:
    """The mean over tasks of a model that has a score of each, its deviation over seeds, and intervals."""
    cells = [report["results"][name].get(task, {}) for task in report["settings"]["tasks"]]
    if not all("mean" in cell for cell in cells):
        return None
    found: dict[str, Any] = {"mean": mean(cell["mean"] for cell in cells), "std": None}
    seeds = [*cells[0]["seeds"]]
    if all([*cell["seeds"]] == seeds for cell in cells):
        found["std"] = _spread([mean(cell["seeds"][seed] for cell in cells) for seed in seeds])["std"]
    if all(name in samples[task] for task in samples):
        found |= describe(average([samples[task][name] for task in samples]))
    return found


def _compare(report: dict[str, Any], samples: dict[str, dict[str, Sample]], names: list[str]) -> list[dict[str, Any]]:
    """The difference of each model to the baseline, by task; p-values are corrected for the tasks of a model."""
    base = report["settings"]["baseline"]
    rows: list[dict[str, Any]] = []
    for name in names:
        found = {task: of[name] - of[base] for task, of in samples.items() if name in of and base in of}
        if name == base or not found:
            continue
        corrected = dict(zip(found, holm([p_value(one) for one in found.values()]), strict=True))
        if len(found) == len(report["settings"]["tasks"]) > 1:
            found["average"] = average([*found.values()])
        rows += [
            {"model": name, "task": task, "difference": one.mean, "p": p_value(one)}
            | {"p_corrected": corrected.get(task, p_value(one))}
            | describe(one)
            for task, one in found.items()
        ]
    return rows


def write_results(folder: Path, report: dict[str, Any], examples: dict[str, dict[str, Examples]]) -> None:
    """Write benchmark.json, and examples.safetensors: TASK/MODEL, (seeds, examples, parts) float32."""
    from safetensors.numpy import save_file

    parts = {f"{task}/{name}": one.parts for task, found in examples.items() for name, one in found.items()}
    with atomic_file(folder / "examples.safetensors") as file:
        save_file({name: np.ascontiguousarray(values, np.float32) for name, values in parts.items()}, file)
    write_json(folder / "benchmark.json", report)


def write_report(folder: str | Path, report: dict[str, Any], examples: dict[str, dict[str, Examples]]) -> None:
    """Write the results, and benchmark.md and benchmark.png, which show them."""
    folder = Path(folder)
    write_results(folder, report, examples)
    write_text(folder / "benchmark.md", make_page(report))
    draw(report, folder / "benchmark.png")


def percent(value: float | None, deviation: float | None = None) -> str:
    """A share as percent with one decimal, and its deviation where there is one."""
    if value is None:
        return "–"
    text = f"{100 * value:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")
    return text.replace("-", "−")


def signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table with numbers from the column `left` on."""
    return markdown_table(head, rows, "| --- " * left + "| ---: " * (len(head) - left) + "|")


def make_table(report: dict[str, Any]) -> str:
    """The table of scores as Markdown, with the notes without which it cannot be read."""
    tasks, averages = report["settings"]["tasks"], report["averages"]
    base, seeds = report["settings"]["baseline"], report["settings"]["seeds"]
    marks = {
        (row["model"], row["task"]): ("▲" if row["difference"] > 0 else "▼")
        for row in report["comparisons"]
        if row["p_corrected"] < SIGNIFICANT
    }
    columns = [f"{task} {METRICS.get(TASKS[task].metric, TASKS[task].metric)}" for task in tasks]
    rows = []
    for name, cells in report["results"].items():
        title = f"**{escape(name)}**" if name == base else escape(name)
        found = [_cell(cells.get(task), marks.get((name, task))) for task in tasks]
        found.append(_cell(averages[name], marks.get((name, "average"))))
        count = report["models"][name]["parameters"]
        rows.append([title, "" if count is None else f"{count / 1e6:.1f}M", *found])
    errors = [report["results"].get(base, {}).get(task, {}).get("set_error") for task in tasks]
    mean_error = (averages.get(base) or {}).get("set_error")
    rows.append(["standard error of the set", "", *map(percent, errors), percent(mean_error)])
    for number, row in enumerate(report["references"], 1):
        scores = [row["scores"].get(task, {}).get(TASKS[task].metric) for task in tasks]
        scores.append(None if None in scores else mean(scores))
        rows.append([f"*{escape(row['model'])}* [{number}]", row["parameters"], *map(percent, scores)])
    notes = [
        f"In percent; mean ± standard deviation over {len(seeds)} seed{'s' if len(seeds) > 1 else ''}, on the "
        "validation split. ▲ and ▼: better and worse than the baseline, in bold (paired bootstrap over examples and "
        f"seeds, p < {SIGNIFICANT} after Holm's correction for the tasks)."
        + (" The majority class is the mean for stsb." if "stsb" in tasks else ""),
        *filter(None, [_time(report), _changes(report["settings"])]),
    ]
    notes += ["Rows in italics are published, **not measured here**:"] if report["references"] else []
    sources: dict[str, list[str]] = {}
    for number, row in enumerate(report["references"], 1):
        sources.setdefault(f"{row['split']} split; {row['protocol']}; {row['source']}.", []).append(f"[{number}]")
    notes += [f"{' '.join(numbers)} {text}" for text, numbers in sources.items()]
    return _table(["model", "parameters", *columns, "average"], rows) + "\n\n" + "\n\n".join(notes) + "\n"


def _time(report: dict[str, Any]) -> str:
    """How long the runs of the first model took; nothing if it has none."""
    name = next(iter(report["models"]))
    seconds = sum(cell.get("seconds", 0.0) for cell in report["results"].get(name, {}).values())
    if not seconds:
        return ""
    return f"The runs of {escape(name)} took {seconds / 60:.0f} minutes on {report['hardware']['device']}."


def _changes(settings: dict[str, Any]) -> str:
    """What makes these runs others than those of the tasks' recipes on all of their data."""
    parts = [f"only the first {settings['max_samples']:,} rows"] if settings["max_samples"] else []
    others = [task for task in TASKS if task not in settings["tasks"]]
    overrides = [one for one in settings["overrides"] if not one.startswith(tuple(f"{task}." for task in others))]
    parts += [f"`{' '.join(overrides)}`"] if overrides else []
    return f"Runs with {' and '.join(parts)}." if parts else ""


def _cell(cell: dict[str, Any] | None, mark: str | None) -> str:
    """A score of a task, or an average, which has no seeds of its own."""
    if cell is None:
        return "–"
    if "mean" not in cell:
        return "failed"
    text = percent(cell["mean"], cell["std"]) + (f" {mark}" if mark else "")
    done, failed = len(cell.get("seeds", ())), len(cell.get("failures", ()))
    return f"{text} ({done} of {done + failed})" if failed else text


def make_page(report: dict[str, Any]) -> str:
    """The whole report as Markdown."""
    settings, base = report["settings"], report["settings"]["baseline"]
    parts = ["# Benchmark", make_table(report), "![scores with 95% intervals](benchmark.png)"]
    cells = [(escape(name), *item) for name, of_model in report["results"].items() for item in of_model.items()]
    failures = [
        [name, task, seed, escape(reason, 300)]
        for name, task, cell in cells
        for seed, reason in cell["failures"].items()
    ]
    if failures:
        parts += ["## Failures", _table(["model", "task", "seed", "reason"], failures, left=4)]
    if report["comparisons"]:
        rows = []
        for row in report["comparisons"]:
            ends = f"{signed(row['low'])} to {signed(row['high'])}"
            found = [escape(row["model"]), row["task"], signed(row["difference"]), ends]
            rows.append([*found, f"{row['p']:.3f}", f"{row['p_corrected']:.3f}"])
        head = ["model", "task", "difference", "95% interval", "p", "p, corrected"]
        parts += [f"## Against {escape(base)}", _table(head, rows, left=2)]
        parts.append(
            f"Points of percent. {settings['resamples']:,} resamples of the examples, the same for all models, and of "
            "the seeds of each; the correction is Holm's, for the tasks of a model."
        )
    others = []
    for name, task, cell in cells:
        for key, value in cell.get("metrics", {}).items():
            if key != TASKS[task].metric:
                spread = "" if value["std"] is None else f"{value['std']:.3f}"
                others.append([name, task, key.replace("_", " "), f"{value['mean']:.3f}", spread])
    if others:
        parts += ["## Other metrics", _table(["model", "task", "metric", "mean", "deviation"], others, left=3)]
    trained = [
        [name, task, f"{cell['learning_rate']:g}", f"{cell['seconds']:,.0f}"]
        for name, task, cell in cells
        if cell.get("learning_rate") is not None
    ]
    if trained:
        chosen = ", chosen on a part of the training data" if settings["learning_rates"] else ""
        parts += [f"## Learning rates{chosen}", _table(["model", "task", "learning rate", "seconds"], trained, left=2)]
    facts = [f"Seeds {' '.join(map(str, settings['seeds']))}"]
    facts += [report["hardware"]["device"]] if "hardware" in report else []
    facts += [f"{name} {version}" for name, version in report.get("versions", {}).items()]
    return "\n\n".join([part.strip() for part in [*parts, "; ".join(facts) + "."]]) + "\n"


def draw(report: dict[str, Any], path: Path) -> None:
    """A panel for each task: means with their 95% intervals, seeds as small dots, published results hollow, and the
    majority class as a line."""
    tasks = report["settings"]["tasks"]
    names = [name for name in report["results"] if name != MAJORITY]
    references = report["references"]
    columns = min(3, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    figure = new_figure(3.2 * columns + 2.4, lines * (0.9 + 0.28 * (len(names) + len(references))))
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    labels = [*names, *(f"{row['model']} [{i}]" for i, row in enumerate(references, 1))]
    for panel, task in zip(panels, tasks, strict=False):
        majority = report["results"][MAJORITY].get(task, {}).get("mean")
        if majority is not None:
            panel.axvline(100 * majority, color="0.45", linestyle="--", linewidth=1)
        for place, name in enumerate(names):
            cell = report["results"][name].get(task, {})
            if "mean" not in cell:
                continue
            color = "0.45" if name == RANDOM else f"C{place % 10}"
            seeds = [100 * value for value in cell["seeds"].values()]
            panel.plot(seeds, [place] * len(seeds), ".", color=color, alpha=0.35, markersize=6)
            if "low" in cell:
                panel.plot([100 * cell["low"], 100 * cell["high"]], [place] * 2, color=color, linewidth=2)
            panel.plot(100 * cell["mean"], place, "o", color=color, markersize=7)
        for place, row in enumerate(references, len(names)):
            value = row["scores"].get(task, {}).get(TASKS[task].metric)
            if value is not None:
                panel.plot(100 * value, place, "D", color="0.3", markerfacecolor="white", markersize=5)
        panel.set_title(f"{task}, {METRICS.get(TASKS[task].metric, TASKS[task].metric)}", fontsize=10)
        panel.grid(axis="x", alpha=0.3)
        panel.tick_params(labelsize=8)
        panel.set_yticks(range(len(labels)), labels)
        panel.set_ylim(len(labels) - 0.5, -0.5)
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    notes = "percent; bars: 95% intervals, dots: seeds, dashed: majority class, hollow: published, not measured here"
    figure.supxlabel(notes, fontsize=8)
    save_figure(figure, path)
