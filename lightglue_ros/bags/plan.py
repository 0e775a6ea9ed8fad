"""Which images of a bag make which frames: what the node's executor thread does, without a clock.

The time of the frame assembler is when messages were recorded, so nothing depends on how fast this machine
is. Images are checked here and not decoded, which happens when they are matched.
"""

from __future__ import annotations

import io
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lightglue_ros.errors import ConfigError, RejectedImageError
from lightglue_ros.rig.frame import RigFrame
from lightglue_ros.rig.frame_assembler import FrameAssembler
from lightglue_ros.rosdata.bags import Bag, BagMessage, typestore
from lightglue_ros.rosdata.camera_info import RigCalibration
from lightglue_ros.rosdata.decoding import (
    CameraImage,
    check_compressed_image,
    check_image,
)
from lightglue_ros.rosdata.messages import stamp_in_ns
from lightglue_ros.rosdata.parameters import MatcherParameters, MatcherSettings

CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"


class ImageRef(NamedTuple):
    """Where an image of a camera is in a bag.

    Attributes:
        time: when it was recorded, in nanoseconds.
        repeat: how many of the camera were recorded at that time before it.
    """

    time: int
    repeat: int


@dataclass(frozen=True)
class Plan:
    """F frames of N cameras.

    Attributes:
        times: int64 [F], when the message was recorded that completed the frame, in nanoseconds.
        image_times: int64 [F, N], `ImageRef.time` of each camera's image; -1 where there is none.
        image_repeats: int64 [F, N], `ImageRef.repeat`.
        between: bool [F, N], cameras without an image because they are between two.
        epochs: int64 [F], how often time had been set back before.
        camera_infos: of each camera, with verification essential: when a CameraInfo was recorded that says
            something else than the one before, in nanoseconds, and the message without its stamp.
        images: how many images there were.
        rejected: how many of them could not be used, by cause.
        notes: lines for the user.
    """

    times: np.ndarray
    image_times: np.ndarray
    image_repeats: np.ndarray
    between: np.ndarray
    epochs: np.ndarray
    camera_infos: list[list[tuple[int, bytes]]]
    images: int
    rejected: dict[str, int]
    notes: list[str]

    def __len__(self) -> int:
        return len(self.times)

    def refs(self, frame: int) -> list[ImageRef | None]:
        """Each camera's image in a frame."""
        return [
            None if time < 0 else ImageRef(time, repeat)
            for time, repeat in zip(
                self.image_times[frame].tolist(), self.image_repeats[frame].tolist(), strict=True
            )
        ]

    def rig_frame(self, frame: int, images: tuple[CameraImage | None, ...]) -> RigFrame[CameraImage]:
        """Make a frame of its images as they were read, one slot for each camera."""
        absent = {camera for camera, image in enumerate(images) if image is None}
        missing = absent - set(np.flatnonzero(self.between[frame]).tolist())
        stamps = tuple(image and stamp_in_ns(image.header) for image in images)
        return RigFrame(images, stamps, frozenset(missing), int(self.epochs[frame]))

    def camera_info(self, camera: int, frame: int) -> bytes | None:
        """The newest CameraInfo of a camera at a frame, else the first there is; None where there is none."""
        infos = self.camera_infos[camera]
        newest = bisect_right([time for time, _ in infos], int(self.times[frame])) - 1
        return infos[max(newest, 0)][1] if infos else None

    def epoch_begin(self, frame: int) -> int:
        """The first frame after time was set back for the last time before a frame."""
        return int(np.searchsorted(self.epochs, self.epochs[frame]))

    def to_bytes(self) -> bytes:
        """The plan as a file."""
        infos = [[(time, data.hex()) for time, data in of_camera] for of_camera in self.camera_infos]
        about = json.dumps(
            {
                "images": self.images,
                "rejected": self.rejected,
                "notes": self.notes,
                "camera_infos": infos,
            }
        )
        file = io.BytesIO()
        np.savez_compressed(
            file,
            times=self.times,
            image_times=self.image_times,
            image_repeats=self.image_repeats,
            between=self.between,
            epochs=self.epochs,
            about=np.array(about),
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Plan:
        """Read what `to_bytes` made."""
        with np.load(io.BytesIO(content)) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop("about")))
        about["camera_infos"] = [
            [(time, bytes.fromhex(data)) for time, data in of_camera] for of_camera in about["camera_infos"]
        ]
        return cls(**about, **arrays)


def camera_topics(values: MatcherParameters) -> list[str]:
    """The whole name of the topic that each camera's images are recorded on."""
    topics = whole_names(values.image_topics)
    is_compressed = values.image_transport == "compressed"
    return [f"{topic}/compressed" for topic in topics] if is_compressed else topics


def whole_names(topics: Sequence[str]) -> list[str]:
    """The whole names of topics, for a node in no namespace."""
    return [f"/{topic.lstrip('/')}" for topic in topics]


def make_calibration(values: MatcherParameters) -> RigCalibration:
    """Make the calibration of the rig, whose topics are those of a node without a namespace."""
    given = whole_names(values.given_camera_info_topics)
    return RigCalibration(values.cameras, whole_names(values.image_topics), given)


def images_of(
    bag: Bag, values: MatcherParameters, start: int | None = None, stop: int | None = None
) -> Iterator[tuple[int, ImageRef, BagMessage]]:
    """The images of a rig's cameras in the order in which they were recorded.

    Args:
        bag: to read.
        values: of the parameters, which say on what topics the images are.
        start: recorded from then on, in nanoseconds.
        stop: recorded before then.

    Returns:
        Camera, where its image is, and the message.
    """
    topics = camera_topics(values)
    last = [ImageRef(-1, 0)] * len(topics)
    for message in bag.messages(set(topics), start, stop):
        for camera, topic in enumerate(topics):
            if topic == message.topic:
                before = last[camera]
                repeat = before.repeat + 1 if before.time == message.time else 0
                last[camera] = ImageRef(message.time, repeat)
                yield camera, last[camera], message


def check_recorded(data: bytes, values: MatcherParameters) -> CameraImage:
    """Check that a recorded image can be decoded, without decoding it.

    Raises:
        RejectedImageError: it cannot.
    """
    kind = _image_type(values)
    try:
        message = typestore().deserialize_cdr(data, kind)
    # What broken bytes raise depends on what they break.
    except Exception as error:
        raise RejectedImageError(
            "broken_message", f"{len(data)} bytes are no {kind}: {error}", allowed="a whole message"
        ) from error
    if values.image_transport == "compressed":
        return check_compressed_image(message, values.max_image_pixels)
    return check_image(message)


def _image_type(values: MatcherParameters) -> str:
    is_compressed = values.image_transport == "compressed"
    return f"sensor_msgs/msg/{'CompressedImage' if is_compressed else 'Image'}"


def make_plan(bag: Bag, settings: MatcherSettings) -> Plan:
    """Assemble the frames of a bag.

    Raises:
        BrokenBagError: the bag ends in the middle.
        ConfigError: the bag has no images of the rig, or none that make a frame.
    """
    values = settings.values
    absent = _absent_cameras(bag, values)
    notes = _check_topics(bag, settings, absent)
    assembler: FrameAssembler[ImageRef] = FrameAssembler(
        settings.frame.rig, values.sync_slop, values.camera_timeout, absent
    )
    rejections = _Rejections(values.cameras)
    frames: list[tuple[int, RigFrame[ImageRef]]] = []
    images = [0] * len(values.cameras)
    for camera, ref, message in images_of(bag, values):
        images[camera] += 1
        try:
            image = check_recorded(message.data, values)
        except RejectedImageError as error:
            rejections.add(camera, error)
            continue
        frame = assembler.add(camera, stamp_in_ns(image.header), ref, message.time)
        if frame is not None:
            frames.append((message.time, frame))
    notes += rejections.notes()
    if not frames:
        raise _no_frames(bag, settings, images, notes)
    unused = assembler.counts.unmatched + assembler.counts.late
    if unused:
        notes.append(f"{unused} images are in no frame: late, or without a partner within sync_slop")
    infos = _camera_infos(bag, settings, notes)
    return _plan_of(frames, infos, sum(images), rejections.by_cause, notes)


def _absent_cameras(bag: Bag, values: MatcherParameters) -> list[int]:
    """Cameras whose topic is not in the bag, or not with such images."""
    kind = _image_type(values)
    return [camera for camera, topic in enumerate(camera_topics(values)) if bag.types.get(topic) != kind]


def _check_topics(bag: Bag, settings: MatcherSettings, lacking: list[int]) -> list[str]:
    """Say which cameras are not in the bag; it is an error where the others make no pair."""
    values, kind = settings.values, _image_type(settings.values)
    topics = camera_topics(values)
    present = set(range(len(topics))) - set(lacking)
    if lacking and not (present and settings.frame.rig.is_served_by(present)):
        raise ConfigError(
            f"bag {bag.path} has no images ({kind}) on {', '.join(topics[camera] for camera in lacking)}",
            allowed=f"a topic for each camera; it has: {bag.describe_topics()}",
            fix="-p image_topics:='[/left/topic, /right/topic]', and -p image_transport:=compressed for "
            "sensor_msgs/msg/CompressedImage on TOPIC/compressed",
        )
    return [
        f"camera {values.cameras[camera]} is missing: there are no images ({kind}) on {topics[camera]}"
        for camera in lacking
    ]


def _camera_infos(bag: Bag, settings: MatcherSettings, notes: list[str]) -> list[list[tuple[int, bytes]]]:
    """Each camera's CameraInfo where it changes; a note says where there is none."""
    infos: list[list[tuple[int, bytes]]] = [[] for _ in settings.values.cameras]
    if settings.frame.geometry != "essential":
        return infos
    topics = make_calibration(settings.values).topics
    recorded = {topic for topic in topics if bag.types.get(topic) == CAMERA_INFO_TYPE}
    for message in bag.messages(recorded):
        data = _without_stamp(message.data)
        for camera, topic in enumerate(topics):
            if topic == message.topic and not (infos[camera] and infos[camera][-1][1] == data):
                infos[camera].append((message.time, data))
    notes += [
        f"camera {name}: its pairs are not verified, for there is no {CAMERA_INFO_TYPE} on {topic}"
        for name, topic, of_camera in zip(settings.values.cameras, topics, infos, strict=True)
        if not of_camera
    ]
    return infos


def _without_stamp(data: bytes) -> bytes:
    info = typestore().deserialize_cdr(data, CAMERA_INFO_TYPE)
    info.header.stamp.sec = info.header.stamp.nanosec = 0
    return bytes(typestore().serialize_cdr(info, CAMERA_INFO_TYPE))


class _Rejections:
    """Counts images that cannot be used, and keeps the first of each cause to be told."""

    def __init__(self, cameras: list[str]) -> None:
        self._cameras = cameras
        self._counts: Counter[tuple[int, str]] = Counter()
        self._first: dict[tuple[int, str], RejectedImageError] = {}

    def add(self, camera: int, error: RejectedImageError) -> None:
        self._counts[camera, error.cause] += 1
        self._first.setdefault((camera, error.cause), error)

    @property
    def by_cause(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for (_, cause), count in self._counts.items():
            counts[cause] += count
        return dict(counts)

    def notes(self) -> list[str]:
        return [
            f"camera {self._cameras[camera]}: {error}; dropped ({cause}, "
            f"{self._counts[camera, cause]} images)"
            for (camera, cause), error in self._first.items()
        ]


def _no_frames(bag: Bag, settings: MatcherSettings, images: list[int], notes: list[str]) -> ConfigError:
    topics = camera_topics(settings.values)
    counts = ", ".join(f"{count} on {topic}" for topic, count in zip(topics, images, strict=True))
    return ConfigError(
        f"bag {bag.path} has no frame to match; images: {counts}" + "".join(f"; {note}" for note in notes),
        fix="" if not any(images) else "if the cameras are not triggered together, -p sync_slop:=0.05",
    )


def _plan_of(
    frames: list[tuple[int, RigFrame[ImageRef]]],
    camera_infos: list[list[tuple[int, bytes]]],
    images: int,
    rejected: dict[str, int],
    notes: list[str],
) -> Plan:
    nothing = ImageRef(-1, 0)
    refs = np.array([[ref or nothing for ref in frame.images] for _, frame in frames], np.int64)
    cameras = refs.shape[1]
    return Plan(
        times=np.array([time for time, _ in frames], np.int64),
        image_times=refs[..., 0],
        image_repeats=refs[..., 1],
        between=np.array(
            [[camera in frame.between for camera in range(cameras)] for _, frame in frames], bool
        ),
        epochs=np.array([frame.epoch for _, frame in frames], np.int64),
        camera_infos=camera_infos,
        images=images,
        rejected=rejected,
        notes=notes,
    )
