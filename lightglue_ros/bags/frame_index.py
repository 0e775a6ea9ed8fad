"""Indexes a bag: which of its images make which frames.

The frame assembler, which the node uses as well, has the times at which messages were recorded as its clock.
So the frames do not depend on the speed of this machine. Images are checked here; `chunks` decodes them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lightglue_ros.bags.camera_info_index import CameraInfoIndex, index_camera_infos
from lightglue_ros.bags.matched_bag import MATCHES_TOPIC
from lightglue_ros.bags.recorded_images import ImageRef, RecordedImages
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
        frames: when the last image of a frame was recorded, in nanoseconds; and the places of its images.
        camera_infos: see `CameraInfoIndex`.
        images: the number of recorded images.
        rejected: the number of those that cannot be used.
        notes: lines for the user.
    """

    frames: list[tuple[int, RigFrame[ImageRef]]]
    camera_infos: CameraInfoIndex
    images: int
    rejected: int
    notes: list[str]


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
    recorded = RecordedImages(bag, settings)
    absent = _absent_cameras(bag, recorded, settings)
    assembler: FrameAssembler[ImageRef] = FrameAssembler(
        settings.frame.rig, settings.sync_slop, settings.camera_timeout, absent
    )
    frames, images, rejected = [], Counter[int](), Counter[tuple[int, str]]()
    first_rejected: dict[tuple[int, str], RejectedImageError] = {}
    for camera, ref, message in recorded.read():
        images[camera] += 1
        try:
            image = recorded.check(message.data)
        except RejectedImageError as error:
            rejected[camera, error.cause] += 1
            first_rejected.setdefault((camera, error.cause), error)
            continue
        # A stamp of zero: the driver does not set stamps.
        frame = assembler.add(camera, stamp_in_ns(image.header) or message.time, ref, message.time)
        if frame is not None:
            frames.append((message.time, frame))
    notes = [
        f"camera {settings.cameras[camera]} is missing: there are no images ({recorded.kind}) on "
        f"{recorded.topics[camera]}"
        for camera in absent
    ]
    notes += [
        f"camera {settings.cameras[camera]}: {error}; dropped ({cause}, {rejected[camera, cause]} images)"
        for (camera, cause), error in first_rejected.items()
    ]
    if not frames:
        counts = ", ".join(f"{images[camera]} on {topic}" for camera, topic in enumerate(recorded.topics))
        raise ConfigError(
            "; ".join([f"bag {bag.path} has no frame to match", f"images: {counts}", *notes]),
            fix="if the cameras are not triggered together, -p sync_slop:=0.05" if images else "",
        )
    unused = assembler.counts.unmatched + assembler.counts.late
    if unused:
        notes.append(f"{unused} images are in no frame: late, or without a partner within sync_slop")
    if MATCHES_TOPIC in bag.types:
        notes.append(f"its own {MATCHES_TOPIC} is left out")
    camera_infos, info_notes = index_camera_infos(bag, settings)
    return FrameIndex(frames, camera_infos, images.total(), rejected.total(), notes + info_notes)


def _absent_cameras(bag: Bag, recorded: RecordedImages, settings: MatcherParameters) -> list[int]:
    """Return the cameras whose topic is not in the bag, or has another type.

    Raises:
        ConfigError: the other cameras make no pair.
    """
    topics = dict(enumerate(recorded.topics))
    absent = [camera for camera, topic in topics.items() if bag.types.get(topic) != recorded.kind]
    present = topics.keys() - absent
    if absent and not (present and settings.frame.rig.is_served_by(present)):
        raise ConfigError(
            f"bag {bag.path} has no images ({recorded.kind}) on {', '.join(topics[one] for one in absent)}",
            allowed=f"a topic for each camera; it has: {bag.describe_topics()}",
            fix="-p image_topics:='[/left/topic, /right/topic]', and -p image_transport:=compressed for "
            "sensor_msgs/msg/CompressedImage on TOPIC/compressed",
        )
    return absent
