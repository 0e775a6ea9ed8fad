"""Parameters of the running matcher: all changes or none, at the next frame."""

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from rcl_interfaces.srv import DescribeParameters, GetParameters

from lightglue_ros.msg import PairMatches
from lightglue_ros.rosdata.parameters import SPECS


def values_of(robot, *names):
    """What the parameters are now."""
    answer = robot.call(GetParameters, "get_parameters", GetParameters.Request(names=names))
    fields = {
        1: "bool_value",
        2: "integer_value",
        3: "double_value",
        4: "string_value",
        9: "string_array_value",
    }
    return [getattr(value, fields[value.type]) for value in answer.values]


def test_each_takes_effect_at_the_next_frame_and_bad_values_change_nothing(robot, motorcycle):
    images = dict(zip(("left", "right"), motorcycle, strict=True))
    stereo = robot()
    before = len(stereo.match(images).pairs[0].scores)

    for changes, says in (
        ({"match_threshold": 1.5}, "Min: 0.0, Max: 1.0"),
        ({"match_threshold": float("nan")}, "Min: 0.0, Max: 1.0"),
        ({"match_threshold": 0.9, "max_keypoints": 5000}, "1 to 1024, the keypoint slots of this model"),
        ({"image_width": 64, "pairs": ["left:rear"]}, "'left:rear'; allowed: first:second"),
        ({"image_width": 64, "sync_slop": -1.0}, "sync_slop"),
        ({"image_width": 64, "camera_timeout": "long"}, "Wrong parameter type"),
        (
            {"match_threshold": 0.9, "model": "xfeat-k512"},
            "model cannot change while the node runs; allowed: drawing_rate, pairs",
        ),
        ({"match_threshold": 0.9, "cameras": ["left"]}, "cameras cannot change"),
        ({"match_threshold": 0.9, "autostart": False}, "autostart"),
    ):
        result = stereo.set_parameters_atomically(**changes)
        assert not result.successful, changes
        assert says in result.reason
    assert values_of(stereo, "match_threshold", "max_keypoints", "image_width", "pairs") == [
        0.1,
        0,
        320,
        ["left:right"],
    ]
    assert len(stereo.match(images).pairs[0].scores) == before

    assert stereo.set_parameters_atomically(match_threshold=0.6, max_keypoints=50).successful
    (few,) = stereo.show_until(images, lambda m: len(m.pairs[0].scores) <= 50, "at most 50 matches").pairs
    assert min(few.scores) > 0.6
    assert max(few.indices0) < 50

    # As `ros2 param load` does, with values that stay as they are among them.
    results = stereo.set_parameters(
        match_threshold=0.1, max_keypoints=0, image_width=640, image_height=480, model="xfeat"
    )
    assert all(result.successful for result in results)
    stereo.show_until(
        images, lambda m: len(m.pairs[0].scores) not in (before, len(few.scores)), "matches of larger images"
    )


def test_pairs_change_while_running_and_the_rest_goes_on(robot, motorcycle):
    images = dict(zip(("left", "right"), motorcycle, strict=True))
    stereo = robot()
    stereo.match(images)
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


def test_describe_tells_meaning_range_and_when_it_can_change(robot):
    stereo = robot(connected=False)
    answer = stereo.call(
        DescribeParameters, "describe_parameters", DescribeParameters.Request(names=list(SPECS))
    )
    for found, (name, spec) in zip(answer.descriptors, SPECS.items(), strict=True):
        assert found.name == name
        assert found.description == spec.description
        assert "can change" in found.additional_constraints or "cannot change" in found.additional_constraints
        if spec.limits:
            (limits,) = found.integer_range or found.floating_point_range
            assert (limits.from_value, limits.to_value) == spec.limits
        assert all(choice in found.additional_constraints for choice in spec.choices)
