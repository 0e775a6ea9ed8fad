import cv2
import numpy as np
import pytest

from lightglue_ros.core import ConfigError
from lightglue_ros.rig.verification import GEOMETRIES, Intrinsics, verify

random = np.random.default_rng(0)
MATRIX = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
CAMERA = Intrinsics(MATRIX)


def two_views(geometry, count):
    """Points as two cameras see them that look the same way from two places; of a wall for a homography."""
    depths = np.full(count, 5.0) if geometry == "homography" else random.uniform(3, 10, count)
    scene = np.column_stack([random.uniform(-2, 2, (count, 2)), depths])
    seen = [(scene - [x, 0.1 * x, 0]) @ MATRIX.T for x in (0.0, 0.5)]
    return [(view[:, :2] / view[:, 2:]).astype(np.float32) for view in seen]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_matches_of_one_geometry_are_inliers_and_false_ones_are_not(geometry):
    points0, points1 = two_views(geometry, 200)
    points1[:80] = random.uniform(0, 640, (80, 2))
    found, again = (verify(points0, points1, geometry, 1.0, (CAMERA, CAMERA)) for _ in range(2))
    assert found.matrix.shape == (3, 3)
    assert found.inliers[80:].mean() > 0.98
    assert found.inliers[:80].mean() < 0.1
    np.testing.assert_array_equal(found.matrix, again.matrix)
    np.testing.assert_array_equal(found.inliers, again.inliers)


def test_the_essential_matrix_takes_two_different_cameras():
    points0, points1 = two_views("essential", 100)
    zoomed = Intrinsics(MATRIX * [[2], [2], [1]])
    found = verify(points0, 2 * points1, "essential", 1.0, (CAMERA, zoomed))
    assert found.inliers.mean() > 0.98
    singular = np.linalg.svd(found.matrix, compute_uv=False)
    np.testing.assert_allclose(singular, [1, 1, 0], atol=1e-3)


def test_with_noise_nearly_all_right_matches_are_inliers_of_the_essential_matrix():
    """RANSAC alone ends with a matrix of five noisy matches, which 87% of the right ones agree with."""
    right = []
    for _ in range(20):
        views = [view + random.normal(0, 0.5, view.shape) for view in two_views("essential", 300)]
        points0, points1 = (view.astype(np.float32) for view in views)
        points0[:100] = random.uniform(0, 640, (100, 2))
        found = verify(points0, points1, "essential", 1.0, (CAMERA, CAMERA))
        assert found.inliers[:100].mean() < 0.1
        right.append(found.inliers[100:].mean())
    assert np.mean(right) > 0.94


DISTORTED = [
    Intrinsics(MATRIX, np.array([-0.3, 0.1, 1e-3, -1e-3, 0.0])),
    Intrinsics(MATRIX, np.array([-0.3, 0.1, 1e-3, -1e-3, 0.0, 0.05, -0.02, 0.01])),
    Intrinsics(MATRIX, np.array([-0.05, 0.01, 0.0, 0.0]), is_fisheye=True),
    Intrinsics(MATRIX, np.zeros(4), is_fisheye=True),
]


def distort(rays, camera):
    """Where a camera with distortion sees rays [M, 2], float32 [M, 2]."""
    scene, still = np.column_stack([rays, np.ones(len(rays))]), np.zeros(3)
    project = cv2.fisheye.projectPoints if camera.is_fisheye else cv2.projectPoints
    pixels, _ = project(scene[:, None], still, still, camera.matrix, camera.distortion)
    return pixels[:, 0].astype(np.float32)


@pytest.mark.parametrize("camera", DISTORTED)
def test_rays_and_pixels_of_a_camera_with_distortion_belong_together(camera):
    rays = random.uniform(-0.5, 0.5, (100, 2))
    pixels = distort(rays, camera)
    assert np.abs(pixels - (500 * rays + (320, 240))).max() > 5
    np.testing.assert_allclose(500 * camera.rays(pixels), 500 * rays, atol=0.05)


@pytest.mark.parametrize("camera", DISTORTED)
def test_the_essential_matrix_takes_raw_pixels_by_their_distortion(camera):
    raw = [distort(CAMERA.rays(view), camera) for view in two_views("essential", 300)]
    known = verify(*raw, "essential", 0.3, (camera, camera))
    unknown = verify(*raw, "essential", 0.3, (CAMERA, CAMERA))
    assert known.inliers.mean() > 0.98
    assert unknown.inliers.mean() < 0.95


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_too_few_or_degenerate_matches_have_no_matrix_or_a_whole_one(geometry):
    points = random.uniform(0, 640, (20, 2)).astype(np.float32)
    diagonal = np.arange(20, dtype=np.float32)[:, None].repeat(2, 1)
    for first, second in (
        *((points[:count], points[-count - 1 : -1]) for count in range(8)),
        (points, np.zeros_like(points)),
        (np.zeros_like(points), np.zeros_like(points)),
        (diagonal, diagonal + 3),
    ):
        found = verify(first, second, geometry, 1.0, (CAMERA, CAMERA))
        assert found.inliers.shape == (len(first),)
        assert found.inliers.dtype == bool
        assert found.matrix is None or found.matrix.shape == (3, 3)
        assert found.matrix is not None or not found.inliers.any()


def test_what_cannot_be_verified_is_refused():
    points = np.zeros((9, 2), np.float32)
    with pytest.raises(ConfigError, match="geometry 'affine'; allowed: fundamental"):
        verify(points, points, "affine", 1.0)
    with pytest.raises(ConfigError, match="needs the intrinsics"):
        verify(points, points, "essential", 1.0)
