"""Faults of a robot: cameras that die, clocks that jump, overload, a subscriber that sleeps."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from diagnostic_msgs.msg import DiagnosticStatus

from lightglue_ros.core.image_files import write_image
from lightglue_ros.msg import PairMatches
from lightglue_ros.nodes.processes import node_process

OK, MISSING = PairMatches.STATUS_OK, PairMatches.STATUS_MISSING
# A small machine matches four small cameras at this rate next to other work.
HERTZ = 10.0
HOUR = 3600.0


@pytest.fixture
def triggered_camera():
    """Starts cameras in processes of their own; see triggered_camera.py."""
    processes = []

    def start(name, hertz=HERTZ):
        script = Path(__file__).parent / "triggered_camera.py"
        processes.append(subprocess.Popen([sys.executable, str(script), name, str(hertz)]))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def seconds(stamp):
    return stamp.sec + 1e-9 * stamp.nanosec


def test_one_of_four_cameras_killed_and_back(robot, triggered_camera):
    names = ["front", "left", "rear", "right"]
    rig = robot(
        names,
        cameras=names,
        image_topics=[f"{name}/image_rect" for name in names],
        pairs=["front:left", "rear:right"],
        camera_timeout=2.0,
        image_width=64,
        image_height=64,
        max_keypoints=64,
        connected=False,
    )
    cameras = {name: triggered_camera(name) for name in names}
    both = [OK, OK]

    def statuses():
        return [pair.status for pair in rig.messages[-1].pairs] if rig.messages else None

    rig.wait_until(lambda: statuses() == both, "matches of all")
    rig.wait_until(
        lambda: rig.status is not None and rig.status.level == DiagnosticStatus.OK, "diagnostics ok"
    )

    cameras["right"].kill()
    rig.wait_until(lambda: statuses() == [OK, MISSING], "a missing pair")
    rig.clear()
    rig.wait_for_matches(10)
    assert {tuple(pair.status for pair in message.pairs) for message in rig.messages} == {(OK, MISSING)}
    rig.wait_until(lambda: rig.status.message == "missing: right", "diagnostics of the missing camera")
    assert rig.status.level == DiagnosticStatus.WARN

    triggered_camera("right")
    rig.wait_until(lambda: statuses() == both, "the camera back")
    rig.clear()
    rig.wait_until(lambda: rig.status.level == DiagnosticStatus.OK, "diagnostics ok again")
    rig.clear()
    rig.wait_for_matches(10)
    assert all(pair.status == OK for message in rig.messages for pair in message.pairs)


def test_all_cameras_silent_is_an_error_that_names_the_topics(robot, motorcycle):
    images = dict(zip(("left", "right"), motorcycle, strict=True))
    stereo = robot(camera_timeout=0.5)
    stereo.match(images)
    silent = "no image comes on left/image_rect, right/image_rect"
    stereo.wait_until(lambda: stereo.status and silent in stereo.status.message, "an error of silent cameras")
    assert stereo.status.level == DiagnosticStatus.ERROR
    stereo.repeat_until(
        lambda: stereo.show(images),
        lambda: stereo.status.level == DiagnosticStatus.OK and float(stereo.diagnostics["rate (Hz)"]) > 0.0,
        "diagnostics ok",
    )
    assert float(stereo.diagnostics["camera left (Hz)"]) > 0.0
    assert (
        0.0
        < float(stereo.diagnostics["inference p50 (ms)"])
        <= float(stereo.diagnostics["inference p95 (ms)"])
    )
    assert (stereo.diagnostics["model"], stereo.diagnostics["provider"]) == ("xfeat", "cpu")


def test_time_that_jumps_back_an_hour_starts_anew(robot, motorcycle):
    """As a bag that loops: what was kept of the time before is not matched with what comes after."""
    images = dict(zip(("left", "right"), motorcycle, strict=True))
    stereo = robot(pairs=["left:right", "left@-1:left"])
    for start in (2 * HOUR, HOUR):
        statuses = []
        for moment in range(3):
            stamp = start + 0.1 * moment
            stereo.clear()
            stereo.repeat_until(
                lambda stamp=stamp: stereo.show_at(stamp, images),
                lambda stamp=stamp: any(abs(seconds(m.header.stamp) - stamp) < 1e-3 for m in stereo.messages),
                f"matches of {stamp}",
            )
            statuses.append([pair.status for pair in stereo.messages[0].pairs])
        assert statuses == [[OK, MISSING], [OK, OK], [OK, OK]]
    stereo.wait_until(lambda: stereo.diagnostics.get("time set back") == "1", "the count of resets")


def test_stamps_that_are_all_zero_count_as_taken_on_arrival(robot, motorcycle):
    images = dict(zip(("left", "right"), motorcycle, strict=True))
    stereo = robot(sync_slop=0.1)
    for _ in range(3):
        stereo.clear()
        stereo.repeat_until(lambda: stereo.show_at(0.0, images), lambda: stereo.messages, "matches")
        (pair,) = stereo.messages[0].pairs
        assert (pair.status, seconds(pair.stamp0)) == (OK, 0.0)
        assert len(pair.scores) > 100


def test_a_camera_three_seconds_late_is_missing_and_holds_up_nobody(robot, motorcycle):
    left, right = motorcycle
    names = ["left", "right", "rear"]
    rig = robot(
        names,
        cameras=names,
        image_topics=[f"{name}/image_rect" for name in names],
        pairs=["left:right", "right:rear"],
        camera_timeout=0.5,
    )

    def show():
        now = rig.get_clock().now().nanoseconds * 1e-9
        rig.show_at(now, {"left": left, "right": right})
        rig.show_at(now - 3.0, {"rear": left})

    def goes_on():
        return sum([pair.status for pair in message.pairs] == [OK, MISSING] for message in rig.messages) >= 5

    rig.repeat_until(show, goes_on, "the pair of the two that fit")
    rig.wait_until(lambda: "missing: rear" in rig.status.message, "diagnostics")


@contextlib.contextmanager
def cameras(motorcycle, folder, **parameters):
    """Two small cameras in a process of their own."""
    paths = [str(folder / f"{side}.png") for side in ("left", "right")]
    for path, image in zip(paths, motorcycle, strict=True):
        write_image(path, np.ascontiguousarray(image[:480:2, :640:2]))
    with node_process("player", {"images": paths, "min_subscribers": 1, **parameters}) as player:
        yield player


def test_cameras_that_are_too_fast_lose_frames_and_no_frame_queues(robot, motorcycle, tmp_path):
    """Inference takes about 100 ms on one core: many periods of a camera."""
    stereo = robot(connected=False, num_threads=1, max_keypoints=768)
    with cameras(motorcycle, tmp_path, rate=200.0):
        stereo.wait_until(lambda: int(stereo.diagnostics.get("frames dropped", 0)) > 0, "dropped frames")
        stereo.wait_for_matches(20)
        values = stereo.wait_for_diagnostics()
    frames, matched, dropped = (int(values[f"frames{what}"]) for what in ("", " matched", " dropped"))
    # One frame is being matched and one waits.
    assert 0 <= frames - matched - dropped <= 2


SLEEPER = """
import rclpy, signal
from lightglue_ros.msg import Matches
from lightglue_ros.nodes import qos
rclpy.init()
node = rclpy.create_node("sleeper")
subscription = node.create_subscription(Matches, "matches", print, qos.result_qos())
signal.pause()
"""


def test_the_matcher_goes_on_next_to_a_subscriber_that_never_reads(robot, motorcycle, tmp_path):
    """The subscriber does not spin. Then its process is stopped: its middleware does not answer either."""
    stereo = robot(connected=False, image_width=64, image_height=64, max_keypoints=64)
    sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER])
    try:
        with cameras(motorcycle, tmp_path, rate=200.0):
            stereo.wait_until(lambda: stereo.count_subscribers("matches") == 2, "the subscriber")
            for stop in (False, True):
                if stop:
                    sleeper.send_signal(signal.SIGSTOP)
                stereo.clear()
                stereo.wait_for_matches(100)
    finally:
        sleeper.kill()
        sleeper.wait()
