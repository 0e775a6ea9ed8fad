"""Placement: on which provider ONNX Runtime puts each node, and the copies that it adds between them."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial

from gpu_steps.job import Checks, Export, Job, Outcome, raw_session
from lightglue_ros.core.contract import EXTRACTOR, MATCHER
from lightglue_ros.core.providers import ORT_NAMES


def checks(job: Job) -> Checks:
    """Yield a check of each graph, and of each static graph as a CUDA graph."""
    for export in job.exports():
        for graph in (EXTRACTOR, MATCHER):
            yield f"{export.name} {graph}", partial(placement, job, export, graph)
            if export.info.is_static and job.provider != "cpu":
                yield f"{export.name} {graph} cuda_graph", partial(admission, job, export, graph)


def placement(job: Job, export: Export, graph: str) -> Outcome:
    """Count nodes and copies; a static graph for GPUs must lie wholly on the GPU."""
    log = logged(lambda: raw_session(job, export.file(graph), log=True))
    placed, provider = defaultdict(list), ""
    for line in log.splitlines():
        if found := re.search(r"(?:All nodes|Node\(s\)) placed on \[(\w+)\]", line):
            provider = found[1]
        elif provider and (found := re.search(r"VerifyEachNode\w*\]?\s+(\w[\w.]*) \((.*)\)$", line)):
            placed[provider].append(found[1])
    whole = re.search(r"All nodes placed on \[(\w+)\]\. Number of nodes: (\d+)", log)
    counts = {name: len(nodes) for name, nodes in placed.items()}
    if whole:
        counts = {whole[1]: int(whole[2])}
    copies = Counter(re.findall(r"Add Memcpy(ToHost|FromHost)", log))
    wanted = ORT_NAMES[job.provider]
    others = sum(count for name, count in counts.items() if name != wanted)
    is_whole = not others and not copies and counts.get(wanted, 0) > 0
    elsewhere = Counter(kind for name, nodes in placed.items() if name != wanted for kind in nodes)
    figures = {
        "nodes": counts.get(wanted, 0),
        "nodes_elsewhere": others,
        "to_host": copies["ToHost"],
        "from_host": copies["FromHost"],
        "elsewhere": ", ".join(f"{count} {kind}" for kind, count in elsewhere.items()),
    }
    return Outcome(is_whole if export.info.is_static else None, figures)


def admission(job: Job, export: Export, graph: str) -> Outcome:
    """Check that ONNX Runtime admits the graph as a CUDA graph."""
    try:
        raw_session(job, export.file(graph), cuda_graph=True)
    # ONNX Runtime's exceptions have no common base below RuntimeError and Exception.
    except Exception as error:
        return Outcome(False, {"error": " ".join(str(error).split())[-200:]})
    return Outcome(True)


def logged(work: Callable[[], object]) -> str:
    """Return what ONNX Runtime, which is C++, writes to standard error and standard output meanwhile."""
    with tempfile.TemporaryFile() as file:
        kept = {stream: os.dup(stream) for stream in (1, 2)}
        try:
            for stream in kept:
                os.dup2(file.fileno(), stream)
            work()
        finally:
            for stream, copy in kept.items():
                os.dup2(copy, stream)
                os.close(copy)
        file.seek(0)
        return file.read().decode(errors="replace")
