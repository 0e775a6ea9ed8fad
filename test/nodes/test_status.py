"""What a running matcher tells: numbers on /diagnostics, and lines of the log that name causes."""

import re
import subprocess
from functools import partial

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from gpus import has_gpu
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header

from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.nodes.processes import node_process

TINY = {"image_width": 64, "image_height": 64, "max_keypoints": 64}


def test_two_rigs_in_two_namespaces_have_statuses_of_their_own(make_robot, model_folder):
    with (
        node_process("matcher", TINY, namespace="/front") as front,
        node_process("matcher", TINY, namespace="/rear") as rear,
    ):
        listener = make_robot((), front)
        listener.processes.append(rear)
        heard = listener.hear(DiagnosticArray, "/diagnostics", 10)

        def found():
            return {(status.name, status.hardware_id) for message in heard for status in message.status}

        expected = {(f"/{rig}/matcher: matches", f"{rig}/left, {rig}/right") for rig in ("front", "rear")}
        listener.wait_until(lambda: found() == expected, f"statuses {expected}")
        topics = "/front/left/image_rect (0 publishers), /front/right/image_rect (0 publishers)"
        listener.wait_until(
            lambda: any(topics in status.message for message in heard for status in message.status),
            "the full names of the topics",
        )


def test_diagnostics_have_the_numbers_of_the_last_frame(robot, images):
    rig = robot(["left", "right", "rear"], pairs=["left:right", "right:rear"], verification="homography")
    rig.match({**images, "rear": images["left"]})
    rig.wait_until(lambda: "pair right:rear inliers" in rig.diagnostics, "the numbers of a frame")
    values, (stereo, other) = rig.diagnostics, rig.messages[-1].pairs
    assert values["canvas"] == values["camera rear canvas"] == "320x224"
    for camera, count in (
        ("left", stereo.num_keypoints0),
        ("right", stereo.num_keypoints1),
        ("rear", other.num_keypoints1),
    ):
        assert int(values[f"camera {camera} keypoints"]) == count > 100
    for name, pair in (("left:right", stereo), ("right:rear", other)):
        assert int(values[f"pair {name} matches"]) == len(pair.scores) > 100
        assert int(values[f"pair {name} inliers"]) == sum(pair.inliers) > 50


def test_one_line_at_the_first_frame_says_what_comes_and_what_becomes_of_it(robot, images):
    stereo = robot()
    stereo.hear_log()
    stereo.repeat_until(
        lambda: stereo.show(images), lambda: any("first frame" in it.msg for it in stereo.log), "the line"
    )
    camera = r"%s 741x500 rgb8 at [\d.]+ Hz on a canvas of 320x224 \(96%% used\), (\d+) keypoints"
    pattern = "; ".join(
        (
            "first frame: " + camera % "left",
            camera % "right",
            r"left:right matches (\d+)",
            r"\d+ ms per frame",
        )
    )
    line = stereo.wait_for_log(pattern + ", model xfeat on cpu")
    (pair,) = stereo.messages[-1].pairs
    assert [int(it) for it in line.groups()] == [pair.num_keypoints0, pair.num_keypoints1, len(pair.scores)]


def test_the_line_at_the_first_frame_waits_for_cameras_that_start_later(robot, images):
    stereo = robot(camera_timeout=0.1)
    stereo.hear_log()
    stereo.show_until({"left": images["left"]}, lambda message: True, "frames of one camera")
    for _ in range(3):
        stereo.wait_for_diagnostics()
    stereo.repeat_until(
        lambda: stereo.show(images), lambda: any("first frame" in it.msg for it in stereo.log), "the line"
    )
    stereo.wait_for_log("first frame: .*right 741x500 rgb8")


def test_a_topic_on_which_nothing_comes_is_named_in_the_log_with_its_publishers(robot, images):
    stereo = robot()
    stereo.hear_log()
    nothing = r"nothing received for \d+ s on "

    def show_left_until(pattern):
        stereo.repeat_until(
            lambda: stereo.show({"left": images["left"]}),
            lambda: any(re.search(pattern, line.msg) for line in stereo.log),
            f"line '{pattern}' in the log",
        )

    right = r"/right/image_rect \(1 publisher\)"
    show_left_until(rf"^{nothing}{right}; ROS_DOMAIN_ID is {stereo.context.get_domain_id()}$")
    stereo.wait_for_log(rf"^all cameras are silent: {nothing}/left/image_rect \(1 publisher\), {right}; ")
    show_left_until("^received again: /left/image_rect$")


def test_simulated_time_that_does_not_run_is_named(robot):
    stereo = robot(use_sim_time=True)
    stereo.hear_log()
    clock = stereo.create_publisher(Clock, "/clock", 10)

    def wait_for(problem):
        text = rf"use_sim_time is true and {problem} \(1 publisher\)"
        stereo.wait_until(lambda: re.search(text, stereo.status.message), problem)
        assert stereo.status.level != DiagnosticStatus.OK
        assert re.search(text, stereo.diagnostics["clock"])
        stereo.wait_for_log(text)

    stereo.wait_for_diagnostics()
    wait_for(r"nothing has come on /clock for \d+ s")
    seconds = iter(range(1, 1000))
    stereo.repeat_until(
        lambda: clock.publish(Clock(clock=Time(seconds=next(seconds)).to_msg())),
        lambda: stereo.diagnostics["clock"] == "none",
        "a clock that runs",
    )
    wait_for(r"the time on /clock has stood still for \d+ s")


def test_images_that_are_all_rejected_are_the_cause_that_is_named(robot, images):
    stereo = robot(camera_timeout=0.5)
    broken = {camera: array_to_image(image, Header()) for camera, image in images.items()}
    for message in broken.values():
        message.encoding = "32FC7"

    def show_until(shown, pattern):
        stereo.repeat_until(
            lambda: stereo.show(shown),
            lambda: stereo.status and re.search(pattern, stereo.status.message),
            pattern,
        )

    rejected = "image has the encoding '32FC7'"
    show_until(broken, rf"^no matches for [\d.]+ s: \d+ images rejected: {rejected}")
    assert stereo.status.level == DiagnosticStatus.ERROR
    show_until(
        {**images, "right": broken["right"]}, rf"^missing: right \(its images are rejected: {rejected}"
    )


@pytest.mark.parametrize("node", ["matcher", "viewer"])
def test_misspelt_parameters_are_named_and_right_ones_are_not(make_robot, model_folder, tmp_path, node):
    params_file = tmp_path / "rig.yaml"
    params_file.write_text(
        """
/**:
  ros__parameters:
    use_sim_time: false
    image_topic: [/a, /b]
    max_keypoint: 64
    zzz: 1
    image_width: 64
    qos_overrides: {/left/image_rect: {subscription: {depth: 3}}}
"""
    )
    with node_process(node, {}, params_file, stderr=subprocess.PIPE, text=True) as process:
        ears = make_robot((), process)
        ears.wait_until(lambda: node in ears.get_node_names(), "the node")
        ears.wait_until(lambda: ears.count_subscribers("/left/image_rect") > 0, "its subscription")
        said = ears.end()
    names = "image_topic (did you mean image_topics?), max_keypoint (did you mean max_keypoints?), zzz"
    assert f"parameters that this node does not have are ignored: {names}; " in said


def test_a_canvas_that_is_rounded_up_after_a_change_is_named(robot):
    stereo = robot()
    stereo.hear_log()
    assert stereo.set_parameters(image_width=330)[0].successful
    stereo.wait_for_log(r"canvas 352x224 \(rounded up from 330x224\)")


@pytest.mark.skipif(has_gpu(), reason="there is an NVIDIA GPU here")
def test_a_node_that_runs_on_the_cpu_because_the_gpu_cannot_says_why(robot, images):
    stereo = robot(provider="cuda", allow_fallback=True)
    reason = "the model runs on cpu: "

    def is_a_warning():
        status = stereo.status
        return status and reason in status.message and status.level == DiagnosticStatus.WARN

    # Silent cameras would be an error.
    stereo.repeat_until(partial(stereo.show, images), is_a_warning, "the reason on /diagnostics")
    values = stereo.diagnostics
    assert values["provider"] == "cpu"
    assert values["provider fallback"] in stereo.status.message
    (line,) = (line for line in stereo.end().splitlines() if reason in line)
    assert "[WARN]" in line
