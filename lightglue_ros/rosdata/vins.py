"""Tracks as the estimator of VINS-Fusion takes them.

VINS-Fusion (Qin et al., IROS 2018) reads the features of a frame as points with channels, see `VinsFeatures`.
Its estimator takes the n-th observation of a feature for that of the n-th frame since its first one, and
demands an observation by the first camera. So

- a track that was lost in a frame comes back as a new feature;
- a feature that the first camera does not see is left out, and so is a frame without the first camera;
- a track becomes a feature in its second frame. Many keypoints are never matched. With them, more than half
  of the features would be new, and then the estimator makes each frame a keyframe.

The numbers of features are float32 in the message, which is exact below 2^24. They begin at 0 and, after 2^24
features, again at 0, where numbers in use are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.messages import Header, stamp_in_ns

MOST_CAMERAS = 2
# The message's channels. VINS-Fusion reads the last three, the true position, if there are more than five.
CHANNELS = ("id", "camera", "u", "v", "vx", "vy", "gx", "gy", "gz")
_NUMBERS = 2**24


class VinsFeatures(NamedTuple):
    """Features of one frame, those of the first camera first.

    Attributes:
        header: of the first camera's image.
        rays: float32 [M, 2], normalised, undistorted coordinates.
        channels: float32 [9, M], see `CHANNELS`: number of the feature, 0 or 1 for the camera, pixel, speed
            of the ray per second (0 if it was not seen in the frame before), and zeros.
    """

    header: Header
    rays: np.ndarray
    channels: np.ndarray


class _Seen(NamedTuple):
    """Ids and rays of a camera's image, and its time in seconds."""

    ids: np.ndarray
    rays: np.ndarray
    time: float


class VinsFrontEnd:
    """Turns one `lightglue_ros/Tracks` after the other into features.

    Args:
        cameras: names of the estimator's cameras, one or two, in its order.
        first_number: number of the first feature.

    Raises:
        ConfigError: the names are none, more than two, or twice the same.
    """

    def __init__(self, cameras: Sequence[str], first_number: int = 0) -> None:
        if not 1 <= len(set(cameras)) == len(cameras) <= MOST_CAMERAS:
            raise ConfigError(
                f"parameter cameras is [{', '.join(cameras)}]",
                allowed="one camera or two different ones, as in the estimator",
                fix="cameras: [left, right]",
            )
        self._cameras = cameras
        self._next = first_number
        self._numbers: dict[int, int] = {}
        self._seen: dict[str, _Seen] = {}

    def take(self, message: Any) -> VinsFeatures | None:
        """Make the features of a frame; None if the first camera is missing in it.

        Raises:
            ConfigError: the tracks have no rays.
        """
        images = {image.camera: image for image in message.cameras if image.camera in self._cameras}
        if self._cameras[0] not in images:
            return None
        for camera, image in images.items():
            if len(image.rays) != len(image.keypoints):
                raise ConfigError(
                    f"tracks of camera {camera} have no rays: the matcher has no CameraInfo that it can use",
                    fix="publish camera_info next to the images, or set camera_info_topics",
                )
        first = images[self._cameras[0]]
        ids = np.asarray(first.ids, np.uint64)[np.asarray(first.ages) > 1]
        self._number(ids.tolist())
        parts = [
            self._features(number, images[camera])
            for number, camera in enumerate(self._cameras)
            if camera in images
        ]
        # A camera that is missing here has no speeds in the next frame.
        self._seen = {camera: seen for camera, (_, _, seen) in zip(images, parts, strict=True)}
        rays, channels = (np.concatenate(columns) for columns in list(zip(*parts, strict=True))[:2])
        return VinsFeatures(first.header, rays, np.ascontiguousarray(channels.T))

    def _number(self, ids: Sequence[int]) -> None:
        """Number the tracks of this frame: as in the frame before, or with the next free number."""
        before, self._numbers = self._numbers, {}
        for one in ids:
            if one in before:
                self._numbers[one] = before[one]
        used = set(self._numbers.values())
        for one in ids:
            if one not in before:
                while self._next % _NUMBERS in used:
                    self._next += 1
                self._numbers[one] = self._next % _NUMBERS
                self._next += 1

    def _features(self, number: int, image: Any) -> tuple[np.ndarray, np.ndarray, _Seen]:
        """Return rays [M, 2] and channels [M, 9] of one camera, and what it sees."""
        ids = np.asarray(image.ids, np.uint64)
        rays, pixels = (np.asarray(it, np.float32).reshape(-1, 2) for it in (image.rays, image.keypoints))
        seen = _Seen(ids, rays, 1e-9 * stamp_in_ns(image.header))
        rows = np.array([row for row, one in enumerate(ids.tolist()) if one in self._numbers], np.int64)
        channels = np.zeros((len(rows), len(CHANNELS)), np.float32)
        channels[:, 0] = [self._numbers[one] for one in ids[rows].tolist()]
        channels[:, 1] = number
        channels[:, 2:4] = pixels[rows]
        channels[:, 4:6] = _speeds(self._seen.get(image.camera), seen)[rows]
        return rays[rows], channels, seen


def _speeds(before: _Seen | None, now: _Seen) -> np.ndarray:
    """Return how far each ray has moved per second [M, 2]; 0 if it was not seen before."""
    speeds = np.zeros_like(now.rays)
    if before is not None and now.time > before.time:
        _, rows, rows_before = np.intersect1d(now.ids, before.ids, True, return_indices=True)
        speeds[rows] = (now.rays[rows] - before.rays[rows_before]) / (now.time - before.time)
    return speeds
