"""Pictures as PNG files, drawn by matplotlib without a screen."""

from pathlib import Path
from typing import Any, Literal

from shared.files import atomic_file

LAYOUT: Literal["constrained"] | None = "constrained"  # half the time of a picture; tests do without


def new_figure(width: float, height: float) -> Any:
    """An empty figure of `width` x `height` inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: only the process that writes needs it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=LAYOUT)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure as PNG, 150 dots to the inch."""
    with atomic_file(path) as file:
        figure.savefig(file, dpi=150)
