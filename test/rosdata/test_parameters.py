"""Parameters of the matcher without ROS: values that do not fit are named, with what is allowed."""

import pytest

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.parameter_files import read_file


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
        (["input:=feature"], "parameter input is 'feature'", "images, features"),
        (["features_precision:=int8"], "features_precision is 'int8'", "fp32, fp16"),
    ],
)
def test_values_that_do_not_fit_are_refused_in_one_line(changes, what, allowed):
    with pytest.raises(ConfigError) as caught:
        read_file(None, changes)
    assert what in str(caught.value)
    assert allowed in str(caught.value)
    assert "\n" not in str(caught.value)
