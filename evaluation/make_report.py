"""Make one page of a model's results: a self-contained HTML page, and a model card with metadata for the Hub.

    python evaluation/make_report.py --pretraining runs/tiny_modern --benchmark runs/bench --output_dir runs/report

Reads what the scripts wrote: the folder of a pretraining run and the result files of run_benchmark.py,
run_mlm_eval.py, run_freshness.py, run_blimp.py, run_probes.py and run_cpu_benchmark.py, each as a file or the folder
that holds it. No number is typed in: what is not there is "not measured", and a file that lacks a key is an error.
Writes report.html, which needs no network and no other file, and README.md with the pictures beside it.
"""

import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from evaluation.report.inputs import RESULTS, SCRIPTS, Inputs, read_inputs
from evaluation.report.months import months_section
from evaluation.report.page import draw_lines, render_page
from evaluation.report.sections import (
    NOT_MEASURED,
    cost_section,
    data_section,
    freshness_lines,
    make_metadata,
    results_section,
    summary_rows,
    training_lines,
    training_section,
)
from shared.command_line import check_ranges, refuse_flags, run_script
from shared.errors import InputError
from shared.files import atomic_file, write_text
from shared.markdown import escape, markdown_table

PICTURES = {"curve.png": "pretraining", "freshness.png": "freshness"}


@dataclass
class ReportArguments:
    output_dir: str = field(metadata={"help": "Folder for report.html, README.md and its pictures."})
    model_name: str | None = field(
        default=None,
        metadata={"help": "The model that this is about, as result files call it. Default: the run's folder."},
    )
    title: str | None = field(default=None, metadata={"help": "Heading of the page. Default: the model's name."})
    pretraining: str | None = field(default=None, metadata={"help": "The output_dir of run_mlm.py."})
    benchmark: str | None = field(default=None, metadata={"help": "What run_benchmark.py wrote."})
    mlm_eval: str | None = field(default=None, metadata={"help": "What run_mlm_eval.py wrote."})
    freshness: str | None = field(default=None, metadata={"help": "What run_freshness.py wrote."})
    blimp: str | None = field(default=None, metadata={"help": "What run_blimp.py wrote."})
    probes: str | None = field(default=None, metadata={"help": "What run_probes.py wrote."})
    cpu_benchmark: str | None = field(default=None, metadata={"help": "What run_cpu_benchmark.py wrote."})
    months: list[str] = field(
        default_factory=list, metadata={"help": "Updates in a row: the folders that make update wrote, oldest first."}
    )
    data: str | None = field(default=None, metadata={"help": "The corpus, for its data card (README.md)."})
    device_watts: float | None = field(
        default=None, metadata={"help": "Power of one device (GPU, or the whole CPU) under load, to estimate energy."}
    )
    power_usage_effectiveness: float = field(
        default=1.0, metadata={"help": "Energy of the building over that of its machines, for the same."}
    )
    license: str | None = field(default=None, metadata={"help": "The model's licence, for the Hub: apache-2.0."})
    language: list[str] = field(default_factory=list, metadata={"help": "The languages of the text, for the Hub: en."})
    hub_datasets: list[str] = field(default_factory=list, metadata={"help": "Hub ids of the text, for the Hub."})

    def __post_init__(self) -> None:
        check_ranges(self, device_watts="> 0, < 100000", power_usage_effectiveness=">= 1")
        if not self.pretraining:
            refuse_flags(self, {"device_watts": "is for the energy of --pretraining"})
        if self.device_watts is None:
            refuse_flags(self, {"power_usage_effectiveness": "is for --device_watts"})
        if not any(getattr(self, name) for name in ("pretraining", *RESULTS)):
            raise InputError(f"--{', --'.join(('pretraining', *RESULTS))}: name at least one of them")

    @property
    def name(self) -> str:
        return self.model_name or (Path(self.pretraining).resolve().name if self.pretraining else "model")


def shift(markdown: str, level: int = 3) -> str:
    """Markdown whose highest heading is of this level, without lines for pictures."""
    lines, fence = [], ""
    for line in markdown.splitlines():
        if found := re.match(r"`{3,}", line):
            fence = "" if fence == found[0] else fence or found[0]
        if fence or not line.startswith("!["):
            lines.append((line, not fence and re.match(r"#+(?= )", line)))
    highest = min((len(found[0]) for _, found in lines if found), default=1)
    return "\n".join(
        "#" * min(6, len(found[0]) - highest + level) + line[found.end() :] if found else line for line, found in lines
    ).strip()


def fenced(text: str, language: str = "") -> str:
    """A block of code, with a fence that the text does not hold."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"


def again_section(inputs: Inputs) -> str:
    """Commands, recipes, versions: what is needed to get the numbers again."""
    parts = []
    if manifest := inputs.results.get("pretraining"):
        command, commit = inputs.use("pretraining", lambda m: (m["command"], m["commit"]))
        versions = ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items())
        parts += ["### Pretraining", f"At commit `{commit}`, with {versions}:"]
        parts.append(fenced(shlex.join(["python", *command]), "bash"))
        parts += ["All that differs from the defaults:", fenced(inputs.recipe, "yaml")] if inputs.recipe else []
    for name in RESULTS:
        if inputs.results.get(name):
            settings = inputs.use(name, lambda result: result["settings"])
            settings = {key: value for key, value in settings.items() if value not in (None, [], "")}
            text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
            parts += [f"### {SCRIPTS[name]}", f"`python evaluation/{SCRIPTS[name]} --config` a file with:"]
            parts.append(fenced(text, "yaml"))
    return "\n\n".join(parts) or NOT_MEASURED.capitalize() + "."


def make_markdown(args: ReportArguments, inputs: Inputs) -> str:
    """The report without its metadata."""
    rows = summary_rows(inputs, args.name, args)
    sections = {"Summary": markdown_table(["measure", "value", "note"], rows, "|---|---|---|")}
    sections["Training"] = training_section(inputs)
    for name, heading in (
        ("benchmark", "Tasks"),
        ("mlm_eval", "Masked words"),
        ("freshness", "Freshness"),
        ("blimp", "Grammar"),
        ("probes", "Probes"),
        ("cpu_benchmark", "On a CPU"),
    ):
        sections[heading] = shift(results_section(name, inputs))
        if name == "freshness" and inputs.results.get(name):
            picture = "![Bits per byte on held-out text by date, with 95% intervals](freshness.png)"
            sections[heading] = f"{picture}\n\n{sections[heading]}"
    if args.months:
        sections["Months"] = months_section(args.months)
    sections["Cost"] = cost_section(inputs, args)
    sections["Data"] = "\n\n".join(filter(None, [data_section(inputs), shift(inputs.card) if inputs.card else ""]))
    sections["How to get it again"] = again_section(inputs)
    title = escape(args.title or args.name)
    return "\n\n".join([f"# {title}", *(f"## {heading}\n\n{text}" for heading, text in sections.items())]) + "\n"


def draw(inputs: Inputs) -> dict[str, str]:
    """The pictures of the page, by the name of the file that the model card shows in their place."""
    pictures = {}
    if lines := inputs.use("trainer_state", training_lines):
        pictures["curve.png"] = draw_lines(lines, "step", "loss, nats per masked token")
    if found := inputs.use("freshness", freshness_lines):
        pictures["freshness.png"] = draw_lines(found[0], "text of", "bits per byte (lower is better)", found[1])
    return pictures


def main(args: ReportArguments) -> dict[str, Path]:
    inputs = read_inputs(args)
    markdown = make_markdown(args, inputs)
    page = render_page(markdown, draw(inputs))
    metadata = make_metadata(inputs, args)
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    card = markdown
    for name, source in PICTURES.items():
        path = inputs.files[source].parent / name if source in inputs.files else None
        if path and path.is_file():
            with atomic_file(folder / name) as file:
                shutil.copyfile(path, file)
        else:  # the card shows no picture that is not there
            card = re.sub(rf"^!\[.*\]\({re.escape(name)}\)\n\n?", "", card, flags=re.MULTILINE)
    for name, text in (("report.html", page), ("README.md", f"---\n{metadata}---\n\n{card}")):
        write_text(folder / name, text)
    print(f"{folder / 'report.html'} and {folder / 'README.md'}")
    return {"page": folder / "report.html", "card": folder / "README.md"}


if __name__ == "__main__":
    run_script(main, ReportArguments)
