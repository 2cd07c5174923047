"""The table and the picture of run_blimp.py, from its JSON alone."""

from pathlib import Path
from typing import Any

import numpy as np

from shared.figures import new_figure, save_figure
from shared.markdown import escape, markdown_table

CHANCE = 0.5


def make_table(report: dict[str, Any]) -> str:
    """The report as Markdown: all pairs, fields and phenomena; a mean and its standard error in percent."""
    models = report["models"]

    def row(name: str, *keys: str) -> list[str]:
        cells = []
        for scores in models.values():
            for key in keys:
                scores = scores[key]
            cells.append(f"{100 * scores['accuracy']:.1f} ± {100 * scores['standard_error']:.1f}")
        return [name, f"{scores['pairs']:,}", *cells]

    first = next(iter(models.values()))
    rows = [row("**all pairs**", "overall")]
    rows += [row(f"*{escape(name)}*", "fields", name) for name in first["fields"]]
    rows += [row(escape(name), "phenomena", name) for name in first["phenomena"]]
    ties = ", ".join(f"{escape(name)} {scores['ties']:.1%}" for name, scores in models.items())
    table = markdown_table(["minimal pairs", "pairs", *map(escape, models)], rows)
    minutes = ", ".join(f"{escape(name)} {scores['seconds'] / 60:.1f}" for name, scores in models.items())
    return (
        f"{table}\n\nAccuracy in percent and its standard error. Chance is 50; equal scores count half ({ties}). "
        f"Minutes on {report['hardware']['device']}: {minutes}.\n"
    )


def draw(report: dict[str, Any], path: Path) -> None:
    """A bar for each phenomenon and model, with the line of chance."""
    models = report["models"]
    names = [*next(iter(models.values()))["phenomena"]]
    height = 0.8 / len(models)
    figure = new_figure(8, 1.5 + 0.35 * len(names) * max(1, len(models) / 2))
    axes = figure.subplots()
    for number, (label, scores) in enumerate(models.items()):
        found = [scores["phenomena"][name] for name in names]
        places = np.arange(len(names)) + (number - (len(models) - 1) / 2) * height
        widths, errors = ([100 * row[key] for row in found] for key in ("accuracy", "standard_error"))
        axes.barh(places, widths, height, xerr=errors, label=f"{label} ({100 * scores['overall']['accuracy']:.1f})")
    axes.axvline(100 * CHANCE, color="black", linestyle="--", linewidth=1, label="chance")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="BLiMP accuracy, %", xlim=(0, 100))
    figure.legend(loc="outside upper center", ncols=3)
    save_figure(figure, path)
