"""The result of `lightglue_ros match` for a pair of image files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightglue_ros.core import Features, PairMatches
from lightglue_ros.rig.verification import Verification


@dataclass(frozen=True)
class MatchedPair:
    """Matches of a pair of images.

    Attributes:
        first: index of the first image.
        second: index of the second image.
        matches: in pixels of the original images.
        features: of both images, one image each; None with a pipeline.onnx, which gives no features.
        verification: of the matches; None if they were not verified.
    """

    first: int
    second: int
    matches: PairMatches
    features: tuple[Features, Features] | None
    verification: Verification | None

    @property
    def unmatched(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Keypoints [U, 2] of each image that have no match; None without features."""
        if self.features is None:
            return None
        matched = self.matches.indices0, self.matches.indices1
        return tuple(
            np.delete(of.keypoints[0][of.mask[0]], indices, axis=0)
            for of, indices in zip(self.features, matched, strict=True)
        )

    def __str__(self) -> str:
        """Return the number of matches, and of those that agree with the geometry."""
        text = f"{len(self.matches)} matches"
        if self.verification is None:
            return text
        return f"{text}, {np.count_nonzero(self.verification.inliers)} inliers"
