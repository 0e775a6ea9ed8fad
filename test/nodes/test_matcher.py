"""The running matcher, in a process of its own, over real DDS."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from rclpy.qos import QoSReliabilityPolicy

from lightglue_ros.cli.demo import same_row_share
from lightglue_ros.core import MatchPipeline
from lightglue_ros.msg import PairMatches
from lightglue_ros.nodes.conversions import message_to_matches
from lightglue_ros.nodes.processes import node_command


def test_stereo_images_come_out_as_the_matches_of_the_pipeline(robot, motorcycle):
    left, right = motorcycle
    stereo = robot(image_width=640, image_height=480)
    message = stereo.match({"left": left, "right": right})
    matches = message_to_matches(message.pairs[0])
    (expected,) = MatchPipeline("xfeat", image_size=(640, 480)).match([left, right], [(0, 1)])
    np.testing.assert_array_equal(matches.keypoints0, expected.keypoints0)
    np.testing.assert_array_equal(matches.keypoints1, expected.keypoints1)
    np.testing.assert_array_equal(matches.scores, expected.scores)
    assert same_row_share(matches.keypoints0, matches.keypoints1, 3.0) >= 0.98


def test_header_and_pair_tell_where_the_matches_come_from(robot, motorcycle):
    left, right = motorcycle
    message = robot().match({"left": left[:, :300], "right": right})
    (pair,) = message.pairs
    assert message.model == "xfeat"
    assert message.header.frame_id == "left_optical"
    assert message.header.stamp == pair.stamp0 == pair.stamp1
    assert (pair.camera0, pair.camera1) == ("left", "right")
    assert (pair.frame_id0, pair.frame_id1) == ("left_optical", "right_optical")
    assert (pair.width0, pair.height0, pair.width1, pair.height1) == (300, 500, 741, 500)
    assert pair.status == PairMatches.STATUS_OK
    assert pair.layers == 6


def test_a_rig_of_four_cameras_and_three_pairs(robot, motorcycle):
    left, right = motorcycle
    names = ["front", "left", "rear", "right"]
    rig = robot(
        names,
        cameras=names,
        image_topics=[f"{name}/image_rect" for name in names],
        pairs=["front:left", "rear:right", "front:right"],
    )
    message = rig.match(dict(zip(names, (left, right, right, left), strict=True)))
    assert [(pair.camera0, pair.camera1) for pair in message.pairs] == [
        ("front", "left"),
        ("rear", "right"),
        ("front", "right"),
    ]
    counts = [len(pair.scores) for pair in message.pairs]
    assert min(counts) > 100
    same_image = message_to_matches(message.pairs[2])
    np.testing.assert_array_equal(same_image.keypoints0, same_image.keypoints1)


def test_a_camera_that_dies_is_missing_and_is_taken_back(robot, motorcycle):
    left, right = motorcycle
    stereo = robot(camera_timeout=0.5)
    stereo.match({"left": left, "right": right})
    missing = stereo.show_until(
        {"left": left},
        lambda message: message.pairs[0].status == PairMatches.STATUS_MISSING,
        "status missing",
    )
    assert len(missing.pairs) == 1
    assert len(missing.pairs[0].scores) == 0
    assert missing.header.frame_id == "left_optical"
    back = stereo.show_until(
        {"left": left, "right": right},
        lambda message: message.pairs[0].status == PairMatches.STATUS_OK,
        "status ok again",
    )
    assert len(back.pairs[0].scores) > 100


def test_cameras_slower_than_the_timeout_are_not_missing(robot, motorcycle):
    left, right = motorcycle
    stereo = robot(camera_timeout=0.4)
    stereo.match({"left": left, "right": right})
    for _ in range(2):
        stereo.listen(0.5)
        stereo.clear()
        stereo.show({"left": left})
        stereo.show_with_last_stamp({"right": right})
        stereo.wait_for_matches(1)
        assert stereo.messages[0].pairs[0].status == PairMatches.STATUS_OK


def test_a_qos_override_of_one_camera_leaves_the_others_alone(robot):
    override = {"qos_overrides./left/image_rect.subscription.reliability": "reliable"}
    stereo = robot(connected=False, **override)
    stereo.wait_until(
        lambda: all(stereo.count_subscribers(f"{camera}/image_rect") for camera in ("left", "right")),
        "the matcher's subscriptions",
    )
    found = {
        camera: stereo.get_subscriptions_info_by_topic(f"/{camera}/image_rect")[0].qos_profile.reliability
        for camera in ("left", "right")
    }
    assert found == {"left": QoSReliabilityPolicy.RELIABLE, "right": QoSReliabilityPolicy.BEST_EFFORT}


def test_black_images_give_an_empty_message(robot):
    black = np.zeros((240, 320), np.uint8)
    (pair,) = robot().match({"left": black, "right": black}).pairs
    assert pair.status == PairMatches.STATUS_OK
    assert len(pair.keypoints0) == len(pair.scores) == 0


def test_image_size_changes_what_the_graph_sees_but_not_the_pixels(robot, motorcycle):
    left, right = motorcycle
    found = []
    for width, height in ((640, 480), (512, 384)):
        stereo = robot(image_width=width, image_height=height)
        found.append(message_to_matches(stereo.match({"left": left, "right": right}).pairs[0]))
        stereo.process.send_signal(signal.SIGINT)
        stereo.process.wait(20.0)
    large, small = found
    distances = np.linalg.norm(large.keypoints0[:, None] - small.keypoints0[None], axis=2)
    nearest = distances.argmin(axis=1)
    near = distances.min(axis=1) <= 2.0
    assert near.sum() > 100
    difference = large.keypoints1[near] - small.keypoints1[nearest[near]]
    assert np.mean(np.linalg.norm(difference, axis=1) <= 3.0) >= 0.75
    assert np.all(np.abs(np.median(difference, axis=0)) < 0.3)


def test_an_image_size_that_is_no_multiple_of_the_divisor_is_rounded_up(robot, motorcycle):
    left, right = motorcycle
    stereo = robot(image_width=330, image_height=230)
    stereo.match({"left": left, "right": right})
    stereo.process.send_signal(signal.SIGINT)
    assert "images 352x256 (rounded up from 330x230)" in stereo.process.stderr.read()


def test_a_matcher_does_not_load_torch(robot, motorcycle):
    left, right = motorcycle
    stereo = robot()
    stereo.match({"left": left, "right": right})
    maps = Path(f"/proc/{stereo.process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "torch" not in maps


def test_the_copied_files_run_where_there_is_no_torch(robot, model_folder, tmp_path, motorcycle):
    copied = tmp_path / "robot_models" / "copied"
    copied.mkdir(parents=True)
    for name in ("extractor.onnx", "matcher.onnx"):
        shutil.copy(model_folder / name, copied)
    for absent in ("torch", "onnx", "onnxscript"):
        (tmp_path / absent).mkdir()
        (tmp_path / absent / "__init__.py").write_text(f"raise ImportError('no {absent} on this robot')")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    environment = {**os.environ, "PYTHONPATH": path, "LIGHTGLUE_ROS_HOME": str(tmp_path / "empty")}
    left, right = motorcycle
    message = robot(environment=environment, model=str(copied)).match({"left": left, "right": right})
    assert len(message.pairs[0].scores) > 100


def not_ours(path):
    """An ONNX file that some other program wrote."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [other])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def test_start_up_errors_are_one_line_and_a_non_zero_status(failing_matcher, model_folder, tmp_path):
    truncated, foreign = tmp_path / "truncated", tmp_path / "foreign"
    for folder in (truncated, foreign):
        folder.mkdir()
        for name in ("extractor.onnx", "matcher.onnx"):
            shutil.copy(model_folder / name, folder)
    whole = (truncated / "extractor.onnx").read_bytes()
    (truncated / "extractor.onnx").write_bytes(whole[: len(whole) // 2])
    not_ours(foreign / "matcher.onnx")
    again = "lightglue_ros export MODEL --split -o FOLDER"
    # Values that do not fit each other are in rosdata/test_parameters.py.
    cases = [
        ({"model": "no_such_model"}, "no model 'no_such_model'", again),
        ({"model": str(truncated)}, "cannot load", again),
        ({"model": str(foreign)}, "without the metadata of lightglue_ros", again),
        ({"cameras": ["left", "left"]}, "'left' more than once", "cameras: [left, right]"),
        ({"image_topics": ["left", "right image"]}, "image_topics has 'right image'", "image_topics: [left"),
        (
            {"camera_info_topics": ["left info", "right"], "verification": "essential"},
            "camera_info_topics has 'left info'",
            "camera_info_topics: [left",
        ),
        (
            {"input": "features", "cameras": ["front-left", "right"], "pairs": ["front-left:right"]},
            "'features/front-left'",
            "cameras: [left, right]",
        ),
        ({"provider": "cuda"}, "provider 'cuda' did not load", "allow_fallback"),
        ({"match_threshold": 2.0}, "match_threshold", "0 to 1"),
        ({"image_width": "wide"}, "image_width", "int"),
        ({"max_keypoints": 5000}, "max_keypoints is 5000", "1 to 1024"),
    ]
    for parameters, what, fix in cases:
        status, said = failing_matcher(**parameters)
        lines = [line for line in said.splitlines() if line.strip()]
        assert status == 1, (parameters, said)
        errors = [line for line in lines if "loading model" not in line]
        assert len(errors) == 1, said
        assert what in errors[0]
        assert fix in errors[0]


def test_a_parameters_file_that_is_not_there_is_one_line(ros, tmp_path):
    arguments = [*node_command("matcher", {}), "--params-file", str(tmp_path / "none.yaml")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=20.0, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "none.yaml" in done.stderr.splitlines()[-1]
