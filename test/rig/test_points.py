"""Points in space from the matches of a rectified stereo pair whose geometry is known."""

from dataclasses import replace

import numpy as np
import pytest

from lightglue_ros.core.features import PairMatches
from lightglue_ros.rig.points import DEVIATION, REFINED_DEVIATION, StereoPair, triangulate

SIZE = (640, 480)
STEREO = StereoPair((500.0, 510.0), (310.0, 240.0), (330.0, 250.0), 0.12)


def project(positions, stereo=STEREO):
    """Exact matches of points in space, in order."""
    x, y, z = positions.T
    rows = stereo.focal_lengths[1] * y / z
    views = [
        np.column_stack([stereo.focal_lengths[0] * (x - shift) / z + centre[0], rows + centre[1]])
        for shift, centre in ((0.0, stereo.centre0), (stereo.baseline, stereo.centre1))
    ]
    count = len(positions)
    indices = np.arange(count, dtype=np.int32) + 7
    scores = np.ones(count, np.float32)
    return PairMatches(*(view.astype(np.float32) for view in views), scores, indices, indices, 6)


@pytest.fixture
def positions():
    random = np.random.default_rng(0)
    return np.column_stack([random.uniform(-1, 1, (200, 2)), random.uniform(2, 20, 200)])


@pytest.mark.parametrize("baseline", [0.12, -0.12])
def test_exact_matches_give_the_points_whichever_camera_is_on_the_left(positions, baseline):
    stereo = replace(STEREO, baseline=baseline)
    found = triangulate(project(positions, stereo), None, stereo, (SIZE, SIZE), SIZE)
    assert found.indices.tolist() == list(range(7, 207))
    np.testing.assert_allclose(found.positions, positions, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("is_refined", [True, False])
def test_the_stated_deviation_is_that_of_depths_whose_disparity_has_the_measured_one(is_refined):
    positions = np.tile([0.1, 0.2, 5.0], (2000, 1))
    matches = project(positions)
    deviation = REFINED_DEVIATION if is_refined else DEVIATION
    noise = np.random.default_rng(1).normal(0, deviation, len(positions)).astype(np.float32)
    noisy = matches.keypoints1 + np.column_stack([noise, np.zeros_like(noise)])
    checked = np.ones(len(positions), bool) if is_refined else None
    found = triangulate(replace(matches, keypoints1=noisy, checked=checked), None, STEREO, (SIZE, SIZE), SIZE)
    measured = found.positions[:, 2].std()
    assert measured / 1.1 < np.median(found.deviations) < measured * 1.1


def test_matches_that_cannot_be_right_give_no_points(positions):
    """Of an image of twice the canvas, whose tolerance is therefore two pixels."""
    matches = project(positions[:5])
    keypoints1 = matches.keypoints1.copy()
    keypoints1[1, 1] += 1.9
    keypoints1[2, 1] += 2.1
    far = keypoints1[3, 0] = matches.keypoints0[3, 0] + 20.0 - 1.9  # the centres are 20 px apart
    assert far
    checked, inliers = np.ones((2, 5), bool)
    moved = replace(matches, keypoints1=keypoints1, checked=checked)
    small = (320, 240)

    def used(inliers):
        return triangulate(moved, inliers, STEREO, (SIZE, SIZE), small).indices.tolist()

    assert used(None) == [7, 8, 11]
    inliers[0] = False
    assert used(inliers) == [8, 11]
    checked[4] = False
    assert used(inliers) == [8]


def test_colours_are_those_of_the_nearest_pixel_and_white_without_an_image(positions):
    found = triangulate(project(positions[:3]), None, STEREO, (SIZE, SIZE), SIZE)
    grey = np.random.default_rng(2).integers(0, 256, SIZE[::-1], np.uint8)
    columns, rows = np.rint(found.keypoints).astype(int).T
    expected = grey[rows.clip(0, 479), columns.clip(0, 639)]
    np.testing.assert_array_equal(found.colours(grey), np.stack([expected] * 3, axis=1))
    assert (found.colours(None) == 255).all()
