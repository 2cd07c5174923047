"""The pictures of analyse_corpus.py."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.corpus.analysis_page import MANY, greatest_similarity, similarity
from data_prep.corpus.counts import bin_start
from shared.figures import new_figure, save_figure

SHOWN_REASONS = 12


def draw_pictures(folder: Path, analysis: dict[str, Any]) -> list[str]:
    """Draw each table that has something to show; returns the names of the files."""
    from matplotlib import rc_context

    drawn = []
    for name, draw in (
        ("terms", draw_terms),
        ("rises", draw_rises),
        ("dates", draw_dates),
        ("domains", draw_domains),
        ("duplicates", draw_duplicates),
        ("lengths", draw_lengths),
        ("stages", draw_stages),
    ):
        with rc_context({"text.parse_math": False, "font.size": 9}):  # a term may hold a dollar sign
            figure = draw(analysis)
        if figure is not None:
            save_figure(figure, folder / f"{name}.png")
            drawn.append(f"{name}.png")
    return drawn


def draw_terms(analysis: dict[str, Any]) -> Any:
    """The share of documents with each term, over snapshots."""
    if not analysis["terms"]:
        return None
    totals = analysis["snapshots"]
    figure = new_figure(9, 4.5)
    axes = figure.subplots()
    for term, counts in analysis["terms"].items():
        shares = [100 * counts[name]["term_documents"] / total["documents"] for name, total in totals.items()]
        axes.plot(range(len(totals)), shares, "o-", markersize=4, label=term)
    _name_ticks(axes, list(totals))
    axes.set(ylabel="% of documents with the term", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def draw_rises(analysis: dict[str, Any]) -> Any:
    """The greatest risers and fallers of each pair of snapshots."""
    entries = [entry for entry in analysis["rises"] if entry["risers"]][:3]
    if not entries:
        return None
    figure = new_figure(6 * len(entries), 7)
    grid = figure.subplots(1, len(entries), squeeze=False)
    for axes, entry in zip(grid[0], entries, strict=True):
        rows = [row for row in entry["risers"][:25] if row["z"] > 0][::-1]
        fallers = [row for row in entry["fallers"][:15] if row["z"] < 0]
        rows = fallers[::-1] + rows if len(rows) < 25 else fallers[:15] + rows
        rows.sort(key=lambda row: row["z"])
        colours = ["#c44e52" if row["z"] < 0 else "#4c72b0" for row in rows]
        axes.barh(range(len(rows)), [row["z"] for row in rows], color=colours)
        axes.set_yticks(range(len(rows)), [row["word"] for row in rows])
        axes.set(
            title=f"{entry['first']} to {entry['last']}",
            xlabel="z of the log-odds ratio",
            ylim=(-0.6, len(rows) - 0.4),
        )
        axes.grid(axis="x", alpha=0.3)
    return figure


def draw_dates(analysis: dict[str, Any]) -> Any:
    """Documents by month or year of their dates."""
    kinds = {kind: facts for kind, facts in analysis["dates"].items() if any(f["months"] for f in facts.values())}
    if not kinds:
        return None
    figure = new_figure(9, 3.5 * len(kinds))
    grid = figure.subplots(len(kinds), 1, squeeze=False)
    for axes, (kind, facts) in zip(grid[:, 0], kinds.items(), strict=True):
        months = _all_months(sorted({month for fact in facts.values() for month in fact["months"]}))
        groups = {name: fact["months"] for name, fact in facts.items() if fact["months"]}
        if len(months) > 60 or len({len(month) for month in months}) > 1:  # a year alone has no place among months
            years = sorted({int(month[:4]) for month in months})
            months = [str(year) for year in range(years[0], years[-1] + 1)]
            groups = {name: _by_year(counts) for name, counts in groups.items()}
        if len(groups) > MANY // 2:
            groups = {f"all {len(groups)} snapshots": sum(map(Counter, groups.values()), Counter())}
        bottom = [0] * len(months)
        for name, counts in groups.items():
            heights = [counts.get(month, 0) for month in months]
            colour = f"C{list(facts).index(name)}" if name in facts else None  # the same in both pictures
            axes.bar(range(len(months)), heights, bottom=bottom, label=name, width=0.9, color=colour)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        _name_ticks(axes, months)
        axes.set(title=kind, ylabel="documents")
        axes.legend(fontsize=7)
    return figure


def draw_domains(analysis: dict[str, Any]) -> Any:
    """The largest domains, and the correlation of their counts between snapshots."""
    top = analysis["domains"]["top"][:25][::-1]
    if not top:
        return None
    names = list(analysis["snapshots"])
    correlation = analysis["domains"]["correlation"]["pearson"]
    both = len(names) > 1 and any(value is not None for row in correlation for value in row)
    size = (12, 5.5) if both else (7, 1.5 + 0.17 * len(top))
    figure = new_figure(*size)
    axes = figure.subplots(1, 1 + both, squeeze=False)
    axes[0][0].barh([row["domain"][:40] for row in top], [sum(row["documents"].values()) for row in top])
    axes[0][0].set(xlabel="documents", title="largest domains", xscale="log")
    if both:
        _heat(axes[0][1], names, correlation, "Pearson, log(1 + documents) of domains", -1, 1)
    return figure


def draw_duplicates(analysis: dict[str, Any]) -> Any:
    """Which share of a snapshot's URLs and texts another snapshot has too."""
    names = list(analysis["snapshots"])
    shown = {kind: facts for kind, facts in analysis["duplicates"].items() if greatest_similarity(facts)}
    if not shown:
        return None
    figure = new_figure(6 * len(shown), 5)
    grid = figure.subplots(1, len(shown), squeeze=False)
    for axes, (kind, facts) in zip(grid[0], shown.items(), strict=True):
        values = similarity(facts, "containment")
        np.fill_diagonal(values, np.nan)  # always 1: it would take all the colour
        _heat(axes, names, values, f"share of the row's {kind}s in the column", 0, greatest_similarity(facts))
    return figure


def draw_lengths(analysis: dict[str, Any]) -> Any:
    """How long documents are, in words."""
    histograms = analysis["length_histogram"]
    if len(histograms) > MANY // 2:
        histograms = {f"all {len(histograms)} snapshots": sum(map(Counter, histograms.values()), Counter())}
    figure = new_figure(9, 4.5)
    axes = figure.subplots()
    for name, counts in histograms.items():
        total = sum(counts.values())
        bins: Counter[int] = Counter()  # three of the fine bins together, or short documents would look like a comb
        for key, count in counts.items():
            bins[int(key) // 3] += count
        numbers = range(min(bins), max(bins) + 1)
        axes.plot(
            [bin_start(3 * number) + 1 for number in numbers],
            [100 * bins[number] / total for number in numbers],
            label=name,
            drawstyle="steps-post",
        )
    axes.set(xscale="log", xlabel="words in a document (plus one)", ylabel="% of documents", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return figure


def draw_stages(analysis: dict[str, Any]) -> Any:
    """What each stage kept, and why it dropped the rest."""
    stages = [step for step in analysis["stages"] if step["counts"]["in"]]
    if not stages:
        return None
    from matplotlib import colormaps

    outcomes = [Counter(step["counts"]["dropped"]) + Counter(step["counts"]["bad"]) for step in stages]
    totals = sum(outcomes, Counter())
    reasons = sorted(totals, key=lambda reason: (-totals[reason], reason))[:SHOWN_REASONS]
    for step, counts in zip(stages, outcomes, strict=True):
        counts["other reasons"] = sum(count for reason, count in counts.items() if reason not in reasons)
        counts["kept"] = step["counts"]["kept"]
    figure = new_figure(10, 1.5 + 0.6 * len(stages))
    axes = figure.subplots()
    labels = [f"{number + 1}. {step['stage']}" for number, step in enumerate(stages)]
    left = [0.0] * len(stages)
    colours = [
        "#55a868",
        *[c for i, c in enumerate(colormaps["tab20"].colors) if i not in (4, 5)][: len(reasons)],
        "#bbbbbb",
    ]
    for name, colour in zip(["kept", *reasons, "other reasons"], colours, strict=True):
        widths = [100 * counts[name] / step["counts"]["in"] for step, counts in zip(stages, outcomes, strict=True)]
        if any(widths):
            axes.barh(labels, widths, left=left, color=colour, label=name[:50])
        left = [low + width for low, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="% of the documents that came in", xlim=(0, 100))
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _heat(axes: Any, names: list[str], values: Any, title: str, least: float, most: float) -> None:
    shown = np.array(values, dtype=float)  # None is no number
    image = axes.imshow(shown, vmin=least, vmax=most, cmap="viridis" if least == 0 else "RdBu")
    axes.set_title(title)
    _name_ticks(axes, names)
    axes.set_yticks(axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()])
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    if len(names) <= MANY // 2:
        for (y, x), value in np.ndenumerate(shown):
            if value == value:
                dark = value < 0.6 * most if least == 0 else abs(value) > 0.6
                axes.text(x, y, f"{value:.2g}", ha="center", va="center", fontsize=7, color="w" if dark else "k")


def _name_ticks(axes: Any, names: list[str]) -> None:
    step = -(-len(names) // 30)
    places = range(0, len(names), step)
    turned = len(names) > 8 or max(map(len, names)) > 8
    axes.set_xticks(
        places,
        [names[place][:24] for place in places],
        rotation=45 if turned else 0,
        ha="right" if turned else "center",
    )


def _all_months(months: list[str]) -> list[str]:
    """The months from the first to the last, those in between too; as they are if some are years."""
    if {len(month) for month in months} != {7}:
        return months
    first, last = (int(month[:4]) * 12 + int(month[5:]) - 1 for month in (months[0], months[-1]))
    return [f"{number // 12:04d}-{number % 12 + 1:02d}" for number in range(first, last + 1)]


def _by_year(months: dict[str, int]) -> dict[str, int]:
    years: Counter[str] = Counter()
    for month, count in months.items():
        years[month[:4]] += count
    return years
