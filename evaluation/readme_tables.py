"""Write the tables of README.md and of each RESULTS.md from the result files: `make results`.

    python evaluation/readme_tables.py

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, and nothing between them is written by hand. A result file
that is not there leaves "Not measured."; a test fails when a page and its files disagree.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from evaluation.bench import answers, corpus, glue, mlm, stages
from evaluation.compare_models import make_table as gate_table
from evaluation.cpu.page import make_table as cpu_table
from evaluation.make_report import ReportArguments, shift
from evaluation.masked import blimp_page, eval_page, freshness_page, probes_page
from evaluation.report.inputs import Inputs
from evaluation.report.months import new_words_table, rates_table, series_table
from evaluation.report.sections import summary_rows
from evaluation.tasks.page import make_table as benchmark_table
from shared.files import write_text
from shared.markdown import markdown_table

ROOT = Path(__file__).parent.parent
PRETRAINED = {  # what is in no result file: the layout and the text, in words
    "tiny_modern": ("ModernBERT 2 x 128", "Wikipedia"),
    "tiny_modern_15": ("the same, 15% of masks", "Wikipedia"),
    "tiny": ("BERT 2 x 128", "Wikipedia"),
    "demo": ("ModernBERT 2 x 128", "docstrings"),
    "to_2021": ("ModernBERT 2 x 128", "Wikipedia, news to 2021"),
    "to_2026": ("ModernBERT 2 x 128", "Wikipedia, news to 2026"),
}
SUMMARY = {
    "freshness": "evaluation/results/freshness.json",
    "blimp": "evaluation/results/shipped_blimp.json",
    "cpu_benchmark": "evaluation/results/cpu.json",
}
SUMMARY_MORE = tuple(f"evaluation/results/{name}.json" for name in ("shipped", "shipped_more"))
MEASURES = {  # of tasks that the summary shows
    "stsb": ("Likeness of two texts", "Pearson on STS-B"),
    "mrpc": ("Paraphrase of two texts", "accuracy on MRPC"),
    "average": ("Average of six tasks of GLUE", "cola, sst2, mrpc, stsb, rte and wnli"),
    "snli": ("Inference", "accuracy on SNLI, of 18,154 pairs,"),
    "squad": ("Answers to questions", "F1 on SQuAD, of 3,845 questions,"),
    "wikiann": ("Named entities", "F1 on WikiANN"),
}
PROBES = ("copy", "similarity", "frequency", "blimp", "cloze")


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
        cells = [f"[`{name}`](results/{name})", model, f"{text}, {run['inputs']['tokenizer']['vocab_size']:,} entries"]
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
    kills = markdown_table(head, rows, "|---" * len(head) + "|")
    engines = [*next(iter(report["damage"].values()))]
    rows = [[kind, *(row[engine] for engine in engines)] for kind, row in report["damage"].items()]
    damage = markdown_table(["damage to the newest checkpoint", *engines], rows, "|---" * (1 + len(engines)) + "|")
    return f"{kills}\n\n{damage}"


def summary_table(*results: Any) -> str:
    """What the shipped models are good for, then a part of the summary of make_report.py."""
    *others, shipped, more = results
    inputs = Inputs(dict(zip(SUMMARY, others, strict=True)), {name: ROOT / file for name, file in SUMMARY.items()})
    rows = {row[0]: row for row in summary_rows(inputs, "tiny", ReportArguments("", blimp=SUMMARY["blimp"]))}
    found = [*shipped_rows(shipped, more), *(rows[name] for name in ("Freshness gain", "BLiMP accuracy", "On a CPU"))]
    return markdown_table(["measure", "value", "note"], found, "|---|---|---|")


def shipped_rows(*benchmarks: dict[str, Any] | None) -> list[list[str]]:
    """A row for each measure: the better one of the shipped models, then the other and random weights."""
    rows = []
    for task, (label, metric) in MEASURES.items():
        for found in filter(None, benchmarks):
            base, seeds = found["settings"]["baseline"], len(found["settings"]["seeds"])
            if task == "average" and "stsb" in found["tasks"]:  # GLUE's, not that of entities and answers
                cells = found["averages"]
            elif task in found["tasks"]:
                cells = {name: of_task[task] for name, of_task in found["results"].items() if task in of_task}
            else:
                continue
            best, other = sorted(("tiny-distilled", "tiny"), key=lambda name: -cells[name]["mean"])
            note = f"{metric} of `{best}`; `{other}` {cells[other]['mean']:.3f}, {base} {cells[base]['mean']:.3f}"
            rows.append([label, f"{cells[best]['mean']:.3f}", f"{note}; {seeds} seed{'s' * (seeds > 1)}"])
    return rows


Table = tuple[list[str], Callable[..., str]]  # result files, and what shows their contents


def shown(show: Callable[..., str], *names: str) -> dict[str, Table]:
    """Tables of the same form, each of the result file of its name."""
    return {name: ([f"evaluation/results/{name}.json"], show) for name in names}


AFTER = ("after_questions", "after_names", "after_names_wikiann")
BENCHMARKS = ("shipped", "shipped_more", "shipped_wnut_17", "shipped_wikiann", *AFTER, "published_model")
DATED = ("freshness", "update_freshness", "update_freshness_arxiv", "update_freshness_rest", "twin_quarters")
SERIES = ("updates", "updates_longer", "twin")
GATES = ("compare", "update_of_tiny", "update_gate")
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
        **shown(benchmark_table, *BENCHMARKS),
        "scores": (["evaluation/results/tasks.json"], benchmark_table),
        "speed": (["evaluation/results/finetuning_cpu.json"], glue.make_table),
        "speed_amx": (["evaluation/results/finetuning_amx.json"], glue.make_table),
        "answers": (["finetuning/results/answers.json"], answers.make_table),
    },
    "evaluation/RESULTS.md": {
        "bench": (["evaluation/results/pretraining_cpu.json"], mlm.make_table),
        **{name: ([f"evaluation/results/{name}_cpu.json"], mlm.make_table) for name in ("bf16", "amx", "amd")},
        "variants": (["evaluation/results/knobs_cpu.json"], mlm.variant_table),
        **shown(benchmark_table, "glue", "update_tasks"),
        **shown(eval_page.make_table, "mlm_eval", "shipped_mlm_eval"),
        **shown(freshness_page.make_table, *DATED),
        **shown(blimp_page.make_table, "blimp", "shipped_blimp"),
        **shown(probes_page.make_table, "probes"),
        **shown(lambda found: shift(cpu_table(found), 4), "cpu", "cpu_amx"),
        **shown(series_table, *SERIES),
        **shown(new_words_table, "updates_new_words"),
        **shown(rates_table, "updates_rates"),
        **shown(gate_table, *GATES),
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
        if (after := fill(page, before)) != before:
            write_text(path, after)
        print(f"{page}: {'written' if after != before else 'as it was'}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=str(__doc__).splitlines()[0]).parse_args()  # --help, and no flags
    main()
