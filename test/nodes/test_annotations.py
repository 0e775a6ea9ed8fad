"""Annotations for Foxglove: of the right image, in its pixels and with its stamp."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ament_index_python.packages import get_package_share_directory
from lifecycle_msgs.msg import Transition

from lightglue_ros.msg import PairMatches
from lightglue_ros.nodes import annotations, drawing
from lightglue_ros.rosdata.messages import message_to_inliers, message_to_matches

has_foxglove = pytest.mark.skipif(find_spec("foxglove_msgs") is None, reason="no foxglove_msgs here")


@has_foxglove
def test_lines_go_from_each_keypoint_of_the_present_image_to_its_partner(robot, images):
    stereo = robot(
        pairs=["left:right", "left@-1:left"],
        publish_annotations=True,
        verification="fundamental",
        drawing_rate=100.0,
    )
    received = stereo.hear(annotations.message_type(), "matches/annotations/left", 1)

    def matched():
        stamps = [[lines.timestamp for lines in message.points] for message in received]
        return [m for m in stereo.messages if [m.header.stamp] * 2 in stamps]

    stereo.repeat_until(lambda: stereo.show(images), matched, "annotations")
    message = matched()[0]
    stereo_lines, through_time = next(
        of.points for of in received if of.points[0].timestamp == message.header.stamp and len(of.points) == 2
    )
    sides = (stereo_lines, message.pairs[0], False), (through_time, message.pairs[1], True)
    for lines, pair, is_second in sides:
        assert pair.status == PairMatches.STATUS_OK
        matches = message_to_matches(pair)
        ends = np.array([(point.x, point.y) for point in lines.points]).reshape(-1, 2, 2)
        keypoints = [matches.keypoints0, matches.keypoints1]
        own, other = keypoints[::-1] if is_second else keypoints
        np.testing.assert_array_equal(ends[:, 0], own + 0.5)
        np.testing.assert_array_equal(ends[:, 1], other + 0.5)
        is_magenta = [colour.r == colour.b == 1.0 for colour in lines.outline_colors]
        np.testing.assert_array_equal(is_magenta, ~message_to_inliers(pair))


@pytest.mark.skipif(find_spec("foxglove_msgs") is not None, reason="foxglove_msgs is installed here")
def test_without_the_package_the_parameter_says_what_to_install(robot):
    stereo = robot(connected=False, autostart=False, publish_annotations=True)
    assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (False, "unconfigured")
    assert stereo.set_parameters(publish_annotations=False)[0].successful
    assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (True, "inactive")
    said = stereo.end()
    assert "foxglove_msgs cannot be imported" in said
    assert "fix: apt install ros-$ROS_DISTRO-foxglove-msgs" in said


def test_the_foxglove_layout_shows_topics_that_the_matcher_has():
    share = Path(get_package_share_directory("lightglue_ros"))
    layout = json.loads((share / "config" / "matches.foxglove.json").read_text())
    assert sorted(panels_of(layout["layout"])) == sorted(layout["configById"])
    shown = set(re.findall(r'"/([a-z_/]+)"', json.dumps(layout["configById"])))
    pictures = {"left/image_rect", drawing.TOPIC, "matches/annotations/left"}
    assert shown == {"diagnostics", "matches", "points", *pictures}


def panels_of(node):
    """Names of the panels in a layout, which halves the window again and again."""
    return [node] if isinstance(node, str) else panels_of(node["first"]) + panels_of(node["second"])
