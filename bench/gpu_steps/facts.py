"""Facts: the card, the driver, the libraries, and the files of the pack."""

from __future__ import annotations

import ctypes
import hashlib
import json
import platform
import shutil
import subprocess

import numpy as np

from gpu_steps.job import Checks, Job, Outcome, preload_cuda
from lightglue_ros import __version__
from lightglue_ros.core import providers

QUERY = "name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,power.limit,compute_cap"
LIBRARIES = ("libcuda.so.1", "libcudnn.so.9", "libcublasLt.so", "libnvinfer.so.10")


def checks(job: Job) -> Checks:
    """Yield the checks."""
    yield "versions", lambda: versions(job)
    yield "card", card
    yield "libraries", lambda: libraries(job)
    yield "files", lambda: files(job)


def versions(job: Job) -> Outcome:
    """Check that this build of ONNX Runtime has the provider."""
    ort = providers.onnxruntime()
    has = ort.get_available_providers()
    figures = {
        "lightglue_ros": __version__,
        "onnxruntime": ort.__version__,
        "cuda_of_build": str(getattr(ort, "cuda_version", "")),
        "providers": ", ".join(has),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.platform(),
    }
    return Outcome(providers.ORT_NAMES[job.provider] in has, figures)


def card() -> Outcome:
    """Ask the driver for the card's name, memory and clocks."""
    if shutil.which("nvidia-smi") is None:
        return Outcome(None, {"nvidia-smi": "missing"})
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return Outcome(None, dict(zip(QUERY.split(","), done.stdout.strip().split(", "), strict=False)))


def libraries(job: Job) -> Outcome:
    """See which libraries load; the driver and cuDNN must."""
    preload_cuda()
    major = str(getattr(providers.onnxruntime(), "cuda_version", "") or "13").partition(".")[0]
    loads = {}
    for name in LIBRARIES:
        full = f"{name}.{major}" if name.endswith(".so") else name
        try:
            ctypes.CDLL(full)
            loads[full] = "loads"
        except OSError as error:
            loads[full] = str(error).partition(":")[2].strip() or str(error)
    needed = loads["libcuda.so.1"] == loads["libcudnn.so.9"] == "loads"
    return Outcome(None if job.provider == "cpu" else needed, loads)


def files(job: Job) -> Outcome:
    """Compare the models with the manifest of the pack."""
    manifest = job.pack / "contents.json"
    if not manifest.is_file():
        return Outcome(None, {"contents.json": "missing"})
    expected = json.loads(manifest.read_text())
    wrong = [
        name
        for name, sha256 in expected.items()
        if not (job.pack / name).is_file()
        or hashlib.sha256((job.pack / name).read_bytes()).hexdigest() != sha256
    ]
    names = ", ".join(export.name for export in job.exports())
    return Outcome(not wrong, {"files": len(expected), "wrong": ", ".join(wrong), "exports": names})
