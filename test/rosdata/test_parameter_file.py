import pytest

from lightglue_ros.core import ConfigError
from lightglue_ros.rosdata.parameter_files import read_file


def test_a_parameter_file_is_read_as_the_node_reads_it(tmp_path):
    file = tmp_path / "rig.yaml"
    file.write_text(
        """
/robot/viewer: {ros__parameters: {image_width: 64}}
/**: {ros__parameters: {image_width: 96, image_height: 96, rate: 5.0}}
robot: {matcher: {ros__parameters: {image_width: 128}}}
"""
    )
    values = read_file(file, ["image_height:=160", "cameras:=[a, b]", "pairs:=['a:b']"])
    assert (values.image_width, values.image_height, values.cameras) == (128, 160, ["a", "b"])
    assert values.match_threshold == 0.1
    for content, says in (
        ("a: [", "is no YAML"),
        ("viewer: {ros__parameters: {}}", "no parameters of the node"),
    ):
        file.write_text(content)
        with pytest.raises(ConfigError, match=says):
            read_file(file)
