"""Verifies the matches of a frame by their geometry, with the intrinsics of the cameras where it needs them.

Only the essential matrix does. The intrinsics come from `sensor_msgs/CameraInfo`: from the topic
`camera_info` beside the images, unless the parameter `camera_info_topics` says otherwise. Which of its
matrices an image goes by is told by the last name of the image's topic (after remapping, without
`/compressed`), as image_proc names them: one that begins with `image_rect` is of rectified images, which have
the left 3x3 of P and no distortion; any other is of raw images, which have K and D. The newest CameraInfo of
a camera holds for its past images, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np

from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.history import RigPair
from lightglue_ros.rig.rig import Rig
from lightglue_ros.rig.verification import GEOMETRIES, Intrinsics, verify_pair

# How many coefficients each of sensor_msgs' distortion models may have.
_COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}


class SizedImage(Protocol):
    """An image of a pair: its size in pixels."""

    width: int
    height: int


class CameraInfo(Protocol):
    """sensor_msgs/CameraInfo."""

    width: int
    height: int
    distortion_model: str
    d: Any
    k: Any
    p: Any
    binning_x: int
    binning_y: int
    roi: Any


T = TypeVar("T", bound=SizedImage)


class RigVerifier:
    """Verifies the pairs of each frame of a rig.

    Args:
        cameras: their names.
        image_topics: the whole name of each camera's topic of images, without `/compressed`.
        camera_info_topics: those of CameraInfo; none is `camera_info` beside each of image_topics.

    Attributes:
        topics: of each camera's CameraInfo.
        problem: why pairs of the last frame were not verified; empty where all were.
    """

    def __init__(
        self, cameras: Sequence[str], image_topics: Sequence[str], camera_info_topics: Sequence[str] = ()
    ) -> None:
        given = [topic for topic in camera_info_topics if topic]
        self.topics = given or [f"{topic.rpartition('/')[0]}/camera_info" for topic in image_topics]
        self.problem = ""
        self._cameras = cameras
        self._is_rectified = [topic.rpartition("/")[2].startswith("image_rect") for topic in image_topics]
        self._infos: list[CameraInfo | None] = [None] * len(cameras)

    def set_info(self, camera: int, info: CameraInfo) -> None:
        """Take the newest CameraInfo of a camera, from any thread."""
        self._infos[camera] = info

    def verify(
        self, pairs: Sequence[RigPair[T]], rig: Rig, geometry: str, canvas_size: tuple[int, int]
    ) -> list[RigPair[T]]:
        """Verify the pairs of a frame.

        Args:
            pairs: of the rig, in its order.
            rig: its cameras and pairs.
            geometry: none, fundamental, homography or essential.
            canvas_size: (width, height) of the canvas that the images were shrunk to.

        Returns:
            The same pairs; those with a missing image, and those without intrinsics, are as they were.
        """
        problems: dict[str, None] = {}
        verified = list(pairs)
        for number, (pair, views) in enumerate(zip(pairs, rig.pairs, strict=True)):
            if geometry not in GEOMETRIES or pair.is_missing:
                continue
            sizes = [(image.width, image.height) for image in (pair.label0, pair.label1)]
            try:
                intrinsics = None
                if geometry == "essential":
                    cameras = (view.camera for view in views)
                    intrinsics = tuple(map(self._intrinsics, cameras, sizes))
            except ConfigError as error:
                problems[str(error)] = None
                continue
            found = verify_pair(pair.matches, geometry, sizes, canvas_size, intrinsics)
            verified[number] = replace(pair, verification=found)
        self.problem = "; ".join(problems)
        return verified

    def _intrinsics(self, camera: int, image_size: tuple[int, int]) -> Intrinsics:
        info = self._infos[camera]
        if info is None:
            raise ConfigError(
                f"camera {self._cameras[camera]}: nothing has come on {self.topics[camera]} yet"
            )
        try:
            return intrinsics_of(info, self._is_rectified[camera], image_size)
        except ConfigError as error:
            raise ConfigError(f"camera {self._cameras[camera]}: {self.topics[camera]} {error}") from error


def intrinsics_of(info: CameraInfo, is_rectified: bool, image_size: tuple[int, int]) -> Intrinsics:
    """The intrinsics of an image.

    Args:
        info: of its camera.
        is_rectified: whether the image is rectified, or raw.
        image_size: (width, height) of the image.

    Raises:
        ConfigError: the camera is not calibrated, has an unknown distortion, or images of another size.
    """
    region, binning = info.roi, np.maximum([info.binning_x, info.binning_y], 1)
    # A region of size 0 is the whole image (CameraInfo.msg).
    size = np.array([region.width or info.width, region.height or info.height]) // binning
    if tuple(size) != image_size:
        raise ConfigError(
            f"is of images of {size[0]}x{size[1]}, and the images have {image_size[0]}x{image_size[1]}"
        )
    matrix = np.array(info.p).reshape(3, 4)[:, :3] if is_rectified else np.array(info.k).reshape(3, 3)
    if not (np.isfinite(matrix).all() and matrix[0, 0] > 0.0 and matrix[1, 1] > 0.0):
        raise ConfigError(
            f"has {'P' if is_rectified else 'K'} without focal lengths: the camera is not calibrated"
        )
    # From the sensor's pixels to the image's; the centres of both first pixels are at (0, 0).
    matrix[:2, 2] = (matrix[:2, 2] - (region.x_offset, region.y_offset) + 0.5) / binning - 0.5
    matrix[[0, 1], [0, 1]] /= binning
    distortion = np.zeros(0) if is_rectified else np.array(info.d, np.float64)
    is_fisheye = not is_rectified and info.distortion_model == "equidistant"
    if not distortion.any() and not is_fisheye:
        return Intrinsics(matrix)
    if len(distortion) not in _COEFFICIENTS.get(info.distortion_model, ()):
        raise ConfigError(
            f"has the distortion '{info.distortion_model}' with {len(distortion)} coefficients",
            allowed=", ".join(
                f"{name} with {' or '.join(map(str, counts))}" for name, counts in _COEFFICIENTS.items()
            ),
            fix="match rectified images",
        )
    return Intrinsics(matrix, distortion, is_fisheye)
