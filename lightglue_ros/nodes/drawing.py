"""Draws matches and publishes the pictures, in a thread of its own and only while somebody looks.

Neither an executor's callback nor inference waits for it: `is_wanted` compares a time and asks for the number
of subscribers. Pictures come at a limited rate, and one that is overtaken is not drawn.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher

from lightglue_ros.core import PairMatches
from lightglue_ros.core.draw import DrawnPair, draw_pairs
from lightglue_ros.core.normalise import Normalisation
from lightglue_ros.msg import Matches
from lightglue_ros.msg import PairMatches as PairMatchesMsg
from lightglue_ros.nodes.conversions import array_to_image, message_to_matches
from lightglue_ros.nodes.decoding import CameraImage, RejectedImageError
from lightglue_ros.nodes.worker import NewestWorker

TOPIC = "matches/image"
# Images are shrunk to this for the picture, in pixels.
LONGEST_SIDE = 640
LOG_PERIOD = 5.0

# The first and the second image of a pair, None where it is not there.
ImagePair = tuple[CameraImage | None, CameraImage | None]


class Drawer:
    """Draws the newest matches.

    Args:
        node: for its log.
        publisher: of sensor_msgs/Image.
        rate: at most so many pictures a second; 0 is none.
        normalisation: of 16-bit images.

    Attributes:
        rate: may be set at any time.
        drawn: how many pictures were published.
    """

    def __init__(self, node: Node, publisher: Publisher, rate: float, normalisation: Normalisation) -> None:
        self.rate = rate
        self.drawn = 0
        self._node = node
        self._publisher = publisher
        self._normalisation = normalisation
        self._last = -np.inf
        self._worker: NewestWorker[tuple[Matches, Sequence[ImagePair]]] = NewestWorker(
            lambda item: self._draw(*item), self._on_error, "drawing"
        )

    def is_wanted(self) -> bool:
        """Whether it is time for a picture and somebody looks."""
        is_time = self.rate > 0.0 and time.monotonic() - self._last >= 1.0 / self.rate
        return is_time and self._publisher.get_subscription_count() > 0

    def offer(self, matches: Matches, images: Sequence[ImagePair]) -> None:
        """Let matches be drawn; returns at once.

        Args:
            matches: as published.
            images: of each pair.
        """
        self._last = time.monotonic()
        self._worker.offer((matches, images))

    def stop(self) -> None:
        """End the thread after the picture that it is drawing."""
        self._worker.stop()

    def _draw(self, matches: Matches, images: Sequence[ImagePair]) -> None:
        pairs = [self._pair(pair, *both) for pair, both in zip(matches.pairs, images, strict=True)]
        self._publisher.publish(array_to_image(draw_pairs(pairs, LONGEST_SIDE), matches.header))
        self.drawn += 1

    def _pair(
        self, message: PairMatchesMsg, image0: CameraImage | None, image1: CameraImage | None
    ) -> DrawnPair:
        decoded = [self._decode(image) for image in (image0, image1)]
        is_seen = all(image is not None for image in decoded)
        is_missing = message.status == PairMatchesMsg.STATUS_MISSING
        says = "missing" if is_missing else f"{len(message.scores)} matches{'' if is_seen else ', no image'}"
        first, second = (_black() if image is None else image for image in decoded)
        matches = message_to_matches(message) if is_seen else PairMatches.empty()
        return DrawnPair(f"{message.camera0}:{message.camera1}  {says}", first, second, matches)

    def _decode(self, image: CameraImage | None) -> np.ndarray | None:
        try:
            return None if image is None or image.decode is None else image.decode(self._normalisation)
        except RejectedImageError:
            return None

    def _on_error(self, error: Exception) -> None:
        self._node.get_logger().error(
            f"a picture was lost: {type(error).__name__}: {error}", throttle_duration_sec=LOG_PERIOD
        )


def _black() -> np.ndarray:
    return np.zeros((240, 320), np.uint8)
