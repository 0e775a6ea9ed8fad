"""Finds and reads the images of a rig's cameras in a bag."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lightglue_ros.errors import ConfigError, RejectedImageError
from lightglue_ros.rosdata.bags import IMAGE_TYPES, Bag
from lightglue_ros.rosdata.decoding import COMPRESSED_SUFFIX, CameraImage, check_message
from lightglue_ros.rosdata.parameters import MatcherParameters
from lightglue_ros.rosdata.recording import Message
from lightglue_ros.rosdata.typestore import typestore

RAW, COMPRESSED = IMAGE_TYPES


class ImageTopic(NamedTuple):
    """A camera's topic in a bag, and the type of its messages."""

    name: str
    kind: str


def absolute_names(topics: Sequence[str]) -> list[str]:
    """Return the absolute names of topics, for a node without a namespace."""
    return [f"/{topic.lstrip('/')}" for topic in topics]


def find_image_topics(bag: Bag, settings: MatcherParameters) -> list[ImageTopic | None]:
    """Return the topic of each camera's images; None if the bag has none.

    A camera may be recorded raw or compressed, whatever the other cameras are. If there are images of both
    kinds, image_transport tells which one to take.

    Raises:
        ConfigError: no pair can be made of the cameras that are there.
    """
    there = {ImageTopic(topic.name, topic.message_type) for topic in bag.topics}
    found = []
    for name in absolute_names(settings.image_topics):
        candidates = [
            ImageTopic(name, RAW),
            ImageTopic(name, COMPRESSED),
            ImageTopic(name + COMPRESSED_SUFFIX, COMPRESSED),
        ]
        if settings.image_transport == "compressed":
            candidates.reverse()
        candidates = [one for one in candidates if one in there]
        # A recorder of all topics lists the raw ones too, although nobody published on them.
        used = (one for one in candidates if len(candidates) == 1 or _has_messages(bag, one))
        found.append(next(used, candidates[0] if candidates else None))
    present = {camera for camera, topic in enumerate(found) if topic is not None}
    if not present or (len(present) < len(found) and not settings.frame.rig.is_served_by(present)):
        names = enumerate(absolute_names(settings.image_topics))
        lacking = ", ".join(name for camera, name in names if camera not in present)
        raise ConfigError(
            "; ".join([f"bag {bag} has no images on {lacking}", *bag.problems()]),
            allowed=f"{RAW} or {COMPRESSED} for each camera; it has: {bag.describe_topics()}",
            fix="-p image_topics:='[/left/topic, /right/topic]'",
        )
    return found


def _has_messages(bag: Bag, image_topic: ImageTopic) -> bool:
    wanted = bag.messages_of(lambda topic: (topic.name, topic.message_type) == image_topic)
    return next(wanted, None) is not None


def read_images(bag: Bag, topics: Sequence[ImageTopic | None]) -> Iterator[tuple[int, Message]]:
    """Read (camera, message) in the order of recording."""
    wanted = set(topics)
    for message in bag.messages_of(lambda topic: (topic.name, topic.message_type) in wanted):
        for camera, topic in enumerate(topics):
            if topic == (message.topic.name, message.topic.message_type):
                yield camera, message


def check_image(data: bytes, kind: str, max_pixels: int) -> CameraImage:
    """Check a serialized image without decoding it.

    Raises:
        RejectedImageError: the image cannot be used.
    """
    try:
        message = typestore().deserialize_cdr(data, kind)
    # The exception depends on which bytes are broken.
    except Exception as error:
        raise RejectedImageError(
            "broken_message", f"{len(data)} bytes are no {kind}: {error}", allowed="a whole message"
        ) from error
    return check_message(message, max_pixels)
