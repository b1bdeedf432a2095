"""How every figure looks: page width, one palette that colour-blind people tell apart, the same bytes every time."""

from pathlib import Path
from typing import Any

from genai.core.dataset import atomic

# Okabe and Ito, "Color universal design", 2008: told apart with any colour vision; black comes last, for baselines
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000"]
WIDTH = 8.0  # inches; at 110 dots an inch a page's width


def new(height: float, rows: int = 1, columns: int = 1, width: float = WIDTH, **subplots: Any) -> tuple[Any, Any]:
    """Return a figure of width x height inches and its axes, (rows, columns) of them or the one."""
    from cycler import cycler
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, **subplots)
    for ax in [axes] if rows * columns == 1 and not hasattr(axes, "flat") else axes.flat:
        ax.set_prop_cycle(cycler(color=PALETTE))
    return figure, axes


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
