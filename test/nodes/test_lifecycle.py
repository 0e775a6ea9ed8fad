"""The states of the running matcher, and how it ends in each of them."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import cv2
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from lifecycle_msgs.msg import Transition

from lightglue_ros.msg import PairMatches
from lightglue_ros.nodes.processes import node_process

END_SECONDS = 20.0


def wait_for_line(process, text):
    """Read what the process says until a line has the text."""
    said = []
    for line in process.stderr:
        said.append(line)
        if text in line:
            return
    raise AssertionError(f"no '{text}' in {said}")


def seconds_of_processor(process):
    """Time that a process has spent (proc(5): utime and stime, in ticks)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def segments(process):
    """Segments of Fast DDS in /dev/shm that the process has mapped. Ports are shared."""
    return set(
        re.findall(r"/dev/shm/(fastdds_[0-9a-f]{16})\s", Path(f"/proc/{process.pid}/maps").read_text())
    )


def assert_ends(process, number):
    process.send_signal(number)
    assert process.wait(END_SECONDS) == 0
    said = process.stderr.read()
    assert "Traceback" not in said
    assert "ERROR" not in said


def test_a_lifecycle_manager_may_start_stop_and_start_it_again(robot, motorcycle):
    left, right = motorcycle
    images = {"left": left, "right": right}
    stereo = robot(connected=False, autostart=False)
    for _ in range(2):
        assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (True, "inactive")
        for _ in range(2):
            assert stereo.change_state(Transition.TRANSITION_ACTIVATE) == (True, "active")
            stereo.wait_until_connected()
            assert len(stereo.match(images).pairs[0].scores) > 100
            assert stereo.change_state(Transition.TRANSITION_DEACTIVATE) == (True, "inactive")
            stereo.wait_until(
                lambda: not any(camera.get_subscription_count() for camera in stereo.cameras.values()),
                "the end of the subscriptions",
            )
        assert stereo.change_state(Transition.TRANSITION_CLEANUP) == (True, "unconfigured")
    stereo.process.send_signal(signal.SIGINT)
    assert stereo.process.wait(END_SECONDS) == 0
    assert "Traceback" not in stereo.process.stderr.read()


def test_without_autostart_a_configure_that_fails_can_be_tried_again(robot, model_folder, tmp_path):
    folder = tmp_path / "late"
    stereo = robot(connected=False, autostart=False, model=str(folder))
    assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (False, "unconfigured")
    shutil.copytree(model_folder, folder)
    assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (True, "inactive")


def test_cleanup_frees_the_sessions(robot):
    """Each session has threads of its own: num_threads - 1, for the thread that calls it works, too."""
    stereo = robot(connected=False, autostart=False, num_threads=5)
    tasks = Path(f"/proc/{stereo.process.pid}/task")
    stereo.wait_until(lambda: stereo.count_services("/matcher/change_state") > 0, "the node")
    before = len(list(tasks.iterdir()))
    for _ in range(2):
        stereo.change_state(Transition.TRANSITION_CONFIGURE)
        assert len(list(tasks.iterdir())) >= before + 2 * 4
        stereo.change_state(Transition.TRANSITION_CLEANUP)
        stereo.wait_until(lambda: len(list(tasks.iterdir())) < before + 4, "the end of the sessions' threads")


def test_unconfigured_it_takes_any_parameter_and_configures_with_it(robot, motorcycle):
    left, right = motorcycle
    rig = robot(("front", "rear"), connected=False, autostart=False)
    results = rig.set_parameters(
        cameras=["front", "rear"],
        image_topics=["front/image_rect", "rear/image_rect"],
        pairs=["rear:front"],
        provider="gpu",
    )
    assert [result.successful for result in results] == [True, True, True, False]
    assert "auto, cpu, cuda" in results[3].reason
    assert rig.change_state(Transition.TRANSITION_CONFIGURE) == (True, "inactive")
    assert rig.change_state(Transition.TRANSITION_ACTIVATE) == (True, "active")
    rig.wait_until_connected()
    (pair,) = rig.match({"front": left, "rear": right}).pairs
    assert (pair.camera0, pair.camera1, pair.status) == ("rear", "front", PairMatches.STATUS_OK)


def test_an_unforeseen_error_of_a_transition_is_logged_and_leads_to_unconfigured(robot):
    """As the design of managed nodes has it: by way of ErrorProcessing, which puts everything away."""
    override = {"qos_overrides./right/image_rect.subscription.reliability": "nonsense"}
    stereo = robot(connected=False, autostart=False, **override)
    for _ in range(2):
        assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (True, "inactive")
        assert stereo.change_state(Transition.TRANSITION_ACTIVATE) == (False, "unconfigured")
        stereo.wait_until(
            lambda: not stereo.count_subscribers("left/image_rect"), "the end of the subscriptions"
        )
    stereo.process.send_signal(signal.SIGINT)
    assert stereo.process.wait(END_SECONDS) == 0
    assert "Unexpected QoS override" in stereo.process.stderr.read()


def test_a_signal_ends_it_unconfigured(robot):
    stereo = robot(connected=False, autostart=False)
    stereo.wait_until(lambda: stereo.count_services("/matcher/change_state") > 0, "the node")
    assert_ends(stereo.process, signal.SIGINT)


def test_a_signal_ends_it_inactive(robot):
    stereo = robot(connected=False, autostart=False)
    assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (True, "inactive")
    assert_ends(stereo.process, signal.SIGTERM)


def test_a_signal_ends_it_during_inference(robot, motorcycle):
    """Inference on images of this size takes some tenths of a second."""
    images = {
        camera: cv2.resize(image, (1280, 960))
        for camera, image in zip(("left", "right"), motorcycle, strict=True)
    }
    stereo = robot(image_width=1280, image_height=960)
    stereo.match(images)
    spent = seconds_of_processor(stereo.process)
    stereo.show(images)
    stereo.wait_until(
        lambda: seconds_of_processor(stereo.process) > spent + 0.1, "inference on the next frame"
    )
    assert_ends(stereo.process, signal.SIGINT)


def test_a_signal_ends_it_while_the_model_is_loading(robot):
    stereo = robot(connected=False, image_width=2048, image_height=1536)
    wait_for_line(stereo.process, "loading model")
    assert_ends(stereo.process, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_active_and_no_shared_memory_stays_behind(ros, number):
    """Each segment takes 33.5 MiB of /dev/shm until somebody removes it."""
    with node_process("matcher", {}, stderr=subprocess.PIPE, text=True) as process:
        wait_for_line(process, "waiting for images")
        made = segments(process)
        assert_ends(process, number)
    assert made
    assert not [left for name in made for left in Path("/dev/shm").glob(f"{name}*")]
