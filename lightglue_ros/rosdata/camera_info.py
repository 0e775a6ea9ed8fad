"""Intrinsics of a rig's cameras from their `sensor_msgs/CameraInfo`.

The last name of an image's topic (after remapping, without `/compressed`) says which matrices hold for it, as
image_proc names its topics. Images of a topic whose last name begins with `image_rect` are rectified: they
have the left 3x3 of P and no distortion. All others are raw: they have K and D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.calibration_watch import StereoRows
from lightglue_ros.rig.points import StereoPair
from lightglue_ros.rig.verification import Intrinsics
from lightglue_ros.rosdata.decoding import COMPRESSED_SUFFIX

# Numbers of coefficients that each of sensor_msgs' distortion models may have.
_COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}


class CameraInfo(Protocol):
    """sensor_msgs/CameraInfo."""

    width: int
    height: int
    distortion_model: str
    d: Any
    k: Any
    r: Any
    p: Any
    binning_x: int
    binning_y: int
    roi: Any


class RigCalibration:
    """Newest CameraInfo of each camera of a rig; it also holds for the camera's past images.

    Args:
        image_topics: full name of each camera's image topic.
        camera_info_topics: full name of each camera's CameraInfo topic; without any it is `camera_info` next
            to the image topic.

    Attributes:
        topics: CameraInfo topic of each camera.
    """

    def __init__(
        self, cameras: Sequence[str], image_topics: Sequence[str], camera_info_topics: Sequence[str] = ()
    ) -> None:
        image_topics = [topic.removesuffix(COMPRESSED_SUFFIX) for topic in image_topics]
        given = [topic for topic in camera_info_topics if topic]
        self.topics = given or [f"{topic.rpartition('/')[0]}/camera_info" for topic in image_topics]
        self._cameras = cameras
        self._is_rectified = [topic.rpartition("/")[2].startswith("image_rect") for topic in image_topics]
        self._infos: list[CameraInfo | None] = [None] * len(cameras)

    def set_info(self, camera: int, info: CameraInfo) -> None:
        """Take the newest CameraInfo of a camera, from any thread."""
        self._infos[camera] = info

    def intrinsics(self, camera: int, image_size: tuple[int, int]) -> Intrinsics:
        """Return the intrinsics of a camera for images of (width, height) pixels.

        Raises:
            ConfigError: no CameraInfo has come yet, or it cannot be used; see `intrinsics_of`.
        """
        info, name = self._infos[camera], f"camera {self._cameras[camera]}"
        if info is None:
            raise ConfigError(f"{name}: nothing has come on {self.topics[camera]} yet")
        try:
            return intrinsics_of(info, self._is_rectified[camera], image_size)
        except ConfigError as error:
            raise ConfigError(f"{name}: {self.topics[camera]} {error}") from error

    def stereo_pair(self, first: int, second: int, image_sizes: Sequence[tuple[int, int]]) -> StereoPair:
        """Return the geometry of two cameras whose images are rectified together.

        Args:
            image_sizes: (width, height) of both cameras' images.

        Raises:
            ConfigError: a camera has no CameraInfo that can be used, or the two are no such pair.
        """
        cameras = (first, second)
        known = [self.intrinsics(*it) for it in zip(cameras, image_sizes, strict=True)]
        raw = [self._cameras[camera] for camera in cameras if not self._is_rectified[camera]]
        if raw:
            raise ConfigError(
                f"the images of camera {raw[0]} are not rectified",
                fix="match the topics left/image_rect and right/image_rect of stereo_image_proc",
            )
        baseline = self._baseline(cameras)
        (x, y), centres = np.diag(known[0].matrix)[:2], [tuple(it.matrix[:2, 2].tolist()) for it in known]
        return StereoPair((float(x), float(y)), centres[0], centres[1], baseline)

    def stereo_rows(self, first: int, second: int, image_sizes: Sequence[tuple[int, int]]) -> StereoRows:
        """Return how the rows of two cameras become the same; raw images are rectified by R.

        Args:
            image_sizes: (width, height) of both cameras' images.

        Raises:
            ConfigError: a camera has no CameraInfo that can be used, or the two are no stereo pair.
        """
        cameras = (first, second)
        known = [self.intrinsics(*it) for it in zip(cameras, image_sizes, strict=True)]
        self._baseline(cameras)
        rotations = [np.eye(3) if self._is_rectified[it] else self._rotation(it) for it in cameras]
        return StereoRows((known[0], known[1]), (rotations[0], rotations[1]))

    def _baseline(self, cameras: tuple[int, int]) -> float:
        """Return the metres from the first to the second camera of a stereo pair along x."""
        projections = [np.array(info.p) for info in (self._infos[it] for it in cameras) if info is not None]
        # CameraInfo.msg: P[0, 3] = -fx * x. A camera that is not rectified may have no P.
        with np.errstate(divide="ignore", invalid="ignore"):
            positions = [-p[3] / p[0] for p in projections]
        baseline = float(positions[1] - positions[0])
        focal_lengths = [p[[0, 5]] for p in projections]
        if baseline == 0.0 or not np.isfinite(baseline) or not np.allclose(*focal_lengths, rtol=1e-3):
            names = " and ".join(self.topics[camera] for camera in cameras)
            raise ConfigError(
                f"P of {names} are not those of a stereo pair: focal lengths {focal_lengths[0][0]:.2f} and "
                f"{focal_lengths[1][0]:.2f} px, baseline {baseline:g} m",
                fix="calibrate the two cameras together, for example with camera_calibration",
            )
        return baseline

    def _rotation(self, camera: int) -> np.ndarray:
        """Return the rotation from a camera to its rectified one, float64 [3, 3]."""
        info = self._infos[camera]
        rotation = np.zeros((3, 3)) if info is None else np.array(info.r, np.float64).reshape(3, 3)
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
            name = f"camera {self._cameras[camera]}: {self.topics[camera]}"
            raise ConfigError(f"{name} has R that is no rotation")
        return rotation


def intrinsics_of(info: CameraInfo, is_rectified: bool, image_size: tuple[int, int]) -> Intrinsics:
    """Return the intrinsics of a rectified or raw image of (width, height) pixels.

    Raises:
        ConfigError: the camera is not calibrated, has an unknown distortion model, or is calibrated for
            images of another size.
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
        name = "P" if is_rectified else "K"
        raise ConfigError(f"has {name} without focal lengths: the camera is not calibrated")
    # From the sensor's pixels to the image's; the centres of both first pixels are at (0, 0).
    matrix[:2, 2] = (matrix[:2, 2] - (region.x_offset, region.y_offset) + 0.5) / binning - 0.5
    matrix[[0, 1], [0, 1]] /= binning
    distortion = np.zeros(0) if is_rectified else np.array(info.d, np.float64)
    if not np.isfinite(distortion).all():
        raise ConfigError(
            "has D that is not finite: the camera is not calibrated", fix="match rectified images"
        )
    is_fisheye = not is_rectified and info.distortion_model == "equidistant"
    if not distortion.any() and not is_fisheye:
        return Intrinsics(matrix)
    if len(distortion) not in _COEFFICIENTS.get(info.distortion_model, ()):
        what = f"has the distortion '{info.distortion_model}' with {len(distortion)} coefficients"
        known = (f"{name} with {' or '.join(map(str, counts))}" for name, counts in _COEFFICIENTS.items())
        raise ConfigError(what, allowed=", ".join(known), fix="match rectified images")
    return Intrinsics(matrix, distortion, is_fisheye)
