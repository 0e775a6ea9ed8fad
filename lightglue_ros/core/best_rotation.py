"""Matches pairs of images that may be turned against each other by any angle.

The second image is tried in four orientations, and the one with the most matches counts. So at most 45
degrees are left between the two images, at which models still match.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightglue_ros.core.features import Features, PairMatches
from lightglue_ros.core.rotation import ROTATIONS

if TYPE_CHECKING:
    from lightglue_ros.core.pipeline import MatchPipeline


def extract_turned(pipeline: MatchPipeline, images: Sequence[np.ndarray | None]) -> list[Features]:
    """Extract images in each of `ROTATIONS`, in a run for each; the features are copies."""
    return [pipeline.extract(images, [rotation] * len(images)).copy() for rotation in ROTATIONS]


def match_turned(
    pipeline: MatchPipeline, features: Sequence[Features], pairs: Sequence[tuple[int, int]]
) -> tuple[list[PairMatches], list[int]]:
    """Match pairs (first, second), the second image in each of `ROTATIONS`, in a run for each.

    Args:
        features: of the images, from `extract_turned`, or its first ones for fewer orientations.

    Returns:
        The most matches of each pair, and the rotation of the second image that gives them.
    """
    firsts, seconds = (sorted(set(images)) for images in zip(*pairs, strict=True)) if pairs else ([], [])
    best, rotations = [PairMatches.empty()] * len(pairs), [0] * len(pairs)
    upright = [features[0].of_image(first) for first in firsts]
    slots = [(firsts.index(first), len(firsts) + seconds.index(second)) for first, second in pairs]
    for rotation, turned in zip(ROTATIONS, features, strict=False):
        images = [*upright, *(turned.of_image(second) for second in seconds)]
        if not images:
            break
        for number, found in enumerate(pipeline.match_features(Features.concatenate(images), slots)):
            if len(found) > len(best[number]):
                best[number], rotations[number] = found, rotation
    return best, rotations


def match_in_best_rotation(
    pipeline: MatchPipeline, images: Sequence[np.ndarray | None], pairs: Sequence[tuple[int, int]]
) -> list[PairMatches]:
    """Match pairs of images as `MatchPipeline.match` does, the second image in the best of four orientations.

    Each image is extracted four times, so it takes at least four times as long.
    """
    canvas_size, refiner = pipeline.image_size, pipeline.refiner
    matches, rotations = match_turned(pipeline, extract_turned(pipeline, images), pairs)
    return [
        refiner.refine(
            of_pair,
            refiner.prepare(images[first], canvas_size),
            refiner.prepare(images[second], canvas_size, rotation),
            canvas_size,
        )
        for of_pair, rotation, (first, second) in zip(matches, rotations, pairs, strict=True)
    ]
