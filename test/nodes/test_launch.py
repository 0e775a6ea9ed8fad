"""`ros2 launch lightglue_ros matcher.launch.py`, where ROS 2 is whole."""

import os
import shutil
import signal
import subprocess

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("launch_ros", reason="launch_ros is not among ROS 2's wheels")
if shutil.which("ros2") is None:
    pytest.skip("no ros2 command here", allow_module_level=True)


@pytest.fixture
def launched(ros, make_robot, model_folder):
    """Starts the launch file with the given arguments; the cameras beside it are in its namespace."""
    processes = []

    def start(*arguments, namespace=""):
        command = ["ros2", "launch", "lightglue_ros", "matcher.launch.py", *arguments]
        # Ctrl-C reaches the whole group in a terminal; here it goes to ros2 launch, which hands it on.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        return make_robot(("left", "right"), process, namespace)

    yield start
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(20.0)


def test_it_matches_with_the_parameters_file_and_ctrl_c_ends_it_with_status_0(launched, motorcycle, tmp_path):
    left, right = motorcycle
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    image_width: 320\n    image_height: 224\n")
    robot = launched(
        f"params_file:={parameters}",
        f"model:={os.environ['LIGHTGLUE_ROS_HOME']}/models/xfeat",
        "provider:=cpu",
    )
    assert len(robot.match({"left": left, "right": right}).pairs[0].scores) > 100
    robot.process.send_signal(signal.SIGINT)
    assert robot.process.wait(20.0) == 0
    said = robot.process.stdout.read()
    assert "images 320x224" in said
    assert "process has finished cleanly" in said
    assert "Traceback" not in said


def test_a_namespace_moves_node_and_topics(launched, motorcycle):
    left, right = motorcycle
    robot = launched("namespace:=head", namespace="head")
    assert len(robot.match({"left": left, "right": right}).pairs[0].scores) > 100
    assert ("matcher", "/head") in robot.get_node_names_and_namespaces()


def test_a_wrong_parameters_file_ends_the_launch(launched, tmp_path):
    process = launched(f"params_file:={tmp_path / 'none.yaml'}").process
    said, _ = process.communicate(timeout=20.0)
    assert process.returncode != 0
    assert "none.yaml" in said
