"""Times: of whole frames, of the graphs alone with all tensors on the device, of batches; and memory."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial

import numpy as np

from gpu_steps.job import Checks, Export, Job, OnDevice, Outcome, inputs_of, median_ms, raw_session
from lightglue_ros.core.contract import EXTRACTOR, MATCHER

PAIRS = 1, 4, 32
MOST_MS, LEAST_PAIRS_PER_S = 2.0, 1000.0  # XFeat stereo, and LightGlue in fp16 with 32 pairs, on an H100


def checks(job: Job) -> Checks:
    """Yield the checks: whole frames first, batches, then graphs alone."""
    static = job.exports(static=True)
    for export in static:
        for cuda_graph in (True, False):
            name = f"{export.name} frame{' cuda_graph' if cuda_graph else ''}"
            yield name, partial(frame, job, export, cuda_graph)
    for export in job.exports(static=False):
        yield f"{export.name} frame", partial(frame, job, export, False)
        for count in PAIRS[:1] if job.provider == "cpu" else PAIRS:
            yield f"{export.name} {count} pairs", partial(batch, job, export, count)
    for export in static:
        for graph in (EXTRACTOR, MATCHER):
            for cuda_graph in (True, False):
                name = f"{export.name} {graph}{' cuda_graph' if cuda_graph else ''}"
                yield name, partial(alone, job, export, graph, cuda_graph)


def frame(job: Job, export: Export, cuda_graph: bool) -> Outcome:
    """Time a stereo frame from images in host memory to matches, and its stages."""
    pipeline = job.pipeline(export, cuda_graph=cuda_graph)
    images = [image[:480, :640] for image in job.images[:2]]
    runs, stages = job.part(0.2), []

    def work() -> None:
        before = pipeline.times
        pipeline.match(images, [(0, 1)])
        spent = pipeline.times - before
        stages.append([1e3 * value for value in (spent.canvas, spent.extract, spent.match, spent.unpad)])

    figures = median_ms(work, runs, warm_up=job.part(0.02))
    names = "canvas_ms", "extract_ms", "match_ms", "unpad_ms"
    figures |= dict(zip(names, np.median(stages, axis=0).tolist(), strict=True))
    figures |= {"frames": runs, "memory_mib": memory()}
    is_goal = export.info.model == "xfeat" and cuda_graph and job.provider != "cpu"
    return Outcome(figures["median_ms"] < MOST_MS if is_goal else None, figures)


def alone(job: Job, export: Export, graph: str, cuda_graph: bool) -> Outcome:
    """Time a graph whose tensors stay on the device."""
    session = raw_session(job, export.file(graph), cuda_graph=cuda_graph)
    work = OnDevice(job, session, inputs_of(export, graph))
    runs = job.part(0.2)
    return Outcome(None, median_ms(work, runs, warm_up=job.part(0.02)) | {"runs": runs})


def batch(job: Job, export: Export, count: int) -> Outcome:
    """Time the matcher with P pairs of full images, all tensors on the device."""
    session = raw_session(job, export.file(MATCHER))
    work = OnDevice(job, session, inputs_of(export, MATCHER, images=2, pairs=count))
    runs = job.part(0.05 if count > 4 else 0.2)
    figures = median_ms(work, runs, warm_up=job.part(0.01))
    figures |= {"pairs_per_s": 1e3 * count / figures["median_ms"], "runs": runs, "memory_mib": memory()}
    is_light_glue = export.info.model != "xfeat" and export.info.precision == "fp16"
    is_goal = is_light_glue and count == max(PAIRS) and job.provider != "cpu"
    return Outcome(figures["pairs_per_s"] >= LEAST_PAIRS_PER_S if is_goal else None, figures)


def memory() -> int | None:
    """Return the used memory of the card in MiB, that of other processes included."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return int(done.stdout.split()[0]) if done.stdout.strip() else None
