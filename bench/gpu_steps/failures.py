"""What must fail, in one line that names the cause: no device, no cuDNN, a CUDA graph of free shapes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from gpu_steps.job import Checks, Job, Outcome

PROGRAM = """
import sys
from lightglue_ros.core import LightGlueRosError, MatchPipeline
model, provider, cuda_graph = sys.argv[1:]
try:
    pipeline = MatchPipeline(model, provider, cuda_graph=cuda_graph == "True")
except LightGlueRosError as error:
    print("error:", error)
else:
    print("runs on", pipeline.provider, pipeline.fallback_reason)
"""
DEADLINE = 60  # seconds


def checks(job: Job) -> Checks:
    """Yield the checks."""
    yield "cuda_graph with free shapes", partial(free_shapes, job)
    for provider in ("cuda", "auto"):
        yield f"{provider} without a device", partial(no_device, job, provider)
        if job.provider != "cpu":
            yield f"{provider} without cuDNN", partial(no_cudnn, job, provider)
    yield "tensorrt", partial(load, job, "tensorrt", {})


def no_device(job: Job, provider: str) -> Outcome:
    """Hide all devices."""
    return load(job, provider, {"CUDA_VISIBLE_DEVICES": "-1", "GPUSTUB_DEVICES": "0"})


def no_cudnn(job: Job, provider: str) -> Outcome:
    """Put a file that is no library in front of cuDNN; NVIDIA's Python packages still come first."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "libcudnn.so.9").write_text("no library")
        before = os.environ.get("LD_LIBRARY_PATH", "")
        outcome = load(job, provider, {"LD_LIBRARY_PATH": f"{folder}:{before}"})
    # Where cuDNN comes from a Python package it is not hidden, and the provider may work.
    works = "runs on cuda" in str(outcome.figures["says"])
    return Outcome(None if works else outcome.ok, outcome.figures)


def free_shapes(job: Job) -> Outcome:
    """Ask for a CUDA graph of an export with free shapes."""
    exports = job.exports(static=False)
    if not exports:
        return Outcome(None, {"says": "no export with free shapes in the pack"})
    outcome = load(job, "cuda", {}, exports[0].folder, cuda_graph=True)
    return Outcome(outcome.ok and "has free shapes" in outcome.figures["says"], outcome.figures)


def load(
    job: Job,
    provider: str,
    environment: Mapping[str, str],
    folder: Path | None = None,
    cuda_graph: bool = False,
) -> Outcome:
    """Load a model in a process of its own: one line, an error by name, the CPU with auto."""
    model = folder or job.exports()[0].folder
    paths = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model), provider, str(cuda_graph)],
        env=os.environ | {"PYTHONPATH": paths} | dict(environment),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    lines = (done.stdout + done.stderr).splitlines()
    begins = "runs on cpu" if provider == "auto" else "error:"
    says = lines[0] if lines else f"nothing, status {done.returncode}"
    ok = done.returncode == 0 and len(lines) == 1 and says.startswith(begins)
    return Outcome(ok, {"lines": len(lines), "says": says[:300]})
