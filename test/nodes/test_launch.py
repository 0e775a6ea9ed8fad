"""`ros2 launch lightglue_ros matcher.launch.py` and `split.launch.py`, where ROS 2 is whole."""

import os
import shutil
import signal
import subprocess
from functools import partial

import pytest

pytest.importorskip("launch_ros", reason="launch_ros is not among ROS 2's wheels")
if shutil.which("ros2") is None:
    pytest.skip("no ros2 command here", allow_module_level=True)


@pytest.fixture
def launched(ros, make_robot, model_folder):
    """Starts a launch file with the given arguments; the cameras beside it are in its namespace."""
    processes = []

    def start(*arguments, namespace="", file="matcher.launch.py"):
        command = ["ros2", "launch", "lightglue_ros", file, *arguments]
        # Ctrl-C reaches the whole group in a terminal; here it goes to ros2 launch, which hands it on.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        return make_robot(("left", "right"), process, namespace)

    yield start
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(20.0)


def test_it_matches_with_the_parameters_file_and_ctrl_c_ends_it_with_status_0(launched, images, tmp_path):
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    image_width: 320\n    image_height: 224\n")
    robot = launched(
        f"params_file:={parameters}",
        f"model:={os.environ['LIGHTGLUE_ROS_HOME']}/models/xfeat",
        "provider:=cpu",
    )
    assert len(robot.match(images).pairs[0].scores) > 100
    robot.process.send_signal(signal.SIGINT)
    assert robot.process.wait(20.0) == 0
    said = robot.process.stdout.read()
    assert "images 320x224" in said
    assert "process has finished cleanly" in said
    assert "Traceback" not in said


def test_a_namespace_moves_node_and_topics(launched, images):
    robot = launched("namespace:=head", namespace="head")
    assert len(robot.match(images).pairs[0].scores) > 100
    assert ("matcher", "/head") in robot.get_node_names_and_namespaces()


@pytest.mark.parametrize(
    ("file", "argument", "says"),
    [
        ("matcher.launch.py", "params_file:=/no/such/none.yaml", "none.yaml"),
        ("split.launch.py", "part:=rear", "allowed: all, or some of left, right, matcher"),
    ],
)
def test_a_wrong_argument_ends_the_launch_with_what_there_is(launched, file, argument, says):
    process = launched(argument, file=file).process
    said, _ = process.communicate(timeout=60.0)
    assert process.returncode != 0
    assert says in said


def test_a_viewer_is_started_if_asked_for_with_the_same_parameters(launched, tmp_path):
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    cameras: [right, left]\n    image_topics: [b, a]\n")
    robot = launched(f"params_file:={parameters}", "viewer:=true")
    robot.wait_until(lambda: robot.count_publishers("matches/image") == 2, "matcher and viewer")
    for topic in ("a", "b"):
        robot.wait_until(lambda topic=topic: robot.count_subscribers(topic) == 2, f"subscriptions to {topic}")


def test_extractors_and_matcher_start_from_one_parameters_file_apart_or_together(launched, images):
    split = partial(launched, file="split.launch.py")
    matcher = split("part:=matcher")
    matcher.wait_until(lambda: matcher.count_subscribers("features/left") == 1, "the matcher")
    cameras = split("part:=left,right", "features_precision:=fp16")
    (pair,) = cameras.show_until(images, lambda message: len(message.pairs[0].scores) > 100, "matches").pairs
    assert (pair.camera0, pair.camera1) == ("left", "right")
    names = set(cameras.get_node_names())
    assert {"extractor_left", "extractor_right", "matcher"} <= names
