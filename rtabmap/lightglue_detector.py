"""Python detector of RTAB-Map: keypoints and descriptors for lightglue_matcher.py. See docs/rtabmap.md.

RTAB-Map imports this file by its name, calls `init` for each of its detectors and `detect` for each image
(PyDetector.cpp in introlab/rtabmap, corelib/src/python). It reads the results as C-contiguous float32.
"""

from __future__ import annotations

import os
import threading

import numpy as np

from lightglue_ros.cli.arguments import size
from lightglue_ros.core import MatchPipeline

_pipelines: dict[bool, MatchPipeline] = {}
_pipeline: MatchPipeline
# RTAB-Map calls from several threads, and ONNX Runtime lets them run at the same time.
_lock = threading.Lock()


def init(cuda: int) -> None:
    """Load the model, or take the loaded one.

    The environment variable LIGHTGLUE_ROS_MODEL names the model (xfeat), and LIGHTGLUE_ROS_IMAGE_SIZE the
    canvas that images are shrunk to (640x480).

    Args:
        cuda: PyDetector/Cuda, 1 to use the GPU if it works.

    Raises:
        ModelError: there is no such model.
    """
    global _pipeline
    model = os.environ.get("LIGHTGLUE_ROS_MODEL", "xfeat")
    image_size = size(os.environ.get("LIGHTGLUE_ROS_IMAGE_SIZE", "640x480"))
    with _lock:
        if bool(cuda) not in _pipelines:
            pipeline = MatchPipeline(model, "auto" if cuda else "cpu", image_size, graphs=("extractor",))
            pipeline.warm_up(cameras=1)
            _pipelines[bool(cuda)] = pipeline
        _pipeline = _pipelines[bool(cuda)]


def detect(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extract the keypoints of an image.

    Args:
        image: uint8 [H, W], grey.

    Returns:
        Keypoints, float32 [N, 3], rows of (x, y, score), best score first; and descriptors, float32 [N, D].
    """
    # The arrays as well, because on a GPU they come down when they are asked for.
    with _lock:
        features = _pipeline.extract([image])
        mask = features.mask[0]
        keypoints = np.column_stack([features.keypoints[0], features.scores[0]])[mask]
        return keypoints, features.descriptors[0][mask]
