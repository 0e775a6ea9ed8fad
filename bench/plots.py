"""Draws tables with matplotlib, which nothing else here needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tables import Table

COLUMNS = 3  # of tables in a picture


def draw(tables: Sequence[Table], path: Path) -> None:
    """One picture of all tables.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install matplotlib") from None
    rows = -(-len(tables) // COLUMNS)
    figure = Figure(figsize=(5.5 * min(len(tables), COLUMNS), 3.5 * rows), layout="constrained")
    for number, table in enumerate(tables, start=1):
        axes = figure.add_subplot(rows, min(len(tables), COLUMNS), number)
        axes.set_title(table.title, fontsize="small", wrap=True)
        places, heights = table.column(table.x), table.column(table.y)
        names = table.column(table.series) if table.series else [""] * len(places)
        for name in dict.fromkeys(names):
            chosen = [row for row, own in enumerate(names) if own == name]
            x, y = ([column[row] for row in chosen] for column in (places, heights))
            if isinstance(x[0], str):
                axes.barh(x, y, label=name)
            else:
                axes.plot(x, y, marker="o", label=name)
                axes.set_ylim(bottom=0)
        if isinstance(places[0], str):
            axes.invert_yaxis()
            axes.set_xlabel(table.y)
        else:
            axes.set(xlabel=table.x, ylabel=table.y)
        if table.series:
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
