"""Subscriptions to the masks of the cameras, and words about cameras that go without one.

All functions belong to the executor's thread. The inference thread decodes a mask, when an image needs it.
"""

from __future__ import annotations

import re
from functools import partial

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from lightglue_ros.nodes.subscriptions import FollowingSubscription
from lightglue_ros.nodes.watch import Throttle
from lightglue_ros.rosdata.masks import camera_masks, mask_of_message
from lightglue_ros.rosdata.messages import stamp_in_ns
from lightglue_ros.rosdata.parameters import MatcherParameters


class MaskSubscriptions:
    """Hands the masks of each camera to the matcher.

    Attributes:
        masks: of the cameras; None if they have none.

    Raises:
        ConfigError: a file of mask_files is no mask.
    """

    def __init__(self, node: Node, settings: MatcherParameters) -> None:
        topics = [topic and node.resolve_topic_name(topic) for topic in settings.mask_topics]
        self.masks = camera_masks(settings, topics)
        self._node = node
        self._settings = settings
        self._throttle = Throttle()
        self._kinds: dict[str, str] = {}
        self._subscriptions: list[FollowingSubscription] = []
        try:
            for camera, topic in enumerate(settings.of_cameras(settings.mask_topics)):
                if topic:
                    take, kinds = partial(self._take, camera), (Image, CompressedImage)
                    self._subscriptions.append(FollowingSubscription(node, kinds, topic, take))
        except Exception:
            self.destroy()
            raise
        self._topics = settings.of_cameras(topics)

    def look(self) -> str:
        """Follow the publishers; log and return in words which cameras go without a mask, or nothing."""
        for subscription in self._subscriptions:
            subscription.look()
        texts = []
        problems = self.masks.problems if self.masks else []
        for name, problem in zip(self._settings.cameras, problems, strict=False):
            # Without its numbers, which differ from frame to frame, a problem stays the same.
            kind = re.sub(r"[0-9.]+", "", problem)
            if kind != self._kinds.get(name, ""):
                self._throttle.forget(name)
            self._kinds[name] = kind
            if not problem:
                continue
            texts.append(f"camera {name} is matched without a mask: {problem}")
            if self._throttle.is_due(name):
                self._node.get_logger().warning(texts[-1])
        return "; ".join(texts)

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            subscription.destroy()

    def _take(self, camera: int, message: Image | CompressedImage) -> None:
        stamp = stamp_in_ns(message.header) or self._node.get_clock().now().nanoseconds
        topic, max_pixels = self._topics[camera], self._settings.max_image_pixels
        self.masks.take(camera, stamp, partial(mask_of_message, message, topic, max_pixels))
