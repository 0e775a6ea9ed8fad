"""Parameters of the matcher without ROS."""

import pytest

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.parameter_files import read_file

FILE = """
/robot/viewer: {ros__parameters: {image_width: 64}}
/**: {ros__parameters: {image_width: 96, image_height: 96, rate: 5.0}}
robot: {matcher: {ros__parameters: {image_width: 128}}}
"""


@pytest.mark.parametrize(
    ("changes", "what", "allowed"),
    [
        (["cameras:=[left, left]"], "'left' more than once", "cameras: [left, right]"),
        (["cameras:=[left, right, rear]"], "2 topics for 3 cameras", "image_topics:"),
        (["cameras:=[]", "image_topics:=[]"], "cameras is empty", "cameras: [left, right]"),
        (["pairs:=[]"], "pairs is empty", 'pairs: ["left:right"]'),
        (["pairs:=['left:rear']"], "'left:rear'", "left:right"),
        (["provider:=gpu"], "provider is 'gpu'", "auto, cpu, cuda"),
        (["image_transport:=theora"], "image_transport is 'theora'", "raw, compressed"),
        (["mono16_range:=[5, 5]"], "mono16_range is [5, 5]", "mono16_range: [0, 4095]"),
        (["camera_info_topics:=[a]"], "camera_info_topics has 1 topics for 2 cameras", "one topic for each"),
        (["publish_matches:=false"], "there is nothing to do", "at least one of them true"),
        (["input:=features", "publish_matches:=false"], "there is nothing to do", "at least one of them"),
        (["input:=features", "publish_features:=true"], "nothing is extracted here", "one of the two"),
        (
            ["publish_tracks:=true", "publish_matches:=false", "publish_features:=true"],
            "nothing is matched here",
            "tracks together with matches",
        ),
        (["drawing_colour:=age"], "drawing_colour is age and publish_tracks is false", "score or disparity"),
        (["input:=feature"], "parameter input is 'feature'", "images, features"),
        (["features_precision:=int8"], "features_precision is 'int8'", "fp32, fp16"),
        (["match_threshold:=true"], "match_threshold is True", "double from 0 to 1"),
        (["image_width:=64.0"], "image_width is 64.0", "integer from 32 to 8192"),
        (["cameras:=left"], "cameras is 'left'", "string_array"),
    ],
)
def test_values_that_do_not_fit_are_refused_in_one_line(changes, what, allowed):
    with pytest.raises(ConfigError) as caught:
        read_file(None, changes)
    assert what in str(caught.value)
    assert allowed in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_parameter_file_is_read_as_the_node_reads_it(tmp_path):
    file = tmp_path / "rig.yaml"
    file.write_text(FILE)
    values = read_file(file, ["image_height:=160", "cameras:=[a, b]", "pairs:=['a:b']"])
    assert (values.image_width, values.image_height, values.cameras) == (128, 160, ["a", "b"])
    assert values.match_threshold == 0.1
    broken = "matcher:\n  ros__parameters:\n    cameras: [left, right\n    image_width: 320\n"
    for content, says in (
        (broken, r"rig.yaml is no YAML \(line 4: .*\); fix: close every bracket"),
        ("a: \0", r"is no YAML \(.*not allowed"),
        ("viewer: {}", "no parameters of the node"),
        ("", "no parameters of the node"),
    ):
        file.write_text(content)
        with pytest.raises(ConfigError, match=says):
            read_file(file)


def test_whole_numbers_are_taken_for_doubles(tmp_path):
    file = tmp_path / "rig.yaml"
    file.write_text("matcher: {ros__parameters: {match_threshold: 0, mono16_percentiles: [2, 98.5]}}")
    values = read_file(file, ["sync_slop:=1"])
    found = (values.match_threshold, *values.mono16_percentiles, values.sync_slop)
    assert found == (0.0, 2.0, 98.5, 1.0)
    assert all(type(value) is float for value in found)


def test_references_go_with_what_they_can_be_matched_and_verified_with(tmp_path):
    (tmp_path / "dock.png").touch()
    rig = [f"references:=['dock:{tmp_path}/dock.png']", "pairs:=['left:right', 'left:dock']"]
    assert read_file(None, [*rig, "verification:=homography"]).graphs == ("extractor", "matcher")
    # The cameras' features come from elsewhere, those of the reference do not.
    assert read_file(None, [*rig, "input:=features"]).graphs == ("extractor", "matcher")
    for change, says in (
        ("verification:=essential", "pair left:dock has a reference, whose intrinsics are unknown"),
        ("references:=['left:dock.png']", "left is the name of a camera, too"),
        ("references:=['dock:none.png']", "'dock:none.png': there is no file or folder"),
    ):
        with pytest.raises(ConfigError, match=says):
            read_file(None, [*rig, change])
