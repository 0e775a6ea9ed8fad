import numpy as np
import pytest

from lightglue_ros.cli.geometry import epipolar_share, same_row_share

random = np.random.default_rng(0)


def points(count):
    return random.uniform(0, 640, (count, 2)).astype(np.float32)


def two_views(count):
    """Points of a scene as two cameras see them that look the same way from two places."""
    scene = np.column_stack([random.uniform(-2, 2, (count, 2)), random.uniform(3, 10, count)])
    seen = [320 + 500 * (scene - [x, 0, 0])[:, :2] / scene[:, 2:] for x in (0.0, 0.3)]
    return [view.astype(np.float32) for view in seen]


def test_two_views_agree_with_one_geometry_and_noise_does_not():
    assert epipolar_share(*two_views(200), 3.0) > 0.95
    assert epipolar_share(points(100), points(100), 3.0) < 0.4


def test_a_camera_that_stands_still_agrees():
    same = points(100)
    assert epipolar_share(same, same, 3.0) == 1.0


@pytest.mark.parametrize("count", [0, 1, 7, 49])
def test_too_few_matches_say_nothing(count):
    assert epipolar_share(points(count), points(count), 3.0) == 0.0


def test_degenerate_points_are_no_share_above_one():
    assert 0.0 <= epipolar_share(points(100), np.zeros((100, 2), np.float32), 3.0) <= 1.0


def test_rows():
    left, right = two_views(50)
    assert same_row_share(left, right, 0.5) == 1.0
    assert same_row_share(left, right + np.float32([0, 1]), 0.5) == 0.0
    assert same_row_share(left[:0], right[:0], 0.5) == 0.0
