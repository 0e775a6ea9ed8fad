"""Indexes a bag: which of its images make which frames.

The frame assembler, which the node uses as well, has the times at which messages were recorded as its clock.
So the frames do not depend on the speed of this machine. Images are checked here; `chunks` decodes them.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lightglue_ros.bags.camera_info_index import CameraInfoIndex, index_camera_infos
from lightglue_ros.bags.matched_bag import MATCHES_TOPIC
from lightglue_ros.bags.recorded_images import (
    ImageRef,
    check_recorded_image,
    read_images,
    recorded_topics,
    recorded_type,
)
from lightglue_ros.errors import ConfigError, RejectedImageError
from lightglue_ros.rig.frame import RigFrame
from lightglue_ros.rig.frame_assembler import FrameAssembler
from lightglue_ros.rosdata.bag_recovery import require_closed
from lightglue_ros.rosdata.bags import Bag
from lightglue_ros.rosdata.messages import stamp_in_ns
from lightglue_ros.rosdata.parameters import MatcherParameters


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a bag.

    Attributes:
        times: when the last message of each frame was recorded, in nanoseconds.
        frames: the frames, with the places of their images.
        camera_infos: see `CameraInfoIndex`.
        images: the number of recorded images.
        rejected: the number of those that cannot be used.
        notes: lines for the user.
    """

    times: list[int]
    frames: list[RigFrame[ImageRef]]
    camera_infos: CameraInfoIndex
    images: int
    rejected: int
    notes: list[str]

    def __len__(self) -> int:
        return len(self.frames)

    def epoch_begin(self, frame: int) -> int:
        """Return the first frame of a frame's epoch, which begins where time was set back."""
        return bisect_left(self.frames, self.frames[frame].epoch, key=lambda one: one.epoch)

    def to_bytes(self) -> bytes:
        """Return the index as a file."""
        frames = [(one.images, one.stamps, sorted(one.missing), one.epoch) for one in self.frames]
        return json.dumps({**vars(self), "frames": frames}).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> FrameIndex:
        """Read the file that `to_bytes` makes."""
        fields = json.loads(content)
        frames = [
            RigFrame(tuple(ref and ImageRef(*ref) for ref in refs), tuple(stamps), frozenset(missing), epoch)
            for refs, stamps, missing, epoch in fields.pop("frames")
        ]
        return cls(frames=frames, **fields)


def build_frame_index(path: Path, settings: MatcherParameters) -> FrameIndex:
    """Assemble the frames of a bag.

    Raises:
        BrokenBagError: the bag ends in the middle.
        ConfigError: the bag has no images of the rig, or none that make a frame.
    """
    require_closed(path)
    with Bag(path) as bag:
        return _index(bag, settings)


def _index(bag: Bag, settings: MatcherParameters) -> FrameIndex:
    kind, topics = recorded_type(settings), recorded_topics(settings)
    absent = _absent_cameras(bag, settings)
    notes = [
        f"camera {settings.cameras[camera]} is missing: there are no images ({kind}) on {topics[camera]}"
        for camera in absent
    ]
    assembler: FrameAssembler[ImageRef] = FrameAssembler(
        settings.frame.rig, settings.sync_slop, settings.camera_timeout, absent
    )
    times, frames, images = [], [], [0] * len(topics)
    rejected: Counter[tuple[int, str]] = Counter()
    first_rejected: dict[tuple[int, str], RejectedImageError] = {}
    for camera, ref, message in read_images(bag, settings):
        images[camera] += 1
        try:
            image = check_recorded_image(message.data, settings)
        except RejectedImageError as error:
            rejected[camera, error.cause] += 1
            first_rejected.setdefault((camera, error.cause), error)
            continue
        frame = assembler.add(camera, stamp_in_ns(image.header), ref, message.time)
        if frame is not None:
            times.append(message.time)
            frames.append(frame)
    notes += [
        f"camera {settings.cameras[camera]}: {error}; dropped ({cause}, {rejected[camera, cause]} images)"
        for (camera, cause), error in first_rejected.items()
    ]
    if not frames:
        counts = ", ".join(f"{count} on {topic}" for topic, count in zip(topics, images, strict=True))
        raise ConfigError(
            "; ".join([f"bag {bag.path} has no frame to match", f"images: {counts}", *notes]),
            fix="if the cameras are not triggered together, -p sync_slop:=0.05" if any(images) else "",
        )
    unused = assembler.counts.unmatched + assembler.counts.late
    if unused:
        notes.append(f"{unused} images are in no frame: late, or without a partner within sync_slop")
    if MATCHES_TOPIC in bag.types:
        notes.append(f"its own {MATCHES_TOPIC} is left out")
    camera_infos, info_notes = index_camera_infos(bag, settings)
    return FrameIndex(times, frames, camera_infos, sum(images), rejected.total(), notes + info_notes)


def _absent_cameras(bag: Bag, settings: MatcherParameters) -> list[int]:
    """Return the cameras whose topic is not in the bag, or has another type.

    Raises:
        ConfigError: the other cameras make no pair.
    """
    kind, topics = recorded_type(settings), recorded_topics(settings)
    absent = [camera for camera, topic in enumerate(topics) if bag.types.get(topic) != kind]
    present = set(range(len(topics))) - set(absent)
    if absent and not (present and settings.frame.rig.is_served_by(present)):
        raise ConfigError(
            f"bag {bag.path} has no images ({kind}) on {', '.join(topics[camera] for camera in absent)}",
            allowed=f"a topic for each camera; it has: {bag.describe_topics()}",
            fix="-p image_topics:='[/left/topic, /right/topic]', and -p image_transport:=compressed for "
            "sensor_msgs/msg/CompressedImage on TOPIC/compressed",
        )
    return absent
