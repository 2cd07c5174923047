"""The tables and pictures of run_freshness.py, from its JSON alone."""

from pathlib import Path
from typing import Any

import numpy as np

from evaluation.masked.dated_text import days_of, parse_date
from shared.figures import new_figure, save_figure
from shared.markdown import escape, markdown_table


def make_table(report: dict[str, Any]) -> str:
    """The report as Markdown: gains, the matrix of models and periods, and new words."""
    parts = [_gains(report), _matrix(report)] if "text" in report else []
    parts += [_words(report)] if "new_words" in report else []
    return "\n".join(filter(None, parts))


def _between(low_high: list[float], form: str) -> str:
    return f"{low_high[0]:{form}} to {low_high[1]:{form}}"


def _gains(report: dict[str, Any]) -> str:
    text = report["text"]
    if "gains" not in text:
        return ""
    rows = []
    for label, found in text["gains"].items():
        leads = [f"{found[f'lead_{part}']:+.3f}" for part in ("early", "late")]
        gain = f"**{found['gain']:+.3f}** ({_between(found['gain_interval'], '+.3f')})"
        rows.append([escape(label), *leads, gain, "yes" if found["is_fresher"] else "not shown"])
    old = text["old"]
    until = report["cutoffs"][old]
    head = ["model", f"lead over {escape(old)} on text to {until}", "lead on later text", "freshness gain", "fresher"]
    return f"{markdown_table(head, rows)}\n\nBits per byte, with 95% intervals over documents; positive is better.\n"


def _matrix(report: dict[str, Any]) -> str:
    text, cutoffs = report["text"], report["cutoffs"]
    rows = []
    for label in _by_cutoff(report):
        cells = [f"{period['models'][label]['bits_per_byte']:.3f}" for period in text["periods"]]
        known = _known(cutoffs[label], text)
        cells[known:] = [f"*{value}*" for value in cells[known:]]
        rows.append([escape(label), cutoffs[label] or "", *cells])
    counts = ["documents", "", *(f"{period['documents']:,}" for period in text["periods"])]
    table = markdown_table(["model", "trained to", *(period["name"] for period in text["periods"])], [*rows, counts])
    shares = ", ".join(
        f"{escape(label)} {'unknown' if share is None else share}"
        for label, share in text["held_out_in_training"].items()
    )
    return (
        f"{table}\n\nBits per byte on held-out text of each {report['settings']['period']}; in italics text that is "
        f"later than the model's. Share of documents held out in training: {shares}.\n"
    )


def _words(report: dict[str, Any]) -> str:
    rows = []
    for label, mean in report["new_words"]["means"].items():
        cells = [f"{mean['tokens']:.2f}", f"{mean['tokens_controls']:.2f}"]
        cells += [f"{mean['advantage']:+.2f} ({_between(mean['advantage_interval'], '+.2f')})"]
        cells += [f"{mean['rank']:.2f} ({_between(mean['rank_interval'], '.2f')})", f"{mean['chance_rank']:.2f}"]
        rows.append([escape(label), *cells])
    head = ["model", "tokens of a new word", "of an old one", "advantage, nats", "rank", "rank by chance"]
    count = len(next(iter(report["new_words"]["words"].values())))
    lines = [
        f"{count} new words, each in a sentence that old words fit as well. Advantage: pseudo-log-likelihood of the "
        "sentence with the new word, less the mean with an old one. Rank 1: the new word is rated above all old ones."
    ]
    for label, gain in report["new_words"].get("gains", {}).items():
        lines.append(
            f"{escape(label)}, on the {len(gain['words'])} words that came up after the old model's text and not "
            f"after its own: advantage higher by {gain['gain']:+.2f} nats ({_between(gain['gain_interval'], '+.2f')})."
        )
    return f"{markdown_table(head, rows)}\n\n" + "\n\n".join(lines) + "\n"


def _known(cutoff: str | None, text: dict[str, Any]) -> int:
    """How many periods, which are in order, a model could know: those that began before its text ended."""
    if cutoff is None:
        return len(text["periods"])
    return sum(days_of(period["name"]).first <= parse_date(cutoff).last for period in text["periods"])


def _by_cutoff(report: dict[str, Any]) -> list[str]:
    return sorted(report["models"], key=lambda label: report["cutoffs"][label] or "9999")


def draw_all(report: dict[str, Any], folder: Path) -> None:
    """Write a picture of each part that was measured."""
    if "text" in report:
        save_figure(_draw_text(report), folder / "freshness.png")
        if sum(cutoff is not None for cutoff in report["cutoffs"].values()) > 1:
            save_figure(_draw_matrix(report), folder / "matrix.png")
    if "new_words" in report:
        save_figure(_draw_words(report), folder / "new_words.png")


def _label_periods(axes: Any, names: list[str]) -> None:
    step = max(1, len(names) // 16)
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=45 if len(names) > 8 else 0)
    axes.grid(alpha=0.3)


def _mark_cutoffs(axes: Any, report: dict[str, Any]) -> None:
    """A dotted line behind the last period that each model could know, in the model's colour."""
    for number, label in enumerate(report["models"]):
        known = _known(report["cutoffs"][label], report["text"])
        if 0 < known < len(report["text"]["periods"]):
            axes.axvline(known - 0.5, color=f"C{number}", linestyle=":")


def _draw_line(axes: Any, rows: list[dict[str, Any]], key: str, color: str, label: str) -> None:
    """A value of each period, in a band that is its interval."""
    places, (low, high) = range(len(rows)), np.array([row[f"{key}_interval"] for row in rows]).T
    axes.plot(places, [row[key] for row in rows], "o-", color=color, markersize=4, label=label)
    axes.fill_between(places, low, high, color=color, alpha=0.2)


def _draw_text(report: dict[str, Any]) -> Any:
    """Above, bits per byte by period; below, by how much the lead over the old model is larger than on early text.

    A model that is merely better stays at zero. Bands are 95% intervals.
    """
    text = report["text"]
    names = [period["name"] for period in text["periods"]]
    figure = new_figure(8, 7 if "gains" in text else 4.5)
    panels = figure.subplots(2 if "gains" in text else 1, 1, sharex=True, squeeze=False)[:, 0]
    for number, label in enumerate(report["models"]):
        found, cutoff = [period["models"][label] for period in text["periods"]], report["cutoffs"][label]
        legend = f"{label} (text to {cutoff})" if cutoff else label
        _draw_line(panels[0], found, "bits_per_byte", f"C{number}", legend)
        if "gains" in text and label != text["old"]:
            gain = text["gains"][label]
            legend = f"{label}: gain {gain['gain']:+.3f} ({_between(gain['gain_interval'], '+.3f')})"
            _draw_line(panels[1], gain["periods"], "above_early", f"C{number}", legend)
    panels[0].set(ylabel="bits per byte (lower is better)", title="Held-out text by date")
    panels[0].legend()
    for axes in panels:
        _label_periods(axes, names)
        _mark_cutoffs(axes, report)
    if "gains" in text:
        panels[1].axhline(0, color="black", linewidth=1)
        panels[1].set(ylabel=f"lead over {text['old']}, less its mean\non text that both know")
        panels[1].legend()
    return figure


def _draw_matrix(report: dict[str, Any]) -> Any:
    """Models by cutoff, periods by date. Colour: bits per byte without the means of model and period."""
    text = report["text"]
    labels = [label for label in _by_cutoff(report) if report["cutoffs"][label]]
    names = [period["name"] for period in text["periods"]]
    values = np.array([[period["models"][label]["bits_per_byte"] for period in text["periods"]] for label in labels])
    apart = values - values.mean(0, keepdims=True) - values.mean(1, keepdims=True) + values.mean()
    bound = max(abs(apart).max(), 0.02)  # noise stays pale
    figure = new_figure(2.5 + 0.65 * len(names), 1.8 + 0.5 * len(labels))
    axes = figure.subplots()
    image = axes.imshow(apart, cmap="RdYlGn_r", vmin=-bound, vmax=bound, aspect="auto")
    for row, label in enumerate(labels):
        for column in range(len(names)):
            axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", fontsize=8)
        known = _known(report["cutoffs"][label], text)
        axes.plot([known - 0.5] * 2, [row - 0.5, row + 0.5], color="black", linewidth=2)
    axes.set_yticks(range(len(labels)), [f"{label}\n(to {report['cutoffs'][label]})" for label in labels])
    axes.set_xticks(range(len(names)), names, rotation=45)
    axes.set(title="Bits per byte; behind the bar: later than the model's text", xlabel="text of")
    figure.colorbar(image, label="above expected", shrink=0.8)
    return figure


def _draw_words(report: dict[str, Any]) -> Any:
    """A row for each word, by date of first use; a point for each model's advantage."""
    found = report["new_words"]["words"]
    words = next(iter(found.values()))
    figure = new_figure(8, 1.5 + 0.27 * len(words))
    axes = figure.subplots()
    for number, label in enumerate(report["models"]):
        values = [row["advantage"] for row in found[label]]
        axes.plot(values, range(len(words)), "o", color=f"C{number}", markersize=5, label=label)
        if cutoff := report["cutoffs"][label]:
            known = sum(parse_date(row["first_use"]).first <= parse_date(cutoff).last for row in words)
            if 0 < known < len(words):
                axes.axhline(known - 0.5, color=f"C{number}", linestyle=":")
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(words)), [f"{row['term']} ({row['first_use']})" for row in words])
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.set(xlabel="nats that the new word is ahead of old words of like frequency", title="New words")
    axes.legend()
    return figure
