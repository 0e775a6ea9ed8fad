"""The measurements of bench/ on little work, run as a user does; and what they make of others' graphs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from features import best, filled
from lightglue_ros.errors import ModelError
from peers import LightGlueOnnx, normalised
from where_time_goes import Node, products_of_node

BENCH = Path(__file__).parents[2] / "bench"
DEADLINE = 120  # seconds


def tables_of(folder, script, *arguments):
    """The tables that a script prints and keeps."""
    kept = folder / "tables.json"
    options = [*arguments, "--rounds", 1, "--threads", 1, "--json", kept]
    command = [sys.executable, str(BENCH / script), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    tables = json.loads(kept.read_text())["tables"]
    assert all(table["title"] in done.stdout for table in tables)
    return tables


@pytest.fixture
def features():
    """Of two images, with 6 and 4 keypoints in 8 slots."""
    random = np.random.default_rng(0)
    mask = np.arange(8) < [[6], [4]]
    return {
        "keypoints": random.uniform(0, 100, (2, 8, 2)).astype(np.float32) * mask[..., None],
        "keypoint_scores": random.uniform(0.1, 1, (2, 8)).astype(np.float32) * mask,
        "keypoint_mask": mask,
        "descriptors": random.standard_normal((2, 8, 3)).astype(np.float32) * mask[..., None],
        "image_sizes": np.array([[200, 100], [100, 100]], np.float32),
    }


def first_with_first(path, slots, width, sides="sides"):
    """A graph with the inputs and outputs of LightGlue-ONNX; the first keypoints of each pair match."""
    inputs = [
        helper.make_tensor_value_info("keypoints", TensorProto.FLOAT, [sides, slots, 2]),
        helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, [sides, slots, width]),
    ]
    outputs = [
        helper.make_tensor_value_info("matches", TensorProto.INT64, ["M", 3]),
        helper.make_tensor_value_info("mscores", TensorProto.FLOAT, ["M"]),
    ]
    constants = {"zero": np.array(0), "one": np.array(1), "two": np.array(2), "pads": np.array([0, 0, 0, 2])}
    nodes = [
        helper.make_node("Shape", ["keypoints"], ["sides"], start=0, end=1),
        helper.make_node("Squeeze", ["sides"], ["count"]),
        helper.make_node("Div", ["count", "two"], ["pairs"]),
        helper.make_node("Range", ["zero", "pairs", "one"], ["numbers"]),
        helper.make_node("Unsqueeze", ["numbers", "one"], ["column"]),
        helper.make_node("Pad", ["column", "pads"], ["matches"]),
        helper.make_node("Cast", ["numbers"], ["mscores"], to=TensorProto.FLOAT),
    ]
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "peer", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize(("sides", "scores"), [("sides", [0, 1, 2]), (2, [0, 0, 0])])
def test_a_peers_matches_come_out_as_ours(tmp_path, features, sides, scores):
    peer = LightGlueOnnx(first_with_first(tmp_path / "peer.onnx", 8, 3, sides))
    found = peer.bind(features, np.array([[0, 1], [1, 0], [0, 0]]))()
    assert found["matches"].tolist() == [[0, *[-1] * 7]] * 3
    # The graph's scores are the numbers of its pairs: three of one run, or three runs of one.
    assert found["match_scores"][:, 0].tolist() == scores


def test_a_graph_that_is_no_matcher_of_lightglue_onnx_is_refused(model_folder):
    with pytest.raises(ModelError, match="keypoints, descriptors to matches, mscores"):
        LightGlueOnnx(model_folder / "matcher.onnx")


def test_a_peers_keypoints_have_the_longer_side_from_minus_one_to_one(features):
    features["keypoints"][:, :2] = [[0, 0], [200, 100]]
    assert normalised(features)[0, :2].tolist() == [[-1, -0.5], [1, 0.5]]


def test_the_best_keypoints_come_in_as_many_slots_as_asked_for(features):
    chosen = best(features, 5, 7)
    assert chosen["keypoint_mask"].sum(axis=1).tolist() == [5, 4]
    assert chosen["descriptors"].shape == (2, 7, 3)
    np.testing.assert_array_equal(chosen["keypoints"][:, :5], features["keypoints"][:, :5])


def test_slots_are_filled_with_what_there_is(features):
    assert filled(features, 7, 9)["keypoint_mask"].sum(axis=1).tolist() == [7, 7]


@pytest.mark.parametrize(
    ("node", "operations"),
    [
        (Node("MatMul", 0, [(2, 5, 3), (3, 7)], [(2, 5, 7)]), 2 * 2 * 5 * 3 * 7),
        (Node("FusedMatMul", 0, [(2, 4, 3, 5), (2, 4, 3, 7)], [(2, 4, 5, 7)]), 2 * 8 * 5 * 3 * 7),
        (Node("Gemm", 0, [(5, 3), (7, 3), (7,)], [(5, 7)]), 2 * 5 * 3 * 7),
        (Node("Conv", 0, [(2, 6, 9, 9), (8, 3, 5, 5)], [(2, 8, 9, 9)]), 2 * 2 * 8 * 81 * 75),
        (
            Node("MultiHeadAttention", 0, [(2, 5, 12), (2, 7, 12), (2, 7, 12)], [(2, 5, 12)]),
            4 * 2 * 5 * 7 * 12,
        ),
        (Node("Softmax", 0, [(2, 5, 5)], [(2, 5, 5)]), 0),
    ],
)
def test_operations_are_counted_from_shapes(node, operations):
    assert sum(product.operations for product in products_of_node(node, heads=4)) == operations


def test_matchers_are_measured_side_by_side(tmp_path, model_folder):
    peer = first_with_first(tmp_path / "peer.onnx", slots=64, width=64)
    options = ["--ours", model_folder, "--peer", peer, "--keypoints", 64, "--views", 1, "--data", tmp_path]
    (table,) = tables_of(tmp_path, "matchers.py", *options)
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert [row["matcher"] for row in rows] == ["ours: xfeat", "peer"]
    assert rows[0]["matches a pair"] > 10
    assert rows[0]["the same (%)"] == 100
    assert rows[1]["matches a pair"] == 1


def test_the_growth_of_a_model_is_measured(tmp_path, model_folder):
    options = ["--images", 1, 2, "--sizes", "64x64", "--pairs", 1, 2, "--pair-keypoints", 64]
    options += ["--keypoints", 64, 128, "--empty"]
    tables = tables_of(tmp_path, "scaling.py", model_folder, *options)
    assert [[row[0] for row in table["rows"]] for table in tables] == [[1, 2], ["64x64"], [1, 2], [64, 128]]
    work = [[row[table["columns"].index("GFLOP")] for row in table["rows"]] for table in tables]
    for of_images in (work[0], work[2]):
        assert of_images[1] == pytest.approx(2 * of_images[0], rel=0.01)
    # Weights' products double, and those of keypoints with keypoints are four times as many.
    assert 2 < work[3][1] / work[3][0] < 4


def test_a_ring_of_four_cameras_is_measured(tmp_path, model_folder):
    (table,) = tables_of(tmp_path, "peers_pipeline.py", model_folder, "--image-size", 64, 64)
    assert [row[0] for row in table["rows"]] == ["ours: xfeat"]


def test_operators_and_the_limit_are_measured(tmp_path, model_folder):
    options = ["--keypoints", 64, "--image-size", 64, 64]
    *_, limit = tables_of(tmp_path, "where_time_goes.py", model_folder, *options)
    extractor, matcher = (dict(zip(limit["columns"], row, strict=True)) for row in limit["rows"])
    # Some 20 products with 96 x 96 weights in each of 6 layers, for 2 x 64 keypoints; and 64 x 64 pixels.
    assert 0.2 < matcher["GFLOP"] < 0.4
    assert 0.001 < extractor["GFLOP"] < 0.1
