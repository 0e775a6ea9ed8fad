"""Laws of padding, with a tolerance: on a GPU the algorithms, and the last bits, depend on the shapes."""

from __future__ import annotations

from functools import partial

import numpy as np

from gpu_steps.compare import compare
from gpu_steps.job import Checks, Export, Job, Outcome, Tensors, inputs_of
from gpu_steps.results import host
from lightglue_ros.core import PairMatches
from lightglue_ros.core.contract import MATCHER
from lightglue_ros.core.session import GraphSession

# Share of equal matches of a pair alone and in a batch, and difference of their scores.
TOLERANCE = {"fp32": (0.995, 1e-2), "fp16": (0.97, 0.1)}
GARBAGE = (np.nan, np.inf, 1e30)


def checks(job: Job) -> Checks:
    """Yield the laws of each export."""
    for export in job.exports():
        for law in (nothing_to_match, missing_camera, settings_at_their_ends, same_again, padding, batch):
            yield f"{export.name} {law.__name__.replace('_', ' ')}", partial(law, job, export)


def nothing_to_match(job: Job, export: Export) -> Outcome:
    """Black images, and no pairs, give empty matches."""
    pipeline = job.pipeline(export)
    black = np.zeros((480, 640), np.uint8)
    features = pipeline.extract([black, black])
    counts = [len(matches) for matches in pipeline.match_features(features, [(0, 1)])]
    none = pipeline.match_features(features, [])
    return Outcome(counts == [0] and none == [], {"matches": counts[0], "results of no pairs": len(none)})


def missing_camera(job: Job, export: Export) -> Outcome:
    """A missing camera gives an empty pair and leaves the camera next to it as it was."""
    pipeline = job.pipeline(export)
    left, right = job.images[:2]
    (gone,) = pipeline.match([left, None], [(0, 1)])
    (expected,) = pipeline.match([left, right], [(0, 0)])
    (found,) = pipeline.match([left, None], [(0, 0)])
    ok, figures = compare([found], [expected], *TOLERANCE[export.info.precision])
    return Outcome(ok and not len(gone), figures)


def settings_at_their_ends(job: Job, export: Export) -> Outcome:
    """One keypoint per image is no error, and a threshold of 1 leaves nothing."""
    pipeline = job.pipeline(export)
    pair = job.images[:2]
    pipeline.max_keypoints = 1
    (one,) = pipeline.match(pair, [(0, 1)])
    pipeline.max_keypoints, pipeline.match_threshold = pipeline.info.max_keypoints, 1.0
    (none,) = pipeline.match(pair, [(0, 1)])
    return Outcome(len(one) <= 1 and not len(none), {"one": len(one), "none": len(none)})


def same_again(job: Job, export: Export) -> Outcome:
    """Many runs on the same images give the same bytes."""
    pipeline = job.pipeline(export)
    runs = [pipeline.match(job.images[:2], [(0, 1)])[0] for _ in range(job.part(0.02))]
    first = runs[0]
    equal = [
        np.array_equal(run.indices0, first.indices0)
        and np.array_equal(run.indices1, first.indices1)
        and np.array_equal(run.scores, first.scores)
        for run in runs
    ]
    return Outcome(all(equal), {"runs": len(runs), "equal": sum(equal), "matches": len(first)})


def padding(job: Job, export: Export) -> Outcome:
    """Garbage in padded slots changes nothing."""
    session = GraphSession(export.file(MATCHER), MATCHER, provider=job.provider)
    tensors = half_filled(export)
    expected = outputs(session, tensors)
    worst, nans = 0.0, 0
    for garbage in GARBAGE:
        filled = {name: value.copy() for name, value in tensors.items()}
        for name in ("keypoints", "keypoint_scores", "descriptors"):
            filled[name][~tensors["keypoint_mask"]] = garbage
        found = outputs(session, filled)
        nans += int(np.isnan(found["match_scores"]).sum())
        same = found["matches"] == expected["matches"]
        worst = max(worst, 1 - float(same.mean()))
    return Outcome(worst == 0 and not nans, {"changed": worst, "nans": nans})


def half_filled(export: Export) -> Tensors:
    """Inputs of the matcher with three quarters and a half of the slots filled."""
    tensors = inputs_of(export, MATCHER)
    slots = export.info.max_keypoints
    counts = np.full((len(tensors["keypoint_mask"]), 1), slots // 2)
    counts[0] = 3 * slots // 4
    mask = np.arange(slots) < counts
    # The same points in both images, so that there are matches.
    for name in ("keypoints", "keypoint_scores", "descriptors"):
        tensors[name][1:] = tensors[name][:1]
        tensors[name][~mask] = 0
    return tensors | {"keypoint_mask": mask}


def outputs(session: GraphSession, tensors: Tensors) -> Tensors:
    """Run the matcher; its outputs on the host."""
    return {name: host(value) for name, value in session.run(tensors).items()}


def batch(job: Job, export: Export) -> Outcome:
    """Two pairs alone equal the same pairs among others, with eight images (on a CPU, two) in a run."""
    if export.info.is_static:
        return Outcome(None, {"pairs": "fixed by the export"})
    pipeline = job.pipeline(export)
    count = 2 if job.provider == "cpu" else 8
    images = (job.images * count)[:count]
    features = pipeline.extract(images)
    pairs = [(slot, slot + 1) for slot in range(0, count, 2)]
    together = pipeline.match_features(features, pairs)
    alone: list[PairMatches] = []
    for first, second in pairs[:2]:
        alone += pipeline.match([images[first], images[second]], [(0, 1)])
    return Outcome(*compare(together[:2], alone, *TOLERANCE[export.info.precision]))
