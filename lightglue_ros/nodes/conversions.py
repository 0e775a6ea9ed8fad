"""Conversions between ROS messages and the arrays of the core."""

from __future__ import annotations

import array
from collections.abc import Sequence

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.core import PairMatches
from lightglue_ros.core.rig import Rig
from lightglue_ros.core.rig_matcher import RigPair
from lightglue_ros.core.verification import Verification
from lightglue_ros.msg import Matches
from lightglue_ros.msg import PairMatches as PairMatchesMsg
from lightglue_ros.nodes.decoding import CameraImage

_VERIFICATIONS = {
    "fundamental": PairMatchesMsg.VERIFICATION_FUNDAMENTAL,
    "homography": PairMatchesMsg.VERIFICATION_HOMOGRAPHY,
    "essential": PairMatchesMsg.VERIFICATION_ESSENTIAL,
}


def array_to_image(image: np.ndarray, header: Header) -> Image:
    """Make an image message (mono8 or rgb8) of uint8 [H, W] grey or [H, W, 3] RGB."""
    height, width = image.shape[:2]
    message = Image(header=header, height=height, width=width)
    message.encoding = "mono8" if image.ndim == 2 else "rgb8"
    message.step = image[0].nbytes
    message.data = array.array("B", image.tobytes())
    return message


def stamp_in_ns(header: Header) -> int:
    """When the image was taken, in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def matches_to_message(
    rig: Rig, header: Header, pairs: Sequence[RigPair[CameraImage]], model: str
) -> Matches:
    """Make the message of one frame, with as many pairs as the rig has."""
    messages = [
        _pair_message(rig.cameras[first.camera], rig.cameras[second.camera], pair)
        for (first, second), pair in zip(rig.pairs, pairs, strict=True)
    ]
    return Matches(header=header, model=model, pairs=messages)


def _pair_message(camera0: str, camera1: str, pair: RigPair[CameraImage]) -> PairMatchesMsg:
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
    if pair.verification is not None:
        _fill_verification(message, pair.verification)
    return message


def _fill_verification(message: PairMatchesMsg, found: Verification) -> None:
    message.verification = _VERIFICATIONS[found.geometry]
    message.inliers = _flat("B", found.inliers)
    if found.matrix is not None:
        message.matrix = found.matrix.ravel()


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


def message_to_inliers(message: PairMatchesMsg) -> np.ndarray | None:
    """Which matches agree with the geometry, bool [M]; None where they were not verified."""
    if message.verification == PairMatchesMsg.VERIFICATION_NONE:
        return None
    return np.asarray(message.inliers, np.uint8) != 0
