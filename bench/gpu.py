"""Checks and measures exported models on a GPU: one command, no network, one table.

    python bench/gpu.py --pack PACK [--minutes 25] [--steps facts,placement,results] [--out DIR]

PACK comes from bench/gpu_pack.py, which also tells how to bring it to a machine without a network. Each step
runs in processes of its own and has a share of the minutes. A check that fails, crashes or takes too long is
a line of the table, and the next one runs. The most valuable steps come first, and in each step the most
valuable models. Needs Python 3.10 or later, ONNX Runtime, NumPy and OpenCV; not PyTorch, ROS 2 or onnx.

Each check is a JSON line in DIR/checks.jsonl and a row of the table in DIR/table.md. `ok` is empty for a
measurement. The exit status is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_steps import STEPS
from gpu_steps.rows import append, read_rows

RUN_STEP = Path(__file__).parent / "gpu_steps" / "run_step.py"
MOST_PROCESSES = 12  # of a step, each of which ended within a check


def main() -> int:
    """Run the steps and print the table."""
    arguments = parse_arguments()
    if not any(arguments.pack.glob("models/*/extractor.onnx")):
        sys.exit(f"no models in {arguments.pack / 'models'}; fix: bench/gpu_pack.py makes the pack")
    models = list(filter(None, arguments.models.split(",")))
    job = {"pack": str(arguments.pack.absolute()), "provider": arguments.provider}
    job |= {"frames": arguments.frames, "models": models}
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "checks.jsonl"
    if not arguments.go_on:
        file.unlink(missing_ok=True)
    deadline = time.monotonic() + 60 * arguments.minutes
    for number, step in enumerate(arguments.steps):
        # Time that earlier steps did not need goes to those that are left.
        share = STEPS[step] / sum(STEPS[later] for later in arguments.steps[number:])
        run_step(step, job, file, time.monotonic() + share * (deadline - time.monotonic()))
    rows = [row for row in read_rows(file) if row["step"] in STEPS]
    text = table(rows)
    (arguments.out / "table.md").write_text(text)
    print(text)
    failed = [row for row in rows if row["ok"] is False]
    print(f"{len(rows)} checks, {len(failed)} failed; {file}")
    return int(bool(failed))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, required=True, help="folder that gpu_pack.py made")
    parser.add_argument("--provider", default="cuda", help="cuda, or cpu to try the program (cuda)")
    parser.add_argument("--minutes", type=float, default=25.0, help="time for all steps (25)")
    parser.add_argument("--steps", type=steps_of, default=list(STEPS), help=f"of {','.join(STEPS)} (all)")
    parser.add_argument("--models", default="", help="names of exports, with commas (all)")
    parser.add_argument("--frames", type=int, default=1000, help="frames of the longest check (1000)")
    parser.add_argument("--out", type=Path, default=Path("gpu_out"), help="folder to write to (gpu_out)")
    parser.add_argument("--go-on", action="store_true", help="keep the checks that DIR has already")
    return parser.parse_args()


def steps_of(text: str) -> list[str]:
    """Check the names of steps."""
    steps = text.split(",")
    if unknown := [step for step in steps if step not in STEPS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is no step; allowed: {', '.join(STEPS)}")
    return steps


def run_step(step: str, job: dict[str, Any], file: Path, deadline: float) -> None:
    """Run a step until its deadline, in one process, and in another one after a check that ended it."""
    for _ in range(MOST_PROCESSES):
        print(f"{step} ...", file=sys.stderr, flush=True)
        begun, before = file.with_suffix(".begun"), len(read_rows(file))
        begun.write_text("start")
        process = subprocess.Popen(
            [sys.executable, str(RUN_STEP), step, str(file), json.dumps(job)],
            env=os.environ | {"PYTHONPATH": python_path()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _, errors = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
            if process.returncode == 0:
                return
            last = errors.decode(errors="replace").strip().splitlines()[-1:]
            reason = f"the process ended with {process.returncode}; {' '.join(last)[-200:]}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            reason = "no time was left"
        check = begun.read_text()
        append(
            file,
            {"step": step, "check": check, "ok": False, "seconds": None, "figures": {}, "error": reason},
        )
        stopped = reason == "no time was left" or (len(read_rows(file)) == before + 1 and check == "start")
        if stopped:
            return


def python_path() -> str:
    """Return folders of imports for a step: this one, and the checkout if no package is installed."""
    folders = [str(Path(__file__).parent)]
    if importlib.util.find_spec("lightglue_ros") is None:
        folders.append(str(Path(__file__).parents[1]))
    return os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])


def table(rows: list[dict[str, Any]]) -> str:
    """Write the checks as a Markdown table."""
    lines = ["| step | check | ok | s | figures |", "| --- | --- | --- | ---: | --- |"]
    for row in rows:
        ok = {True: "yes", False: "NO", None: ""}[row["ok"]]
        figures = row["error"] or ", ".join(
            f"{name} {text_of(value)}" for name, value in row["figures"].items() if value not in ("", {})
        )
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        lines.append(f"| {row['step']} | {row['check']} | {ok} | {seconds} | {figures.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def text_of(value: Any) -> str:
    """Write a figure with four digits."""
    if isinstance(value, dict):
        return "; ".join(f"{name} {text_of(inner)}" for name, inner in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
