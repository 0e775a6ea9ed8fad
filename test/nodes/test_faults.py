"""Faults of a robot: cameras that die, clocks that jump, overload, a subscriber that sleeps."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from lightglue_ros.core.image_files import write_image
from lightglue_ros.msg import PairMatches
from lightglue_ros.nodes.latest_only_thread import MOST_WAITING
from lightglue_ros.nodes.processes import node_process

OK, MISSING = PairMatches.STATUS_OK, PairMatches.STATUS_MISSING
# A small machine matches four small cameras at this rate next to other work.
HERTZ = "10"
HOUR = 3600.0
TINY = {"image_width": 64, "image_height": 64, "max_keypoints": 64}


def statuses(message):
    return [pair.status for pair in message.pairs]


@pytest.fixture
def triggered_cameras():
    """Starts cameras in a process of their own; see triggered_camera.py."""
    processes = []

    def start(*names):
        script = Path(__file__).parent / "triggered_camera.py"
        processes.append(subprocess.Popen([sys.executable, str(script), HERTZ, *names]))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_one_of_four_cameras_killed_and_back(robot, triggered_cameras):
    names = ["front", "left", "rear", "right"]
    rig = robot(names, connected=False, pairs=["front:left", "rear:right"], camera_timeout=2.0, **TINY)
    triggered_cameras("front", "left", "rear")
    right = triggered_cameras("right")

    def wait_for_ten(expected):
        rig.wait_until(lambda: rig.messages and statuses(rig.messages[-1]) == expected, f"{expected}")
        rig.clear()
        rig.wait_for_matches(10)
        assert all(statuses(message) == expected for message in rig.messages)

    def wait_for_status(text):
        rig.wait_until(lambda: rig.status and rig.status.message.startswith(text), f"diagnostics '{text}'")

    wait_for_ten([OK, OK])
    wait_for_status("ok")
    right.kill()
    wait_for_ten([OK, MISSING])
    wait_for_status("missing: right (no image comes on /right/image_rect (")
    assert rig.status.level == DiagnosticStatus.WARN
    triggered_cameras("right")
    wait_for_ten([OK, OK])
    wait_for_status("ok")


def test_silent_cameras_are_an_error_that_names_the_topics_and_slow_ones_are_not_missing(robot, images):
    stereo = robot(camera_timeout=0.5)
    stereo.match(images)
    silent = "no image comes on /left/image_rect (1 publisher), /right/image_rect (1 publisher)"
    stereo.wait_until(lambda: stereo.status and silent in stereo.status.message, "an error of silent cameras")
    assert stereo.status.level == DiagnosticStatus.ERROR

    stereo.clear()
    stereo.show({"left": images["left"]})
    stereo.show_with_last_stamp({"right": images["right"]})
    stereo.wait_for_matches(1)
    assert statuses(stereo.messages[0]) == [OK]

    stereo.repeat_until(
        lambda: stereo.show(images),
        lambda: stereo.status.level == DiagnosticStatus.OK and float(stereo.diagnostics["rate (Hz)"]) > 0.0,
        "diagnostics ok",
    )
    values = stereo.diagnostics
    assert float(values["camera left (Hz)"]) > 0.0
    assert 0.0 < float(values["inference p50 (ms)"]) <= float(values["inference p95 (ms)"])
    assert (values["model"], values["provider"]) == ("xfeat", "cpu")


def test_frames_that_come_in_a_burst_are_all_matched_where_the_node_is_faster_than_the_cameras(robot, images):
    """As from a middleware that sends lost images again."""
    stereo = robot(camera_timeout=5.0, **TINY)
    small = {camera: np.ascontiguousarray(image[::4, ::4]) for camera, image in images.items()}
    for moment in range(3):
        stereo.match_at(HOUR + moment, small)
        stereo.wait_for_diagnostics()  # once per second
    stereo.clear()
    for moment in range(3, 7):
        stereo.show_at(HOUR + moment, small)
    stereo.wait_for_matches(4)
    assert [message.header.stamp.sec - HOUR for message in stereo.messages] == [3, 4, 5, 6]


def test_time_that_jumps_back_an_hour_starts_anew(robot, images):
    """As a bag that loops: what was kept of the time before is not matched with what comes after."""
    stereo = robot(pairs=["left:right", "left@-1:left"])
    for start in (2 * HOUR, HOUR):
        found = [statuses(stereo.match_at(start + 0.1 * moment, images)) for moment in range(3)]
        assert found == [[OK, MISSING], [OK, OK], [OK, OK]]
    stereo.wait_until(lambda: stereo.diagnostics.get("time set back") == "1", "the count of resets")


def test_stamps_that_are_all_zero_count_as_taken_on_arrival(robot, images):
    stereo = robot(sync_slop=0.1)
    for _ in range(3):
        (pair,) = stereo.match_at(0.0, images).pairs
        assert pair.status == OK
        assert len(pair.scores) > 100


@pytest.mark.parametrize(("ahead", "text"), [(-3.0, "3.0 s behind"), (37.0, "37.0 s ahead of")])
def test_a_camera_whose_clock_is_off_is_named_and_holds_up_nobody(robot, images, ahead, text):
    rig = robot(["left", "right", "rear"], pairs=["left:right", "right:rear"], camera_timeout=0.5)

    def show():
        now = rig.get_clock().now().nanoseconds * 1e-9
        rig.show_at(now, images)
        rig.show_at(now + ahead, {"rear": images["left"]})

    def goes_on():
        return sum(statuses(message) == [OK, MISSING] for message in rig.messages) >= 5

    rig.repeat_until(show, goes_on, "the pair of the two that are in sync")
    said = f"missing: rear (its stamps are {text} the others'; fix: the clock of its computer"
    rig.repeat_until(show, lambda: said in rig.status.message, "diagnostics")
    assert float(rig.diagnostics["camera rear out of sync (s)"]) == pytest.approx(ahead, abs=0.05)
    assert float(rig.diagnostics["camera left out of sync (s)"]) == 0.0


SLEEPER = """
import rclpy, signal
from lightglue_ros.msg import Matches
from lightglue_ros.nodes import qos
rclpy.init()
node = rclpy.create_node("sleeper")
subscription = node.create_subscription(Matches, "matches", print, qos.result_qos())
signal.pause()
"""


def test_cameras_that_are_too_fast_lose_frames_and_a_subscriber_that_never_reads_holds_up_nobody(
    robot, motorcycle, tmp_path
):
    """Inference takes longer than a camera's period of 5 ms. At first the subscriber does not spin.

    Then its process is stopped: its middleware does not answer either.
    """
    paths = [str(tmp_path / f"{side}.png") for side in ("left", "right")]
    for path, image in zip(paths, motorcycle, strict=True):
        write_image(path, np.ascontiguousarray(image[:480:2, :640:2]))
    stereo = robot(connected=False, num_threads=1, max_keypoints=256)
    stereo.hear_log()
    sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER])
    try:
        with node_process("player", {"images": paths, "min_subscribers": 1, "rate": 200.0}):
            stereo.wait_until(lambda: stereo.count_subscribers("matches") == 2, "the subscriber")
            for number in (signal.SIGCONT, signal.SIGSTOP):
                sleeper.send_signal(number)
                stereo.clear()
                stereo.wait_for_matches(20)
            stereo.wait_until(lambda: int(stereo.diagnostics.get("frames dropped", 0)) > 0, "dropped frames")
            stereo.wait_for_log(r"the cameras send .* frames per second, .* are matched: a frame takes")
            values = stereo.wait_for_diagnostics()
    finally:
        sleeper.kill()
        sleeper.wait()
    frames, matched, dropped = (int(values[f"frames{what}"]) for what in ("", " matched", " dropped"))
    # One frame is being matched. Others wait if the cameras were slower than the matches for a moment.
    assert 0 <= frames - matched - dropped <= 1 + MOST_WAITING
