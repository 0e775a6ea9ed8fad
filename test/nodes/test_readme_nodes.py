"""The lines of README.md and docs/ that start nodes, or ask them with `ros2`, run as printed until Ctrl-C."""

import contextlib
import re
import shutil

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from printed import LAUNCHES, NODES, lines_run_by
from reader import shell

# What a line has started publishes or subscribes to when it is up, by the first pattern found in the line.
UP = {
    r"player": [("player", "/left/image_rect")],
    r"viewer:=true": [("matcher", "/matches"), ("viewer", "/matches/image")],
    r"part:=left": [("extractor_left", "/features/left")],
    r"": [("matcher", "/matches")],
}
ENDLESS = re.compile(r"ros2 topic (echo|hz)")


def needs(condition, reason):
    return pytest.mark.skipif(not condition, reason=reason)


def has_launch():
    with contextlib.suppress(ImportError):
        import launch_ros  # noqa: F401

        return shutil.which("ros2") is not None
    return False


def publishes(robot, node, topic):
    return any(info.node_name == node for info in robot.get_publishers_info_by_topic(topic))


def check_until_ctrl_c(line, make_robot, folder, environment):
    expected = next(nodes for pattern, nodes in UP.items() if re.search(pattern, line))
    with shell(line, folder, environment) as process:
        robot = make_robot((), process)
        for node, topic in expected:
            robot.wait_until(
                lambda node=node, topic=topic: publishes(robot, node, topic), f"{node} on {topic}"
            )
    assert process.returncode == 0, line


@pytest.mark.parametrize("line", lines_run_by(NODES))
def test_a_node_runs_as_printed_until_ctrl_c(line, make_robot, readers_folder, readers_environment):
    check_until_ctrl_c(line, make_robot, readers_folder, readers_environment)


@needs(has_launch(), "launch_ros is not among ROS 2's wheels")
@pytest.mark.parametrize("line", lines_run_by(LAUNCHES))
def test_a_launch_file_runs_as_printed_until_ctrl_c(
    line, model_folder, make_robot, readers_folder, readers_environment
):
    check_until_ctrl_c(line, make_robot, readers_folder, readers_environment)
