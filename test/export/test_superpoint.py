"""SuperPoint + LightGlue with random weights against transformers (see make_goldens_superpoint.py)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from random_weights import SEED, lightglue_weights, superpoint_weights

from lightglue_ros.core.contract import INPUTS
from lightglue_ros.core.session import GraphSession
from lightglue_ros.export import MODELS
from lightglue_ros.export.graphs import ExtractorGraph, MatcherGraph
from lightglue_ros.export.models.lightglue import LightGlue
from lightglue_ros.export.models.superpoint import SuperPoint
from lightglue_ros.export.selfcheck import compare

PAIRS = np.array([[0, 1]])
pytestmark = pytest.mark.parametrize("model", ["superpoint"], indirect=True)


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(Path(__file__).parent.parent / "data" / "superpoint_random.npz"))


@pytest.fixture(scope="module")
def golden_images(motorcycle):
    left, _ = motorcycle
    return [left[:464, :616], left[:464, 8:624]]


@pytest.fixture(scope="module")
def found(extract, match, golden_images):
    features = extract(golden_images)
    return features | match(features, PAIRS, threshold=0)


@pytest.fixture(scope="module")
def slots_of_golden(golden, found):
    """Find for each keypoint of the golden [2, K] our slot of the keypoint at its place."""
    offsets = golden["keypoints"][:, :, None] - found["keypoints"][:, None]
    return np.abs(offsets).max(axis=3).argmin(axis=2)


def test_keypoints_and_matches_are_those_of_the_original(golden, found):
    assert (golden["matches"] >= 0).sum() >= 100
    names = ("keypoints", "keypoint_scores", "keypoint_mask", "matches", "match_scores", "layers")
    differences = compare({name: golden[name] for name in names}, found, PAIRS)
    assert differences.same["keypoints"] >= 0.999
    assert differences.same["matches"] >= 0.995
    assert differences.same["match_scores"] >= 0.99
    assert differences.largest["keypoints"] <= 0.01
    assert differences.largest["keypoint_scores"] <= 1e-6
    assert differences.largest["match_scores"] <= 1e-4
    assert differences.largest["layers"] == 0


def test_descriptors_are_those_of_the_original(golden, found, slots_of_golden):
    for image, slots in enumerate(slots_of_golden[:, ::4]):
        expected = golden["descriptors"][image].astype(np.float32)  # float16 in the file
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        cosines = (found["descriptors"][image][slots] * expected).sum(axis=1)
        assert cosines.min() >= 0.9999


def test_without_a_threshold_there_are_as_many_keypoints_as_in_the_original(golden, golden_images, place):
    extractor = SuperPoint.from_state_dict(superpoint_weights(SEED), detection_threshold=0.0)
    batch = place(golden_images)
    inputs = [torch.from_numpy(batch[name]) for name in ("images", "sizes", "scales", "valid")]
    with torch.inference_mode():
        _, scores, _, _ = ExtractorGraph(extractor, 8000)(*inputs, torch.tensor([8000]))
    counts = (scores > 0).sum(dim=1).numpy()
    np.testing.assert_allclose(counts, golden["counts"], rtol=1e-3)


def test_the_log_assignment_is_that_of_the_original(golden, found, slots_of_golden):
    config = MODELS["superpoint"].matcher
    matcher = LightGlue.from_state_dict(config, lightglue_weights(config, SEED))
    assignments = []
    matcher.assignment.register_forward_hook(lambda *call: assignments.append(call[2]))
    inputs = found | {"pairs": PAIRS, "match_threshold": np.zeros(1, np.float32)}
    with torch.inference_mode():
        MatcherGraph(matcher)(*(torch.from_numpy(inputs[name]) for name in INPUTS["matcher"]))
    rows, columns = (slots[::2] for slots in slots_of_golden)
    found_logs = assignments[0][0].log().numpy()[np.ix_(rows, columns)]
    held = golden["log_assignment"] > np.log(1e-30)  # float32 can hold their exponentials
    assert held.mean() > 0.9
    np.testing.assert_allclose(found_logs[held], golden["log_assignment"][held], atol=1e-3)


def test_the_files_say_that_they_are_of_own_weights(export_of, model):
    exported = export_of(model)
    for path in exported.files:
        info = GraphSession(path, path.stem, provider="cpu").info
        assert (info.model, info.extractor, info.divisor) == ("superpoint", "superpoint", 8)
        assert info.descriptor_dim == 256
        assert info.licence == "unknown (weights of your own)"
        for line, published, sha256 in zip(
            exported.lines, MODELS[model].weights, info.weights_sha256, strict=False
        ):
            assert f"is not the published {published.name}" in line
            assert sha256 in line


def test_fewer_keypoints_are_the_best(found, extract, golden_images):
    few = extract(golden_images[:1], limit=50)
    assert few["keypoint_mask"].sum() == 50
    np.testing.assert_array_equal(few["keypoints"][0, :50], found["keypoints"][0, :50])
