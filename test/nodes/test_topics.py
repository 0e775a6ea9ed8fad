"""The matcher's table in docs/topics.md lists the topics of the running matcher."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

PAGE = Path(__file__).parents[2] / "docs" / "topics.md"
OF_ALL_NODES = {"/rosout", "/parameter_events"}
HAS_FOXGLOVE = find_spec("foxglove_msgs") is not None
RAW = ("/left/image_rect", "sensor_msgs/msg/Image")
FEATURES = ("/features/left", "lightglue_ros/msg/Features")


def described(direction):
    """Names and types of the matcher's topics on the page, with those of the left camera."""
    section = PAGE.read_text().split("## matcher")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(.+?)` \| (\S+) \| (\w+) \|", section, re.M)
    assert len(rows) >= 10
    return {
        (full_name(name), kind)
        for name, kind, own in rows
        if own == direction and (HAS_FOXGLOVE or not kind.startswith("foxglove_msgs"))
    }


def full_name(name):
    name = name.replace("CAMERA", "left").replace("IMAGE_TOPIC", "left/image_rect").replace("~", "matcher")
    return "/left/camera_info" if name == "camera_info" else f"/{name.lstrip('/')}"


def touched(robot):
    """Names and types that the matcher publishes, and that it subscribes to, without the right camera's."""
    graph = (
        robot.get_publisher_names_and_types_by_node("matcher", "/"),
        robot.get_subscriber_names_and_types_by_node("matcher", "/"),
    )
    return [
        {(name, types[0]) for name, types in names if name not in OF_ALL_NODES and "right" not in name}
        for names in graph
    ]


def test_the_matcher_has_the_topics_that_are_described_and_no_others(robot):
    """The raw images, which a default matcher subscribes to, are in test_security.py."""
    publishes, subscribes = described("publishes"), described("subscribes")
    rig = robot(
        connected=False,
        use_sim_time=True,
        publish_annotations=HAS_FOXGLOVE,
        image_transport="compressed",
        verification="essential",
        publish_features=True,
    )
    expected = [publishes, subscribes - {RAW, FEATURES}]
    rig.wait_until(lambda: touched(rig) == expected, "the topics of compressed images")
    rig = robot(connected=False, input="features")
    rig.wait_until(lambda: touched(rig)[1] == {FEATURES}, "the topics of features")
