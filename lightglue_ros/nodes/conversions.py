"""Conversions between ROS messages and arrays."""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.msg import CameraTracks as CameraTracksMsg
from lightglue_ros.msg import Matches, Tracks
from lightglue_ros.msg import PairMatches as PairMatchesMsg
from lightglue_ros.rig.frame import FrameResult
from lightglue_ros.rig.tracks import CameraTracks
from lightglue_ros.rosdata import messages
from lightglue_ros.rosdata.decoding import CameraImage


def array_to_image(image: np.ndarray, header: Header) -> Image:
    """Make an image message: mono8 of uint8 [H, W], mono16 of uint16 [H, W], rgb8 of uint8 [H, W, 3] RGB."""
    height, width = image.shape[:2]
    message = Image(header=header, height=height, width=width)
    message.encoding = "rgb8" if image.ndim == 3 else f"mono{8 * image.itemsize}"
    message.is_bigendian = int(sys.byteorder == "big")
    message.step = image[0].nbytes
    message.data = array.array("B", image.tobytes())
    return message


def result_to_message(result: FrameResult[CameraImage], model: str) -> Matches:
    """Make the message of a frame that has a usable image; it has as many pairs as the rig."""
    return messages.result_to_message(_TYPES, result, model)


def tracks_to_message(result: FrameResult[CameraImage], tracks: Sequence[CameraTracks | None]) -> Tracks:
    """Make the message of the tracks of a frame that has a usable image."""
    headers = [image and image.header for image in result.images]
    return messages.tracks_to_message(_TYPES, result.settings.rig.cameras, headers, tracks)


def _flat(values: np.ndarray) -> array.array:
    """Make an array.array: rclpy takes it in one copy; a list or a NumPy array costs 10 to 30 times more."""
    # NumPy calls uint64 L, and rclpy wants Q.
    return array.array("Q" if values.dtype == np.uint64 else values.dtype.char, values.tobytes())


_TYPES = messages.MessageTypes(Matches, PairMatchesMsg, Tracks, CameraTracksMsg, Time, _flat)
