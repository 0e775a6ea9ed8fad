"""Publishes pictures of matches while somebody subscribes to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher

from lightglue_ros.core import PairMatches
from lightglue_ros.core.draw import DrawnPair, draw_pairs
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import RejectedImageError
from lightglue_ros.msg import Matches
from lightglue_ros.msg import PairMatches as PairMatchesMsg
from lightglue_ros.nodes.conversions import array_to_image, message_to_inliers, message_to_matches
from lightglue_ros.nodes.lazy_publisher import LazyPublisher
from lightglue_ros.rosdata.decoding import CameraImage

TOPIC = "matches/image"
# Longest side of an image in the picture, in pixels.
LONGEST_SIDE = 640

# First and second image of a pair; None if it is missing.
ImagePair = tuple[CameraImage | None, CameraImage | None]


class Drawer(LazyPublisher[tuple[Matches, Sequence[ImagePair]]]):
    """Draws the newest matches, from the published message and the images of its pairs; counts `drawn`."""

    def __init__(self, node: Node, publisher: Publisher, rate: float, mono16: Mono16Range) -> None:
        super().__init__(node, [publisher], rate, "drawing")
        self.drawn = 0
        self._publisher = publisher
        self._mono16 = mono16

    def _publish(self, item: tuple[Matches, Sequence[ImagePair]]) -> None:
        matches, images = item
        pairs = [self._pair(pair, both) for pair, both in zip(matches.pairs, images, strict=True)]
        self._publisher.publish(array_to_image(draw_pairs(pairs, LONGEST_SIDE), matches.header))
        self.drawn += 1

    def _pair(self, message: PairMatchesMsg, images: ImagePair) -> DrawnPair:
        decoded = [self._decode(image) for image in images]
        is_seen = all(image is not None for image in decoded)
        is_missing = message.status == PairMatchesMsg.STATUS_MISSING
        inliers = message_to_inliers(message)
        says = "missing" if is_missing else f"{len(message.scores)} matches"
        says += "" if inliers is None else f", {np.count_nonzero(inliers)} inliers"
        says += "" if is_seen or is_missing else ", no image"
        title = f"{message.camera0}:{message.camera1}  {says}"
        black = np.zeros((240, 320), np.uint8)
        first, second = (black if image is None else image for image in decoded)
        if not is_seen:
            return DrawnPair(title, first, second, PairMatches.empty())
        return DrawnPair(title, first, second, message_to_matches(message), inliers)

    def _decode(self, image: CameraImage | None) -> np.ndarray | None:
        try:
            return None if image is None or image.decode is None else image.decode(self._mono16)
        except RejectedImageError:
            return None
