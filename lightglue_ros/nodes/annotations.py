"""Publishes matches as annotations of the images for Foxglove. The package foxglove_msgs must be installed.

`matches/annotations/CAMERA` has a line for each match, from the keypoint in this image to the position of its
partner in the other image. The pairs of a camera are those whose first image is its present one, and for
pairs through time or with a reference those whose second image is. Colours are those of the pictures: red to
green by score, magenta for matches that do not agree with the geometry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher

from lightglue_ros.core import ConfigError
from lightglue_ros.core.draw import OUTLIER_COLOUR, score_colours
from lightglue_ros.msg import Matches
from lightglue_ros.msg import PairMatches as PairMatchesMsg
from lightglue_ros.nodes.lazy_publisher import LazyPublisher
from lightglue_ros.rig.rig import Rig
from lightglue_ros.rosdata.messages import message_to_inliers, message_to_matches

# Number of colours from red to green: each colour is a message of its own.
_COLOURS = 64
_THICKNESS = 1.0


def message_type() -> type[Any]:
    """Return the class foxglove_msgs/ImageAnnotations.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        from foxglove_msgs.msg import ImageAnnotations
    except ImportError as missing:
        raise ConfigError(
            f"parameter publish_annotations is true, and foxglove_msgs cannot be imported ({missing})",
            fix="apt install ros-$ROS_DISTRO-foxglove-msgs, or publish_annotations: false",
        ) from missing
    return ImageAnnotations


class Annotator(LazyPublisher[tuple[Rig, Matches]]):
    """Publishes annotations of the newest matches, from the rig and the published message.

    `publishers` are by camera name.
    """

    def __init__(self, node: Node, publishers: Mapping[str, Publisher], rate: float) -> None:
        super().__init__(node, list(publishers.values()), rate, "annotating")
        self._of_cameras = publishers

    def _publish(self, item: tuple[Rig, Matches]) -> None:
        rig, matches = item
        for camera, message in annotate(rig, matches).items():
            if self._of_cameras[camera].get_subscription_count() > 0:
                self._of_cameras[camera].publish(message)


def annotate(rig: Rig, matches: Matches) -> dict[str, Any]:
    """Make foxglove_msgs/ImageAnnotations of each camera that has an image in a pair, by camera name."""
    annotations: dict[str, Any] = {}
    for (first, _), pair in zip(rig.pairs, matches.pairs, strict=True):
        if pair.status == PairMatchesMsg.STATUS_OK:
            is_second = bool(first.back or rig.reference_of(first))
            camera = pair.camera1 if is_second else pair.camera0
            message = annotations.setdefault(camera, message_type()())
            message.points = [*message.points, _lines(pair, is_second)]
    return annotations


def _lines(pair: PairMatchesMsg, is_second: bool) -> Any:
    from foxglove_msgs.msg import Point2, PointsAnnotation

    found = message_to_matches(pair)
    ends = [found.keypoints0, found.keypoints1]
    # The origin of annotations is the corner of the first pixel; ours is its centre.
    points = np.stack(ends[::-1] if is_second else ends, axis=1).reshape(-1, 2) + 0.5
    return PointsAnnotation(
        timestamp=pair.stamp1 if is_second else pair.stamp0,
        type=PointsAnnotation.LINE_LIST,
        points=[Point2(x=x, y=y) for x, y in points.tolist()],
        outline_colors=_colours(found.scores, message_to_inliers(pair)),
        thickness=_THICKNESS,
    )


def _colours(scores: np.ndarray, inliers: np.ndarray | None) -> Sequence[Any]:
    steps = np.rint(scores * (_COLOURS - 1)).astype(int)
    if inliers is not None:
        steps[~inliers] = _COLOURS
    return [_palette()[step] for step in steps.tolist()]


@cache
def _palette() -> list[Any]:
    """Return the colours of scores from 0 to 1, and after them the colour of outliers."""
    from foxglove_msgs.msg import Color

    colours = [*score_colours(np.linspace(0.0, 1.0, _COLOURS)).tolist(), OUTLIER_COLOUR]
    return [Color(r=red / 255, g=green / 255, b=blue / 255, a=1.0) for red, green, blue in colours]
