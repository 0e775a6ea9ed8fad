"""Lines of checks in a file: what a step writes, and the program reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read the lines of checks."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def append(file: Path, row: dict[str, Any]) -> None:
    """Append a line; a number that JSON lacks becomes a text."""
    text = json.dumps(row, default=str)
    for number in ("NaN", "-Infinity", "Infinity"):
        text = text.replace(f": {number}", f': "{number}"')
    with file.open("a") as lines:
        lines.write(text + "\n")
