"""Runs graphs on NumPy arrays, which every provider takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lightglue_ros.core.canvas import CanvasBatch
from lightglue_ros.core.contract import EXTRACTOR, MATCHER, OUTPUTS, PIPELINE
from lightglue_ros.core.features import Features
from lightglue_ros.core.session import GraphSession


class HostRunner:
    """Runs sessions on arrays of the host; see `DeviceRunner`, which does the same on a GPU.

    Args:
        sessions: of an extractor, a matcher or both, or of a pipeline.

    Attributes:
        has_fixed_shapes, least_channels, allocate: see `DeviceRunner`.
    """

    has_fixed_shapes = False
    least_channels = 1
    # None: a new array for each batch. Reusing one would save 0.1 ms for two images of 640 x 480 RGB.
    allocate = None

    def __init__(self, sessions: Mapping[str, GraphSession]) -> None:
        self._sessions = sessions

    def holds(self, features: Features) -> bool:
        """Return False: no features stay where the sessions run."""
        return False

    def extract(self, batch: CanvasBatch, max_keypoints: np.ndarray) -> Features:
        """Extract the images of a batch."""
        outputs = self._sessions[EXTRACTOR].run(vars(batch) | {"max_keypoints": max_keypoints})
        keypoints, scores, mask, descriptors = (outputs[name] for name in OUTPUTS[EXTRACTOR])
        return Features(keypoints, scores, mask, descriptors, batch.image_sizes)

    def match(
        self, features: Features, pairs: np.ndarray, threshold: np.ndarray, shape: tuple[int, int]
    ) -> dict[str, np.ndarray]:
        """Match pairs of images; the outputs may have more pairs.

        Args:
            features: of the images.
            pairs: int64 [p, 2], images of `features`.
            threshold: float32 [1], the input match_threshold.
            shape: numbers of images and pairs of the run, to which features and pairs are filled up.
        """
        count, slots, width = features.descriptors.shape
        empty = shape[0] - count
        filled = Features.concatenate([features, Features.empty(empty, slots, width)]) if empty else features
        tensors = filled.inputs() | {"pairs": _filled(pairs, shape[1]), "match_threshold": threshold}
        return self._sessions[MATCHER].run(tensors)

    def run_pipeline(
        self,
        batch: CanvasBatch,
        max_keypoints: np.ndarray,
        pairs: np.ndarray,
        threshold: np.ndarray,
        most_pairs: int,
    ) -> dict[str, np.ndarray]:
        """Match pairs of images by a pipeline.onnx, filled up to `most_pairs`; see `match`."""
        settings = {
            "max_keypoints": max_keypoints,
            "pairs": _filled(pairs, most_pairs),
            "match_threshold": threshold,
        }
        return self._sessions[PIPELINE].run(vars(batch) | settings)


def _filled(pairs: np.ndarray, count: int) -> np.ndarray:
    # np.pad would take 30 µs even if nothing is missing.
    filled = np.zeros((count, 2), pairs.dtype)
    filled[: len(pairs)] = pairs
    return filled
