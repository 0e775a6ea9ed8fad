"""The player node: publishes image files, folders, videos or a bag, as cameras would.

`images` gives each camera a file, which is published again and again, a folder, whose images are published
in the order 1, 2, 10, or a video. An image that cannot be read is logged, and its camera has no message at
that moment. All images of one moment carry the same stamp, the present time.
Images of 16-bit grey files are published as mono16, so that the matcher normalises them as it does a
camera's.

`bag` plays the image topics of a rosbag2 under their recorded names (remap them as usual), `speed` times as
fast as they were recorded and with their own stamps; `keep_stamps: false` gives them the present time.

With `clock` the node publishes the time of the images on /clock, for nodes with use_sim_time. When a bag
loops, that time and the stamps jump back. With `min_subscribers` the node begins when every topic has that
many subscribers.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from lightglue_ros.core import ConfigError, ImageError
from lightglue_ros.core.image_files import open_source
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.nodes import qos
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.nodes.ros_parameters import declare_all
from lightglue_ros.nodes.spin import run_node
from lightglue_ros.rosdata.camera_parameters import OFFERED_QOS
from lightglue_ros.rosdata.parameter_spec import Spec

MESSAGE_TYPES = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
# Images per second if neither the parameters nor a video say how many.
DEFAULT_RATE = 10.0
# A subscriber may take one announcement (3 s in Fast DDS) to find its publisher.
ACKNOWLEDGED_WITHIN = Duration(seconds=4)
# Declares a parameter that cannot change.
_spec = partial(Spec, is_read_only=True)
SPECS = {
    "images": _spec(
        Parameter.Type.STRING_ARRAY,
        "An image file, which is repeated, a folder of images, or a video for each camera.",
    ),
    "bag": _spec("", "Folder of a rosbag2 (sqlite3 or MCAP) to play, instead of images."),
    "cameras": _spec(["left", "right"], "Names of the cameras of images; they are also the frame ids."),
    "image_topics": _spec(
        Parameter.Type.STRING_ARRAY,
        "Topic of each camera (default: CAMERA/image_rect); of a bag, topics to play (default: all "
        "image topics).",
    ),
    "rate": _spec(
        0.0,
        f"Images per second of each camera; 0 is the rate of a video, or else {DEFAULT_RATE:g}.",
        limits=(0.0, 1000.0),
    ),
    "speed": _spec(1.0, "Speed of playing a bag; 1 is the recorded speed.", limits=(0.001, 1000.0)),
    "loop": _spec(True, "Begin again after the last image."),
    "count": _spec(
        0, "Number of sets of images (of a bag: images) after which the player ends; 0 is no limit."
    ),
    "keep_stamps": _spec(True, "Play a bag with its recorded stamps; false gives them the present time."),
    "clock": _spec(False, "Publish the time of the images on /clock."),
    "min_subscribers": _spec(0, "Begin when every topic has this many subscribers."),
    "image_qos": _spec("sensor_data", "Quality of service of the images.", choices=OFFERED_QOS),
}
CLOCK_PERIOD_NS = 10_000_000
# A slow machine falls behind the recorded times. Beyond this lag playing goes on from there, without a burst.
MOST_LAG_NS = 100_000_000
# Time between two checks of the number of subscribers.
WAIT_NS = 10_000_000


@dataclass(frozen=True)
class Moment:
    """Messages that are published at the same time.

    Attributes:
        position: nanoseconds from the beginning of playing.
        time: time on /clock, in nanoseconds.
        messages: (publisher, message or its serialised bytes).
    """

    position: int
    time: int
    messages: list[tuple[Publisher, Image | CompressedImage | bytes]]


class Player(Node):
    """Publishes images of files or of a bag; see the docstring of this module.

    Args:
        done: set when the last image is published.

    Raises:
        ConfigError: the parameters contradict each other.
        ImageError: an image is missing or cannot be read.
    """

    def __init__(self, done: threading.Event) -> None:
        super().__init__("player")
        self._done = done
        self._values = values = declare_all(self, SPECS)
        images, bag = values["images"] or [], values["bag"]
        if bool(bag) == bool(images):
            raise ConfigError(
                "images and bag are both given" if bag else "there is nothing to play",
                allowed="either images or bag",
                fix='--ros-args -p "images:=[left.png, right.png]", or -p bag:=FOLDER',
            )
        topics = values["image_topics"] or []
        self._moments = self._bag_moments(bag, topics) if bag else self._image_moments(images, topics)
        self._played = 0
        self._begin: int | None = None
        self._image_publishers: list[Publisher] = []
        self._clock_publisher = self.create_publisher(ClockMessage, "/clock", 10) if values["clock"] else None
        self._advance()
        if self._next is None:
            raise ConfigError(f"bag {bag} has no images", allowed="a bag with at least one image")
        # On the steady clock, because the node's own clock may follow the /clock that is published here.
        self._timer = self.create_timer(1e-6, self._play, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Sources of moments. Each makes the publishers before its first moment.

    def _image_moments(self, paths: list[str], topics: list[str]) -> Iterator[Moment]:
        cameras = self._values["cameras"]
        topics = topics or [f"{camera}/image_rect" for camera in cameras]
        if not len(cameras) == len(topics) == len(paths):
            raise ConfigError(
                f"{len(paths)} images and {len(topics)} topics for {len(cameras)} cameras",
                allowed="one file, folder or video and one topic for each camera",
                fix='--ros-args -p "images:=[left.png, right.png]"',
            )
        sources = [open_source(path) for path in paths]
        rates = [source.rate for source in sources if source.rate]
        rate = self._values["rate"] or min(rates, default=DEFAULT_RATE)
        self._image_publishers = [self._publisher(Image, topic) for topic in topics]
        start = time.time_ns()
        shown: list[np.ndarray | ImageError | None] = [None] * len(sources)
        messages: list[Image | None] = [None] * len(sources)
        has_image = False
        logged = set()
        for number in itertools.count():
            images = [source.next_image() for source in sources]
            if all(source.passes for source in sources):
                if not has_image:
                    raise ImageError("no image can be read", fix="see the causes above")
                if not self._values["loop"]:
                    return
            for camera, image in enumerate(images):
                if isinstance(image, ImageError):
                    messages[camera] = None
                    if str(image) not in logged:
                        self.get_logger().error(str(image))
                        logged.add(str(image))
                # The message of a still image is made once.
                elif image is not shown[camera]:
                    messages[camera] = _to_message(image, cameras[camera])
            shown = images
            position = round(number * 1e9 / rate)
            of_topics = zip(self._image_publishers, messages, strict=True)
            present = [(publisher, message) for publisher, message in of_topics if message is not None]
            has_image |= bool(present)
            yield Moment(position, start + position, present)

    def _bag_moments(self, path: str, topics: list[str]) -> Iterator[Moment]:
        # Only bags need rosbags.
        from lightglue_ros.rosdata.bags import Bag

        with Bag(path) as bag:
            kinds = {topic: MESSAGE_TYPES[kind] for topic, kind in bag.image_types(topics).items()}
            publishers = {topic: self._publisher(kind, topic) for topic, kind in kinds.items()}
            self._image_publishers = list(publishers.values())
            offset = 0
            while True:
                first, position, count = 0, offset, 0
                for message in bag.messages(publishers):
                    first = first if count else message.time
                    count += 1
                    position = offset + round((message.time - first) / self._values["speed"])
                    content = message.data
                    if not self._values["keep_stamps"]:
                        content = deserialize_message(content, kinds[message.topic.name])
                    yield Moment(position, message.time, [(publishers[message.topic.name], content)])
                if not offset:  # the first pass
                    for line in bag.problems():
                        self.get_logger().warning(f"bag {path}: {line}")
                if not count or not self._values["loop"]:
                    return
                # Between the last message and the next pass lies the mean time between two messages.
                offset = position + (position - offset) // max(count - 1, 1)

    def _publisher(self, kind: type, topic: str) -> Publisher:
        profile = qos.image_qos(self._values["image_qos"])
        return self.create_publisher(kind, topic, profile, qos_overriding_options=qos.overridable())

    # Playing. A call of the timer publishes at most one moment and then waits for the next.

    def _play(self) -> None:
        now = time.monotonic_ns()
        if self._begin is None:
            least = self._values["min_subscribers"]
            if any(publisher.get_subscription_count() < least for publisher in self._image_publishers):
                self._wait(WAIT_NS)
                return
            self._begin = now
        left = self._begin + self._next.position - now
        if left < -MOST_LAG_NS:
            self._begin -= left
            left = 0
        if self._clock_publisher is not None:
            now_ns = self._next.time - round(max(left, 0) * self._values["speed"])
            self._clock_publisher.publish(ClockMessage(clock=Time(nanoseconds=now_ns).to_msg()))
        if left <= 0:
            self._publish(self._next)
            self._advance()
            if self._next is None or self._played == self._values["count"]:
                self._finish()
                return
        self._wait(self._begin + self._next.position - time.monotonic_ns())

    def _publish(self, moment: Moment) -> None:
        has_clock = self._clock_publisher is not None
        stamp = (Time(nanoseconds=moment.time) if has_clock else self.get_clock().now()).to_msg()
        for publisher, message in moment.messages:
            if not isinstance(message, bytes):
                message.header.stamp = stamp
            publisher.publish(message)
        self._played += 1

    def _finish(self) -> None:
        self._timer.cancel()
        # Messages that reliable subscribers have not received yet are lost when the node is destroyed.
        for publisher in self.publishers:
            publisher.wait_for_all_acked(ACKNOWLEDGED_WITHIN)
        self._done.set()

    def _advance(self) -> None:
        """Read ahead, so that the next moment is ready when its time comes; None is the end."""
        self._next: Moment | None = next(self._moments, None)

    def _wait(self, nanoseconds: int) -> None:
        most = nanoseconds if self._clock_publisher is None else min(nanoseconds, CLOCK_PERIOD_NS)
        self._timer.timer_period_ns = max(most, 1)
        self._timer.reset()


def _to_message(image: np.ndarray, camera: str) -> Image:
    # The matcher takes no encoding of 16-bit colour without cv_bridge.
    if image.ndim == 3:
        image = Mono16Range().to_8_bits(image)
    return array_to_image(image, Header(frame_id=camera))


def main(args: list[str] | None = None) -> int:
    """Publish until interrupted or done; the exit status is 1 if it could not start or go on."""
    return run_node("player", Player, args)
