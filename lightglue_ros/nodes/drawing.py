"""Publishes pictures of matches while somebody subscribes to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher

from lightglue_ros.errors import RejectedImageError
from lightglue_ros.msg import Matches, Tracks
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.nodes.lazy_publisher import LazyPublisher
from lightglue_ros.rig.frame import FrameResult
from lightglue_ros.rig.references import StoredImage
from lightglue_ros.rosdata.camera_parameters import CameraParameters
from lightglue_ros.rosdata.decoding import CameraImage
from lightglue_ros.rosdata.drawing import RecentKeypoints, SeenImage, draw_message

TOPIC = "matches/image"

# First and second image of a pair; None if it is missing.
ImagePair = tuple[CameraImage | StoredImage | None, CameraImage | StoredImage | None]
# Matches, the images of their pairs, and the frames of `RecentKeypoints`.
Drawn = tuple[Matches, Sequence[ImagePair], Sequence[Sequence[SeenImage]]]


class Drawer(LazyPublisher[Drawn]):
    """Draws the newest matches, from the published message and the images of its pairs.

    Attributes:
        drawn: number of pictures.
        style: of the next pictures; it may be set at any time.
    """

    def __init__(self, node: Node, publisher: Publisher, values: CameraParameters) -> None:
        super().__init__(node, [publisher], values.drawing_rate, "drawing")
        self.drawn = 0
        self._recent = RecentKeypoints()
        self.style = values.style
        self._publisher = publisher
        self._mono16 = values.mono16

    def remember(
        self, tracks: Tracks | None, result: FrameResult[CameraImage] | None, *, is_watched: bool
    ) -> None:
        """Keep the keypoints of a frame for pictures, from its tracks or else from its result."""
        if not is_watched:
            self._recent.frames.clear()
        elif tracks is not None:
            self._recent.add_tracks(tracks)
        elif result is not None:
            self._recent.add_result(result)

    def draw(self, matches: Matches, images: Sequence[ImagePair]) -> None:
        """Draw matches with the recent keypoints, and return at once."""
        self.submit((matches, images, tuple(self._recent.frames)))

    def _publish(self, item: Drawn) -> None:
        matches, images, recent = item
        decoded = [(self._decode(first), self._decode(second)) for first, second in images]
        picture = draw_message(matches, decoded, self.style, recent)
        self._publisher.publish(array_to_image(picture, matches.header))
        self.drawn += 1

    def _decode(self, image: CameraImage | StoredImage | None) -> np.ndarray | None:
        try:
            return None if image is None or image.decode is None else image.decode(self._mono16)
        except RejectedImageError:
            return None
