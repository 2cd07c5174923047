"""The sections of make_report.py: Markdown, lines of charts and metadata, each from result files alone."""

from typing import Any

from evaluation.cpu import page as cpu_page
from evaluation.cpu.page import TITLES, find_best, span
from evaluation.report.inputs import Inputs
from evaluation.report.page import Line
from evaluation.tasks import page as tasks_page
from evaluation.tasks.definitions import TASKS
from evaluation.tasks.page import CONTROLS
from shared.errors import InputError
from shared.markdown import escape, markdown_table
from shared.training.card import readable

NOT_MEASURED = "not measured"
MEASURES = {  # of run_mlm.py
    "eval_loss": "loss, nats per masked token",
    "eval_perplexity": "perplexity of masked tokens",
    "eval_masked_accuracy": "masked accuracy",
    "eval_most_frequent_token_accuracy": "masked accuracy of always guessing the most frequent token",
    "eval_bits_per_byte": "bits per byte (held-out part of the training text)",
    "train_loss": "mean training loss",
    "train_tokens": "tokens",
    "train_tokens_per_second": "tokens per second",
}
PIPELINES = {"run_glue": "text-classification", "run_ner": "token-classification", "run_qa": "question-answering"}


def results_section(name: str, inputs: Inputs) -> str:
    """The tables of a result, as the script that wrote it makes them."""
    # Here, so that --help need not wait for torch.
    from evaluation.masked import blimp_page, eval_page, freshness_page, probes_page

    pages = {"benchmark": tasks_page, "mlm_eval": eval_page, "freshness": freshness_page, "blimp": blimp_page}
    pages |= {"probes": probes_page, "cpu_benchmark": cpu_page}
    return inputs.use(name, pages[name].make_table) or NOT_MEASURED.capitalize() + "."


def of_model(result: dict[str, Any], name: str, models: Any) -> Any:
    """The entry of this model, or of the only one. Raises InputError."""
    names = [one for one in models if one not in CONTROLS]
    if name not in names and len(names) != 1:
        raise InputError(f"--model_name {name}: the results are of {', '.join(map(str, names))}; name one of them")
    return name if name in names else names[0]


def _whose(label: str, name: str) -> str:
    """The label before a number that is not of the model that the page is about."""
    return "" if label == name else f"{label}: "


def summary_rows(inputs: Inputs, name: str, args: Any) -> list[list[str]]:
    """(measure, value, note) of the most important numbers, what was not measured included."""
    parts = {
        "Task average": inputs.use("benchmark", _tasks, name),
        "Masked accuracy": inputs.use("pretraining", _masked_accuracy),
        "Bits per byte": inputs.use("mlm_eval", _bits, name) or inputs.use("pretraining", _own_bits),
        "Freshness gain": inputs.use("freshness", _gain, name),
        "BLiMP accuracy": inputs.use("blimp", _pairs, name),
        "On a CPU": inputs.use("cpu_benchmark", _cpu, name),
        "Pretraining": inputs.use("pretraining", _effort),
        "Energy": inputs.use("pretraining", _energy, args),
    }
    return [[measure, *(found or (NOT_MEASURED, ""))] for measure, found in parts.items()]


def _percent(value: float, spread: float | None = None) -> str:
    return f"{100 * value:.1f}%" + ("" if spread is None else f" ± {100 * spread:.1f}")


def _tasks(result: dict[str, Any], name: str) -> tuple[str, str] | None:
    averages, tasks = result["averages"], result["settings"]["tasks"]
    label = of_model(result, name, averages)
    if averages[label] is None:
        return None
    notes = [f"{_whose(label, name)}{', '.join(tasks)}", f"{len(result['settings']['seeds'])} seeds"]
    others = {control: averages[control] for control in CONTROLS if averages.get(control)}
    if others:
        notes.append(", ".join(f"{control} {_percent(found['mean'])}" for control, found in others.items()))
    return _percent(averages[label]["mean"], averages[label]["std"]), escape("; ".join(notes))


def _masked_accuracy(manifest: dict[str, Any]) -> tuple[str, str] | None:
    found = manifest.get("results", {})
    if "eval_masked_accuracy" not in found:
        return None
    note, base = "of 15% of the tokens of held-out text", found.get("eval_most_frequent_token_accuracy")
    note += "" if base is None else f"; the most frequent token: {_percent(base)}"
    return _percent(found["eval_masked_accuracy"]), note


def _own_bits(manifest: dict[str, Any]) -> tuple[str, str] | None:
    value = manifest.get("results", {}).get("eval_bits_per_byte")
    if value is None:
        return None
    return f"{value:.3f}", "masked tokens of the held-out part of the training text; less is better"


def _bits(result: dict[str, Any], name: str) -> tuple[str, str]:
    label = of_model(result, name, result["models"])
    row = result["models"][label]
    low, high = row["bits_per_byte_interval"]
    text = " ".join(result["settings"]["input"])
    note = f"{_whose(label, name)}95% interval {low:.3f} to {high:.3f}; {row['documents']:,} documents of {text}"
    return f"{row['bits_per_byte']:.3f}", escape(note)


def _gain(result: dict[str, Any], name: str) -> tuple[str, str] | None:
    gains = result.get("text", {}).get("gains")
    if not gains:
        return None
    label = of_model(result, name, gains)
    low, high = gains[label]["gain_interval"]
    verdict = "fresher" if gains[label]["is_fresher"] else "not shown to be fresher"
    old = result["text"]["old"]
    than = f"{verdict} than {old} (text to {result['cutoffs'][old]})"
    value = f"{gains[label]['gain']:+.3f} bits per byte"
    return value, escape(f"{_whose(label, name)}95% interval {low:+.3f} to {high:+.3f}: {than}")


def _pairs(result: dict[str, Any], name: str) -> tuple[str, str]:
    label = of_model(result, name, result["models"])
    row = result["models"][label]["overall"]
    note = escape(f"{_whose(label, name)}{row['pairs']:,} minimal pairs; chance: 50%")
    return _percent(row["accuracy"], row["standard_error"]), note


def _cpu(result: dict[str, Any], name: str) -> tuple[str, str] | None:
    label = name if name in result["models"] else next(iter(result["models"]))
    model = result["models"][label]
    best, threads = find_best(model)
    cells = model["variants"][best]["threads"][threads]["latency"]
    return f"{span((cell['p50_ms'] for cell in cells.values()), '.2f')} ms", escape(
        f"{label}: batch size 1, {span(map(int, cells))} tokens, threads: {threads}, {TITLES[best]}: "
        f"{span((cell['ratio'] for cell in cells.values()), '.1f')} times as fast as eager PyTorch"
    )


def _effort(manifest: dict[str, Any]) -> tuple[str, str] | None:
    tokens = manifest.get("results", {}).get("train_tokens")
    if tokens is None:
        return None
    return f"{readable(tokens)} tokens", escape(f"{_hours(manifest):.2f} h on {manifest['hardware']['device']}")


def _hours(manifest: dict[str, Any]) -> float:
    """Hours of the machine, all devices together running once."""
    return float(manifest["seconds"]) / 3600


def _devices(manifest: dict[str, Any]) -> int:
    """GPUs, of all machines; the CPUs of a machine are one device."""
    return int(manifest["processes"]) if manifest["hardware"]["gpus"] else 1


def _energy(manifest: dict[str, Any], args: Any) -> tuple[str, str] | None:
    if args.device_watts is None or "seconds" not in manifest:
        return None
    kwh = _hours(manifest) * _devices(manifest) * args.device_watts * args.power_usage_effectiveness / 1000
    return f"{kwh:.3g} kWh", "an estimate, of pretraining alone; its assumptions are under Cost"


def training_section(inputs: Inputs) -> str:
    """The curve, and what the run reported."""

    def rows(manifest: dict[str, Any]) -> list[list[str]]:
        found = manifest.get("results", {})
        return [[title, readable(found[key]) if key in found else NOT_MEASURED] for key, title in MEASURES.items()]

    found = inputs.use("pretraining", rows)
    if found is None:
        return NOT_MEASURED.capitalize() + "."
    table = markdown_table(["measure", "value"], found, "|---|---:|")
    if inputs.results.get("trainer_state"):
        return f"![Loss on training text, and on held-out text](curve.png)\n\n{table}"
    return table


def training_lines(state: dict[str, Any]) -> list[Line]:
    """Training and evaluation loss over steps."""
    lines = []
    for key, label in (("loss", "training"), ("eval_loss", "held-out text")):
        if points := [(float(row["step"]), float(row[key])) for row in state["log_history"] if key in row]:
            lines.append(Line(label, points, dots=key != "loss"))
    return lines


def freshness_lines(result: dict[str, Any]) -> tuple[list[Line], list[str]] | None:
    """Bits per byte of each model by period, and the names of the periods."""
    periods = result.get("text", {}).get("periods")
    if not periods:
        return None
    lines = []
    for label in result["models"]:
        found, cutoff = [period["models"][label] for period in periods], result["cutoffs"][label]
        points = [(float(place), row["bits_per_byte"]) for place, row in enumerate(found)]
        bands = [tuple(row["bits_per_byte_interval"]) for row in found]
        lines.append(Line(f"{label} (text to {cutoff})" if cutoff else label, points, bands, dots=True))
    return lines, [period["name"] for period in periods]


def cost_section(inputs: Inputs, args: Any) -> str:
    """Device hours, tokens, energy with its assumptions, and what fine-tuning took."""

    def rows(manifest: dict[str, Any]) -> list[list[str]]:
        hours, tokens = _hours(manifest) * _devices(manifest), manifest["results"]["train_tokens"]
        note = " (of the last part: the run was resumed)" if manifest.get("resumed_from") else ""
        return [
            ["hardware", escape(manifest["hardware"]["device"])],
            ["device hours of pretraining", f"{hours:.2f}{note}"],
            ["tokens", readable(tokens)],
            ["tokens per device hour", readable(tokens / hours)],
        ]

    without = [[name, NOT_MEASURED] for name in ("device hours of pretraining", "tokens")]
    table = inputs.use("pretraining", rows) or without
    energy = inputs.use("pretraining", _energy, args)
    table.append(["energy of pretraining", f"about {energy[0]}" if energy else f"{NOT_MEASURED} (--device_watts)"])
    tuning = inputs.use("benchmark", _tuning_hours)
    table.append(["hours of fine-tuning for the task table", f"{tuning:.2f}" if tuning else NOT_MEASURED])
    text = markdown_table(["cost", "value"], table, "|---|---:|")
    if energy:
        text += (
            f"\n\nEnergy is an estimate and not a measurement: device hours times {args.device_watts:g} W per device, "
            f"as if it drew that all the time, times {args.power_usage_effectiveness:g} for the building. Left out: "
            "failed and earlier runs, data preparation, evaluation, and making the hardware."
        )
    return text


def _tuning_hours(result: dict[str, Any]) -> float:
    return sum(cell.get("seconds", 0.0) for cells in result["results"].values() for cell in cells.values()) / 3600


def data_section(inputs: Inputs) -> str:
    """The text that the run read, from its manifest."""

    def tables(manifest: dict[str, Any]) -> str:
        read = manifest["inputs"]
        head = ["documents", "tokens", "bytes"]
        rows = [[escape(split), *(counts[key] for key in head)] for split, counts in read["splits"].items()]
        splits = markdown_table(["split", *head], rows, "|---|---:|---:|---:|")
        rows = []
        for source in read["sources"]:
            size, name = source.get("bytes"), source.get("file") or source.get("dataset_name") or "unnamed"
            rows.append([escape(name), "" if size is None else size, f"`{source.get('sha256', '')[:16]}`"])
        sources = markdown_table(["source", "bytes", "SHA-256"], rows, "|---|---:|---|")
        skipped = ", ".join(f"{escape(reason)} {count:,}" for reason, count in read.get("skipped", {}).items())
        return f"{splits}\n\n{sources}\n\nLeft out: {skipped or 'nothing'}."

    return inputs.use("pretraining", tables) or ("" if inputs.card else NOT_MEASURED.capitalize() + ".")


def make_metadata(inputs: Inputs, args: Any) -> str:
    """The model card's metadata as YAML, with a model-index of the numbers that were measured."""
    from huggingface_hub import EvalResult, ModelCardData

    found: list[EvalResult] = []

    def add(task: str, data: str, name: str, metric: str, value: float, **more: Any) -> None:
        found.append(EvalResult(task, data, name, metric, round(value, 5), **more))

    def pretraining(manifest: dict[str, Any]) -> None:
        for key in ("eval_masked_accuracy", "eval_bits_per_byte"):
            if (value := manifest.get("results", {}).get(key)) is not None:
                metric = key.removeprefix("eval_")
                add("fill-mask", "text", "held-out text", metric, value, metric_name=MEASURES[key])

    def benchmark(result: dict[str, Any]) -> None:
        for task, cell in result["results"][of_model(result, args.name, result["averages"])].items():
            if "mean" in cell:
                facts = result["tasks"][task]
                data = TASKS[task].flags.get("dataset_name", task) if task in TASKS else task
                more = {"dataset_config": task if data == "nyu-mll/glue" else None, "dataset_split": "validation"}
                more["metric_name"] = f"{facts['metric'].replace('_', ' ')}, mean of {len(cell['seeds'])} seeds"
                kind = PIPELINES.get(facts["script"], "text-classification")
                add(kind, data, task, facts["metric"], cell["mean"], **more)

    def blimp(result: dict[str, Any]) -> None:
        row = result["models"][of_model(result, args.name, result["models"])]["overall"]
        name = f"accuracy on {row['pairs']} minimal pairs"
        add("fill-mask", "nyu-mll/blimp", "BLiMP", "accuracy", row["accuracy"], metric_name=name)

    for name, function in (("pretraining", pretraining), ("benchmark", benchmark), ("blimp", blimp)):
        inputs.use(name, function)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="fill-mask",
        tags=["tiny-olm"],
        license=args.license,
        language=args.language or None,
        datasets=args.hub_datasets or None,
        model_name=args.name if found else None,
        eval_results=found or None,
    )
    return data.to_yaml().strip() + "\n"
