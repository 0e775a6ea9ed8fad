import array

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.core import ImageError, PairMatches
from lightglue_ros.core.rig import Rig
from lightglue_ros.core.rig_matcher import RigPair
from lightglue_ros.msg import PairMatches as PairMatchesMsg
from lightglue_ros.nodes.conversions import (
    ImageInfo,
    array_to_image,
    check_image,
    image_to_array,
    matches_to_message,
    message_to_matches,
)

RGB = np.random.default_rng(0).integers(0, 256, (12, 7, 3), np.uint8)


def message(encoding, pixels, padding=0):
    height, width = pixels.shape[:2]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)), constant_values=99)
    image = Image(height=height, width=width, encoding=encoding, step=rows.shape[1])
    image.data = array.array("B", rows.tobytes())
    return image


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("mono8", RGB[..., 0], RGB[..., 0]),
        ("8UC1", RGB[..., 0], RGB[..., 0]),
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgba8", cv2.cvtColor(RGB, cv2.COLOR_RGB2RGBA), RGB),
        ("bgra8", cv2.cvtColor(RGB, cv2.COLOR_RGB2BGRA), RGB),
    ],
)
def test_encodings_become_grey_or_rgb_with_any_step(encoding, pixels, expected, padding):
    image = message(encoding, pixels, padding)
    check_image(image)
    np.testing.assert_array_equal(image_to_array(image), expected)


@pytest.mark.parametrize("pixels", [RGB, RGB[..., 0]])
def test_an_image_survives_the_way_to_a_message_and_back(pixels):
    image = array_to_image(pixels, Header(frame_id="left"))
    check_image(image)
    np.testing.assert_array_equal(image_to_array(image), pixels)
    assert image.header.frame_id == "left"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoding": "yuv422"}, "encoding 'yuv422'; allowed: mono8"),
        ({"encoding": ""}, "encoding ''"),
        ({"width": 0}, "empty"),
        ({"height": 0}, "empty"),
        ({"step": 20}, "step of 20; allowed: at least 21"),
        ({"data": array.array("B", bytes(21 * 12 - 1))}, "251 bytes of data; allowed: step x height = 252"),
        ({"data": array.array("B", bytes(21 * 12 + 1))}, "253 bytes"),
        ({"width": 65535, "height": 65535, "step": 3 * 65535}, "252 bytes"),
    ],
)
def test_broken_messages_are_refused_with_the_reason(change, says):
    image = message("rgb8", RGB)
    for field, value in change.items():
        setattr(image, field, value)
    with pytest.raises(ImageError) as caught:
        check_image(image)
    assert says in str(caught.value)


def test_matches_message_has_every_pair_and_marks_those_with_a_missing_camera():
    rig = Rig.parse(["left", "right", "rear"], ["left:right", "right@-1:rear"])
    past = ImageInfo(Header(frame_id="right_before"), 7, 12)
    past.header.stamp.sec = 4
    right = ImageInfo(Header(frame_id="right_optical"), 7, 12)
    right.header.stamp.sec = 5
    rear = ImageInfo(Header(frame_id="rear_optical"), 8, 13)
    found = PairMatches(
        np.array([[1, 2], [3, 4]], np.float32),
        np.array([[5, 6], [7, 8]], np.float32),
        np.array([0.5, 0.25], np.float32),
        np.array([0, 9], np.int32),
        np.array([4, 2], np.int32),
        6,
    )
    pairs = [RigPair(None, right, PairMatches.empty()), RigPair(past, rear, found)]
    matches = matches_to_message(rig, right.header, pairs, "xfeat")
    assert matches.header == right.header
    assert matches.model == "xfeat"
    missing, ok = matches.pairs
    assert (missing.camera0, missing.camera1) == ("left", "right")
    assert missing.status == PairMatchesMsg.STATUS_MISSING
    assert (missing.width0, missing.frame_id1, missing.layers) == (0, "right_optical", 0)
    assert ok.status == PairMatchesMsg.STATUS_OK
    assert (ok.stamp0.sec, ok.frame_id0, ok.frame_id1) == (4, "right_before", "rear_optical")
    assert (ok.camera0, ok.camera1, ok.width0, ok.height1) == ("right", "rear", 7, 13)
    assert ok.keypoints0.tolist() == [1, 2, 3, 4]
    again = message_to_matches(ok)
    for field in ("keypoints0", "keypoints1", "scores", "indices0", "indices1", "layers"):
        np.testing.assert_array_equal(getattr(again, field), getattr(found, field))
