"""Bags of two small cameras, and how to read them without the code that is tested."""

import bag_files
import cv2
import numpy as np
from rosbags import rosbag2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
IMAGE, JPEG, REGION, CAMERA_INFO = (
    STORE.types[f"sensor_msgs/msg/{name}"]
    for name in ("Image", "CompressedImage", "RegionOfInterest", "CameraInfo")
)
HEADER, TEXT = (STORE.types[f"std_msgs/msg/{name}"] for name in ("Header", "String"))
TIME = STORE.types["builtin_interfaces/msg/Time"]
CAMERAS = ("left", "right")
# Four chunks; more than 1 MiB, which is a chunk of an MCAP file.
FRAMES = 64
BEGIN, PERIOD, DELAY = 1_600_000_000_000_000_000, 50_000_000, 5_000_000
SIZE = (120, 84)
FOCAL_LENGTH, BASELINE = 150.0, 0.1
DEADLINE = 120.0


def stamp_of(frame):
    return BEGIN + frame * PERIOD


def pictures(motorcycle, frame):
    """What both cameras see: crops of the motorcycle, another one in each frame. Grey [84, 120]."""
    x, y = 3 * (frame // 50), 2 * (frame % 50)
    crops = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[y : y + 400, x : x + 570] for image in motorcycle)
    return [cv2.resize(crop, SIZE, interpolation=cv2.INTER_AREA) for crop in crops]


def _header(camera, stamp):
    return HEADER(TIME(stamp // 10**9, stamp % 10**9), f"{camera}_optical")


def image_message(picture, camera, stamp):
    height, width = picture.shape
    return IMAGE(_header(camera, stamp), height, width, "mono8", 0, width, picture.ravel())


def jpeg_message(picture, camera, stamp):
    return JPEG(_header(camera, stamp), "jpeg", cv2.imencode(".jpg", picture)[1].ravel())


def camera_info(camera):
    matrix = np.array([FOCAL_LENGTH, 0, 60, 0, FOCAL_LENGTH, 42, 0, 0, 1])
    offset = -FOCAL_LENGTH * BASELINE if camera == "right" else 0
    projection = np.insert(matrix.reshape(3, 3), 3, [offset, 0, 0], axis=1).ravel()
    matrices = (matrix, np.eye(3).ravel(), projection)
    about_image = (_header(camera, 0), *reversed(SIZE), "plumb_bob", np.zeros(5))
    return CAMERA_INFO(*about_image, *matrices, 0, 0, REGION(0, 0, 0, 0, False))


def stereo(motorcycle, make=image_message, frames=FRAMES, suffix=""):
    """A stereo camera and something else, recorded a little after the stamps."""
    for frame in range(frames):
        stamp = stamp_of(frame)
        for camera, picture in zip(CAMERAS, pictures(motorcycle, frame), strict=True):
            yield f"/{camera}/image_rect{suffix}", make(picture, camera, stamp), stamp + DELAY
        yield "/talk", TEXT(f"hello {frame}"), stamp + 2 * DELAY


def write_bag(folder, storage, messages):
    """Record (topic, message or (type, bytes), time in ns)."""

    def with_type(message):
        kind = getattr(message, "__msgtype__", None)
        return message if kind is None else (kind, STORE.serialize_cdr(message, kind))

    rows = ((topic, *with_type(message), time_ns) for topic, message, time_ns in messages)
    return bag_files.write_bag(folder, storage.upper(), rows)


def read_bag(folder):
    """All messages in their order: (topic, time, bytes)."""
    with rosbag2.Reader(folder) as reader:
        return [(connection.topic, time_ns, bytes(data)) for connection, time_ns, data in reader.messages()]


def matches_of(folder):
    """(time, bytes) of the messages on /matches."""
    return [(time_ns, data) for topic, time_ns, data in read_bag(folder) if topic == "/matches"]


def decoded_matches(folder):
    """The messages on /matches, see `decoded`."""
    return decoded(folder, "/matches")


def decoded(folder, topic):
    """The messages on a topic of ours, read with nothing but the definitions that are in the bag."""
    store = get_typestore(Stores.EMPTY)
    with rosbag2.Reader(folder) as reader:
        (connection,) = (one for one in reader.connections if one.topic == topic)
        store.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
        return [
            store.deserialize_cdr(data, connection.msgtype) for _, _, data in reader.messages([connection])
        ]
