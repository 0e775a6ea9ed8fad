"""Draws tables with matplotlib, which nothing else here needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tables import Table


def draw(tables: Sequence[Table], path: Path) -> None:
    """One picture, the tables side by side.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(5.5 * len(tables), 4), layout="constrained")
    for axes, table in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables, strict=True):
        places, heights = table.column(table.x), table.column(table.y)
        names = table.column(table.series) if table.series else [""] * len(places)
        is_text = any(isinstance(place, str) for place in places)
        for name in dict.fromkeys(names):
            points = [(x, y) for x, y, own in zip(places, heights, names, strict=True) if own == name]
            if is_text:
                axes.barh(*zip(*points, strict=True), label=name)
            else:
                axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set_title(table.title, fontsize="small", wrap=True)
        axes.set_xlabel(table.y if is_text else table.x)
        axes.set_ylabel("" if is_text else table.y)
        if is_text:
            axes.invert_yaxis()
        if table.series:
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
