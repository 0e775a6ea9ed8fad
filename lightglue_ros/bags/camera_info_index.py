"""The CameraInfo of a bag, for verification with the essential matrix and for tracks and points."""

from __future__ import annotations

from bisect import bisect_right

from lightglue_ros.bags.recorded_images import absolute_names
from lightglue_ros.bags.tally import Tally
from lightglue_ros.rosdata.bags import Bag
from lightglue_ros.rosdata.camera_info import RigCalibration
from lightglue_ros.rosdata.parameters import MatcherParameters
from lightglue_ros.rosdata.typestore import typestore

_TYPE = "sensor_msgs/msg/CameraInfo"
# For each camera (time in nanoseconds, serialized message) where its message changes.
CameraInfoIndex = list[list[tuple[int, bytes]]]


def make_calibration(settings: MatcherParameters) -> RigCalibration:
    """Make the calibration of a rig whose topics have the names of the parameters."""
    topics = absolute_names(settings.given_camera_info_topics)
    return RigCalibration(settings.cameras, absolute_names(settings.image_topics), topics)


def index_camera_infos(bag: Bag, settings: MatcherParameters, tally: Tally) -> CameraInfoIndex:
    """Read the CameraInfo of a rig, if they are needed, and count those that cannot be used."""
    infos: CameraInfoIndex = [[] for _ in settings.cameras]
    if not settings.needs_camera_info:
        return infos
    topics = make_calibration(settings).topics
    for message in bag.messages_of(lambda topic: topic.name in topics and topic.message_type == _TYPE):
        try:
            content = _without_stamp(message.data)
        # The exception depends on which bytes are broken.
        except Exception as error:
            line = f"broken {_TYPE} on {message.topic.name} dropped: {error}"
            tally.add("damaged", message.topic.name, "broken_message", line)
            continue
        for of_camera, topic in zip(infos, topics, strict=True):
            if topic == message.topic.name and not (of_camera and of_camera[-1][1] == content):
                of_camera.append((message.time, content))
    return infos


def set_camera_infos(calibration: RigCalibration, infos: CameraInfoIndex, time: int) -> None:
    """Set each camera's newest CameraInfo at a time, or its first one after that, if it has any."""
    for camera, of_camera in enumerate(infos):
        if of_camera:
            newest = max(0, bisect_right(of_camera, time, key=lambda info: info[0]) - 1)
            calibration.set_info(camera, typestore().deserialize_cdr(of_camera[newest][1], _TYPE))


def _without_stamp(data: bytes) -> bytes:
    info = typestore().deserialize_cdr(data, _TYPE)
    info.header.stamp.sec = info.header.stamp.nanosec = 0
    return bytes(typestore().serialize_cdr(info, _TYPE))
