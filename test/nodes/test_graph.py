"""Topics and services of the running nodes are those of docs/topics.md and of the sample SROS2 policy."""

import re
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ament_index_python.packages import get_package_share_directory

from lightglue_ros.nodes.processes import node_process

PAGE = Path(__file__).parents[2] / "docs" / "topics.md"
POLICY = Path(get_package_share_directory("lightglue_ros")) / "config" / "sros2_policy.xml"
HAS_FOXGLOVE = find_spec("foxglove_msgs") is not None
RAW = {f"/{camera}/image_rect": "sensor_msgs/msg/Image" for camera in ("left", "right")}
FEATURES = {f"/features/{camera}": "lightglue_ros/msg/Features" for camera in ("left", "right")}


def allowed(node):
    """Full names that the policy allows a node to publish, subscribe, reply to and request."""
    (profile,) = ElementTree.parse(POLICY).findall(f"enclaves/enclave/profiles/profile[@node='{node}']")
    return {
        what: {
            full_name(name.text, node) for group in profile if group.get(what) == "ALLOW" for name in group
        }
        for what in ("publish", "subscribe", "reply", "request")
    }


def described(direction):
    """Names and types of the matcher's topics in docs/topics.md, for each of two cameras."""
    section = PAGE.read_text().split("## matcher")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(.+?)` \| (\S+) \| (\w+) \|", section, re.M)
    assert len(rows) >= 10
    return {
        full_name(name.replace("CAMERA", camera).replace("IMAGE_TOPIC", f"{camera}/image_rect"), camera): kind
        for name, kind, own in rows
        for camera in ("left", "right")
        if own == direction and (HAS_FOXGLOVE or not kind.startswith("foxglove_msgs"))
    }


def full_name(name, owner):
    if name == "camera_info":
        return f"/{owner}/camera_info"
    name = name.replace("~", "matcher" if owner in ("left", "right") else owner)
    return name if name.startswith("/") else f"/{name}"


def touched(listener, node):
    """Names and types of what a running node publishes, subscribes, replies to and requests."""
    graph = {
        "publish": listener.get_publisher_names_and_types_by_node,
        "subscribe": listener.get_subscriber_names_and_types_by_node,
        "reply": listener.get_service_names_and_types_by_node,
        "request": listener.get_client_names_and_types_by_node,
    }
    if node not in listener.get_node_names():
        return {what: {} for what in graph}
    return {what: {name: types[0] for name, types in names_of(node, "/")} for what, names_of in graph.items()}


@pytest.mark.parametrize("node", ["matcher", "viewer", "vins_features"])
def test_the_policy_allows_what_the_node_touches_by_default_and_nothing_else(make_robot, model_folder, node):
    with node_process(node, {"use_sim_time": True}) as process:
        listener = make_robot((), process)
        policy = allowed(node)
        listener.wait_until(
            lambda: {what: set(names) for what, names in touched(listener, node).items()} == policy,
            f"topics and services {policy}",
        )


def test_the_matcher_has_the_topics_of_the_page_and_with_features_no_others_than_the_policy_names(robot):
    """The default matcher subscribes to the raw images instead of the compressed ones; see above."""
    publishes, subscribes = described("publishes"), described("subscribes")
    rig = robot(
        connected=False,
        use_sim_time=True,
        publish_annotations=HAS_FOXGLOVE,
        image_transport="compressed",
        verification="essential",
        publish_features=True,
        publish_tracks=True,
        publish_points=True,
        mask_topics=["left/mask", "right/mask"],
    )
    of_all_nodes = {"/rosout", "/parameter_events"}

    def is_described():
        found = touched(rig, "matcher")
        published = {name: kind for name, kind in found["publish"].items() if name not in of_all_nodes}
        without = RAW.keys() | FEATURES.keys()
        return published == publishes and found["subscribe"] == {
            name: kind for name, kind in subscribes.items() if name not in without
        }

    rig.wait_until(is_described, "topics of the page")
    if not HAS_FOXGLOVE:
        with_more = allowed("matcher")["publish"] | FEATURES.keys() | {"/tracks", "/points"}
        assert set(touched(rig, "matcher")["publish"]) == with_more
    rig.end()
    rig = robot(connected=False, input="features")
    rig.wait_until(lambda: touched(rig, "matcher")["subscribe"] == FEATURES, "topics of features")
