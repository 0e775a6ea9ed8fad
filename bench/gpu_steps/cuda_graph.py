"""CUDA graphs: equal to none, over many frames, with changed settings, in other threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from gpu_steps.compare import compare
from gpu_steps.job import Checks, Export, Job, Outcome
from lightglue_ros.core import MatchPipeline, PairMatches

DEADLINE = 120  # seconds of a thread
PAIR = [(0, 1)]


def checks(job: Job) -> Checks:
    """Yield the checks of each static export."""
    for export in job.exports(static=True):
        for check in (frames, settings, activations, at_once):
            name = check.__name__.replace("_", " ")
            yield f"{export.name} {name}", partial(check, job, export)


def pairs_of(job: Job) -> list[list[np.ndarray]]:
    """Return up to four pairs of images."""
    images = job.images
    return [images[first : first + 2] for first in range(0, min(len(images) - 1, 8), 2)]


def frames(job: Job, export: Export) -> Outcome:
    """Match many frames with a CUDA graph, and compare all with a few without one."""
    pairs = pairs_of(job)
    plain = job.pipeline(export)
    expected = [plain.match(pair, PAIR) for pair in pairs]
    del plain
    recorded = job.pipeline(export, cuda_graph=True)
    wrong, least, times = 0, 1.0, []
    for number in range(job.frames):
        start = time.perf_counter()
        found = recorded.match(pairs[number % len(pairs)], PAIR)
        times.append(1e3 * (time.perf_counter() - start))
        ok, figures = compare(found, expected[number % len(pairs)])
        wrong, least = wrong + (not ok), min(least, figures["equal"])
    figures = {"frames": job.frames, "wrong": wrong, "equal": least, "median_ms": float(np.median(times))}
    return Outcome(not wrong, figures)


def settings(job: Job, export: Export) -> Outcome:
    """Change threshold and number of keypoints between frames."""
    pair = pairs_of(job)[0]
    pipelines = [job.pipeline(export), job.pipeline(export, cuda_graph=True)]
    shares, counts, slots = [], [], pipelines[0].info.max_keypoints
    for threshold, keypoints in ((0.1, slots), (0.5, slots), (0.1, slots // 4), (0.0, 1), (0.1, slots)):
        found: list[list[PairMatches]] = []
        for pipeline in pipelines:
            pipeline.match_threshold, pipeline.max_keypoints = threshold, keypoints
            found.append(pipeline.match(pair, PAIR))
        shares.append(compare(*found)[0])
        counts.append(len(found[1][0]))
    return Outcome(all(shares), {"matches": str(counts), "equal": str(shares)})


def activations(job: Job, export: Export) -> Outcome:
    """Load, run and drop in one thread, and again in another, as a node that is activated twice."""
    pairs = pairs_of(job)
    expected = [job.pipeline(export).match(pair, PAIR) for pair in pairs]
    found = [in_threads([partial(matched, job, export, pairs)])[0] for _ in range(2)]
    equal = [compare(ours, theirs) for once in found for ours, theirs in zip(once, expected, strict=True)]
    return Outcome(all(ok for ok, _ in equal), {"equal": min(figures["equal"] for _, figures in equal)})


def at_once(job: Job, export: Export) -> Outcome:
    """Run two pipelines at the same time, each loaded, recorded and run in a thread of its own."""
    pairs = pairs_of(job)
    expected = [job.pipeline(export).match(pair, PAIR) for pair in pairs]
    many = [pairs[number % len(pairs)] for number in range(job.part(0.1))]
    found = in_threads([partial(matched, job, export, many)] * 2)
    equal = [
        compare(matches, expected[number % len(pairs)])
        for once in found
        for number, matches in enumerate(once)
    ]
    figures = {"frames": len(many), "equal": min(figures["equal"] for _, figures in equal)}
    return Outcome(all(ok for ok, _ in equal), figures)


def matched(job: Job, export: Export, pairs: list[list[np.ndarray]]) -> list[list[PairMatches]]:
    """Load a pipeline with a CUDA graph and match pairs."""
    pipeline: MatchPipeline = job.pipeline(export, cuda_graph=True)
    return [pipeline.match(pair, PAIR) for pair in pairs]


def in_threads(works: list[Callable[[], list[list[PairMatches]]]]) -> list[list[list[PairMatches]]]:
    """Run each work in a thread of its own; raises what one of them raises."""
    results: list[object] = [TimeoutError(f"no result after {DEADLINE} s")] * len(works)

    def run(number: int) -> None:
        try:
            results[number] = works[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results  # type: ignore[return-value]
