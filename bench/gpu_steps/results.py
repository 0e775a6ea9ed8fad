"""Results against those of the CPU: keypoints, descriptors, matches, and the pose of a driving car."""

from __future__ import annotations

from functools import partial

import numpy as np

from gpu_steps.compare import compare, equal_share
from gpu_steps.job import Checks, Export, Job, Outcome
from lightglue_ros.core import MatchPipeline, PairMatches
from pose_error import THRESHOLDS, area_under_curve, pose_error

LEAST_EQUAL = {"fp32": 0.995, "fp16": 0.93}
MOST_SCORE_DIFFERENCE = {"fp32": 1e-2, "fp16": 1.0}
MOST_POINTS = 1.0  # of the pose's AUC at 5 degrees
SEEDS = 3
FEATURES = "keypoints", "mask", "descriptors"


def checks(job: Job) -> Checks:
    """Yield a check of each export, first of the pairs, then of the pose."""
    exports = job.exports()
    for export in exports:
        yield f"{export.name} pairs", partial(pairs, job, export)
    for export in exports:
        yield f"{export.name} pose", partial(pose, job, export)


def reference_of(job: Job, export: Export) -> dict[str, np.ndarray]:
    """Read the reference of an export.

    Raises:
        FileNotFoundError: the pack has none.
    """
    with np.load(export.reference(job.provider)) as file:
        return dict(file)


def match_pairs(
    pipeline: MatchPipeline, images: list[np.ndarray], pairs: np.ndarray
) -> tuple[list[PairMatches], dict[str, np.ndarray]]:
    """Match pairs of images one after the other; also returns the features of the first pair."""
    found, first = [], {}
    for left, right in pairs:
        features = pipeline.extract([images[left], images[right]])
        found += pipeline.match_features(features, [(0, 1)])
        if not first:
            first = {name: host(getattr(features, name)) for name in FEATURES}
    return found, first


def host(value: object) -> np.ndarray:
    """Copy a tensor to the host if it is on a device."""
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def matches_of(reference: dict[str, np.ndarray]) -> list[PairMatches]:
    """Return the matches of each pair of a reference."""
    found = []
    for number in range(len(reference["pairs"])):
        points, scores = reference[f"points{number}"], reference[f"scores{number}"]
        none = np.zeros(len(points), np.int32)
        found.append(PairMatches(points[:, :2], points[:, 2:], scores, none, none, 0))
    return found


def pairs(job: Job, export: Export) -> Outcome:
    """Compare keypoints and descriptors of the first pair, and matches of the first seven."""
    reference = reference_of(job, export)
    chosen = reference["pairs"][:7]
    pipeline = job.pipeline(export)
    found, features = match_pairs(pipeline, job.images, chosen)
    precision = export.info.precision
    limits = LEAST_EQUAL[precision], MOST_SCORE_DIFFERENCE[precision]
    ok, figures = compare(found, matches_of(reference)[: len(chosen)], *limits)
    if features:
        figures |= compare_features(features, reference)
    figures["runs on"] = pipeline.provider
    return Outcome(ok and pipeline.provider == job.provider, figures)


def compare_features(features: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> dict[str, float]:
    """Compare the keypoints of the first pair, and the descriptors of equal keypoints."""
    shares, cosines = [], []
    for slot in range(2):
        mask, expected_mask = features["mask"][slot], reference["mask"][slot]
        found, expected = features["keypoints"][slot][mask], reference["keypoints"][slot][expected_mask]
        shares.append(equal_share(found, expected))
        same = (np.abs(found[:, None] - expected[None]).max(axis=-1) < 0.1).nonzero()
        ours = features["descriptors"][slot][mask][same[0]]
        theirs = reference["descriptors"][slot][expected_mask].astype(np.float32)[same[1]]
        cosines.append((ours * theirs).sum(axis=1).min(initial=1.0))
    return {"equal_keypoints": min(shares), "least_cosine": float(min(cosines))}


def pose(job: Job, export: Export) -> Outcome:
    """Compare the pose's AUC with that of the reference; the same matches give the same AUC."""
    reference = reference_of(job, export)
    if "motions" not in reference:
        return Outcome(None, {"kitti": "not in the pack"})
    driving = reference["pairs"][1:]
    pipeline = job.pipeline(export)
    found, _ = match_pairs(pipeline, job.images, driving)
    aucs = [auc(pair_matches, reference) for pair_matches in (found, matches_of(reference)[1:])]
    figures = {"auc": aucs[0], "auc_cpu": aucs[1], "pairs": len(driving), "degrees": THRESHOLDS[-1]}
    return Outcome(abs(aucs[0] - aucs[1]) <= MOST_POINTS, figures)


def auc(found: list[PairMatches], reference: dict[str, np.ndarray]) -> float:
    """Return the area under the pose's recall curve at the last threshold, in percent, mean over seeds."""
    matrix, values = reference["matrix"], []
    for seed in range(SEEDS):
        errors = []
        for matches, motion in zip(found, reference["motions"], strict=True):
            ends = np.concatenate([matches.keypoints0, matches.keypoints1], axis=1)
            ends = ends[np.lexsort(ends.T[::-1])]
            errors.append(pose_error(ends, matrix, (motion[:, :3], motion[:, 3]), seed))
        values.append(100 * area_under_curve(errors, THRESHOLDS[-1]))
    return float(np.mean(values))
