"""Kernels: the most expensive operators, by ONNX Runtime's profiler.

The released builds do not trace CUDA's kernels, and a node's time there is that of its launch. So CUDA waits
for each launch (CUDA_LAUNCH_BLOCKING), which makes it the time of its kernels and about 10 µs.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from gpu_steps.job import Checks, Export, Job, OnDevice, Outcome, inputs_of, raw_session
from lightglue_ros.core.contract import EXTRACTOR, MATCHER

MOST = 15
RUNS = 10


def checks(job: Job) -> Checks:
    """Yield a check of each graph of the exports with fixed shapes, or of all if there are none."""
    # CUDA reads this when it starts, and this process has done nothing else.
    os.environ["CUDA_LAUNCH_BLOCKING"] = "1"
    for export in job.exports(static=True) or job.exports():
        for graph in (EXTRACTOR, MATCHER):
            yield f"{export.name} {graph}", partial(most_expensive, job, export, graph)


def most_expensive(job: Job, export: Export, graph: str) -> Outcome:
    """Sum the times of nodes of a kind and a shape, and of CUDA's kernels where they are traced."""
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
    nodes, kernels = Counter(), Counter()
    for event in events:
        if event.get("ts", 0) < since:
            continue
        if event.get("cat") == "Kernel":
            kernels[event["name"]] += event["dur"]
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            arguments = event.get("args", {})
            nodes[f"{arguments.get('op_name')} {shapes(arguments)}".strip()] += event["dur"]
    total = sum(nodes.values()) or 1
    figures = {"total_ms": total / runs / 1e3, "kinds": len(nodes)}
    for title, counts in (("nodes", nodes), ("kernels", kernels)):
        figures[title] = {name: round(spent / runs / 1e3, 4) for name, spent in counts.most_common(MOST)}
    return Outcome(None, figures)


def shapes(arguments: dict) -> str:
    """Describe the shapes of a node's inputs."""
    inputs = arguments.get("input_type_shape", [])
    sizes = ("x".join(map(str, next(iter(entry.values())))) for entry in inputs)
    return " ".join(size for size in sizes if size)
