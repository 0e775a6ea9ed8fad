"""The player node: images from files as N cameras at a rate, for demonstrations and tests.

Each camera is given a file, which is published again and again, or a folder, whose images are
published in the order of their names. All images of one moment carry the same stamp. With
`min_subscribers` it waits for so many subscribers on every topic before it begins.
"""

from __future__ import annotations

import threading
from pathlib import Path

from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.core import ConfigError
from lightglue_ros.core.images import list_images, read_image
from lightglue_ros.nodes import qos
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.nodes.run import run_node


class Player(Node):
    """Publishes images of files; see the head of this module.

    Args:
        done: set when the last image is published.

    Raises:
        ConfigError: the parameters do not fit each other.
        ImageError: an image is missing or cannot be read.
    """

    def __init__(self, done: threading.Event) -> None:
        super().__init__("player")
        cameras = self.declare_parameter("cameras", ["left", "right"]).value
        topics = self.declare_parameter("image_topics", [f"{camera}/image_rect" for camera in cameras]).value
        sources = self.declare_parameter("images", Parameter.Type.STRING_ARRAY).value or []
        rate = self.declare_parameter("rate", 10.0).value
        self._count = self.declare_parameter("count", 0).value
        self._loop = self.declare_parameter("loop", True).value
        self._min_subscribers = self.declare_parameter("min_subscribers", 0).value
        reliability = self.declare_parameter("image_qos", "sensor_data").value
        if not len(cameras) == len(topics) == len(sources):
            raise ConfigError(
                f"{len(sources)} images and {len(topics)} topics for {len(cameras)} cameras",
                allowed="one file or folder and one topic for each camera",
                fix="--ros-args -p images:=[left.png, right.png]",
            )
        if rate <= 0.0:
            raise ConfigError(f"parameter rate is {rate}", allowed="more than 0 (Hz)")
        self._images = [_messages(source, camera) for source, camera in zip(sources, cameras, strict=True)]
        self._image_publishers = [
            self.create_publisher(
                Image, topic, qos.image_qos(reliability), qos_overriding_options=qos.overridable()
            )
            for topic in topics
        ]
        self._moment = 0
        self._done = done
        self._timer = self.create_timer(1.0 / rate, self._publish)

    def _publish(self) -> None:
        publishers = self._image_publishers
        if not self._moment and any(p.get_subscription_count() < self._min_subscribers for p in publishers):
            return
        stamp = self.get_clock().now().to_msg()
        for images, publisher in zip(self._images, publishers, strict=True):
            message = images[self._moment % len(images)]
            message.header.stamp = stamp
            publisher.publish(message)
        self._moment += 1
        longest = max(len(images) for images in self._images)
        if self._moment == self._count or (not self._loop and self._moment == longest):
            self._timer.cancel()
            self._done.set()


def _messages(source: str, camera: str) -> list[Image]:
    path = Path(source).expanduser()
    paths = list_images(path) if path.is_dir() else [path]
    return [array_to_image(read_image(path), Header(frame_id=camera)) for path in paths]


def main(args: list[str] | None = None) -> int:
    """Publish until interrupted or done; the exit status is 1 if it could not start."""
    return run_node("player", Player, args)
