"""The masks of a rig's cameras in a bag."""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from typing import NamedTuple

from lightglue_ros.bags.recorded_images import absolute_names
from lightglue_ros.bags.tally import Tally
from lightglue_ros.core.masks import Mask
from lightglue_ros.errors import ImageError
from lightglue_ros.rig.masks import CameraMasks
from lightglue_ros.rosdata.bags import IMAGE_TYPES, Bag, Place
from lightglue_ros.rosdata.masks import camera_masks, mask_of_message
from lightglue_ros.rosdata.messages import stamp_in_ns
from lightglue_ros.rosdata.parameters import MatcherParameters
from lightglue_ros.rosdata.typestore import typestore


class RecordedMask(NamedTuple):
    """A message: when it was recorded, in nanoseconds, its stamp, or the time without one, and its place."""

    time: int
    stamp: int
    kind: str
    place: Place


# For each camera its masks in the order of recording.
MaskIndex = list[list[RecordedMask]]


def index_masks(bag: Bag, settings: MatcherParameters, tally: Tally) -> MaskIndex:
    """Find the masks of a rig, and count messages that are broken."""
    topics = _topics(settings)
    index: MaskIndex = [[] for _ in settings.cameras]
    wanted = {topic for topic in topics if topic}
    for message in bag.messages_of(lambda topic: topic.name in wanted and topic.message_type in IMAGE_TYPES):
        kind = message.topic.message_type
        try:
            stamp = stamp_in_ns(typestore().deserialize_cdr(message.data, kind).header) or message.time
        # The exception depends on which bytes are broken.
        except Exception as error:
            line = f"broken {kind} on {message.topic.name} dropped: {error}"
            tally.add("damaged", message.topic.name, "broken_message", line)
            continue
        for of_camera, topic in zip(index, topics, strict=True):
            if topic == message.topic.name:
                of_camera.append(RecordedMask(message.time, stamp, kind, message.place))
    for of_camera in index:
        of_camera.sort(key=lambda mask: mask.time)
    return index


class RecordedMasks:
    """Gives each frame of a bag the masks that a node would have had.

    Attributes:
        masks: of the cameras; None if they have none.

    Raises:
        ConfigError: a file of mask_files is no mask.
    """

    def __init__(self, settings: MatcherParameters, index: MaskIndex, bag: Bag) -> None:
        self._topics = _topics(settings)
        self.masks: CameraMasks | None = camera_masks(settings, self._topics)
        self._settings, self._index, self._bag = settings, index, bag
        self._taken: list[RecordedMask | None] = [None] * len(index)

    def set(self, time: int) -> None:
        """Set each camera's newest mask at a time of recording in nanoseconds."""
        if self.masks is None:
            return
        for camera, of_camera in enumerate(self._index):
            number = bisect_right(of_camera, time, key=lambda mask: mask.time)
            newest = of_camera[number - 1] if number else None
            if newest is None:
                self.masks.forget(camera)
            elif newest != self._taken[camera]:
                self.masks.take(camera, newest.stamp, partial(self._read, camera, newest))
            self._taken[camera] = newest

    def count_problems(self, tally: Tally) -> None:
        """Count the cameras whose last image was matched without one of its masks."""
        problems = self.masks.problems if self.masks else []
        for name, problem in zip(self._settings.cameras, problems, strict=False):
            if problem:
                tally.add("unmasked", name, "", problem)

    def _read(self, camera: int, mask: RecordedMask) -> Mask:
        topic, max_pixels = self._topics[camera], self._settings.max_image_pixels
        try:
            message = typestore().deserialize_cdr(self._bag.read(mask.place), mask.kind)
        except Exception as error:
            raise ImageError(f"the mask on {topic} cannot be read: {error}") from error
        return mask_of_message(message, topic, max_pixels)


def _topics(settings: MatcherParameters) -> list[str]:
    return [topic and absolute_names([topic])[0] for topic in settings.of_cameras(settings.mask_topics)]
