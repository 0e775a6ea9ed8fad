"""Pictures of the pairs of a `Matches` message, the same in the node, in the viewer and of a bag."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lightglue_ros.core import PairMatches
from lightglue_ros.core.draw import DrawnPair, ImageKeypoints, Style, draw_pairs
from lightglue_ros.rig.frame import FrameResult
from lightglue_ros.rosdata.messages import Stamp, StampedImage, message_to_inliers, message_to_matches

# Longest side of an image in the picture, in pixels.
LONGEST_SIDE = 640
# Past positions of a track that are drawn.
TRAIL = 8
# Frames whose keypoints are kept: those of past images of pairs through time, and of their trails.
MOST_FRAMES = 32
# Stands for an image that is missing.
_BLACK = np.zeros((240, 320), np.uint8)

# First and second image of a pair, uint8 [H, W] or [H, W, 3] RGB; None if it is missing.
DecodedPair = tuple[np.ndarray | None, np.ndarray | None]


class SeenImage(NamedTuple):
    """Keypoints of a camera's image, which are not converted before they are drawn.

    Attributes:
        camera: name.
        stamp: of the image.
        keypoints: flat float32 [2 K], pixels of the original image.
        ids: of the tracks, [K]; None if they are not known.
        ages: of the tracks, [K]; None likewise.
    """

    camera: str
    stamp: Stamp
    keypoints: Any
    ids: Any = None
    ages: Any = None


class RecentKeypoints:
    """Keypoints of the last frames, oldest first.

    Attributes:
        frames: the images of each frame.
    """

    def __init__(self) -> None:
        self.frames: deque[list[SeenImage]] = deque(maxlen=MOST_FRAMES)

    def add_tracks(self, message: Any) -> None:
        """Add a lightglue_ros/Tracks, of rclpy or of rosbags."""
        self.frames.append(
            [SeenImage(it.camera, it.header.stamp, it.keypoints, it.ids, it.ages) for it in message.cameras]
        )

    def add_result(self, result: FrameResult[StampedImage]) -> None:
        """Add the keypoints of a frame without tracks."""
        cameras = zip(result.settings.rig.cameras, result.images, result.features, strict=True)
        self.frames.append(
            [
                SeenImage(camera, image.header.stamp, features.keypoints[features.mask].copy())
                for camera, image, features in cameras
                if image is not None and features is not None
            ]
        )


def draw_message(
    message: Any, images: Sequence[DecodedPair], style: Style, recent: Sequence[Sequence[SeenImage]] = ()
) -> np.ndarray:
    """Draw all pairs of a message, of rclpy or of rosbags, as uint8 [H, W, 3] RGB.

    Args:
        message: lightglue_ros/Matches.
        images: of each of its pairs.
        style: see `Style`.
        recent: frames of `RecentKeypoints`; what they lack is left out.
    """
    pairs = [_drawn_pair(pair, both, recent) for pair, both in zip(message.pairs, images, strict=True)]
    return draw_pairs(pairs, LONGEST_SIDE, style)


def _drawn_pair(message: Any, images: DecodedPair, recent: Sequence[Sequence[SeenImage]]) -> DrawnPair:
    is_seen = all(image is not None for image in images)
    is_missing = message.status == message.STATUS_MISSING
    inliers = message_to_inliers(message)
    says = "missing" if is_missing else f"{len(message.scores)} matches"
    says += "" if inliers is None else f", {np.count_nonzero(inliers)} inliers"
    says += "" if is_seen or is_missing else ", no image"
    title = f"{message.camera0}:{message.camera1}  {says}"
    first, second = (_BLACK if image is None else image for image in images)
    if not is_seen:
        return DrawnPair(title, first, second, PairMatches.empty())
    keypoints = (
        _find_keypoints(recent, message.camera0, message.stamp0, message.num_keypoints0),
        _find_keypoints(recent, message.camera1, message.stamp1, message.num_keypoints1),
    )
    return DrawnPair(title, first, second, message_to_matches(message), inliers, keypoints)


def _find_keypoints(
    recent: Sequence[Sequence[SeenImage]], camera: str, stamp: Stamp, count: int
) -> ImageKeypoints | None:
    """Find the keypoints of an image, and the trails of their tracks."""
    seen = [image for frame in recent for image in frame if image.camera == camera]
    wanted = stamp.sec, stamp.nanosec
    places = [place for place, it in enumerate(seen) if (it.stamp.sec, it.stamp.nanosec) == wanted]
    if not places:
        return None
    image = seen[places[-1]]
    positions = np.asarray(image.keypoints, np.float32).reshape(-1, 2)
    if len(positions) != count:  # of another matcher
        return None
    if image.ids is None:
        return ImageKeypoints(positions)
    past = [it for it in seen[: places[-1]] if it.ids is not None][: -TRAIL - 1 : -1]
    trails = np.full((len(past), count, 2), np.nan, np.float32)
    for trail, before in zip(trails, past, strict=True):
        _, rows, rows_before = np.intersect1d(
            np.asarray(image.ids), np.asarray(before.ids), assume_unique=True, return_indices=True
        )
        trail[rows] = np.asarray(before.keypoints, np.float32).reshape(-1, 2)[rows_before]
    return ImageKeypoints(positions, np.asarray(image.ages), trails)
