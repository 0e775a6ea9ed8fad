"""The start of a matcher: files that are enough, and errors of one line."""

import os
import shutil

import onnx
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, GetParameters

AGAIN = "lightglue_ros export MODEL --split -o FOLDER"


def test_the_copied_files_run_where_there_is_no_torch(robot, model_folder, tmp_path, images):
    copied = tmp_path / "robot_models" / "copied"
    copied.mkdir(parents=True)
    for name in ("extractor.onnx", "matcher.onnx"):
        shutil.copy(model_folder / name, copied)
    for absent in ("torch", "onnx", "onnxscript"):
        (tmp_path / absent).mkdir()
        (tmp_path / absent / "__init__.py").write_text(f"raise ImportError('no {absent} on this robot')")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    environment = {**os.environ, "PYTHONPATH": path, "LIGHTGLUE_ROS_HOME": str(tmp_path / "empty")}
    stereo = robot(environment=environment, model=str(copied), image_width=330, image_height=230)
    assert len(stereo.match(images).pairs[0].scores) > 100
    assert "canvas 352x256 (rounded up from 330x230)" in stereo.end()


def not_ours(path):
    """An ONNX file that some other program wrote."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [other])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def test_start_up_errors_are_one_line_and_a_non_zero_status(failing, model_folder, tmp_path):
    """Values that contradict each other and broken models are in rosdata and core."""
    foreign, missing = tmp_path / "foreign", tmp_path / "none.yaml"
    shutil.copytree(model_folder, foreign)
    not_ours(foreign / "matcher.onnx")
    front_left = {"cameras": ["front-left", "right"], "pairs": ["front-left:right"], "input": "features"}
    wrong_info = {"camera_info_topics": ["left info", "right"], "verification": "essential"}
    for parameters, what, fix in (
        ({"model": "no_such_model"}, "no model 'no_such_model'", AGAIN),
        ({"model": str(foreign)}, "without the metadata of lightglue_ros", AGAIN),
        ({"cameras": ["left", "left"]}, "'left' more than once", "cameras: [left, right]"),
        ({"image_topics": ["left", "right image"]}, "image_topics has 'right image'", "image_topics: [left"),
        ({"image_topics": ["left/image", "left/camera_info"]}, "/left/camera_info as sensor", "list -t"),
        (wrong_info, "camera_info_topics has 'left info'", "camera_info_topics: [left"),
        (front_left, "'features/front-left'", "cameras: [left, right]"),
        ({"provider": "cuda"}, "provider 'cuda' does not work here", "allow_fallback"),
        ({"match_threshold": 2}, "match_threshold is 2.0", "0 to 1"),
        ({"match_threshold": "low"}, "match_threshold is 'low'", "double from 0 to 1"),
        ({"mono16_percentiles": ["low", "high"]}, "mono16_percentiles is ['low'", "double_array"),
        ({"image_width": 64.0}, "image_width is 64.0", "integer from 32 to 8192"),
        ({"max_keypoints": 5000}, "max_keypoints is 5000", "1 to 1024"),
        ({"params_file": missing}, "none.yaml", "--params-file FILE"),
    ):
        said = failing("matcher", **parameters)
        assert what in said
        assert fix in said


def test_whole_numbers_are_taken_for_doubles_in_files_at_start_up_and_while_running(robot, tmp_path):
    file = tmp_path / "rig.yaml"
    file.write_text("/**: {ros__parameters: {match_threshold: 0, mono16_percentiles: [2, 98]}}")
    rig = robot(connected=False, params_file=file, sync_slop=1)
    for changes in ({"camera_timeout": 2}, {"drawing_rate": 3}):
        assert rig.set_parameters(**changes)[0].successful
        assert rig.set_parameters_atomically(**changes).successful
    assert "allowed: double from 0 to 1" in rig.set_parameters_atomically(match_threshold=2).reason

    names = ["match_threshold", "sync_slop", "camera_timeout", "drawing_rate", "mono16_percentiles"]
    *numbers, percentiles = rig.call(GetParameters, names=names).values
    assert [value.double_value for value in numbers] == [0.0, 1.0, 2.0, 3.0]
    assert list(percentiles.double_array_value) == [2.0, 98.0]
    *doubles, array = rig.call(DescribeParameters, names=names).descriptors
    for found in doubles:
        assert found.type == ParameterType.PARAMETER_DOUBLE
        assert "double from" in found.additional_constraints
        assert found.floating_point_range
    assert array.type == ParameterType.PARAMETER_DOUBLE_ARRAY
    assert "double_array" in array.additional_constraints
