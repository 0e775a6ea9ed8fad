"""Files and report of `export_model`, and its errors."""

import importlib
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from lightglue_ros.core import MatchPipeline, ModelError
from lightglue_ros.core.contract import INPUTS, MODEL_NAMES, OUTPUTS, GraphInfo, empty_inputs
from lightglue_ros.core.session import GraphSession
from lightglue_ros.export import export_model, exporter, selfcheck
from lightglue_ros.export.registry import MODELS
from lightglue_ros.export.weights import fetch

ARRAY_TYPES = {
    "images": "tensor(uint8)",
    "valid": "tensor(bool)",
    "masks": "tensor(bool)",
    "keypoint_mask": "tensor(bool)",
    "pairs": "tensor(int64)",
    "max_keypoints": "tensor(int64)",
    "matches": "tensor(int32)",
    "layers": "tensor(int32)",
}


@pytest.fixture(
    params=[
        ("xfeat", "extractor", 1024),
        ("xfeat", "matcher", 1024),
        ("xfeat", "pipeline", 512),
        ("disk", "extractor", 512),
        ("disk", "matcher", 512),
    ],
    ids=lambda param: "-".join(param[:2]),
)
def exported_as(request, export_of):
    """A file, the entry of its model, and K."""
    model, graph, slots = request.param
    files = (
        request.getfixturevalue("pipeline_export").files if graph == "pipeline" else export_of(model).files
    )
    (path,) = (path for path in files if path.stem == graph)
    return path, MODELS[model], slots


def test_a_file_runs_on_black_images_without_keypoints(exported_as):
    path, _, _ = exported_as
    session = GraphSession(path, path.stem, provider="cpu")
    assert session.run(empty_inputs(session.info)).keys() == set(OUTPUTS[path.stem])


def test_a_file_says_what_it_is(exported_as):
    exported, spec, slots = exported_as
    session = ort.InferenceSession(exported, providers=["CPUExecutionProvider"])
    info = GraphInfo.from_metadata(session.get_modelmeta().custom_metadata_map, str(exported))
    assert info == GraphInfo(
        graph=exported.stem,
        model=spec.name,
        extractor=spec.name,
        max_keypoints=slots,
        channels=None,
        image_size=None,
        batch=None,
        pairs=None,
        divisor={"xfeat": 32, "disk": 16}[spec.name],
        keypoint_reach=0,
        precision="fp32",
        target="cpu",
        adaptive=False,
        depth_confidence=-1.0,
        width_confidence=-1.0,
        descriptor_dim={"xfeat": 64, "disk": 128}[spec.name],
        weights_sha256=tuple(file.sha256 for file in spec.weights),
        licence="Apache-2.0",
        tensorrt=False,
        min_onnxruntime="1.20",
    )


def test_tensors_are_those_of_the_contract(exported_as):
    exported, spec, slots = exported_as
    session = ort.InferenceSession(exported, providers=["CPUExecutionProvider"])
    shapes = {
        "images": ["N", "H", "W", "C"],
        "sizes": ["N", 2],
        "scales": ["N", 2],
        "valid": ["N"],
        "masks": ["mask_N", "mask_H", "mask_W"],
        "image_sizes": ["N", 2],
        "pairs": ["P", 2],
        "max_keypoints": [1],
        "match_threshold": [1],
        "keypoints": ["N", slots, 2],
        "keypoint_scores": ["N", slots],
        "keypoint_mask": ["N", slots],
        "descriptors": ["N", slots, spec.matcher.input_dim],
        "matches": ["P", slots],
        "match_scores": ["P", slots],
        "layers": ["P"],
    }
    tensors = [*session.get_inputs(), *session.get_outputs()]
    assert tuple(tensor.name for tensor in tensors) == INPUTS[exported.stem] + OUTPUTS[exported.stem]
    for tensor in tensors:
        assert tensor.shape == shapes[tensor.name], tensor.name
        assert tensor.type == ARRAY_TYPES.get(tensor.name, "tensor(float)"), tensor.name


def test_a_file_has_no_slow_operators_and_no_traces_of_this_machine(exported_as):
    exported, *_ = exported_as
    model = onnx.load(exported, load_external_data=False)
    assert not {"NonZero", "Einsum", "If", "Loop"} & {node.op_type for node in model.graph.node}
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    del model.graph.initializer[:]  # random bytes that may spell anything
    content = model.SerializeToString()
    assert not any(trace in content for trace in (b"site-packages", b".py", b"/home", b"stack_trace"))


def test_a_file_says_that_maps_which_a_convolution_may_add_have_equal_shapes(split_export):
    """Else ONNX Runtime adds XFeat's skip connection in a step of its own."""
    graph = onnx.load(split_export.files[0]).graph
    shapes = {it.name: it.type.tensor_type.shape for it in graph.value_info}
    convolved = {node.output[0] for node in graph.node if node.op_type == "Conv"}
    (skip,) = (node for node in graph.node if node.op_type == "Add" and set(node.input) & convolved)
    one, other = (shapes[name] for name in skip.input)
    assert len(one.dim) == 4
    assert one == other


def test_export_says_each_step_in_a_line(split_export):
    assert [line.split(":")[0].split(" in ")[0] for line in split_export.lines] == [
        "xfeat",
        "exporting extractor.onnx",
        "exported extractor.onnx",
        "exporting matcher.onnx",
        "exported matcher.onnx",
        "checked extractor.onnx on random images",
        "checked matcher.onnx on random images",
        "checked extractor.onnx on the motorcycle pair",
        "checked matcher.onnx on the motorcycle pair",
        *(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)" for path in split_export.files),
    ]
    assert all("\n" not in line for line in split_export.lines)


@pytest.fixture
def exported_before(monkeypatch, split_export):
    """Make `export_model` copy the graphs of `split_export` instead of tracing again."""
    sources = {path.stem: path for path in split_export.files}

    def copy(module, info, opset, path):
        shutil.copy(sources[info.graph], path)

    monkeypatch.setattr(exporter, "write_graph", copy)


def test_a_failed_check_leaves_no_file(exported_before, monkeypatch, tmp_path):
    right = exporter.load_networks

    def other_networks(*arguments, **options):
        extractor, matcher = right(*arguments, **options)
        matcher.input.weight.data[:, :32] = 0
        return extractor, matcher

    monkeypatch.setattr(exporter, "load_networks", other_networks)
    with pytest.raises(ModelError, match=r"matcher\.onnx differs from PyTorch on random images: .*matches "):
        export_model("xfeat", split=True, output=tmp_path, report=lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_without_the_stereo_pair_random_images_are_enough(exported_before, monkeypatch, tmp_path):
    def cannot():
        raise ModelError("could not download scikit-image==0.25.2: no network")

    monkeypatch.setattr(selfcheck, "motorcycle_pair", cannot)
    lines = []
    files = export_model("xfeat", split=True, output=tmp_path, report=lines.append)
    assert [file.name for file in files] == ["extractor.onnx", "matcher.onnx"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["extractor.onnx", "matcher.onnx"]
    assert any(line.startswith("checking on random images only: could not download") for line in lines)


def test_the_models_are_those_that_errors_tell_to_export():
    assert tuple(MODELS) == MODEL_NAMES


def test_an_unknown_model_and_weights_in_the_wrong_order_are_refused(own_weights, tmp_path):
    with pytest.raises(ModelError, match=r"no model 'sift' to export; allowed: xfeat, disk"):
        export_model("sift")
    weights = own_weights(MODELS["superpoint"])
    with pytest.raises(ModelError, match=r"lightglue\.pth are not weights of superpoint: .*conv1a"):
        export_model("superpoint", output=tmp_path, weights=weights[::-1])


def test_weights_of_another_network_and_a_text_file_are_refused(tmp_path):
    extractor_weights = fetch(MODELS["xfeat"].weights)[0].path
    wrong = tmp_path / "own.pt"
    shutil.copy(extractor_weights, wrong)
    with wrong.open("ab") as file:
        file.write(b"\0")
    lines = []
    with pytest.raises(ModelError, match=r"own\.pt are not weights of xfeat: .*input_proj"):
        export_model("xfeat", output=tmp_path, weights=[extractor_weights, wrong], report=lines.append)
    assert "own.pt is not the published xfeat-lighterglue.pt" in lines[0]
    wrong.write_text("not weights")
    with pytest.raises(ModelError, match=r"own\.pt cannot be read: .*; allowed: a state dict"):
        export_model("xfeat", output=tmp_path, weights=[wrong, wrong])


@pytest.mark.parametrize("package", ["torch", "onnx", "onnxscript"])
def test_without_an_export_package_the_error_names_the_command(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    command = "pip install torch onnx onnxscript"
    with pytest.raises(ModelError, match=f"needs the Python package '{package}', .*{command}"):
        getattr(importlib.import_module("lightglue_ros.export"), "export_model")  # noqa: B009


def test_weights_can_be_found_without_an_export_package():
    missing = "sys.modules.update(dict.fromkeys(['torch', 'onnx', 'onnxscript']))"
    program = f"import sys; {missing}; from lightglue_ros.export.weights import motorcycle_pair"
    subprocess.run([sys.executable, "-c", program], check=True, cwd="/")


def test_what_keeps_features_wants_a_split_model(pipeline_export):
    with pytest.raises(ModelError, match=r"pipeline\.onnx goes from images to matches .* --split"):
        MatchPipeline(pipeline_export.files[0], graphs=("extractor", "matcher"))


def test_a_pipeline_file_gives_the_matches_of_the_split_model(pipeline_export, model_folder, motorcycle):
    (found,) = MatchPipeline(pipeline_export.files[0], "cpu").match(motorcycle, [(0, 1)])
    (expected,) = MatchPipeline(model_folder, "cpu", max_keypoints=512).match(motorcycle, [(0, 1)])
    np.testing.assert_allclose(found.keypoints0, expected.keypoints0)
    np.testing.assert_array_equal(found.indices1, expected.indices1)


def test_a_pipeline_file_matches_a_pair_alike_whatever_the_size_of_the_other_images(
    pipeline_export, motorcycle
):
    wide = [image[130:330] for image in motorcycle]
    pipeline = MatchPipeline(pipeline_export.files[0], "cpu")
    (alone,) = pipeline.match(wide, [(0, 1)])
    (among_others,) = pipeline.match([*wide, motorcycle[0]], [(0, 1)])
    np.testing.assert_array_equal(among_others.indices0, alone.indices0)
    np.testing.assert_array_equal(among_others.indices1, alone.indices1)
