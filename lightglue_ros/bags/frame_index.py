"""Indexes a bag: which of its images make which frames.

The frame assembler, which the node uses as well, has the times at which messages were recorded as its clock.
So the frames do not depend on the speed of this machine. Images are checked here; `chunks` decodes them.

The images are taken in the order in which they were recorded, as the node would have seen them. If more of
them find partners in the order of their stamps, that order is taken: cameras that were recorded one after the
other, or by recorders whose clocks differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from pathlib import Path
from typing import NamedTuple

from lightglue_ros.bags.camera_info_index import CameraInfoIndex, index_camera_infos
from lightglue_ros.bags.recorded_images import (
    ImageTopic,
    absolute_names,
    check_image,
    find_image_topics,
    read_images,
)
from lightglue_ros.bags.tally import Tally
from lightglue_ros.errors import ConfigError, RejectedImageError
from lightglue_ros.rig.frame import RigFrame
from lightglue_ros.rig.frame_assembler import FrameAssembler
from lightglue_ros.rig.sync import distance
from lightglue_ros.rosdata.bags import Bag, Place
from lightglue_ros.rosdata.messages import stamp_in_ns
from lightglue_ros.rosdata.parameters import MatcherParameters
from lightglue_ros.rosdata.typestore import MATCHES_TOPIC


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a bag.

    Attributes:
        frames: when the last image of a frame was recorded, in nanoseconds; and the places of its images.
        topics: the topic of each camera's images; None if the bag has none.
        camera_infos: see `CameraInfoIndex`.
        images: the number of recorded images.
        tally: what is to be said about the images.
        damage: what is missing or could not be read.
    """

    frames: list[tuple[int, RigFrame[Place]]]
    topics: list[ImageTopic | None]
    camera_infos: CameraInfoIndex
    images: int
    tally: Tally
    damage: list[str]


class _Image(NamedTuple):
    """An image of a camera: times of recording and of taking in nanoseconds, and its place in the bag."""

    time: int
    stamp: int
    camera: int
    place: Place


class _Assembled(NamedTuple):
    """Frames in their order, the number of images in none of them, and the slop in the end, in seconds."""

    frames: list[tuple[int, RigFrame[_Image]]]
    unused: int
    slop: float

    @property
    def togetherness(self) -> int:
        """A number that is larger if more images are in frames with others."""
        return sum(sum(image is not None for image in frame.images) ** 2 for _, frame in self.frames)


def build_frame_index(paths: Sequence[Path], unpacked: Path, settings: MatcherParameters) -> FrameIndex:
    """Assemble the frames of a bag, or of bags that together hold the rig.

    Args:
        paths: folders or files of the bags.
        unpacked: see `Bag`.
        settings: the parameters of the matcher.

    Raises:
        BrokenBagError: nothing can be read.
        ConfigError: the bag has no images of the rig, or none that make a frame.
    """
    with Bag(*paths, unpacked=unpacked) as bag:
        topics = find_image_topics(bag, settings)
        tally = Tally()
        images, count = _list_images(bag, topics, settings, tally)
        absent = {camera for camera, topic in enumerate(topics) if topic is None}
        assembled = _assemble(images, settings, absent)
        stamps = [[image.stamp for image in images if image.camera == one] for one in range(len(topics))]
        if not assembled.frames:
            raise _no_frames(bag, topics, stamps, settings, assembled.slop, tally, count)
        _count_missing(assembled, topics, stamps, settings, tally)
        if assembled.unused:
            tally.say("note", f"{assembled.unused} images are in no frame: late, or without a partner")
        if MATCHES_TOPIC in bag.types:
            tally.say("note", f"its own {MATCHES_TOPIC} is left out")
        infos = index_camera_infos(bag, settings, tally)
        for line in bag.notes:
            tally.say("note", line)
        damage = bag.problems()
    frames = [
        (time, RigFrame(tuple(one and one.place for one in it.images), it.stamps, it.missing, it.epochs))
        for time, it in assembled.frames
    ]
    return FrameIndex(frames, topics, infos, count.total(), tally, damage)


def _list_images(
    bag: Bag, topics: Sequence[ImageTopic | None], settings: MatcherParameters, tally: Tally
) -> tuple[list[_Image], Counter[int]]:
    """List the images that can be used in the order of recording, and count all of each camera."""
    images, count = [], Counter[int]()
    for camera, message in read_images(bag, topics):
        count[camera] += 1
        try:
            image = check_image(message.data, topics[camera].kind, settings.max_image_pixels)
        except RejectedImageError as error:
            tally.add("rejected", settings.cameras[camera], error.cause, str(error))
            continue
        stamp = stamp_in_ns(image.header) or message.time
        images.append(_Image(message.time, stamp, camera, message.place))
    # A recorder whose clock stands still gives all messages the same time.
    return sorted(images, key=lambda image: (image.time, image.stamp)), count


def _assemble(images: list[_Image], settings: MatcherParameters, absent: Collection[int]) -> _Assembled:
    recorded = _assemble_in_order([(image.time, image) for image in images], settings, absent)
    if not recorded.unused and not any(frame.missing for _, frame in recorded.frames):
        return recorded
    by_stamp = sorted(((image.stamp, image) for image in images), key=lambda one: one[0])
    return max(recorded, _assemble_in_order(by_stamp, settings, absent), key=lambda it: it.togetherness)


def _assemble_in_order(
    images: Sequence[tuple[int, _Image]], settings: MatcherParameters, absent: Collection[int]
) -> _Assembled:
    """Assemble frames of (time on the assembler's clock, image)."""
    assembler: FrameAssembler[_Image] = FrameAssembler(
        settings.frame.rig, settings.sync_slop, settings.camera_timeout, absent
    )
    frames = [
        frame for now, image in images for frame in assembler.add(image.camera, image.stamp, image, now)
    ]
    times = accumulate((max(one.time for one in frame.images if one) for frame in frames), max)
    used = sum(image is not None for frame in frames for image in frame.images)
    return _Assembled(list(zip(times, frames, strict=True)), len(images) - used, assembler.slop)


def _count_missing(
    assembled: _Assembled,
    topics: Sequence[ImageTopic | None],
    stamps: Sequence[Sequence[int]],
    settings: MatcherParameters,
    tally: Tally,
) -> None:
    """Count the frames in which a camera is missing, and say why."""
    count = Counter(camera for _, frame in assembled.frames for camera in frame.missing)
    names = absolute_names(settings.image_topics)
    for camera, frames in sorted(count.items()):
        if topics[camera] is None:
            why = f"there are no images on {names[camera]}"
        elif not stamps[camera]:
            why = f"no image on {topics[camera].name} can be used"
        else:
            others = [stamp for other, them in enumerate(stamps) if other != camera for stamp in them]
            apart = distance(stamps[camera], others, assembled.slop)
            why = f"no image came within camera_timeout ({settings.camera_timeout:g} s)"
            if apart is not None:
                why = f"its stamps are {apart.seconds:.3g} s apart from the others'"
        tally.add("missing", settings.cameras[camera], why, count=frames)


def _no_frames(
    bag: Bag,
    topics: Sequence[ImageTopic | None],
    stamps: Sequence[Sequence[int]],
    settings: MatcherParameters,
    slop: float,
    tally: Tally,
    count: Counter[int],
) -> ConfigError:
    """Make the error of a bag without a frame, with its cause."""
    there = [(number, topic.name) for number, topic in enumerate(topics) if topic is not None]
    counts = ", ".join(f"{count[number]} on {name}" for number, name in there)
    causes = [str(one) for one in tally.findings()] + bag.problems()
    fix = ""
    for first, second in combinations([number for number, _ in there], 2):
        apart = distance(stamps[first], stamps[second], slop)
        if apart is not None:
            names = f"{settings.cameras[first]} and {settings.cameras[second]}"
            causes.append(f"the stamps of {names} are {apart.seconds:.3g} s apart (slop: {slop:.3g} s)")
            larger = f"-p sync_slop:={1.1 * apart.seconds:.2g}"
            fix = larger if apart.is_slop else "set the clocks of the cameras right"
    return ConfigError("; ".join([f"bag {bag} has no frame to match", f"images: {counts}", *causes]), fix=fix)
