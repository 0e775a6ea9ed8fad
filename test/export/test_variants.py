"""Exports other than the default: static, in half precision, for grey cameras, for TensorRT."""

import numpy as np
import onnx
import pytest
import torch
from gpus import has_gpu

from lightglue_ros.core import ConfigError, MatchPipeline
from lightglue_ros.core.contract import GraphInfo
from lightglue_ros.export import exporter, tensorrt
from lightglue_ros.export.graphs import CompactMatcher
from lightglue_ros.export.options import ExportOptions
from lightglue_ros.export.registry import MODELS

# One model of each architecture: other sizes of a network have the same operators.
ARCHITECTURES = (
    ("xfeat", "fp32", "pipeline"),
    ("disk", "fp16", "pipeline"),
    ("aliked", "fp16", "extractor"),
    ("superpoint", "fp16", "extractor"),
)
SMALL = {"max_keypoints": 64, "image_size": (96, 96), "target": "portable"}


@pytest.fixture(scope="module")
def fp16_export(export):
    """XFeat in half precision for three grey cameras of 640 x 480."""
    options = {"batch": 3, "pairs": 2, "channels": 1, "image_size": (640, 480)}
    options |= {"precision": "fp16", "target": "portable"}
    return export("xfeat", split=True, **options).files[0].parent


def read_info(path):
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return GraphInfo.from_metadata(metadata, str(path))


def test_a_static_fp16_export_says_so_and_is_for_tensorrt(fp16_export):
    for graph in ("extractor", "matcher"):
        info = read_info(fp16_export / f"{graph}.onnx")
        assert (info.batch, info.pairs, info.channels, info.image_size) == (3, 2, 1, (640, 480))
        assert (info.precision, info.is_static, info.tensorrt) == ("fp16", True, True)


def test_half_precision_is_where_it_is_meant_to_be(fp16_export):
    """Positions, scores and the assignment are float32; the large layers are float16."""
    model = onnx.load(fp16_export / "matcher.onnx")
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    half = onnx.TensorProto.FLOAT16
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    in_half = [node for node in products if types[node.input[0]] == half]
    # In float32: the rotary frequencies, and the assignment's two projections and similarity.
    assert len(products) - len(in_half) == 4
    assert all(types[node.input[0]] != half for node in model.graph.node if node.op_type in ("Sin", "Cos"))
    sizes = {tensor.name: np.prod(tensor.dims) for tensor in model.graph.initializer}
    assert sum(size for name, size in sizes.items() if types[name] == half) > 0.9 * sum(sizes.values())


def test_a_static_fp16_export_gives_nearly_the_matches_of_the_dynamic_fp32_one(
    fp16_export, split_export, motorcycle
):
    grey = [image.mean(axis=2).astype(np.uint8) for image in motorcycle]
    pipeline = MatchPipeline(fp16_export, "cpu")
    found = pipeline.match([None, *grey], [(1, 2)])  # one pair fewer than it was exported for
    (expected,) = MatchPipeline(split_export.files[0], "cpu").match(grey, [(0, 1)])
    assert len(found) == 1
    points = [
        {tuple(row) for row in np.hstack([pair.keypoints0, pair.keypoints1]).round(1)}
        for pair in (found[0], expected)
    ]
    assert len(points[0] & points[1]) >= 0.97 * max(map(len, points)) > 400


def test_a_static_export_takes_fewer_images_and_pairs_but_not_more(fp16_export, motorcycle):
    pipeline = MatchPipeline(fp16_export, "cpu")
    (alone,) = pipeline.match(motorcycle, [(0, 1)])
    full = pipeline.match([motorcycle[1], None, motorcycle[0]], [(0, 1), (2, 0)])
    np.testing.assert_array_equal(full[1].keypoints0, alone.keypoints0)
    np.testing.assert_array_equal(full[1].keypoints1, alone.keypoints1)
    assert len(full[0]) == 0
    assert pipeline.match(motorcycle, []) == []
    with pytest.raises(ConfigError, match=r"4 images do not fit a model exported for 3; .* --batch 4"):
        pipeline.match([None] * 4, [(0, 1)])
    with pytest.raises(ConfigError, match=r"3 pairs do not fit a model exported for 2; .* --pairs 3"):
        pipeline.match(motorcycle, [(0, 1)] * 3)
    with pytest.raises(ConfigError, match=r"4 images do not fit a model exported for 3"):
        pipeline.check(images=4)
    with pytest.raises(ConfigError, match=r"320x240 does not fit a model exported for 640x480"):
        pipeline.set_image_size((320, 240))


def test_a_static_export_keeps_its_tensors_on_a_device_where_they_are(fp16_export, on_device, motorcycle):
    """CUDA graphs need this; here it is tested on the CPU."""
    plain, device = MatchPipeline(fp16_export, "cpu"), on_device(fp16_export)
    device.warm_up()
    tensors = device._runner._tensors
    for images in ([*motorcycle, None], [None, *motorcycle]):
        pairs = [(0, 1), (2, 1)]
        for found, expected in zip(device.match(images, pairs), plain.match(images, pairs), strict=True):
            for name, array in vars(expected).items():
                np.testing.assert_array_equal(getattr(found, name), array)
    assert device._runner._tensors is tensors


def test_a_cuda_graph_wants_fixed_shapes(split_export):
    with pytest.raises(ConfigError, match=r"cuda_graph is on, and .* has free shapes; .* --image-size"):
        MatchPipeline(split_export.files[0], "cpu", cuda_graph=True)


@pytest.mark.skipif(not has_gpu(), reason="no NVIDIA GPU here")
def test_on_a_gpu_a_cuda_graph_gives_the_matches_of_the_cpu(fp16_export, motorcycle):
    replayed = MatchPipeline(fp16_export, "cuda", cuda_graph=True)
    (expected,) = MatchPipeline(fp16_export, "cpu").match(motorcycle, [(0, 1)])
    for _ in range(3):
        (found,) = replayed.match(motorcycle, [(0, 1)])
        points = [{tuple(row) for row in it.keypoints0.round(1)} for it in (expected, found)]
        assert len(points[0] & points[1]) >= 0.9 * len(expected)


@pytest.mark.parametrize(("name", "precision", "graph"), ARCHITECTURES)
def test_static_portable_exports_have_only_operators_of_tensorrts_list(small, name, precision, graph):
    """One file in fp32 is enough, because TensorRT's list has no operator for float16 alone.

    The matchers of ALIKED and SuperPoint have the same operators as DISK's.
    """
    path = small(name, precision=precision, split=graph == "extractor", **SMALL).write(graph)
    assert tensorrt.find_obstacles(onnx.load(path)) == []
    info = read_info(path)
    assert (info.tensorrt, info.target) == (True, "portable")


def test_tensorrts_list_notices_what_it_does_not_take():
    def obstacles(operator, inputs=("x",), outputs=("y",), opset=18, type_=onnx.TensorProto.FLOAT, domain=""):
        node = onnx.helper.make_node(operator, inputs, outputs, domain=domain)
        x = onnx.helper.make_tensor_value_info("x", type_, [1, 5000])
        y = onnx.helper.make_tensor_value_info("y", type_, None)
        k = onnx.numpy_helper.from_array(np.array([4000]), "k")
        graph = onnx.helper.make_graph([node], "g", [x], [y], [k])
        opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)]
        return tensorrt.find_obstacles(onnx.helper.make_model(graph, opset_imports=opsets))

    assert obstacles("Relu") == []
    assert obstacles("Unique") == ["Unique"]
    assert obstacles("TopK", ["x", "k"], ["y", "i"]) == ["TopK of more than 3840"]
    assert obstacles("Relu", opset=21) == ["opset 21"]
    assert obstacles("Equal", ["x", "x"], type_=onnx.TensorProto.BOOL) == ["Equal of BOOL"]
    assert obstacles("Gelu", domain="com.microsoft") == ["com.microsoft.Gelu"]


def test_with_deform_conv_an_export_says_which_runtime_it_needs(small):
    options = SMALL | {"target": "cpu", "opset": 19, "split": True}
    path = small("aliked", deform_conv=True, **options).write("extractor")
    info = read_info(path)
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert "DeformConv" in operators
    assert (info.tensorrt, info.min_onnxruntime) == (False, "1.25")


def settle(name, **options):
    """Return whether the export has a DeformConv, the opsets of extractor and matcher, and report lines."""
    lines = []
    settled = ExportOptions(**options).settle(MODELS[name])
    deform_conv = exporter.uses_deform_conv(settled, MODELS[name], lines.append)
    opsets = [
        exporter.opset_of(graph, settled, deform_conv=deform_conv) for graph in ("extractor", "matcher")
    ]
    return deform_conv, opsets, lines


def test_only_the_graph_with_deform_conv_needs_opset_19(monkeypatch):
    """ONNX Runtime 1.23, the newest on JetPack 6, lacks opset 19's Equal and Pad on CUDA."""
    monkeypatch.setattr(exporter, "onnxruntime_is_older_than", lambda version: False)
    assert settle("xfeat") == (False, [18, 18], [])
    assert settle("aliked") == (True, [19, 18], [])
    assert settle("aliked", target="gpu") == (True, [19, 18], [])
    assert settle("aliked", opset=20) == (True, [20, 20], [])


def test_an_older_opset_and_an_older_onnxruntime_get_aliked_without_deform_conv(monkeypatch):
    assert settle("aliked", opset=18, target="gpu") == (False, [18, 18], [])
    assert settle("aliked", target="portable") == (False, [18, 18], [])
    monkeypatch.setattr(exporter, "onnxruntime_is_older_than", lambda version: version == "1.25")
    deform_conv, opsets, (line,) = settle("aliked")
    assert (deform_conv, opsets) == (False, [18, 18])
    assert "has no DeformConv (added in 1.25): exporting the extractor without it" in line


@pytest.mark.parametrize("counts", [(30, 12, 0), (48, 48, 48), (1, 0, 0), (0, 0, 0)])
def test_compaction_matches_with_the_slots_that_are_needed(counts):
    """Three images have these counts of keypoints. test_matcher_laws.py compares the matches."""

    class Matcher(torch.nn.Module):
        def forward(self, keypoints, mask, descriptors):
            assert keypoints.shape[1] == mask.shape[1] == descriptors.shape[1] == max(1, *counts)
            return torch.full(mask.shape, 7), torch.ones(mask.shape), torch.tensor([9])

    mask = torch.arange(48) < torch.tensor(counts).unsqueeze(1)
    found = CompactMatcher(Matcher())(torch.zeros(3, 48, 2), mask, torch.zeros(3, 48, 64))
    is_needed = (torch.arange(48) < max(1, *counts)).expand(3, -1)
    assert torch.equal(found[0], torch.where(is_needed, 7, -1))
    assert torch.equal(found[1], is_needed.float())
