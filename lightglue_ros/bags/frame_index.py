"""Indexes a bag: which of its images make which frames.

The frame assembler is that of the node. Its clock is the time of recording, so that the frames do not depend
on the speed of this machine. Images are checked here; `chunks` decodes them.

The images are taken in the order in which they were recorded, as the node would have seen them. Cameras that
were recorded one after the other, or by several recorders, are taken in the order of their stamps, if more of
their images find partners in that order.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, pairwise
from pathlib import Path
from statistics import median_low
from typing import NamedTuple

from lightglue_ros.bags.camera_info_index import CameraInfoIndex, index_camera_infos
from lightglue_ros.bags.recorded_images import (
    ImageTopic,
    absolute_names,
    check_image,
    find_image_topics,
    read_images,
)
from lightglue_ros.bags.recorded_masks import MaskIndex, index_masks
from lightglue_ros.bags.tally import Tally, in_words
from lightglue_ros.errors import ConfigError, RejectedImageError
from lightglue_ros.rig.frame import RigFrame
from lightglue_ros.rig.frame_assembler import FrameAssembler
from lightglue_ros.rig.missing import why_missing
from lightglue_ros.rosdata.bags import Bag, Place
from lightglue_ros.rosdata.messages import stamp_in_ns
from lightglue_ros.rosdata.parameters import MatcherParameters
from lightglue_ros.rosdata.typestore import MATCHES_TOPIC, POINTS_TOPIC, TRACKS_TOPIC

# By chance 20 frames in a row come in the same order about once in half a million.
_IN_A_ROW = 20


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a bag.

    Attributes:
        frames: when the last image of a frame was recorded, in nanoseconds; and the places of its images.
        topics: the topic of each camera's images; None if the bag has none.
        camera_infos: see `CameraInfoIndex`.
        masks: see `MaskIndex`.
        images: the number of recorded images.
        tally: findings about the images.
        damage: what is missing or could not be read.
    """

    frames: list[tuple[int, RigFrame[Place]]]
    topics: list[ImageTopic | None]
    camera_infos: CameraInfoIndex
    masks: MaskIndex
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
    """Frames in their order.

    Attributes:
        frames: (time of recording of the last image in nanoseconds, frame).
        arrivals: of each camera, the times at which the assembler got its images.
        unused: number of images in no frame.
        slop: in the end, in seconds.
    """

    frames: list[tuple[int, RigFrame[_Image]]]
    arrivals: list[dict[Place, int]]
    unused: int
    slop: float

    @property
    def togetherness(self) -> int:
        """A number that is larger if more images are in frames with others."""
        sizes = (sum(image is not None for image in frame.images) for _, frame in self.frames)
        return sum(size * (size - 1) for size in sizes)


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
        assembled = _assemble(images, settings, absent, is_one_recorder=len(paths) == 1)
        of_camera = [[image for image in images if image.camera == one] for one in range(len(topics))]
        if not assembled.frames:
            why = _why_missing(assembled, of_camera, topics, settings)
            raise _no_frames(bag, topics, why, settings, tally, count)
        _count_missing(assembled, of_camera, topics, settings, tally)
        if assembled.unused:
            unused = f"{assembled.unused} of {len(images)} images"
            tally.say("note", f"{unused} are in no frame: late, or without a partner")
        tracks, points = [TRACKS_TOPIC] * settings.publish_tracks, [POINTS_TOPIC] * settings.publish_points
        for name in [MATCHES_TOPIC, *tracks, *points]:
            if name in bag.types:
                tally.say("note", f"its own {name} is left out")
        infos, masks = index_camera_infos(bag, settings, tally), index_masks(bag, settings, tally)
        for line in bag.notes:
            tally.say("note", line)
        damage = bag.problems()
    frames = [
        (time, RigFrame(tuple(one and one.place for one in it.images), it.stamps, it.missing, it.epochs))
        for time, it in assembled.frames
    ]
    return FrameIndex(frames, topics, infos, masks, count.total(), tally, damage)


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


def _assemble(
    images: list[_Image], settings: MatcherParameters, absent: Collection[int], is_one_recorder: bool
) -> _Assembled:
    recorded = _assemble_in_order([(image.time, image) for image in images], settings, absent)
    if not recorded.unused and not any(frame.missing for _, frame in recorded.frames):
        return recorded
    in_order = sorted(((image.stamp, image) for image in images), key=lambda one: one[0])
    by_stamp = _assemble_in_order(in_order, settings, absent)
    if is_one_recorder and _are_recorded_together(images) and not _have_one_clock(by_stamp):
        # The node matched the same. A camera whose clock is wrong must not be matched with the images of the
        # others that happen to have its stamps.
        return recorded
    return max(recorded, by_stamp, key=lambda it: it.togetherness)


def _are_recorded_together(images: Sequence[_Image]) -> bool:
    """Return True if the times in which the images of the cameras were recorded overlap."""
    first: dict[int, int] = {}
    for image in images:
        first.setdefault(image.camera, image.time)
    last = {image.camera: image.time for image in images}
    return bool(images) and max(first.values()) < min(last.values())


def _have_one_clock(by_stamp: _Assembled) -> bool:
    """Return True unless images with the same stamps were recorded apart, always in the same order.

    That is a wrong clock. A network that delivers late or in bursts changes the order.
    """
    frames = [frame for _, frame in by_stamp.frames]
    stamps = [max(stamp for stamp in frame.stamps if stamp is not None) for frame in frames]
    nearest = median_low([after - before for before, after in pairwise(stamps)] or [0]) / 2
    there = [camera for camera, arrivals in enumerate(by_stamp.arrivals) if arrivals]
    for one, other in combinations(there, 2):
        both = ((frame.images[one], frame.images[other]) for frame in frames)
        apart = [first.time - second.time for first, second in both if first and second]
        for begin in range(max(1, len(apart) - _IN_A_ROW + 1)):
            in_a_row = apart[begin : begin + _IN_A_ROW]
            if not in_a_row or min(in_a_row) > nearest or max(in_a_row) < -nearest:
                return False
    return True


def _assemble_in_order(
    images: Sequence[tuple[int, _Image]], settings: MatcherParameters, absent: Collection[int]
) -> _Assembled:
    """Assemble frames of (time on the assembler's clock, image)."""
    assembler: FrameAssembler[_Image] = FrameAssembler(
        settings.frame.rig, settings.sync_slop, settings.camera_timeout, absent
    )
    frames: list[RigFrame[_Image]] = []
    arrivals: list[dict[Place, int]] = [{} for _ in settings.cameras]
    for now, image in images:
        arrivals[image.camera][image.place] = now
        frames += assembler.add(image.camera, image.stamp, image, now)
    frames += assembler.finish()
    times = accumulate((max(one.time for one in frame.images if one) for frame in frames), max)
    used = sum(image is not None for frame in frames for image in frame.images)
    timed = list(zip(times, frames, strict=True))
    return _Assembled(timed, arrivals, len(images) - used, assembler.slop)


def _count_missing(
    assembled: _Assembled,
    of_camera: Sequence[Sequence[_Image]],
    topics: Sequence[ImageTopic | None],
    settings: MatcherParameters,
    tally: Tally,
) -> None:
    """Count the frames in which a camera is missing, and say why."""
    out_of_sync = _why_missing(assembled, of_camera, topics, settings)
    silent = f"no usable image came within camera_timeout ({settings.camera_timeout:g} s)"
    arrivals = [list(one.values()) for one in assembled.arrivals]
    for _, frame in assembled.frames:
        came = max(assembled.arrivals[one.camera][one.place] for one in frame.images if one is not None)
        for camera in sorted(frame.missing):
            before = bisect_right(arrivals[camera], came)
            last = arrivals[camera][before - 1] if before else -math.inf
            is_silent = of_camera[camera] and last < came - 1e9 * settings.camera_timeout
            tally.add("missing", settings.cameras[camera], silent if is_silent else out_of_sync[camera])


def _why_missing(
    assembled: _Assembled,
    of_camera: Sequence[Sequence[_Image]],
    topics: Sequence[ImageTopic | None],
    settings: MatcherParameters,
) -> dict[int, str]:
    """Return for each camera why it is missing although its images come."""
    unusable = {
        camera: f"no image on {name} can be used" if topics[camera] else f"there are no images on {name}"
        for camera, name in enumerate(absolute_names(settings.image_topics))
        if not of_camera[camera]
    }
    there = {camera: them for camera, them in enumerate(of_camera) if them}
    clocks = {
        camera: median_low(image.stamp - assembled.arrivals[camera][image.place] for image in them)
        for camera, them in there.items()
    }
    ahead = {
        camera: 1e-9 * (clock - median_low(other for it, other in clocks.items() if it != camera))
        for camera, clock in clocks.items()
        if len(clocks) > 1
    }
    periods = [
        median_low(after.stamp - before.stamp for before, after in pairwise(them))
        for them in there.values()
        if len(them) > 1
    ]
    period = 1e-9 * min(periods, default=0)
    cameras = settings.cameras
    return why_missing(cameras, range(len(cameras)), ahead, assembled.slop, period, unusable)


def _no_frames(
    bag: Bag,
    topics: Sequence[ImageTopic | None],
    why: dict[int, str],
    settings: MatcherParameters,
    tally: Tally,
    count: Counter[int],
) -> ConfigError:
    """Make the error of a bag without a frame, with its cause."""
    there = [(number, topic.name) for number, topic in enumerate(topics) if topic is not None]
    counts = ", ".join(f"{count[number]} on {name}" for number, name in there)
    causes = [in_words(tally.findings())] * bool(tally.findings()) + bag.problems()
    if not tally.count("rejected"):
        causes += [f"camera {settings.cameras[number]}: {why[number]}" for number, _ in there[1:]]
    return ConfigError("; ".join([f"bag {bag} has no frame to match", f"images: {counts}", *causes]))
