"""The sample SROS2 policy allows what the running nodes touch, and nothing else."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from ament_index_python.packages import get_package_share_directory
from rclpy.node import Node

from lightglue_ros.nodes.processes import node_process

POLICY = Path(get_package_share_directory("lightglue_ros")) / "config" / "sros2_policy.xml"


def allowed(node, what):
    """The names that the policy allows a node to publish, subscribe or reply to, in full."""
    (profile,) = ElementTree.parse(POLICY).findall(f"enclaves/enclave/profiles/profile[@node='{node}']")
    names = [name.text for group in profile if group.get(what) == "ALLOW" for name in group]
    return {_full(name, profile.get("node")) for name in names}


def _full(name, node):
    if name.startswith("~/"):
        return f"/{node}/{name[2:]}"
    return name if name.startswith("/") else f"/{name}"


def touched(listener, node):
    """What a running node publishes, subscribes and replies to."""
    graph = {
        "publish": listener.get_publisher_names_and_types_by_node,
        "subscribe": listener.get_subscriber_names_and_types_by_node,
        "reply": listener.get_service_names_and_types_by_node,
        "request": listener.get_client_names_and_types_by_node,
    }
    if node not in listener.get_node_names():
        return {what: set() for what in graph}
    return {what: {name for name, _ in names_of(node, "/")} for what, names_of in graph.items()}


@pytest.mark.parametrize("node", ["matcher", "viewer"])
def test_the_policy_allows_what_the_running_node_touches_and_nothing_else(
    ros, make_robot, model_folder, node
):
    expected = {what: allowed(node, what) for what in ("publish", "subscribe", "reply", "request")}
    with node_process(node, {"use_sim_time": True}) as process:
        listener: Node = make_robot((), process)
        listener.wait_until(
            lambda: touched(listener, node)["subscribe"] >= expected["subscribe"], "the node's subscriptions"
        )
        listener.wait_until(lambda: touched(listener, node) == expected, f"{touched(listener, node)}", 5.0)


def test_what_comes_only_with_parameters_is_what_the_policy_says(robot):
    rig = robot(publish_features=True, image_transport="compressed", connected=False)
    topics = {"/features/left", "/features/right"}
    rig.wait_until(
        lambda: touched(rig, "matcher")["publish"] == allowed("matcher", "publish") | topics,
        "the topics of features",
    )
