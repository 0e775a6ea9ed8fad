"""The running matcher with default parameters, in a process of its own, over real DDS."""

from pathlib import Path

import numpy as np
import pytest
from bad_images import image_message
from rcl_interfaces.srv import DescribeParameters, GetParameters
from sensor_msgs.msg import Image

from lightglue_ros.cli.demo import same_row_share
from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.msg import Matches, PairMatches
from lightglue_ros.nodes import qos
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.rosdata.decoding import check_image
from lightglue_ros.rosdata.messages import message_to_matches
from lightglue_ros.rosdata.parameters import SPECS


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return MatchPipeline("xfeat", "cpu", image_size=(320, 224))


def assert_equal(pair, expected):
    matches = message_to_matches(pair)
    for field in ("keypoints0", "keypoints1", "scores", "indices0", "indices1"):
        np.testing.assert_array_equal(getattr(matches, field), getattr(expected, field))


def test_stereo_images_come_out_as_the_matches_of_the_pipeline(stereo, images, pipeline):
    (pair,) = stereo.match(images).pairs
    (expected,) = pipeline.match(list(images.values()), [(0, 1)])
    assert_equal(pair, expected)
    assert same_row_share(expected.keypoints0, expected.keypoints1, 3.0) >= 0.9


def test_header_and_pair_tell_where_the_matches_come_from(stereo, motorcycle):
    left, right = motorcycle
    message = stereo.match({"left": left[:, :300], "right": right})
    (pair,) = message.pairs
    assert message.model == "xfeat"
    assert message.header.frame_id == "left_optical"
    assert message.header.stamp == pair.stamp0 == pair.stamp1
    assert (pair.camera0, pair.camera1) == ("left", "right")
    assert (pair.frame_id0, pair.frame_id1) == ("left_optical", "right_optical")
    assert (pair.width0, pair.height0, pair.width1, pair.height1) == (300, 500, 741, 500)
    assert pair.status == PairMatches.STATUS_OK
    assert pair.layers == 6


def test_black_images_give_an_empty_message(stereo):
    black = np.zeros((240, 320), np.uint8)
    (pair,) = stereo.match({"left": black, "right": black}).pairs
    assert pair.status == PairMatches.STATUS_OK
    assert len(pair.keypoints0) == len(pair.scores) == 0


def test_size_and_encoding_may_change_from_frame_to_frame(stereo, motorcycle, pipeline):
    left, right = motorcycle
    grey = left[..., 1]
    deep = (grey[:400, :600].astype(np.uint16) * 16).astype(">u2")
    mosaic = left[:448, :640, 1].copy()
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = left[:448:2, :640:2, 0], left[1:448:2, 1:640:2, 2]
    mono16 = {"encoding": "mono16", "step": 1200, "is_bigendian": 1, "data": deep.tobytes()}
    for image in (
        array_to_image(left, Image().header),
        array_to_image(np.ascontiguousarray(grey[:300]), Image().header),
        image_message(width=600, height=400, **mono16),
        image_message(width=640, height=448, encoding="bayer_rggb8", step=640, data=mosaic.tobytes()),
    ):
        size = (image.width, image.height)
        found = stereo.show_until(
            {"left": image, "right": right},
            lambda message, size=size: (message.pairs[0].width0, message.pairs[0].height0) == size,
            f"the image of {size}",
        )
        array = check_image(image).decode(Mono16Range())
        (expected,) = pipeline.match([array, right], [(0, 1)])
        assert len(expected) > 50
        assert_equal(found.pairs[0], expected)


def test_a_late_reader_that_requests_what_is_offered_gets_no_old_message(stereo, images):
    """As `ros2 topic echo` requests it."""
    stereo.match(images)
    old = [message.header.stamp for message in stereo.messages]
    offers = [info.qos_profile for info in stereo.get_publishers_info_by_topic("matches")]
    late = stereo.hear(Matches, "matches", qos.requested_qos("auto", offers, takes_latched=True))
    stereo.wait_until(lambda: stereo.count_subscribers("matches") == 2, "the late reader")
    stereo.repeat_until(lambda: stereo.show(images), lambda: late, "a message for the late reader")
    assert late[0].header.stamp not in old
    stereo.destroy_subscription(stereo.subscription)


def test_a_matcher_does_not_load_torch(stereo, images):
    stereo.match(images)
    maps = Path(f"/proc/{stereo.process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "torch" not in maps


def test_describe_tells_meaning_range_and_when_a_parameter_can_change(stereo):
    answer = stereo.call(DescribeParameters, names=list(SPECS))
    for found, (name, spec) in zip(answer.descriptors, SPECS.items(), strict=True):
        assert (found.name, found.description) == (name, spec.description)
        assert "can change" in found.additional_constraints or "cannot change" in found.additional_constraints
        if spec.limits:
            (limits,) = found.integer_range or found.floating_point_range
            assert (limits.from_value, limits.to_value) == spec.limits
        assert all(choice in found.additional_constraints for choice in spec.choices)


def test_pairs_change_while_running_and_the_rest_goes_on(stereo, images):
    assert stereo.set_parameters(pairs=["left@-1:left", "right:left"])[0].successful
    through_time, swapped = stereo.show_until(
        images,
        lambda m: len(m.pairs) == 2 and m.pairs[0].status == PairMatches.STATUS_OK,
        "a pair through time",
    ).pairs
    assert (through_time.camera0, through_time.camera1) == ("left", "left")
    assert (swapped.camera0, swapped.camera1, swapped.status) == ("right", "left", PairMatches.STATUS_OK)
    assert stereo.set_parameters(pairs=["left:right"])[0].successful
    stereo.show_until(images, lambda m: len(m.pairs) == 1, "the old pair")


def test_parameters_take_effect_at_the_next_frame_and_bad_values_change_nothing(stereo, images, pipeline):
    before = len(stereo.match(images).pairs[0].scores)
    for changes, says in (
        ({"match_threshold": 1.5}, "match_threshold is 1.5; allowed: double from 0 to 1; fix: for example"),
        ({"match_threshold": float("nan")}, "double from 0 to 1"),
        ({"match_threshold": 0.9, "max_keypoints": 5000}, "1 to 1024, the keypoint slots of this model"),
        ({"image_width": 64, "pairs": ["left:rear"]}, "'left:rear'; allowed: first:second"),
        ({"image_width": 64, "sync_slop": -1.0}, "sync_slop"),
        ({"image_width": 64, "camera_timeout": "long"}, "double from 0.01 to 3600"),
        (
            {"match_threshold": 0.9, "model": "xfeat-k512"},
            "model cannot change while the node runs; allowed: drawing_rate, ",
        ),
        ({"match_threshold": 0.9, "cameras": ["left"]}, "cameras cannot change"),
        ({"match_threshold": 0.9, "autostart": False}, "autostart"),
    ):
        result = stereo.set_parameters_atomically(**changes)
        assert not result.successful, changes
        assert says in result.reason
    names = ["match_threshold", "max_keypoints", "image_width", "pairs"]
    threshold, most, width, pairs = stereo.call(GetParameters, names=names).values
    assert (threshold.double_value, most.integer_value, width.integer_value) == (0.1, 0, 320)
    assert pairs.string_array_value == ["left:right"]
    assert len(stereo.match(images).pairs[0].scores) == before

    assert stereo.set_parameters_atomically(match_threshold=0.6, max_keypoints=50).successful
    (few,) = stereo.show_until(images, lambda m: len(m.pairs[0].scores) <= 50, "at most 50 matches").pairs
    assert min(few.scores) > 0.6
    assert max(few.indices0) < 50

    # As `ros2 param load` does, with values that stay as they are among them. The size is rounded up.
    for width, height in ((600, 450), (320, 224)):
        results = stereo.set_parameters(
            match_threshold=0.1, max_keypoints=0, image_width=width, image_height=height, model="xfeat"
        )
        assert all(result.successful for result in results)
        pipeline.set_image_size((width, height))
        (expected,) = pipeline.match(list(images.values()), [(0, 1)])
        (pair,) = stereo.match(images).pairs
        assert_equal(pair, expected)
