"""Write the tables of README.md and of each RESULTS.md from the result files: `make results`.

    python evaluation/readme_tables.py

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, and nothing between them is written by hand. A result file
that is not there leaves "Not measured."; a test fails when a page and its files disagree.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from evaluation import compare_models
from evaluation.bench import answers, corpus, glue, mlm, stages
from evaluation.cpu.page import make_table as cpu_table
from evaluation.make_report import ReportArguments, shift
from evaluation.masked import blimp_page, eval_page, freshness_page, probes_page
from evaluation.report.inputs import Inputs
from evaluation.report.months import series_table
from evaluation.report.sections import summary_rows
from evaluation.tasks.page import make_table as benchmark_table
from shared.files import write_text
from shared.markdown import markdown_table

ROOT = Path(__file__).parent.parent
PRETRAINED = {  # what is in no result file: the layout and the text, in words
    "tiny_modern": ("ModernBERT 2 x 128", "Wikipedia"),
    "tiny": ("BERT 2 x 128", "Wikipedia"),
    "demo": ("ModernBERT 2 x 128", "docstrings"),
    "to_2021": ("ModernBERT 2 x 128", "Wikipedia, news to 2021"),
    "to_2026": ("ModernBERT 2 x 128", "Wikipedia, news to 2026"),
}

SUMMARY = {
    "pretraining": "pretraining/results/tiny_modern/manifest.json",
    "benchmark": "evaluation/results/glue.json",
    "freshness": "evaluation/results/freshness.json",
    "blimp": "evaluation/results/blimp.json",
    "cpu_benchmark": "evaluation/results/cpu.json",
}
SUMMARY_MORE = tuple(f"evaluation/results/{name}.json" for name in ("tasks", "shipped", "shipped_before"))
PROBES = ("copy", "similarity", "frequency", "blimp", "cloze")
VARIANTS = "| model | vocabulary | length | variant"  # begins that part of the table of a pretraining benchmark
SHOWN = ("Freshness gain", "BLiMP accuracy", "On a CPU")  # what works first


def read(file: str) -> Any:
    """The content of a result file, None if there is none."""
    path = ROOT / file
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def pretraining_table(*runs: dict[str, Any] | None) -> str:
    """What each run of run_mlm.py read, took and reached."""
    head = ["run", "model", "text, vocabulary", "tokens read", "training time", "tokens/s", "loss", "masked accuracy"]
    head += ["most frequent token", "bits per byte, held-out part"]
    rows = []
    for (name, (model, text)), run in zip(PRETRAINED.items(), runs, strict=True):
        if run is None:
            continue
        found = run["results"]
        cells = [f"[`{name}`](results/{name})", model]
        cells += [f"{text}, {run['inputs']['tokenizer']['vocab_size']:,} entries"]
        cells += [f"{found['train_tokens'] / 1e6:.1f}M", f"{found['train_runtime'] / 60:.1f} min"]
        cells += [f"{found['train_tokens_per_second']:,.0f}", f"{found['eval_loss']:.3f}"]
        for key in ("masked_accuracy", "most_frequent_token_accuracy", "bits_per_byte"):
            cells.append(f"{found[f'eval_{key}']:.3f}")
        rows.append(cells)
    return markdown_table(head, rows, "|---" * len(head) + "|")


def lever_table(rows: list[dict[str, Any]]) -> str:
    """What was tried to make the model better, what it cost, what the probes and STS-B say, and what became of it."""
    head = ["lever", "tokens read with masks", "pairs", "minutes, 1 core", "STS-B fine-tuned, Pearson", "copy gain"]
    head += ["STS-B zero-shot", "masked accuracy", "BLiMP, 1,340 pairs", "dated cloze", "verdict"]
    lines = []
    for row in rows:
        tuned, probes = row["stsb"], row["probes"]
        cells = [row["lever"], f"{row['tokens'] / 1e6:.1f}M", f"{row['pairs']:,}", f"{row['seconds'] / 60:.0f}"]
        cells += [f"{mean(tuned):.3f} ({len(tuned)} seeds)" if tuned else "not measured"]
        cells += [f"{100 * probes[key]:.1f}" if key in probes else "not measured" for key in PROBES]
        lines.append([*cells, row["verdict"]])
    return markdown_table(head, lines)


def fault_tables(report: dict[str, Any]) -> str:
    """What tests/faults/training.py found: kills by kind of run, damage by engine."""
    head = ["run", "kills", "of these while saving", "before the first checkpoint", "ended with the same bits"]
    rows = [[*row.values()] for row in report["kills"]]
    total = [sum(row[key] for row in report["kills"]) for key in ("kills", "while_saving", "before_a_checkpoint")]
    same = sum(row["same_bits"] for row in report["kills"])
    rows.append(["**all**", f"**{total[0]}**", total[1], total[2], f"**{same}**"])
    kills = markdown_table(head, rows, "|---|---|---|---|---|")
    engines = list(next(iter(report["damage"].values())))
    rows = [[kind, *(row[engine] for engine in engines)] for kind, row in report["damage"].items()]
    damage = markdown_table(["damage to the newest checkpoint", *engines], rows, "|---" * (1 + len(engines)) + "|")
    return f"{kills}\n\n{damage}"


def summary_table(*results: Any) -> str:
    """What pretraining is good for, then what not: entities, and a part of the summary of make_report.py."""
    *others, tasks, shipped, before = results
    inputs = Inputs(dict(zip(SUMMARY, others, strict=True)), {name: ROOT / file for name, file in SUMMARY.items()})
    rows = {
        row[0]: row for row in summary_rows(inputs, "tiny_modern", ReportArguments("", pretraining="runs/tiny_modern"))
    }
    found = [*pair_rows(shipped, before), *entity_rows(tasks), *(rows[name] for name in SHOWN)]
    return markdown_table(["measure", "value", "note"], found, "|---|---|---|")


def pair_rows(shipped: dict[str, Any] | None, before: dict[str, Any] | None) -> list[list[str]]:
    """Rows for the tasks of two texts and for the average: `tiny-distilled`, and `tiny` by an earlier measurement."""
    if shipped is None or before is None:
        return []
    rows, base = [], shipped["settings"]["baseline"]
    seeds = f"{len(shipped['settings']['seeds'])} seeds, of `tiny` {len(before['settings']['seeds'])}"
    for label, task, metric in (("Likeness", "stsb", "Pearson on STS-B"), ("Paraphrase", "mrpc", "accuracy on MRPC")):
        value, random = (f"{shipped['results'][name][task]['mean']:.3f}" for name in ("tiny-distilled", base))
        tiny = f"{before['results']['tiny'][task]['mean']:.3f}"
        note = f"{metric} of `tiny-distilled`; `tiny` {tiny}, {base} {random}; {seeds}"
        rows.append([f"{label} of two texts", value, note])
    value, random = (f"{100 * shipped['averages'][name]['mean']:.1f}%" for name in ("tiny-distilled", base))
    note = f"`tiny-distilled`; `tiny` {100 * before['averages']['tiny']['mean']:.1f}%, {base} {random}; {seeds}"
    return [*rows, [f"Average of {', '.join(shipped['settings']['tasks'])}", value, note]]


def entity_rows(tasks: dict[str, Any] | None) -> list[list[str]]:
    """A row with the F1 of entities on two sets, beside random weights."""
    if tasks is None:
        return []
    f1 = {
        name: [f"{100 * cells[task]['mean']:.1f}%" for task in ("wikiann", "wnut_17")]
        for name, cells in tasks["results"].items()
        if name in ("tiny_modern", "random weights")
    }
    (wikiann, wnut), (wikiann_random, wnut_random) = f1["tiny_modern"], f1["random weights"]
    note = f"F1 on WikiANN, random weights {wikiann_random}; on WNUT 17 {wnut}, random weights {wnut_random}"
    return [["Named entities", wikiann, f"{note}; {len(tasks['settings']['seeds'])} seeds"]]


Table = tuple[list[str], Callable[..., str]]  # result files, and what shows their contents
TABLES: dict[str, dict[str, Table]] = {  # of each page
    "README.md": {"summary": ([*SUMMARY.values(), *SUMMARY_MORE], summary_table)},
    "pretraining/RESULTS.md": {
        "pretraining": ([f"pretraining/results/{name}/manifest.json" for name in PRETRAINED], pretraining_table),
        "levers": (["pretraining/results/levers.json"], lever_table),
    },
    "shared/README.md": {"faults": (["shared/faults.json"], fault_tables)},
    "data_prep/RESULTS.md": {
        "speed": (["data_prep/results/speed.json"], corpus.table),
        "real_files": (["data_prep/results/real_files.json"], stages.make_table),
    },
    "finetuning/RESULTS.md": {
        "shipped": (["evaluation/results/shipped.json"], benchmark_table),
        "shipped_before": (["evaluation/results/shipped_before.json"], benchmark_table),
        "shipped_snli": (["evaluation/results/shipped_snli.json"], benchmark_table),
        "scores": (["evaluation/results/tasks.json"], benchmark_table),
        "published_model": (["evaluation/results/published_model.json"], benchmark_table),
        "speed": (["evaluation/results/finetuning_cpu.json"], glue.make_table),
        "answers": (["finetuning/results/answers.json"], answers.make_table),
    },
    "evaluation/RESULTS.md": {
        "bench": (["evaluation/results/pretraining_cpu.json"], mlm.make_table),
        "variants": (
            ["evaluation/results/knobs_cpu.json"],
            lambda rows: VARIANTS + mlm.make_table(rows).split(VARIANTS)[1],
        ),
        "glue": (["evaluation/results/glue.json"], benchmark_table),
        "mlm_eval": (["evaluation/results/mlm_eval.json"], eval_page.make_table),
        "freshness": (["evaluation/results/freshness.json"], freshness_page.make_table),
        "blimp": (["evaluation/results/blimp.json"], blimp_page.make_table),
        "probes": (["evaluation/results/probes.json"], probes_page.make_table),
        "cpu": (["evaluation/results/cpu.json"], lambda found: shift(cpu_table(found), 4)),
        **{name: ([f"evaluation/results/{name}.json"], series_table) for name in ("updates", "updates_high_rate")},
        "compare": (["evaluation/results/compare.json"], lambda found: compare_models.make_table(found["rows"])),
    },
}


def fill(page: str, text: str) -> str:
    """The text of a page with its tables made anew. Raises ValueError if a table has no place in it."""
    for name, (files, show) in TABLES[page].items():
        results = [read(file) for file in files]
        table = "Not measured." if all(found is None for found in results) else show(*results).strip()
        text, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda match, table=table: f"{match[1]}{table}\n{match[2]}",
            text,
            flags=re.DOTALL,
        )
        if count != 1:
            raise ValueError(f"{page}: has {count} places for the table {name}")
    return text


def main() -> None:
    for page in TABLES:
        path = ROOT / page
        before = path.read_text(encoding="utf-8")
        after = fill(page, before)
        if after != before:
            write_text(path, after)
        print(f"{page}: {'written' if after != before else 'as it was'}")


if __name__ == "__main__":
    main()
