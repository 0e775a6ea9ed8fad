"""Tables of measurements: printed in Markdown, and if asked for kept as JSON and drawn as a picture."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lightglue_ros.cli.bench import machine

Cell = str | int | float
# Measurements of models alone: the originals, the peers and ONNX Runtime by default spin, so ours does, too.
THREADS_SPIN = "threads spin within a run"


@dataclass(frozen=True)
class Table:
    """A table, and how to draw it.

    Attributes:
        title: what was measured on what.
        columns: their heads.
        rows: a cell for each column; the same type all the way down.
        x, y: the columns to draw one over the other; numbers as lines, texts as bars.
        series: the column whose values are lines or bars of their own, if any.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    x: str
    y: str
    series: str | None = None

    def column(self, name: str) -> list[Cell]:
        """Return the cells of a column."""
        return [row[self.columns.index(name)] for row in self.rows]


def parser_of(description: str) -> argparse.ArgumentParser:
    """Return a command line with the options of all measurements that print tables."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is timed, in turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the tables there as well")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw them (needs matplotlib)")
    return parser


def print_head(title: str, *versions: str) -> None:
    """Print the title, the command, the machine, and how busy the machine was before."""
    command = shlex.join(["python", f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    print(f"# {title}\n\n    {command}\n\n{', '.join([machine(), *versions])};")
    print(f"load average {os.getloadavg()[0]:.1f} at the start, which should be near 0.", flush=True)


def print_table(table: Table) -> None:
    """Print in Markdown, numbers to the right."""
    print(f"\n{table.title}\n\n| {' | '.join(table.columns)} |")
    first = table.rows[0] if table.rows else table.columns
    print(f"| {' | '.join('---' if isinstance(cell, str) else '---:' for cell in first)} |")
    for row in table.rows:
        print(f"| {' | '.join(text_of(cell) for cell in row)} |", flush=True)


def keep(tables: Sequence[Table], arguments: argparse.Namespace) -> None:
    """Write what `parser_of`'s options ask for."""
    if arguments.json:
        kept = {"command": sys.argv, "machine": machine(), "tables": [asdict(table) for table in tables]}
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
    if arguments.plot:
        from plots import draw

        draw(tables, arguments.plot)


def text_of(cell: Cell) -> str:
    """Return a number with three digits, or all digits before the point."""
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
