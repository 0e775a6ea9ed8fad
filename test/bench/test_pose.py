"""The errors and the curve by which bench/pose_error.py judges, on poses and errors that are known."""

import cv2
import numpy as np
import pytest

from pose_error import THRESHOLDS, Camera, area_under_curve, direction_error, pose_error, rotation_error

INTRINSICS = np.array([[700.0, 0, 600], [0, 700, 180], [0, 0, 1]])


def rotation(axis, degrees):
    return cv2.Rodrigues(np.radians(degrees) * np.array(axis, float))[0]


def pose(rotation, position):
    """Camera to world."""
    return np.block([[rotation, np.reshape(position, (3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])


@pytest.fixture
def camera():
    """That drives a metre along its axis and turns by 3 degrees."""
    poses = [pose(rotation((0, 1, 0), 20), (4, 5, 6)), pose(rotation((0, 1, 0), 23), (4.34, 5, 6.94))]
    return Camera(INTRINSICS, np.array(poses))


@pytest.fixture
def matches(camera):
    """Exact ones, of 200 points before the first camera."""
    points = np.random.default_rng(0).uniform((-8, -3, 5), (8, 3, 30), (200, 3))
    turn, shift = camera.motion(0, 1)
    views = [view @ INTRINSICS.T for view in (points, points @ turn.T + shift)]
    return np.concatenate([view[:, :2] / view[:, 2:] for view in views], axis=1)


def test_points_of_the_world_are_seen_where_the_motion_brings_them(camera):
    point = np.array([1.0, -2.0, 30.0, 1.0])
    first, second = (np.linalg.inv(pose) @ point for pose in camera.poses)
    turn, shift = camera.motion(0, 1)
    np.testing.assert_allclose(turn @ first[:3] + shift, second[:3])


def test_the_pose_is_found_again(camera, matches):
    assert pose_error(matches, INTRINSICS, camera.motion(0, 1), 0) < 0.01


def test_a_seed_is_an_order_and_wrong_matches_are_left_out(camera, matches):
    matches[::5, 2:] = np.random.default_rng(1).uniform((0, 0), (1200, 360), (40, 2))
    errors = [pose_error(matches, INTRINSICS, camera.motion(0, 1), seed) for seed in (0, 0, 1, 2)]
    assert max(errors) < 1
    assert errors[0] == errors[1]
    assert len(set(errors)) == 3


def test_the_error_is_the_larger_one_of_rotation_and_direction(camera, matches):
    turn, shift = camera.motion(0, 1)
    turned = turn @ rotation((0, 0, 1), 7), rotation((0, 1, 0), 2) @ shift
    assert pose_error(matches, INTRINSICS, turned, 0) == pytest.approx(7, abs=0.02)
    aside = turn @ rotation((0, 0, 1), 2), rotation((0, 1, 0), 7) @ shift
    assert pose_error(matches, INTRINSICS, aside, 0) == pytest.approx(7, abs=0.02)


def test_too_few_matches_are_no_pose(camera, matches):
    assert pose_error(matches[:4], INTRINSICS, camera.motion(0, 1), 0) == 180


@pytest.mark.parametrize("degrees", [0, 1e-3, 0.5, 30, 179])
def test_the_error_of_a_rotation_is_its_angle(degrees):
    one = rotation((0.6, 0, 0.8), 40)
    assert rotation_error(one, one @ rotation((0, 0.8, 0.6), degrees)) == pytest.approx(degrees, abs=1e-6)


@pytest.mark.parametrize(("degrees", "expected"), [(0, 0), (1e-3, 1e-3), (60, 60), (100, 80), (180, 0)])
def test_the_error_of_a_direction_is_its_angle_whatever_its_length_and_sign(degrees, expected):
    assert direction_error(
        rotation((0, 1, 0), degrees) @ [0, 0, 5.0], np.array([0, 0, 0.1])
    ) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_the_area_is_all_without_errors_and_nothing_above_the_threshold(threshold):
    assert area_under_curve([0.0] * 4, threshold) == pytest.approx(1)
    assert area_under_curve([threshold, 180.0], threshold) == 0


def test_the_area_is_that_of_the_lines_between_the_errors():
    # Up to 1/2 at 2 degrees, up to 1 at 3, level up to 5; and with an error above, half as high.
    assert area_under_curve([3.0, 2.0], 5) == pytest.approx((0.5 + 0.75 + 2) / 5)
    assert area_under_curve([3.0, 180.0, 2.0, 9.0], 5) == pytest.approx((0.5 + 0.75 + 2) / 10)
    assert area_under_curve([1.0], 5) == pytest.approx((0.5 + 4) / 5)
