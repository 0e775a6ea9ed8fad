from dataclasses import replace

import pytest
from onnx_files import INFO

from lightglue_ros.core import ModelError, store
from lightglue_ros.core.contract import GraphInfo, export_command, for_gpus, other_export


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTGLUE_ROS_HOME", str(tmp_path))
    return tmp_path


def make(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


def test_models_are_found_by_name_by_folder_and_by_file(home, tmp_path):
    make(home / "models" / "split", "extractor.onnx", "matcher.onnx")
    make(tmp_path / "elsewhere", "pipeline.onnx")
    assert store.find_model("split").is_split
    assert store.find_model(home / "models" / "split" / "matcher.onnx").is_split
    whole = tmp_path / "elsewhere" / "pipeline.onnx"
    for way in (whole, whole.parent, str(whole)):
        assert store.find_model(way).pipeline == whole
        assert not store.find_model(way).is_split
    with pytest.raises(ModelError, match=r"a name in the store \(split\)"):
        store.find_model("other")


@pytest.mark.parametrize(
    ("model", "command"),
    [
        ("/nowhere/disk/pipeline.onnx", "disk -o /nowhere/disk"),
        ("/nowhere/disk-k512/matcher.onnx", "disk --split --max-keypoints 512 -o /nowhere/disk-k512"),
        ("/nowhere/disk", "disk --split -o /nowhere/disk"),
        ("disk", "disk --split"),
        ("no_such_model", "MODEL --split -o FOLDER"),
        ("/nowhere/no_such_model-k512", "MODEL --split -o FOLDER"),
        ("aliked-n16rot", "aliked-n16rot --split"),
        ("aliked-n32", "aliked-n32 --split"),
        ("disk-k512-int8-adaptive", "disk --split --max-keypoints 512 --precision int8 --adaptive"),
        (
            "disk-cpu-adaptive-depth0.9-width-1.0",
            "disk --split --target cpu --adaptive --depth-confidence 0.9 --width-confidence -1.0",
        ),
        (
            "aliked-n32-opset20-portable-640x480-n4-p2-c1",
            "aliked-n32 --split --opset 20 --target portable --image-size 640x480 --batch 4 --pairs 2 "
            "--channels 1",
        ),
    ],
)
def test_what_is_not_there_is_named_with_the_command_that_makes_it(home, model, command):
    make(home / "models" / "disk", "extractor.onnx")
    with pytest.raises(ModelError) as caught:
        store.find_model(model)
    assert model in str(caught.value)
    assert f"lightglue_ros export {command}" in str(caught.value)


def test_the_model_that_a_file_names_counts_more_than_the_name_of_its_folder():
    assert export_command("/x/xfeat/matcher.onnx", "disk") == "lightglue_ros export disk --split -o /x/xfeat"
    assert export_command("/x/mine/pipeline.onnx", "disk") == "lightglue_ros export disk -o /x/mine"
    assert "disk --split --max-keypoints 512 -o" in export_command("/x/disk-k512/matcher.onnx", "disk")


@pytest.mark.parametrize(
    ("model", "changes", "advice"),
    [
        ("xfeat", {}, "xfeat --split --target gpu, then set model to xfeat-gpu"),
        (
            "xfeat-k512-subpixel-adaptive-depth0.9",
            {},
            "xfeat --split --max-keypoints 512 --target gpu --subpixel, then set model to "
            "xfeat-k512-gpu-subpixel",
        ),
        (
            "xfeat-k512-int8",
            {"precision": "int8"},
            "xfeat --split --max-keypoints 512 --precision fp16, then set model to xfeat-k512-fp16",
        ),
        (
            "/x/xfeat-640x480-n4/matcher.onnx",
            {},
            "xfeat --split --target gpu --image-size 640x480 --batch 4 -o /x/xfeat-gpu-640x480-n4, then set "
            "model to /x/xfeat-gpu-640x480-n4",
        ),
        (
            "/x/mine",
            {"max_keypoints": 512},
            "xfeat --split --max-keypoints 512 --target gpu -o /x/mine-gpu, then set model to /x/mine-gpu",
        ),
    ],
)
def test_an_export_for_gpus_is_made_next_to_the_one_for_cpus_with_its_other_options(model, changes, advice):
    info = replace(INFO, **changes)
    assert other_export(model, info, for_gpus(info)) == f"lightglue_ros export {advice}"


STATIC = {"image_size": (640, 480), "batch": 2, "pairs": 1, "channels": 3, "tensorrt": True}


@pytest.mark.parametrize("changes", [{}, STATIC, {"adaptive": True}])
def test_metadata_survives_the_file(changes):
    info = replace(INFO, **changes)
    assert GraphInfo.from_metadata(info.to_metadata(), "x.onnx") == info
    assert info.is_static == ("batch" in changes)


@pytest.mark.parametrize("field", ["divisor", "max_keypoints", "adaptive", "image_size"])
def test_incomplete_or_wrong_metadata_is_refused(field):
    metadata = INFO.to_metadata()
    metadata["lightglue_ros." + field] = "?"
    with pytest.raises(ModelError, match=r"x\.onnx has incomplete or unreadable metadata"):
        GraphInfo.from_metadata(metadata, "x.onnx")
    del metadata["lightglue_ros." + field]
    with pytest.raises(ModelError, match=field):
        GraphInfo.from_metadata(metadata, "x.onnx")
