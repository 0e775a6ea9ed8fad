"""Draws tables with matplotlib, which nothing else here needs.

Tables that a measurement has kept (`--json`) can be drawn later, also with those of others in one picture:

    python bench/plots.py node.json matchers.json -o docs/plots/speed.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import Cell, Table, text_of

COLUMNS = 3  # of tables in a picture
BAR = 0.28  # inches


def main() -> None:
    """Draw the tables of files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="TABLES.json")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.png")
    arguments = parser.parse_args()
    kept = [table for file in arguments.files for table in json.loads(file.read_text())["tables"]]
    draw([Table(**{**table, "columns": tuple(table["columns"])}) for table in kept], arguments.output)


def draw(tables: Sequence[Table], path: Path) -> None:
    """Draw all tables into one picture.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("a picture needs matplotlib: pip install matplotlib") from None
    columns = min(len(tables), COLUMNS)
    rows = -(-len(tables) // columns)
    height = max([2.8, *(1.2 + BAR * len(table.rows) for table in tables if _names(table))])
    width = 5.0 if columns > 1 else 8.0
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    for number, table in enumerate(tables, start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.set_title(table.title, fontsize="small", wrap=True)
        if names := _names(table):
            _draw_bars(axes, names, table)
        else:
            _draw_lines(axes, table)
    figure.savefig(path, dpi=80)


def _names(table: Table) -> list[Cell]:
    """Return the names of the bars; empty if the table is drawn as lines."""
    places = table.column(table.x)
    if isinstance(places[0], str):
        return places
    alone = table.series is not None and len(set(places)) == 1
    return table.column(table.series) if alone else []


def _draw_bars(axes: Any, names: Sequence[Cell], table: Table) -> None:
    heights = table.column(table.y)
    bars = axes.barh(names, heights)
    axes.bar_label(bars, [text_of(height) for height in heights], padding=2, fontsize="small")
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_xlabel(table.y)


def _draw_lines(axes: Any, table: Table) -> None:
    places, heights = table.column(table.x), table.column(table.y)
    names = table.column(table.series) if table.series else [""] * len(places)
    for name in dict.fromkeys(names):
        chosen = [row for row, own in enumerate(names) if own == name]
        axes.plot([places[row] for row in chosen], [heights[row] for row in chosen], marker="o", label=name)
    axes.set_ylim(0, 1.1 * max(heights))
    axes.set(xlabel=table.x, ylabel=table.y)
    if table.series:
        axes.legend(fontsize="small")


if __name__ == "__main__":
    main()
