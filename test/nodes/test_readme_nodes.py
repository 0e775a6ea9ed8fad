"""The lines of README.md and docs/ that start nodes, or ask them with `ros2`, run as printed until Ctrl-C."""

import contextlib
import re
import shutil
import subprocess
from importlib.util import find_spec

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from printed import AMONG_WORDS, BLOCKS, LAUNCHES, NODES, ROS2, SHELL, lines_of, lines_run_by, run_by
from reader import hear, run, shell
from sensor_msgs.msg import Image

from lightglue_ros.nodes import qos
from lightglue_ros.nodes.processes import node_process

# The nodes of a line that publish when they are up, and what; by the first pattern that is found in the line.
UP = {
    r"viewer:=true": {"matcher": "/matches", "viewer": "/matches/image"},
    r"part:=left": {"extractor_left": "/features/left"},
    r"": {"matcher": "/matches"},
}
# What those that ask forever hear.
HEARD = {
    r"topic hz": "average rate",
    r"topic echo /diagnostics": "rate (Hz)",
    r"topic echo .*header.stamp": "nanosec",
    r"topic echo /matches": "keypoints0",
}
ROS2_BLOCKS = [
    block
    for block in [*BLOCKS, *AMONG_WORDS]
    if block.kind == SHELL and any(run_by(block, line) == ROS2 for line in lines_of(block))
]
has_ros2 = pytest.mark.skipif(shutil.which("ros2") is None, reason="no ros2 command here")
has_launch = pytest.mark.skipif(
    find_spec("launch_ros") is None, reason="launch_ros is not among ROS 2's wheels"
)


def first_found(table, line):
    return next((value for pattern, value in table.items() if re.search(pattern, line)), None)


@pytest.mark.parametrize("line", lines_run_by(NODES))
def test_a_player_plays_as_printed_until_ctrl_c(line, make_robot, readers_folder, readers_environment):
    with shell(line, readers_folder, readers_environment) as process:
        robot, images = make_robot((), process), []
        robot.create_subscription(Image, "left/image_rect", images.append, qos.image_qos("sensor_data"))
        robot.wait_until(lambda: len(images) > 1, "images")
    assert process.returncode == 0


@has_ros2
@has_launch
@pytest.mark.parametrize("line", lines_run_by(LAUNCHES))
def test_a_launch_file_runs_as_printed_until_ctrl_c(
    line, model_folder, make_robot, readers_folder, readers_environment
):
    def publishes(node, topic):
        return any(info.node_name == node for info in robot.get_publishers_info_by_topic(topic))

    with shell(line, readers_folder, readers_environment) as process:
        robot = make_robot((), process)
        for node, topic in first_found(UP, line).items():
            robot.wait_until(lambda node=node, topic=topic: publishes(node, topic), f"{node} on {topic}")
    assert process.returncode == 0


@pytest.fixture
def running(ros, model_folder, readers_folder, readers_environment):
    """Starts a matcher and a player, and waits until `ros2` knows them; in the store XFeat is ALIKED, too."""
    environment = {**readers_environment, "LIGHTGLUE_ROS_HOME": str(readers_folder)}
    (readers_folder / "models").mkdir()
    for name in ("xfeat", "aliked"):
        (readers_folder / "models" / name).symlink_to(model_folder)
    images = {"images": [str(readers_folder / f"{side}.png") for side in ("left", "right")]}

    def start(**parameters):
        stack.enter_context(node_process("player", images))
        stack.enter_context(node_process("matcher", parameters, env=environment))
        known = ""
        while not {"/matcher", "/player"} <= set(known.split()):
            known = run("ros2 node list", readers_folder, environment)
        return environment

    # Else the first line would start the daemon, and with Ctrl-C end it.
    subprocess.run(["ros2", "daemon", "start"], env=environment, check=True)
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, ["ros2", "daemon", "stop"], env=environment, check=True)
        yield start


@has_ros2
@pytest.mark.parametrize("block", ROS2_BLOCKS, ids=str)
def test_a_running_matcher_answers_ros2_as_printed(block, running, readers_folder):
    lines = lines_of(block)
    environment = running(autostart="set /matcher configure" not in lines[0])
    for line in lines:
        expected = first_found(HEARD, line)
        if expected is None:
            assert "fail" not in run(line, readers_folder, environment).lower()
        else:
            with shell(line, readers_folder, environment) as process:
                hear(process, expected)
