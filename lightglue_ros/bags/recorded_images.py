"""Reads the images of a rig's cameras from a bag."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lightglue_ros.errors import RejectedImageError
from lightglue_ros.rosdata.bags import Bag, BagMessage
from lightglue_ros.rosdata.decoding import CameraImage, check_message
from lightglue_ros.rosdata.parameters import MatcherParameters
from lightglue_ros.rosdata.typestore import typestore


class ImageRef(NamedTuple):
    """The place of a camera's image in a bag.

    Attributes:
        time: when it was recorded, in nanoseconds.
        repeat: how many of the camera's images before it were recorded at the same time.
    """

    time: int
    repeat: int


def absolute_names(topics: Sequence[str]) -> list[str]:
    """Return the absolute names of topics, for a node without a namespace."""
    return [f"/{topic.lstrip('/')}" for topic in topics]


def recorded_topics(values: MatcherParameters) -> list[str]:
    """Return the topic that each camera's images are recorded on."""
    suffix = "/compressed" if _is_compressed(values) else ""
    return [f"{topic}{suffix}" for topic in absolute_names(values.image_topics)]


def recorded_type(values: MatcherParameters) -> str:
    """Return the message type of the cameras' images."""
    return f"sensor_msgs/msg/{'CompressedImage' if _is_compressed(values) else 'Image'}"


def _is_compressed(values: MatcherParameters) -> bool:
    return values.image_transport == "compressed"


def read_images(
    bag: Bag, values: MatcherParameters, start: int | None = None, stop: int | None = None
) -> Iterator[tuple[int, ImageRef, BagMessage]]:
    """Read (camera, place, message) of a rig's images in the order in which they were recorded.

    Args:
        bag: the bag.
        values: the node's parameters, which name the topics.
        start: read images recorded at or after this time, in nanoseconds.
        stop: read images recorded before this time, in nanoseconds.

    Raises:
        BrokenBagError: the bag ends in the middle.
    """
    topics = recorded_topics(values)
    last = [ImageRef(-1, 0)] * len(topics)
    for message in bag.messages(set(topics), start, stop):
        for camera, topic in enumerate(topics):
            if topic == message.topic:
                is_repeated = last[camera].time == message.time
                last[camera] = ImageRef(message.time, last[camera].repeat + 1 if is_repeated else 0)
                yield camera, last[camera], message


def check_recorded_image(data: bytes, values: MatcherParameters) -> CameraImage:
    """Check a serialized image without decoding it.

    Raises:
        RejectedImageError: the image cannot be used.
    """
    kind = recorded_type(values)
    try:
        message = typestore().deserialize_cdr(data, kind)
    # The exception depends on which bytes are broken.
    except Exception as error:
        raise RejectedImageError(
            "broken_message", f"{len(data)} bytes are no {kind}: {error}", allowed="a whole message"
        ) from error
    return check_message(message, values.max_image_pixels)
