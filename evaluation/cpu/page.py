"""The tables of run_cpu_benchmark.py, made of its result file alone."""

from collections.abc import Iterable
from statistics import geometric_mean
from typing import Any

from shared.markdown import escape, markdown_table
from shared.training.environment import describe_products

MOST_POINTS = 0.5  # a variant that loses more of the score is not recommended
TITLES = {
    "eager": "PyTorch, eager",
    "compile": "torch.compile",
    "torch_bf16": "PyTorch, bf16",
    "torch_int8": "PyTorch, dynamic int8",
    "onnx": "ONNX Runtime",
    "onnx_int8": "ONNX Runtime, dynamic int8",
    "onnx_static": "ONNX Runtime, static int8",
}
METRICS = {"matthews_correlation": "Matthews correlation", "pearson": "Pearson correlation"}


def make_table(report: dict[str, Any]) -> str:
    """All models as Markdown."""
    parts = []
    for name, model in report["models"].items():
        parts += [f"## {escape(name)}", introduce(model), *tables(model)]
    settings = report["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    products = describe_products(report["hardware"])
    if products:
        products = f" ({products}; ONNX Runtime takes those for int8 by itself)"
    parts.append(
        f"{report['hardware']['device']}{products}. Rows that are timed are full; times are medians over "
        f"{settings['rounds']} rounds in which the variants took turns, each in a process of its own, and ratios "
        "medians of the ratios to eager PyTorch of each round. Start: from the launch of Python to the first answer, "
        "tokenizer included. Memory: resident, after the first answer and at most. Agreement: the share of predictions"
        f" that are those of eager PyTorch, in batches of {settings['batch_size']} rows. {versions}."
    )
    return "\n\n".join(parts) + "\n"


def introduce(model: dict[str, Any]) -> str:
    """What the model is, what it was compared on, and which variant to take."""
    data = model["data"]
    facts = f"{model['model_type']}, {model['task'].replace('_', ' ')}, {model['parameters'] / 1e6:.1f}M parameters. "
    source = data["source"]
    facts += f"Compared on {data['rows']:,} {source if source == 'made-up rows' else f'rows of {escape(source)}'}"
    facts += "" if data["places"] is None else f" ({data['places']:,} tokens)"
    facts += "." if data["metric"] else ", without labels: no score."
    return f"{facts} {recommend(model)}"


def find_best(model: dict[str, Any]) -> tuple[str, str]:
    """The fastest variant for one row on the fewest threads, of those that lose little, and these threads: by the
    geometric mean of the ratios to eager PyTorch at each length."""
    threads = next(iter(model["variants"]["eager"]["threads"]))
    found = {
        variant: geometric_mean(row["ratio"] for row in cell["threads"][threads]["latency"].values())
        for variant, cell in model["variants"].items()
        if "failure" not in cell and (cell["parity"]["points"] or 0) >= -MOST_POINTS
    }
    return max(found, key=lambda variant: found[variant]), threads


def span(values: Iterable[Any], form: str = "") -> str:
    """The least and the greatest number in words: "1.9 to 5.8"."""
    found = [*values]
    low, high = f"{min(found):{form}}", f"{max(found):{form}}"
    return low if low == high else f"{low} to {high}"


def recommend(model: dict[str, Any]) -> str:
    """A sentence on that variant."""
    best, threads = find_best(model)
    found = model["variants"][best]
    latency = found["threads"][threads]["latency"]
    rows = f"one row of {span(map(int, latency))} tokens"
    if best == "eager":
        return f"Nothing is faster than eager PyTorch for {rows} without losing {MOST_POINTS} points."
    points, ratios = found["parity"]["points"], span((row["ratio"] for row in latency.values()), ".1f")
    lost = "" if points is None else f", for {_signed(points)} points of {_metric(model)}"
    return f"Fastest for {rows} on {_threads(threads)}: {TITLES[best]}, {ratios} times as fast as eager{lost}."


def tables(model: dict[str, Any]) -> list[str]:
    """What each variant weighs and loses, how fast it is for each number of threads, and what failed."""
    variants = {name: cell for name, cell in model["variants"].items() if "failure" not in cell}
    failures = {name: cell["failure"] for name, cell in model["variants"].items() if "failure" in cell}
    first = next(iter(model["variants"]["eager"]["threads"]))
    metric = [_metric(model), "change, points"] if model["data"]["metric"] else []
    head = ["variant", "file, MiB", "start, s", "memory, MiB", "largest logit difference", "agreement", *metric]
    rows = []
    for name, cell in variants.items():
        parity, run = cell["parity"], cell["threads"][first]
        row = [TITLES[name], "" if cell["file_bytes"] is None else f"{cell['file_bytes'] / 2**20:.1f}"]
        row += [f"{run['start_seconds']:.2f}", f"{run['start_memory_mib']:.0f} / {run['peak_memory_mib']:.0f}"]
        agreement = "" if parity["agreement"] is None else f"{parity['agreement']:.1%}"
        row += [f"{parity['largest_logit_difference']:.2g}", agreement]
        row += [f"{100 * parity['score']:.2f}", _signed(parity["points"])] if metric else []
        rows.append(row)
    parts = [_table(head, rows)]
    for threads, run in model["variants"]["eager"]["threads"].items():
        lengths = list(run["latency"])
        head = ["variant", *(f"{n} tokens: ms p50 (p95)" for n in lengths), *(f"{n}: rows/s" for n in lengths)]
        rows = []
        for name, cell in variants.items():
            timed = cell["threads"][threads]
            latency, throughput = ([timed[key][n] for n in lengths] for key in ("latency", "throughput"))
            row = [f"{one['p50_ms']:.2f} ({one['p95_ms']:.2f}){_ratio(name, one)}" for one in latency]
            row += [f"{one['rows_per_second']:,.0f}{_ratio(name, one)}" for one in throughput]
            rows.append([TITLES[name], *row])
        parts += [f"On {_threads(threads)}: one row at a time, and many at once.", _table(head, rows)]
    return parts + [f"Failed: {TITLES[name]}: {escape(reason, 400)}" for name, reason in failures.items()]


def _table(head: list[str], rows: list[list[str]]) -> str:
    """A table with numbers in all columns but the first."""
    return markdown_table(head, rows, "| --- |" + " ---: |" * (len(head) - 1))


def _metric(model: dict[str, Any]) -> str:
    metric = model["data"]["metric"]
    return "masked accuracy" if model["task"] == "masked_lm" else METRICS.get(metric, metric.replace("_", " "))


def _threads(count: str) -> str:
    return "one thread" if count == "1" else f"{count} threads"


def _ratio(name: str, cell: dict[str, Any]) -> str:
    return "" if name == "eager" else f" **{cell['ratio']:.1f}x**"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
