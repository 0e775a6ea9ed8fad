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


class RecordedImages:
    """Images of a rig's cameras in a bag.

    Attributes:
        kind: the message type of the images.
        topics: the topic of each camera.
    """

    def __init__(self, bag: Bag, settings: MatcherParameters) -> None:
        is_compressed = settings.image_transport == "compressed"
        suffix = "/compressed" if is_compressed else ""
        self.kind = f"sensor_msgs/msg/{'CompressedImage' if is_compressed else 'Image'}"
        self.topics = [f"{topic}{suffix}" for topic in absolute_names(settings.image_topics)]
        self._bag = bag
        self._max_pixels = settings.max_image_pixels

    def read(
        self, start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[int, ImageRef, BagMessage]]:
        """Read (camera, place, message) in the order of recording; see `Bag.messages`."""
        last = [ImageRef(-1, 0)] * len(self.topics)
        for message in self._bag.messages(set(self.topics), start, stop):
            for camera, topic in enumerate(self.topics):
                if topic == message.topic:
                    is_repeated = last[camera].time == message.time
                    last[camera] = ImageRef(message.time, last[camera].repeat + 1 if is_repeated else 0)
                    yield camera, last[camera], message

    def check(self, data: bytes) -> CameraImage:
        """Check a serialized image without decoding it.

        Raises:
            RejectedImageError: the image cannot be used.
        """
        store = typestore()
        try:
            message = store.deserialize_cdr(data, self.kind)
        # The exception depends on which bytes are broken.
        except Exception as error:
            raise RejectedImageError(
                "broken_message", f"{len(data)} bytes are no {self.kind}: {error}", allowed="a whole message"
            ) from error
        return check_message(message, self._max_pixels)
