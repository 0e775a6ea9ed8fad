"""Lines of checks in a file: what a step writes, and the program reads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read the lines of checks."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def append(file: Path, row: dict[str, Any]) -> None:
    """Append a line; a number that JSON lacks becomes a text."""
    with file.open("a") as lines:
        lines.write(json.dumps(_in_json(row), default=str) + "\n")


def _in_json(value: Any) -> Any:
    """Replace numbers that are not finite in nested values."""
    if isinstance(value, dict):
        return {name: _in_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_in_json(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
