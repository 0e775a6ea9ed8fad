"""The list of topics in the documentation is what the running matcher has."""

from importlib.util import find_spec

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from lightglue_ros.nodes.topics import CAMERA, IMAGE_TOPIC, TOPICS

OF_ALL_NODES = {"/rosout", "/parameter_events"}
HAS_FOXGLOVE = find_spec("foxglove_msgs") is not None


def described(is_published):
    """Names and types of the matcher's topics, as those of the left camera."""
    return {
        (_full(topic.name), topic.type)
        for topic in TOPICS["matcher"]
        if topic.is_published == is_published and (HAS_FOXGLOVE or not topic.type.startswith("foxglove_msgs"))
    }


def _full(name):
    name = name.replace(CAMERA, "left").replace(IMAGE_TOPIC, "left/image_rect").replace("~", "matcher")
    return "/left/camera_info" if name == "camera_info" else f"/{name.lstrip('/')}"


def touched(robot):
    """Names and types of what the matcher publishes, and of what it subscribes to, of the left camera."""
    graph = (
        robot.get_publisher_names_and_types_by_node("matcher", "/"),
        robot.get_subscriber_names_and_types_by_node("matcher", "/"),
    )
    return [
        {(name, types[0]) for name, types in names if name not in OF_ALL_NODES and "right" not in name}
        for names in graph
    ]


def test_the_matcher_has_the_topics_that_are_described_and_no_others(robot):
    published, subscribed = set(), set()
    for parameters in (
        {"use_sim_time": True, "publish_annotations": HAS_FOXGLOVE},
        {"image_transport": "compressed", "verification": "essential", "publish_features": True},
        {"input": "features"},
    ):
        rig = robot(connected=False, **parameters)
        # The second diagnostics come from a node that has long subscribed.
        rig.wait_for_diagnostics()
        rig.wait_for_diagnostics()
        of_graph = touched(rig)
        published |= of_graph[0]
        subscribed |= of_graph[1]
        rig.process.terminate()
        assert rig.process.wait(20.0) == 0
    assert published == described(is_published=True)
    assert subscribed == described(is_published=False)
