"""Law 4: fp32 results equal the original PyTorch implementation's (goldens: see make_goldens.py)."""

from pathlib import Path

import numpy as np
import pytest

from lightglue_ros.cli.demo import same_row_share
from lightglue_ros.export.selfcheck import compare

PAIRS = np.array([[0, 1]])
of_each = pytest.mark.parametrize("model", ["xfeat", "disk"], indirect=True)


@pytest.fixture(scope="module")
def golden(model):
    return dict(np.load(Path(__file__).parent.parent / "data" / f"{model}_motorcycle.npz"))


@pytest.fixture(scope="module")
def found(extract, match, motorcycle):
    features = extract(motorcycle)
    return features | match(features, PAIRS)


@of_each
def test_keypoints_and_matches_are_those_of_the_original(golden, found):
    all_but_descriptors = {name: array for name, array in golden.items() if name != "descriptors"}
    differences = compare(all_but_descriptors, found, PAIRS)
    assert differences.same["keypoints"] >= 0.999
    assert differences.same["matches"] >= 0.995
    assert differences.largest["keypoints"] <= 0.01
    assert differences.largest["keypoint_scores"] <= 1e-4
    # Of single matches float32 leaves no more: the original is 7e-5 away from itself in float64 here.
    assert differences.same["match_scores"] >= 0.99
    assert differences.largest["match_scores"] <= 5e-4
    assert differences.largest["layers"] == 0


@of_each
def test_descriptors_are_those_of_the_original(golden, found):
    # Equal scores may come in another order, so each keypoint looks for the original's at its place.
    count = golden["descriptors"].shape[1]
    for image in range(2):
        offsets = golden["keypoints"][image][:count, None] - found["keypoints"][image][None]
        slots = np.abs(offsets).max(axis=2).argmin(axis=1)
        descriptors, expected = found["descriptors"][image][slots], golden["descriptors"][image]
        np.testing.assert_allclose(descriptors, expected, atol=1e-4)
        assert (descriptors * expected).sum(axis=1).min() >= 0.9999


@pytest.mark.parametrize(("model", "matches"), [("xfeat", 537), ("disk", 343)], indirect=["model"])
def test_matches_of_the_rectified_pair_lie_on_the_same_rows(found, matches):
    slots = np.flatnonzero(found["matches"][0] >= 0)
    left, right = found["keypoints"][0][slots], found["keypoints"][1][found["matches"][0][slots]]
    assert abs(len(slots) - matches) <= 0.03 * matches
    assert same_row_share(left, right, 3.0) >= 0.98
    assert same_row_share(left, right, 1.5) >= 0.91


def filled_slots(array):
    """The first 512 of 1024 slots, which lie on the second axis where there are any."""
    return array[:, :512] if array.ndim > 1 else array


@pytest.mark.parametrize("model", ["xfeat"], indirect=True)
def test_pipeline_finds_what_extractor_and_matcher_find(pipeline, place, extractor, match, motorcycle):
    """With half the slots: the rest of the slots being empty changes nothing either (law 1)."""
    batch = place(motorcycle) | {"max_keypoints": np.array([512])}
    image_sizes = batch.pop("image_sizes")
    features = extractor.run(batch) | {"image_sizes": image_sizes}
    expected = features | match(features, PAIRS)
    found = pipeline.run(batch | {"pairs": PAIRS, "match_threshold": np.array([0.1], np.float32)})
    for name, array in found.items():
        np.testing.assert_allclose(array, filled_slots(expected[name]), atol=1e-5, err_msg=name)
    assert not expected["keypoint_mask"][:, 512:].any()
