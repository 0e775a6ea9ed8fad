"""Publishes pictures of matches while somebody subscribes to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher

from lightglue_ros.errors import RejectedImageError
from lightglue_ros.msg import Matches
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.nodes.lazy_publisher import LazyPublisher
from lightglue_ros.rosdata.camera_parameters import CameraParameters
from lightglue_ros.rosdata.decoding import CameraImage
from lightglue_ros.rosdata.drawing import draw_message

TOPIC = "matches/image"

# First and second image of a pair; None if it is missing.
ImagePair = tuple[CameraImage | None, CameraImage | None]


class Drawer(LazyPublisher[tuple[Matches, Sequence[ImagePair]]]):
    """Draws the newest matches, from the published message and the images of its pairs.

    Attributes:
        drawn: number of pictures.
        style: of the next pictures; it may be set at any time.
    """

    def __init__(self, node: Node, publisher: Publisher, values: CameraParameters) -> None:
        super().__init__(node, [publisher], values.drawing_rate, "drawing")
        self.drawn = 0
        self.style = values.style
        self._publisher = publisher
        self._mono16 = values.mono16

    def _publish(self, item: tuple[Matches, Sequence[ImagePair]]) -> None:
        matches, images = item
        decoded = [(self._decode(first), self._decode(second)) for first, second in images]
        self._publisher.publish(array_to_image(draw_message(matches, decoded, self.style), matches.header))
        self.drawn += 1

    def _decode(self, image: CameraImage | None) -> np.ndarray | None:
        try:
            return None if image is None or image.decode is None else image.decode(self._mono16)
        except RejectedImageError:
            return None
