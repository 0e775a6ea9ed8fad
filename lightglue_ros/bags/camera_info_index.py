"""The CameraInfo of a bag, which verification with the essential matrix needs."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from lightglue_ros.bags.recorded_images import absolute_names
from lightglue_ros.rosdata.bags import Bag
from lightglue_ros.rosdata.camera_info import RigCalibration
from lightglue_ros.rosdata.parameters import MatcherParameters
from lightglue_ros.rosdata.typestore import typestore

_TYPE = "sensor_msgs/msg/CameraInfo"
# For each camera (time in nanoseconds, serialized message in hexadecimal digits) where its message changes.
CameraInfoIndex = list[list[tuple[int, str]]]


def make_calibration(values: MatcherParameters) -> RigCalibration:
    """Make the calibration of a rig whose topics have the names of the parameters."""
    topics = absolute_names(values.given_camera_info_topics)
    return RigCalibration(values.cameras, absolute_names(values.image_topics), topics)


def index_camera_infos(bag: Bag, settings: MatcherParameters) -> tuple[CameraInfoIndex, list[str]]:
    """Read the CameraInfo of a rig, if verification needs them; returns them and lines for the user.

    Raises:
        BrokenBagError: the bag ends in the middle.
    """
    infos: CameraInfoIndex = [[] for _ in settings.cameras]
    if settings.frame.geometry != "essential":
        return infos, []
    topics = make_calibration(settings).topics
    notes = []
    for message in bag.messages({topic for topic in topics if bag.types.get(topic) == _TYPE}):
        try:
            content = _without_stamp(message.data)
        # The exception depends on which bytes are broken.
        except Exception:
            notes.append(f"broken {_TYPE} on {message.topic} dropped")
            continue
        for of_camera, topic in zip(infos, topics, strict=True):
            if topic == message.topic and not (of_camera and of_camera[-1][1] == content):
                of_camera.append((message.time, content))
    for name, topic, of_camera in zip(settings.cameras, topics, infos, strict=True):
        if not of_camera:
            notes.append(f"camera {name}: its pairs are not verified because there is no {_TYPE} on {topic}")
    return infos, list(dict.fromkeys(notes))


def camera_info_at(infos: list[tuple[int, str]], time: int) -> Any:
    """Return a camera's newest CameraInfo at a time, or its first one after that; None if it has none."""
    if not infos:
        return None
    newest = bisect_right(infos, time, key=lambda info: info[0]) - 1
    return typestore().deserialize_cdr(bytes.fromhex(infos[max(newest, 0)][1]), _TYPE)


def _without_stamp(data: bytes) -> str:
    info = typestore().deserialize_cdr(data, _TYPE)
    info.header.stamp.sec = info.header.stamp.nanosec = 0
    return bytes(typestore().serialize_cdr(info, _TYPE)).hex()
