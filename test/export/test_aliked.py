"""ALIKED + LightGlue against the original (goldens: see make_goldens.py).

Nobody has published a LightGlue for ALIKED-t16, so it has one with random weights here.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightglue_ros.cli.demo import same_row_share
from lightglue_ros.export import MODELS
from lightglue_ros.export.models.aliked import DeformableConvolution
from lightglue_ros.export.selfcheck import compare

PAIRS = np.array([[0, 1]])
SLOTS = 512
of_n16 = pytest.mark.parametrize("model", ["aliked"], indirect=True)
of_t16 = pytest.mark.parametrize("model", ["aliked-t16"], indirect=True)


@pytest.fixture(scope="module")
def golden(model):
    return dict(np.load(Path(__file__).parent.parent / "data" / f"{model}_motorcycle.npz"))


@pytest.fixture(scope="module")
def features(extract, motorcycle):
    return extract(motorcycle)


@pytest.fixture(scope="module")
def found(features, match):
    return features | match(features, PAIRS)


@of_n16
def test_keypoints_and_matches_are_those_of_the_original(golden, found):
    all_but_descriptors = {name: array for name, array in golden.items() if name != "descriptors"}
    differences = compare(all_but_descriptors, found, PAIRS)
    assert differences.same["keypoints"] >= 0.999
    assert differences.same["matches"] >= 0.995
    assert differences.same["match_scores"] >= 0.99
    assert differences.largest["keypoints"] <= 0.01
    assert differences.largest["keypoint_scores"] <= 1e-4
    assert differences.largest["match_scores"] <= 5e-4
    assert differences.largest["layers"] == 0


@of_n16
def test_descriptors_are_those_of_the_original(golden, found):
    assert_descriptors_are_those_of(golden, found)


def assert_descriptors_are_those_of(golden, found):
    # The original's keypoints are in the order of their pixels' scores, so each is looked for at its place.
    count = golden["descriptors"].shape[1]
    for image in range(2):
        offsets = golden["keypoints"][image][:count, None] - found["keypoints"][image][None]
        slots = np.abs(offsets).max(axis=2).argmin(axis=1)
        cosines = (found["descriptors"][image][slots] * golden["descriptors"][image]).sum(axis=1)
        assert cosines.min() >= 0.9999


@of_n16
def test_matches_of_the_rectified_pair_lie_on_the_same_rows(found):
    slots = np.flatnonzero(found["matches"][0] >= 0)
    left, right = found["keypoints"][0][slots], found["keypoints"][1][found["matches"][0][slots]]
    assert same_row_share(left, right, 2) >= 0.99


@of_n16
def test_fewer_keypoints_are_some_of_the_same(features, extract, motorcycle):
    """The best by the scores of their pixels, as in the original, not by those that come out."""
    few = extract([motorcycle[0]], limit=50)
    assert few["keypoint_mask"].sum() == 50
    offsets = few["keypoints"][0, :50, None] - features["keypoints"][0][None]
    assert np.abs(offsets).max(axis=2).min(axis=1).max() <= 1e-4


@of_t16
def test_keypoints_and_descriptors_of_t16_are_those_of_the_original(golden, features):
    all_but_descriptors = {name: array for name, array in golden.items() if name != "descriptors"}
    differences = compare(all_but_descriptors, features, PAIRS)
    assert differences.same["keypoints"] >= 0.999
    assert differences.largest["keypoints"] <= 0.01
    assert differences.largest["keypoint_scores"] <= 1e-4
    assert_descriptors_are_those_of(golden, features)


@of_t16
def test_t16_is_matched_by_a_lightglue_of_ones_own(t16_export, matcher, features, match):
    """An image with itself: with random weights little else is the same."""
    assert t16_export.lines[0].endswith("is taken as a LightGlue for the 64 channels of aliked-t16")
    info = matcher.info
    assert info.descriptor_dim == 64
    published, own = info.weights_sha256
    assert published == MODELS["aliked-t16"].weights[0].sha256
    assert own in t16_export.lines[0]
    assert info.licence == "unknown (weights of your own)"
    matches = match(features, [(0, 0)], threshold=0)["matches"][0]
    same = matches == np.arange(SLOTS)
    assert same.sum() >= 100
    assert same.sum() >= 0.95 * (matches >= 0).sum()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (6, 7)])
def test_both_forms_of_the_deformable_convolution_are_the_same_on_maps_of_any_size(size):
    torch.manual_seed(0)
    operator, portable = (DeformableConvolution(3, 4, portable=portable) for portable in (False, True))
    portable.load_state_dict(operator.state_dict())
    features = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = portable(features)
        assert expected.abs().max() > 0.1
        np.testing.assert_allclose(operator(features), expected, atol=1e-5)
