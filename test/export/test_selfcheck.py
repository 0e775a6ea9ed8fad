"""Comparison of the exported files with PyTorch."""

import numpy as np
import pytest

from lightglue_ros.export import selfcheck

PAIRS = np.array([[0, 1]])


def outputs(**changes):
    """Two images with three keypoints each, matched one to one."""
    keypoints = np.array([[[1, 1], [5, 5], [9, 9]], [[2, 1], [6, 5], [10, 9]]], np.float32)
    return {
        "keypoints": keypoints,
        "keypoint_scores": np.array([[0.9, 0.5, 0.5], [0.9, 0.6, 0.5]], np.float32),
        "keypoint_mask": np.ones((2, 3), bool),
        "matches": np.array([[0, 1, 2]], np.int32),
        "match_scores": np.array([[0.9, 0.8, 0.7]], np.float32),
        "layers": np.array([6], np.int32),
    } | changes


def test_the_check_accepts_equal_scores_in_another_order():
    swapped = outputs()
    for name in ("keypoints", "keypoint_scores"):
        swapped[name][0, 1:] = swapped[name][0, :0:-1]
    swapped["matches"][0, 1:] = swapped["matches"][0, :0:-1]
    swapped["match_scores"][0, 1:] = swapped["match_scores"][0, :0:-1]
    differences = selfcheck.compare(outputs(), swapped, PAIRS)
    assert set(differences.same.values()) == {1.0}
    assert set(differences.largest.values()) == {0.0}
    assert differences.are_within(selfcheck.TOLERANCES["fp32"])


@pytest.mark.parametrize(
    "change",
    [
        {"keypoints": outputs()["keypoints"] + np.float32(0.02)},
        {"keypoint_mask": np.array([[True, True, False], [True, True, True]])},
        {"keypoint_scores": outputs()["keypoint_scores"] + np.float32(2e-4)},
        {"matches": np.array([[0, 2, 1]], np.int32)},
        {"matches": np.array([[0, 1, -1]], np.int32)},
        {"match_scores": outputs()["match_scores"] - np.float32(2e-4)},
        {"layers": np.array([5], np.int32)},
    ],
)
def test_the_check_notices(change):
    differences = selfcheck.compare(outputs(), outputs(**change), PAIRS)
    assert not differences.are_within(selfcheck.TOLERANCES["fp32"])


@pytest.mark.parametrize(("layers", "is_accepted"), [(5, True), (4, False)])
def test_in_8_bits_the_only_pair_may_stop_one_layer_earlier(layers, is_accepted):
    found = outputs(layers=np.array([layers], np.int32))
    differences = selfcheck.compare(outputs(), found, PAIRS)
    assert differences.are_within(selfcheck.TOLERANCES["int8"]) == is_accepted
