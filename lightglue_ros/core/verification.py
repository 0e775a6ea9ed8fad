"""Verifies matches by the geometry of two views: which of them agree with one matrix."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lightglue_ros.core.errors import ConfigError

# One more than the solver of the model needs: any set of that many has a matrix that fits it.
_LEAST_MATCHES = {"fundamental": 8, "homography": 5, "essential": 6}
GEOMETRIES = tuple(_LEAST_MATCHES)
# A wrong matrix is taken with a probability of 1 - this.
_CONFIDENCE = 0.9999
_MOST_ROUNDS = 10_000


@dataclass(frozen=True)
class Verification:
    """The geometry of a pair of images and the matches that agree with it.

    Attributes:
        geometry: fundamental, homography or essential.
        matrix: float64 [3, 3], from the first image to the second, of pixels (essential: of rays); None where
            none was found.
        inliers: bool [M], whether each match agrees; all False without a matrix.
    """

    geometry: str
    matrix: np.ndarray | None
    inliers: np.ndarray


def verify(
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    geometry: str,
    tolerance: float,
    camera_matrices: tuple[np.ndarray, np.ndarray] | None = None,
) -> Verification:
    """Find the matrix that most matches agree with; the same matches always give the same result.

    Args:
        keypoints0: float32 [M, 2], pixels of the first image.
        keypoints1: float32 [M, 2], pixels of the second image.
        geometry: ``fundamental`` (a rigid scene), ``homography`` (a plane, or a camera that only turns) or
            ``essential`` (a rigid scene and calibrated cameras without distortion).
        tolerance: how far an inlier may be away, in pixels.
        camera_matrices: [3, 3] of the first and the second camera, in pixels; essential needs them.

    Raises:
        ConfigError: there is no such geometry, or the camera matrices are missing.
    """
    if geometry not in GEOMETRIES:
        raise ConfigError(f"geometry '{geometry}'", allowed=", ".join(GEOMETRIES))
    if geometry == "essential" and camera_matrices is None:
        raise ConfigError("the essential matrix needs the intrinsics of the cameras")
    nothing = Verification(geometry, None, np.zeros(len(keypoints0), bool))
    if len(keypoints0) < _LEAST_MATCHES[geometry]:
        return nothing
    try:
        matrix, inliers = _estimate(keypoints0, keypoints1, geometry, tolerance, camera_matrices)
    except cv2.error:
        # OpenCV raises for some degenerate points, such as all of them in one place.
        return nothing
    # Several solutions of one minimal set come stacked: nothing decides between them.
    if matrix is None or matrix.shape != (3, 3):
        return nothing
    return Verification(geometry, matrix, inliers.ravel() != 0)


def _estimate(
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    geometry: str,
    tolerance: float,
    camera_matrices: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray | None, np.ndarray]:
    if geometry == "fundamental":
        return cv2.findFundamentalMat(
            keypoints0, keypoints1, cv2.USAC_MAGSAC, tolerance, _CONFIDENCE, _MOST_ROUNDS
        )
    if geometry == "homography":
        return cv2.findHomography(
            keypoints0, keypoints1, cv2.USAC_MAGSAC, tolerance, None, _MOST_ROUNDS, _CONFIDENCE
        )
    rays = [_rays(*of) for of in zip((keypoints0, keypoints1), camera_matrices, strict=True)]
    focal_length = np.mean([[matrix[0, 0], matrix[1, 1]] for matrix in camera_matrices])
    # OpenCV 5.0's USAC methods find no essential matrix.
    return cv2.findEssentialMat(*rays, np.eye(3), cv2.RANSAC, _CONFIDENCE, tolerance / focal_length)


def _rays(keypoints: np.ndarray, camera_matrix: np.ndarray) -> np.ndarray:
    focal_lengths, centre = camera_matrix[[0, 1], [0, 1]], camera_matrix[:2, 2]
    return (keypoints.astype(np.float64) - centre) / focal_lengths
