"""Options of an export: their names in the model store, and their checks."""

import re
import shlex

import pytest

from lightglue_ros.cli import main
from lightglue_ros.core import ConfigError, ModelError
from lightglue_ros.core.store import find_model
from lightglue_ros.export import export_model
from lightglue_ros.export.options import ExportOptions


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "xfeat"),
        ({"split": True, "max_keypoints": 512, "precision": "fp16"}, "xfeat-k512-fp16"),
        ({"image_size": (640, 480)}, "xfeat-640x480"),
        ({"image_size": (640, 480), "batch": 4, "pairs": 3, "channels": 1}, "xfeat-640x480-n4-p3-c1"),
        ({"opset": 20, "target": "portable"}, "xfeat-opset20-portable"),
        ({"target": "gpu"}, "xfeat-gpu"),
        ({"target": "portable", "precision": "fp16"}, "xfeat-fp16-portable"),
        ({"subpixel": True, "adaptive": True}, "xfeat-subpixel-adaptive"),
        ({"adaptive": True, "precision": "int8"}, "xfeat-int8-adaptive"),
        ({"adaptive": True, "depth_confidence": 0.9}, "xfeat-adaptive-depth0.9"),
        ({"adaptive": True, "width_confidence": -1.0}, "xfeat-adaptive-width-1.0"),
    ],
)
def test_a_stored_name_says_the_options_and_gives_back_the_command(options, name, monkeypatch, tmp_path):
    """The error about a missing model names the command that exports it."""
    options = ExportOptions(**options | {"split": True})
    assert options.stored_name("xfeat") == name
    monkeypatch.setenv("LIGHTGLUE_ROS_HOME", str(tmp_path))
    with pytest.raises(ModelError) as caught:
        find_model(name)
    command = re.search(r"lightglue_ros (export xfeat [^(]*)", str(caught.value))[1]
    given = {}
    monkeypatch.setattr("lightglue_ros.export.export_model", lambda name, **options: given.update(options))
    assert main(shlex.split(command)) == 0
    del given["output"], given["weights"]
    assert ExportOptions(**given) == options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_keypoints": 0}, r"max_keypoints is 0; allowed: 1 or more"),
        ({"precision": "bf16"}, r"precision is 'bf16'; allowed: fp32, fp16, int8"),
        ({"opset": 17}, r"opset is 17; allowed: 18 to 23"),
        ({"batch": 2}, r"batch is 2 while the image size is dynamic; .* add --image-size"),
        ({"image_size": (640, 480), "pairs": 0}, r"pairs is 0; allowed: 1 or more"),
        ({"image_size": (640, 480), "channels": 4}, r"channels is 4; allowed: 1 \(grey\) or 3"),
        ({"target": "tpu"}, r"target is 'tpu'; allowed: cpu, gpu, portable"),
        (
            {"target": "cpu", "precision": "fp16"},
            r"precision is 'fp16' with target 'cpu'; .* leave out --tar",
        ),
        (
            {"target": "gpu", "precision": "int8"},
            r"precision is 'int8' with target 'gpu'; .* --precision fp16",
        ),
        ({"adaptive": True, "target": "gpu"}, r"adaptive is on .* runs on CPUs only.* leave out --adaptive"),
        ({"adaptive": True, "precision": "fp16"}, r"adaptive is on in an export for GPUs; .* on CPUs only"),
        ({"image_size": (640, 480), "adaptive": True}, r"adaptive is on in a static export"),
        ({"depth_confidence": 0.9}, r"depth_confidence is 0.9 in an export that is not adaptive; .* --adap"),
        ({"adaptive": True, "width_confidence": 1.5}, r"width_confidence is 1.5; allowed: above 0, up to 1"),
        ({"image_size": (0, 480)}, r"image size is \(0, 480\)"),
        ({"image_size": (640, 480), "max_keypoints": 3841}, r"max_keypoints is 3841; allowed: up to 3840"),
    ],
)
def test_invalid_options_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        export_model("xfeat", **options)


def test_a_model_that_finds_fractions_of_a_pixel_by_itself_has_no_subpixel_export():
    with pytest.raises(ConfigError, match=r"subpixel is on for aliked, .*; allowed: subpixel with xfeat"):
        export_model("aliked", subpixel=True)
