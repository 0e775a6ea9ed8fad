"""Python matcher of RTAB-Map: matches keypoints with LightGlue, without PyTorch. See docs/rtabmap.md.

RTAB-Map imports this file by its name, calls `init` once and `match` for each pair of images (PyMatcher.cpp
in introlab/rtabmap, corelib/src/python). It reads the result as a C-contiguous array of int32.
"""

from __future__ import annotations

import os
import threading

import numpy as np

from lightglue_ros.core import Features, MatchPipeline
from lightglue_ros.errors import ConfigError

# Values of PyMatcher/Model that mean SuperGlue's weights; "indoor" is RTAB-Map's default.
_SUPERGLUE = ("indoor", "outdoor")

_pipelines: dict[tuple[str, bool], MatchPipeline] = {}
_pipeline: MatchPipeline
# RTAB-Map calls from several threads, and ONNX Runtime lets them run at the same time.
_lock = threading.Lock()


def init(descriptor_dim: int, match_threshold: float, iterations: int, cuda: int, model: str) -> None:
    """Load the model, or take the loaded one.

    Args:
        descriptor_dim: width of RTAB-Map's descriptors.
        match_threshold: PyMatcher/Threshold, least score of a match.
        iterations: PyMatcher/Iterations, of SuperGlue; without effect.
        cuda: PyMatcher/Cuda, 1 to use the GPU if it works.
        model: PyMatcher/Model, name in the model store or folder. RTAB-Map's defaults stand for
            $LIGHTGLUE_ROS_MODEL.

    Raises:
        ConfigError: the descriptors do not come from this model.
        ModelError: there is no such model.
    """
    global _pipeline
    if model in _SUPERGLUE:
        model = os.environ.get("LIGHTGLUE_ROS_MODEL", "xfeat")
    with _lock:
        if (model, bool(cuda)) not in _pipelines:
            pipeline = MatchPipeline(model, "auto" if cuda else "cpu", graphs=("matcher",))
            if pipeline.info.descriptor_dim != descriptor_dim:
                raise ConfigError(
                    f"the descriptors of RTAB-Map have {descriptor_dim} numbers",
                    allowed=f"{pipeline.info.descriptor_dim}, those of model {pipeline.info.model}",
                    fix="give lightglue_detector.py and lightglue_matcher.py the same model",
                )
            pipeline.warm_up()
            _pipelines[model, bool(cuda)] = pipeline
        _pipeline = _pipelines[model, bool(cuda)]
        _pipeline.match_threshold = match_threshold


def match(
    keypoints_from: np.ndarray,
    keypoints_to: np.ndarray,
    scores_from: np.ndarray,
    scores_to: np.ndarray,
    descriptors_from: np.ndarray,
    descriptors_to: np.ndarray,
    image_width: int,
    image_height: int,
) -> np.ndarray:
    """Match the keypoints of two images of the same size.

    Args:
        keypoints_from: float32 [N, 2], pixels.
        keypoints_to: float32 [M, 2], likewise.
        scores_from: float32 [N]. If there are more keypoints than the model has slots, the best are matched.
        scores_to: float32 [M], likewise.
        descriptors_from: float32 [N, D].
        descriptors_to: float32 [M, D].
        image_width: in pixels.
        image_height: likewise.

    Returns:
        int32 [matches, 2], rows of (from, to).
    """
    slots, size = _pipeline.info.max_keypoints, (image_width, image_height)
    order_from, order_to = (
        # The best first, as the model expects; a stable order keeps equal scores in place.
        np.argsort(-np.asarray(scores), kind="stable")[:slots]
        for scores in (scores_from, scores_to)
    )
    features = Features.concatenate(
        [
            Features.pad(keypoints[order], scores[order], descriptors[order], size, slots)
            for keypoints, scores, descriptors, order in (
                (keypoints_from, scores_from, descriptors_from, order_from),
                (keypoints_to, scores_to, descriptors_to, order_to),
            )
        ]
    )
    with _lock:
        (pair,) = _pipeline.match_features(features, [(0, 1)])
    # int32, because RTAB-Map reads uint64 twice.
    return np.stack([order_from[pair.indices0], order_to[pair.indices1]], axis=1).astype(np.int32)
