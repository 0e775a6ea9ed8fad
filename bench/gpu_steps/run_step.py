"""Runs the checks of a step in this process, and appends a JSON line for each to a file.

A check that has a line already is left out, so that a step goes on after a check that ended its process.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

from gpu_steps.job import Check, Job, Outcome
from gpu_steps.rows import append, read_rows

NOTHING = "no file of the pack is for this step"
MOST_CHARACTERS = 500  # of an error


def result_of(check: Check) -> dict[str, Any]:
    """Run a check; an error is a check that failed."""
    start = time.perf_counter()
    try:
        outcome, error = check(), ""
    # The next check must run, whatever this one raises.
    except Exception as raised:
        outcome, error = Outcome(False), shortened(" ".join(f"{type(raised).__name__}: {raised}".split()))
    seconds = round(time.perf_counter() - start, 3)
    return {"ok": outcome.ok, "seconds": seconds, "figures": outcome.figures, "error": error}


def shortened(text: str) -> str:
    """Cut the middle of a long text: ONNX Runtime tells the cause at the end."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[:100]} ... {text[-(MOST_CHARACTERS - 105) :]}"


def main() -> None:
    """Run what is left of a step."""
    step, file, job = sys.argv[1], Path(sys.argv[2]), Job.from_json(sys.argv[3])
    done = {row["check"] for row in read_rows(file) if row["step"] == step}
    begun = file.with_suffix(".begun")
    checks = list(importlib.import_module(f"gpu_steps.{step}").checks(job))
    for name, check in checks:
        if name not in done:
            begun.write_text(name)
            append(file, {"step": step, "check": name} | result_of(check))
    if not checks:
        append(file, {"step": step, "check": "-"} | result_of(lambda: Outcome(None, {"none": NOTHING})))


if __name__ == "__main__":
    main()
