"""Conversions between ROS messages and the arrays of the core."""

from __future__ import annotations

import array
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.core import ImageError, PairMatches
from lightglue_ros.core.rig import Rig
from lightglue_ros.core.rig_matcher import RigPair
from lightglue_ros.msg import Matches
from lightglue_ros.msg import PairMatches as PairMatchesMsg

# Encodings (sensor_msgs/image_encodings.hpp): bytes per pixel, and how OpenCV makes them grey or RGB.
# 8UC3 has no colour order of its own; OpenCV's is BGR, and so cv_bridge takes it.
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "mono8": (1, None),
    "8UC1": (1, None),
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
}


def check_image(message: Image) -> None:
    """Check that an image message can be decoded, at the cost of a few comparisons.

    Raises:
        ImageError: its encoding is not known, it is empty, or its data does not fit its size.
    """
    if message.encoding not in _ENCODINGS:
        raise ImageError(
            f"image has the encoding '{message.encoding[:40]}'",
            allowed=", ".join(_ENCODINGS),
            fix="let the driver publish one of these, or convert with image_proc",
        )
    size = f"{message.width}x{message.height} {message.encoding}"
    if not message.width or not message.height:
        raise ImageError(f"image is empty ({size})", allowed="a width and a height of at least 1 pixel")
    least_step = message.width * _ENCODINGS[message.encoding][0]
    if message.step < least_step:
        raise ImageError(
            f"image ({size}) has a step of {message.step}", allowed=f"at least {least_step} bytes a row"
        )
    expected = message.step * message.height
    if len(message.data) != expected:
        raise ImageError(
            f"image ({size}, step {message.step}) has {len(message.data)} bytes of data",
            allowed=f"step x height = {expected} bytes",
        )


def image_to_array(message: Image) -> np.ndarray:
    """Decode a checked image message, without a copy where it is grey or RGB already.

    Returns:
        uint8 [H, W] grey or [H, W, 3] RGB; it may share memory with the message.
    """
    pixel_bytes, conversion = _ENCODINGS[message.encoding]
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    image = rows[:, : message.width * pixel_bytes]
    if pixel_bytes > 1:
        image = image.reshape(message.height, message.width, pixel_bytes)
    return image if conversion is None else cv2.cvtColor(image, conversion)


def array_to_image(image: np.ndarray, header: Header) -> Image:
    """Make an image message (mono8 or rgb8) of uint8 [H, W] grey or [H, W, 3] RGB."""
    height, width = image.shape[:2]
    message = Image(header=header, height=height, width=width)
    message.encoding = "mono8" if image.ndim == 2 else "rgb8"
    message.step = image[0].nbytes
    message.data = array.array("B", image.tobytes())
    return message


def stamp_in_ns(message: Image) -> int:
    """When the image was taken, in nanoseconds."""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


@dataclass(frozen=True)
class ImageInfo:
    """What `Matches` tells of an image, which may be of the past.

    Attributes:
        header: of its message.
        width: in pixels.
        height: in pixels.
    """

    header: Header
    width: int
    height: int


def matches_to_message(rig: Rig, header: Header, pairs: Sequence[RigPair[ImageInfo]], model: str) -> Matches:
    """Make the message of one frame, with as many pairs as the rig has."""
    messages = [
        _pair_message(rig.cameras[first.camera], rig.cameras[second.camera], pair)
        for (first, second), pair in zip(rig.pairs, pairs, strict=True)
    ]
    return Matches(header=header, model=model, pairs=messages)


def _pair_message(camera0: str, camera1: str, pair: RigPair[ImageInfo]) -> PairMatchesMsg:
    message = PairMatchesMsg(camera0=camera0, camera1=camera1)
    image0, image1, matches = pair.label0, pair.label1, pair.matches
    if image0 is not None:
        message.stamp0, message.frame_id0 = image0.header.stamp, image0.header.frame_id
        message.width0, message.height0 = image0.width, image0.height
    if image1 is not None:
        message.stamp1, message.frame_id1 = image1.header.stamp, image1.header.frame_id
        message.width1, message.height1 = image1.width, image1.height
    message.status = PairMatchesMsg.STATUS_MISSING if pair.is_missing else PairMatchesMsg.STATUS_OK
    message.keypoints0 = _flat("f", matches.keypoints0)
    message.keypoints1 = _flat("f", matches.keypoints1)
    message.scores = _flat("f", matches.scores)
    message.indices0 = _flat("i", matches.indices0)
    message.indices1 = _flat("i", matches.indices1)
    message.layers = matches.layers
    return message


def _flat(typecode: str, values: np.ndarray) -> array.array:
    """rclpy takes array.array in one copy; a list or a NumPy array costs 10 to 30 times as much."""
    return array.array(typecode, values.tobytes())


def message_to_matches(message: PairMatchesMsg) -> PairMatches:
    """Make the arrays of one pair of a `Matches` message."""
    return PairMatches(
        np.asarray(message.keypoints0, np.float32).reshape(-1, 2),
        np.asarray(message.keypoints1, np.float32).reshape(-1, 2),
        np.asarray(message.scores, np.float32),
        np.asarray(message.indices0, np.int32),
        np.asarray(message.indices1, np.int32),
        message.layers,
    )
