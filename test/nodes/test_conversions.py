import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from std_msgs.msg import Header

from lightglue_ros.core import PairMatches
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.msg import Matches
from lightglue_ros.msg import PairMatches as PairMatchesMsg
from lightglue_ros.nodes.conversions import array_to_image, result_to_message
from lightglue_ros.rig.frame import FrameResult, FrameSettings, RigPair
from lightglue_ros.rig.rig import Rig
from lightglue_ros.rig.verification import Verification
from lightglue_ros.rosdata import messages
from lightglue_ros.rosdata.decoding import CameraImage
from lightglue_ros.rosdata.messages import message_to_inliers, message_to_matches

OK = PairMatchesMsg.STATUS_OK
RGB = np.random.default_rng(0).integers(0, 256, (12, 7, 3), np.uint8)


def test_arrays_become_messages_of_their_size_and_encoding():
    deep = RGB[..., 0] * np.uint16(257)
    for pixels, encoding, step in ((RGB, "rgb8", 21), (RGB[..., 0], "mono8", 7), (deep, "mono16", 14)):
        image = array_to_image(pixels, Header(frame_id="left"))
        assert (image.width, image.height, image.encoding, image.step) == (7, 12, encoding, step)
        assert bytes(image.data) == pixels.tobytes()
        assert image.header.frame_id == "left"


def result_of(rig, images, pairs):
    settings = FrameSettings(rig, (640, 480), None, 0.1, Mono16Range())
    return FrameResult(settings, images, [None] * len(images), [], pairs)


def test_matches_message_has_every_pair_and_marks_those_with_a_missing_camera():
    rig = Rig.parse(["left", "right", "rear"], ["left:right", "right@-1:rear", "right:rear"])
    past = CameraImage(Header(frame_id="right_before"), 7, 12, decode=None)
    past.header.stamp.sec = 4
    right = CameraImage(Header(frame_id="right_optical"), 7, 12, decode=None)
    right.header.stamp.sec = 5
    rear = CameraImage(Header(frame_id="rear_optical"), 8, 13, decode=None)
    keypoints = np.arange(1, 9, dtype=np.float32).reshape(2, 2, 2)
    scores, indices = np.array([0.5, 0.25], np.float32), np.array([[0, 9], [4, 2]], np.int32)
    found = PairMatches(*keypoints, scores, *indices, 6, np.array([True, False]))
    verification = Verification("homography", np.arange(9.0).reshape(3, 3), np.array([False, True]))
    nothing = Verification("fundamental", None, np.zeros(0, bool))
    pairs = [
        RigPair(None, right, PairMatches.empty()),
        RigPair(past, rear, found, verification, num_keypoints0=10, num_keypoints1=5),
        RigPair(right, rear, PairMatches.empty(), nothing),
    ]
    matches = result_to_message(result_of(rig, [None, right, rear], pairs), "xfeat")
    assert matches.header == right.header
    assert matches.model == "xfeat"
    missing, ok, empty = matches.pairs
    assert (missing.camera0, missing.camera1) == ("left", "right")
    assert missing.status == PairMatchesMsg.STATUS_MISSING
    assert (missing.width0, missing.frame_id1, missing.layers) == (0, "right_optical", 0)
    assert ok.status == OK
    assert (ok.stamp0.sec, ok.frame_id0, ok.frame_id1) == (4, "right_before", "rear_optical")
    assert (ok.camera0, ok.camera1, ok.width0, ok.height1) == ("right", "rear", 7, 13)
    assert ok.keypoints0.tolist() == [1, 2, 3, 4]
    assert (ok.num_keypoints0, ok.num_keypoints1, missing.num_keypoints0) == (10, 5, 0)
    again = message_to_matches(ok)
    for field in ("keypoints0", "keypoints1", "scores", "indices0", "indices1", "layers", "checked"):
        np.testing.assert_array_equal(getattr(again, field), getattr(found, field))
    assert message_to_matches(missing).checked is None
    assert missing.verification == PairMatchesMsg.VERIFICATION_NONE
    assert message_to_inliers(missing) is None
    assert not len(missing.inliers)
    assert not missing.matrix.any()
    assert ok.verification == PairMatchesMsg.VERIFICATION_HOMOGRAPHY
    assert message_to_inliers(ok).tolist() == [False, True]
    assert ok.matrix.tolist() == list(range(9))
    assert (empty.status, empty.verification) == (OK, PairMatchesMsg.VERIFICATION_FUNDAMENTAL)
    assert not empty.matrix.any()


def test_a_message_made_without_ros_is_the_same():
    pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")
    from lightglue_ros.rosdata import typestore as bags

    rig = Rig.parse(["left", "right"], ["left:right", "left@-1:left"])
    points = np.arange(14, dtype=np.float32).reshape(7, 2)
    indices = np.arange(7, dtype=np.int32)
    found = PairMatches(points, points + 1, points[:, 0], indices, indices + 1, 6)

    verified = Verification("essential", np.eye(3), np.arange(7) > 3)

    def made_of(header, time):
        headers = [header(stamp=time(sec=n, nanosec=5), frame_id=f"camera {n}") for n in (0, 1)]
        first, second = (CameraImage(header, 7, 12, decode=None) for header in headers)
        pairs = [RigPair(first, second, found, verified), RigPair(None, first, PairMatches.empty())]
        return result_of(rig, [first, second], pairs)

    expected = result_to_message(made_of(Header, Time), "xfeat")
    store = bags.typestore()
    theirs = made_of(store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"])
    message = messages.result_to_message(bags.message_types(), theirs, "xfeat")
    data = bytes(store.serialize_cdr(message, bags.MATCHES_TYPE))
    assert deserialize_message(data, Matches) == expected
