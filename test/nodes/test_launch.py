"""`ros2 launch lightglue_ros matcher.launch.py` and `split.launch.py`, where ROS 2 is whole."""

import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_share_directory
from rcl_interfaces.srv import GetParameters

from lightglue_ros.nodes.fastdds import OLD_PROFILE_VARIABLE, PROFILE_VARIABLE

pytest.importorskip("launch_ros", reason="launch_ros is not among ROS 2's wheels")
if shutil.which("ros2") is None:
    pytest.skip("no ros2 command here", allow_module_level=True)


PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"
NEIGHBOUR = """
from launch import LaunchDescription
from launch.actions import ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

def generate_launch_description():
    matcher = IncludeLaunchDescription(PythonLaunchDescriptionSource("{matcher}"))
    neighbour = ExecuteProcess(cmd=["sh", "-c", "env > {out}.new && mv {out}.new {out}"])
    return LaunchDescription([matcher, neighbour])
"""


@pytest.fixture
def launched(ros, make_robot, model_folder):
    """Starts a launch file with the given arguments; the cameras beside it are in its namespace."""
    processes = []

    def start(*arguments, namespace="", file=("lightglue_ros", "matcher.launch.py"), environment=None):
        command = ["ros2", "launch", *file, *arguments]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
        # Ctrl-C reaches the whole group in a terminal; here it goes to ros2 launch, which hands it on.
        process = subprocess.Popen(command, **options)
        processes.append(process)
        return make_robot(("left", "right"), process, namespace)

    yield start
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(20.0)


def children(process):
    """Numbers of the processes that a process has started."""
    numbers = []
    for listed in Path(f"/proc/{process.pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended
            numbers += map(int, listed.read_text().split())
    return numbers


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
    assert "320x224" in said
    assert "process has finished cleanly" in said
    assert "Traceback" not in said


def test_a_namespace_moves_node_and_topics(launched, images):
    robot = launched("namespace:=head", namespace="head")
    assert len(robot.match(images).pairs[0].scores) > 100
    assert ("matcher", "/head") in robot.get_node_names_and_namespaces()


def test_the_page_names_the_arguments_of_both_launch_files():
    section = PAGE.read_text().split("## Launch files")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \|", section, re.M)
    shown = ""
    for file in ("matcher.launch.py", "split.launch.py"):
        command = ["ros2", "launch", "lightglue_ros", file, "--show-args"]
        shown += subprocess.run(command, capture_output=True, text=True, check=True, timeout=60.0).stdout
    taken = set(re.findall(r"^    '(\w+)':", shown, re.M))
    assert taken == {name for row in rows for name in re.findall(r"`(\w+)`", row)}


SPLIT = ("lightglue_ros", "split.launch.py")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("/**:\n  ros__parameters:\n    cameras: [left\n    image_width: 320\n", "is no YAML (line 4: "),
        ("rig:\n  ros__parameters:\n    image_width: 320\n", "has no parameters of the node /matcher"),
        ("image_width: 320\n", "allowed: /** or matcher, with ros__parameters below"),
    ],
)
def test_a_parameters_file_that_ros_cannot_read_or_would_ignore_ends_the_launch(
    launched, tmp_path, content, says
):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    assert_refused(launched(f"params_file:={file}"), says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["params_file:=/no/such/none.yaml"], "none.yaml"),
        (["params_file:=mine.yaml", "rig:=mono"], "rig and params_file are both given"),
        (["rig:=stereo"], "'surround'"),
        (["rig:=mono", "left_topic:=a"], "the rig has the cameras camera"),
        (["viewer:=maybe"], "argument viewer is 'maybe'; allowed: true, yes, on, 1, false, no, off, 0"),
        (["respawn:=2"], "argument respawn is '2'; allowed: true"),
        (["use_sim_time:=sim"], "argument use_sim_time is 'sim'; allowed: true"),
        (["provider:=gpu"], "'auto', 'cpu', 'cuda', 'tensorrt'"),
        (["num_threads:=many"], "num_threads is 'many'; allowed: integer from 0 to 256"),
        (["verification:=all"], "'essential'"),
    ],
)
def test_a_wrong_argument_ends_the_launch_with_what_there_is(launched, arguments, says):
    assert_refused(launched(*arguments), says)


def test_a_misspelt_argument_is_named_and_arguments_of_other_launch_files_are_not(launched):
    arguments = ("param_file:=mine.yaml", "left_topics:=/a", "model_name:=robot", "cam:=left")
    said, _ = launched(*arguments, "viewer:=maybe").process.communicate(timeout=60.0)
    named = re.findall(r"argument (\w+) is ignored.* \(did you mean (\w+)\?\)", said)
    assert named == [("left_topics", "left_topic"), ("param_file", "params_file")]


def test_a_wrong_part_ends_the_launch_with_what_there_is(launched):
    assert_refused(launched("part:=rear", file=SPLIT), "allowed: all, or some of left, right, matcher")


def assert_refused(robot, says):
    said, _ = robot.process.communicate(timeout=60.0)
    assert robot.process.returncode != 0
    assert says in said


def test_a_viewer_is_started_if_asked_for_with_the_same_parameters(launched, tmp_path):
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    cameras: [right, left]\n    image_topics: [b, a]\n")
    robot = launched(f"params_file:={parameters}", "viewer:=Yes", "left_topic:=/c")
    robot.wait_until(lambda: robot.count_publishers("matches/image") == 2, "matcher and viewer")
    for topic in ("b", "c"):
        robot.wait_until(lambda topic=topic: robot.count_subscribers(topic) == 2, f"subscriptions to {topic}")


def test_arguments_set_what_people_set_first(launched, images):
    robot = launched(
        "rig:=matcher",
        "left_topic:=/a/image_raw",
        "right_topic:=b/image_raw",
        "image_qos:=reliable",
        "verification:=fundamental",
        "num_threads:=1",
        "viewer:=OFF",
    )
    robot.add_cameras({"left": "a/image_raw", "right": "b/image_raw"}, reliability="reliable")
    (pair,) = robot.match(images).pairs
    assert len(pair.inliers) == len(pair.scores) > 100
    (subscription,) = robot.get_subscriptions_info_by_topic("/a/image_raw")
    assert subscription.qos_profile.reliability.name == "RELIABLE"
    (threads,) = robot.call(GetParameters, names=["num_threads"]).values
    assert threads.integer_value == 1


def test_a_ready_rig_is_started_by_its_name(launched):
    robot = launched("rig:=surround")
    for camera in ("front", "left", "rear", "right"):
        topic = f"{camera}/image_rect"
        robot.wait_until(
            lambda topic=topic: robot.count_subscribers(topic) == 1, f"a subscription to {topic}"
        )


def test_a_killed_matcher_comes_back_and_matches(launched, images):
    robot = launched("respawn:=on")
    robot.match(images)
    (matcher,) = children(robot.process)
    os.kill(matcher, signal.SIGKILL)
    robot.wait_until(lambda: children(robot.process) not in ([], [matcher]), "another matcher")
    assert len(robot.match(images).pairs[0].scores) > 100


def test_only_our_nodes_get_our_profile_of_fast_dds(launched, images, tmp_path):
    """Other nodes of a launch file that includes ours keep what their user has set."""
    matcher = Path(get_package_share_directory("lightglue_ros")) / "launch" / "matcher.launch.py"
    file, out = tmp_path / "robot.launch.py", tmp_path / "environment"
    file.write_text(NEIGHBOUR.format(matcher=matcher, out=out))
    variables = (PROFILE_VARIABLE, OLD_PROFILE_VARIABLE)
    without = {name: value for name, value in os.environ.items() if name not in variables}
    robot = launched(file=[str(file)], environment=without)
    robot.wait_until(out.is_file, "the neighbour's environment")
    lines = out.read_text().splitlines()
    assert any(line.startswith("PATH=") for line in lines)
    assert not [line for line in lines if line.startswith(variables)]
    robot.match(images)
    maps = Path(f"/proc/{children(robot.process)[0]}/maps").read_text()
    segments = {
        Path("/dev/shm") / name for name in re.findall(r"/dev/shm/(fast(?:dds|rtps)_[0-9a-f]{16})\s", maps)
    }
    assert max(segment.stat().st_size for segment in segments) > 32 * 2**20


def test_extractors_and_matcher_start_from_one_parameters_file_apart_or_together(launched, images):
    split = partial(launched, file=SPLIT)
    matcher = split("part:=matcher")
    matcher.wait_until(lambda: matcher.count_subscribers("features/left") == 1, "the matcher")
    cameras = split("part:=left,right", "features_precision:=fp16")
    (pair,) = cameras.show_until(images, lambda message: len(message.pairs[0].scores) > 100, "matches").pairs
    assert (pair.camera0, pair.camera1) == ("left", "right")
    names = set(cameras.get_node_names())
    assert {"extractor_left", "extractor_right", "matcher"} <= names
