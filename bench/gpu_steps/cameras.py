"""Cameras that come and go: the price of a frame in which another number of images is there."""

from __future__ import annotations

import threading
import time
from functools import partial

import numpy as np

from gpu_steps.job import Checks, Export, Job, OnDevice, Outcome, inputs_of, raw_session
from lightglue_ros.core.contract import EXTRACTOR

MOST_SLOWER = 2.0  # times the steady frame


def checks(job: Job) -> Checks:
    """Yield the checks: through the package, where the shapes stay, then through ONNX Runtime itself."""
    for export in job.exports(precision="fp32"):
        yield f"{export.name} a camera comes and goes", partial(comes_and_goes, job, export)
        yield f"{export.name} first frame in another thread", partial(first_frame, job, export)
    for export in job.exports(static=False, precision="fp32"):
        for search in ("HEURISTIC", "EXHAUSTIVE")[: 1 if job.provider == "cpu" else 2]:
            yield f"{export.name} N = 2, 1, {search}", partial(raw_alternation, job, export, search)


def comes_and_goes(job: Job, export: Export) -> Outcome:
    """Time frames with both cameras, and frames of which every other one lacks a camera."""
    pipeline = job.pipeline(export)
    left, right = job.images[:2]
    medians = {}
    for name, frames in {"steady": [[left, right]] * 2, "changing": [[left, right], [left, None]]}.items():
        times = []
        for number in range(job.part(0.05, 3)):
            start = time.perf_counter()
            pipeline.match(frames[number % 2], [(0, 1)])
            times.append(1e3 * (time.perf_counter() - start))
        medians[f"{name}_ms"] = float(np.median(times[2:]))
        medians[f"{name}_max_ms"] = float(np.max(times[2:]))
    ok = medians["changing_ms"] < MOST_SLOWER * medians["steady_ms"]
    return Outcome(None if job.provider == "cpu" else ok, medians)


def first_frame(job: Job, export: Export) -> Outcome:
    """Time the first frames after warm-up in this thread and in another one."""
    pipeline = job.pipeline(export, cuda_graph=True)
    times: list[float] = []

    def work() -> None:
        for _ in range(2):
            start = time.perf_counter()
            pipeline.match(job.images[:2], [(0, 1)])
            times.append(1e3 * (time.perf_counter() - start))

    work()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    names = "first_ms", "second_ms", "first_of_thread_ms", "second_of_thread_ms"
    return Outcome(None, dict(zip(names, times, strict=False)))


def raw_alternation(job: Job, export: Export, search: str) -> Outcome:
    """Time the extractor with 2, 1, 2, 1, ... images."""
    session = raw_session(job, export.file(EXTRACTOR), provider_options={"cudnn_conv_algo_search": search})
    works = [OnDevice(job, session, inputs_of(export, EXTRACTOR, images=count)) for count in (2, 1)]
    times: dict[str, list[float]] = {"same": [], "other": []}
    for work in works:
        work()
    for number in range(job.part(0.02)):
        for name, turn in (("other", works[number % 2]), ("same", works[number % 2])):
            start = time.perf_counter()
            turn()
            times[name].append(1e3 * (time.perf_counter() - start))
    medians = {f"{name}_shape_ms": float(np.median(values[1:])) for name, values in times.items()}
    return Outcome(None, medians | {"search": search})
