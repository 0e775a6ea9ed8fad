"""Kernels: the most expensive ones, by PyTorch's profiler, which sees those of ONNX Runtime in its process.

Without PyTorch they are operators, by ONNX Runtime's profiler. Its released builds do not trace CUDA's
kernels, and a node's time there is that of its launch. So CUDA waits for each launch (CUDA_LAUNCH_BLOCKING),
which makes it the time of its kernels and about 20 µs.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from gpu_steps.job import (
    Checks,
    Export,
    Job,
    OnDevice,
    Outcome,
    has_torch_on_gpu,
    inputs_of,
    raw_session,
)
from lightglue_ros.core.contract import EXTRACTOR, MATCHER

MOST = 15
RUNS = 10
MOST_CHARACTERS = 60  # of a kernel's name


def checks(job: Job) -> Checks:
    """Yield a check of each graph of the exports with fixed shapes, or of all if there are none."""
    measure = kernels if has_torch_on_gpu() else operators
    if measure is operators:
        # CUDA reads this when it starts, and this process has done nothing else.
        os.environ["CUDA_LAUNCH_BLOCKING"] = "1"
    for export in job.exports(static=True) or job.exports():
        for graph in (EXTRACTOR, MATCHER):
            yield f"{export.name} {graph}", partial(measure, job, export, graph)


def kernels(job: Job, export: Export, graph: str) -> Outcome:
    """Sum the times of the kernels of a name, with how often each runs."""
    import torch

    work = OnDevice(job, raw_session(job, export.file(graph)), inputs_of(export, graph))
    for _ in range(3):
        work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(RUNS):
            work()
    spent, counts = Counter(), Counter()
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            name = event.name[:MOST_CHARACTERS]
            spent[name] += event.device_time
            counts[name] += 1
    milliseconds = {
        f"{counts[name] / RUNS:.0f} {name}": round(time / RUNS / 1e3, 4)
        for name, time in spent.most_common(MOST)
    }
    figures = {"total_ms": sum(spent.values()) / RUNS / 1e3, "kernels": sum(counts.values()) // RUNS}
    return Outcome(None, figures | {"most": milliseconds})


def operators(job: Job, export: Export, graph: str) -> Outcome:
    """Sum the times of nodes of a kind and a shape."""
    with TemporaryDirectory() as folder:
        session = raw_session(job, export.file(graph), profile=Path(folder) / "run")
        work = OnDevice(job, session, inputs_of(export, graph))
        runs = min(RUNS, job.part(0.01))
        for _ in range(runs + 1):
            work()
        events = json.loads(Path(session.end_profiling()).read_text())
    begins = [event["ts"] for event in events if event.get("name") == "model_run"]
    # The first run plans the convolutions.
    since = sorted(begins)[1] if len(begins) > 1 else 0
    nodes = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= since:
            arguments = event.get("args", {})
            nodes[f"{arguments.get('op_name')} {shapes(arguments)}".strip()] += event["dur"]
    figures = {"total_ms": sum(nodes.values()) / runs / 1e3, "kinds": len(nodes)}
    figures["most"] = {name: round(spent / runs / 1e3, 4) for name, spent in nodes.most_common(MOST)}
    return Outcome(None, figures)


def shapes(arguments: dict) -> str:
    """Describe the shapes of a node's inputs."""
    inputs = arguments.get("input_type_shape", [])
    sizes = ("x".join(map(str, next(iter(entry.values())))) for entry in inputs)
    return " ".join(size for size in sizes if size)
