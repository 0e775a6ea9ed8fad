"""Verifies matches by two-view geometry: finds the matches that agree with one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import cv2
import numpy as np

from lightglue_ros.core.canvas import canvas_pixel
from lightglue_ros.core.features import PairMatches
from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.essential import find_essential_matrix

# One more than the solver needs, because a matrix can be found for any smallest set of matches.
_LEAST_MATCHES = {"fundamental": 8, "homography": 5, "essential": 6}
GEOMETRIES = tuple(_LEAST_MATCHES)
# Confidence of RANSAC that it found the right matrix.
_CONFIDENCE = 0.9999
_MOST_ROUNDS = 10_000


@dataclass(frozen=True, eq=False)
class Intrinsics:
    """Intrinsic parameters of a camera, in pixels with the centre of the first pixel at (0, 0).

    Attributes:
        matrix: float64 [3, 3], focal lengths and principal point.
        distortion: float64 [D], coefficients in OpenCV's order; empty for a rectified image.
        is_fisheye: True if the coefficients are those of the equidistant model (OpenCV's fisheye).
    """

    matrix: np.ndarray
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(0))
    is_fisheye: bool = False

    def rays(self, keypoints: np.ndarray) -> np.ndarray:
        """Return the normalised, undistorted coordinates of keypoints [M, 2]: float64 [M, 2]."""
        points = keypoints.astype(np.float64)
        if not self.distortion.any() and not self.is_fisheye:
            focal_lengths, centre = self.matrix[[0, 1], [0, 1]], self.matrix[:2, 2]
            return (points - centre) / focal_lengths
        undistort = cv2.fisheye.undistortPoints if self.is_fisheye else cv2.undistortPoints
        return undistort(points[:, None], self.matrix, self.distortion)[:, 0]


@dataclass(frozen=True, eq=False)
class Verification:
    """Geometry of a pair of images and the matches that agree with it.

    Attributes:
        geometry: fundamental, homography or essential.
        matrix: float64 [3, 3], from the first image to the second, in pixels (essential: in normalised
            coordinates, with the singular values 1, 1, 0); None if no matrix was found.
        inliers: bool [M], True for a match that agrees; all False without a matrix.
    """

    geometry: str
    matrix: np.ndarray | None
    inliers: np.ndarray


def verify_pair(
    matches: PairMatches,
    geometry: str,
    image_sizes: Sequence[Sequence[float]],
    canvas_size: tuple[int, int],
    intrinsics: tuple[Intrinsics, Intrinsics] | None = None,
) -> Verification:
    """Verify the matches of a pair of images as `verify` does, within one pixel of the canvas.

    Args:
        image_sizes: (width, height) of both original images.
        canvas_size: (width, height) of the canvas that they were shrunk to.
    """
    tolerance = max(canvas_pixel(size, canvas_size) for size in image_sizes)
    return verify(matches.keypoints0, matches.keypoints1, geometry, tolerance, intrinsics)


def verify(
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    geometry: str,
    tolerance: float,
    intrinsics: tuple[Intrinsics, Intrinsics] | None = None,
) -> Verification:
    """Find the matrix that most matches agree with; the same matches always give the same result.

    Args:
        keypoints0: float32 [M, 2], pixels of the first image.
        keypoints1: float32 [M, 2], pixels of the second image.
        geometry: ``fundamental`` (a rigid scene), ``homography`` (a plane, or a camera that only turns) or
            ``essential`` (a rigid scene and calibrated cameras). Only essential takes account of distortion.
        tolerance: largest distance of an inlier in pixels.
        intrinsics: of the first and the second camera; only essential needs them.

    Raises:
        ConfigError: there is no such geometry, or the intrinsics are missing.
    """
    if geometry not in GEOMETRIES:
        raise ConfigError(f"geometry '{geometry}'", allowed=", ".join(GEOMETRIES))
    if geometry == "essential" and intrinsics is None:
        raise ConfigError("the essential matrix needs the intrinsics of the cameras")
    matrix = None
    if len(keypoints0) >= _LEAST_MATCHES[geometry]:
        # OpenCV raises for degenerate points, such as all of them in one place.
        with suppress(cv2.error, np.linalg.LinAlgError):
            matrix, inliers = _estimate(keypoints0, keypoints1, geometry, tolerance, intrinsics)
    # OpenCV stacks several solutions of one minimal set, and nothing decides between them.
    if matrix is None or matrix.shape != (3, 3):
        return Verification(geometry, None, np.zeros(len(keypoints0), bool))
    return Verification(geometry, matrix, inliers.ravel() != 0)


def _estimate(
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    geometry: str,
    tolerance: float,
    intrinsics: tuple[Intrinsics, Intrinsics] | None,
) -> tuple[np.ndarray | None, np.ndarray]:
    if geometry == "fundamental":
        return cv2.findFundamentalMat(
            keypoints0, keypoints1, cv2.USAC_MAGSAC, tolerance, _CONFIDENCE, _MOST_ROUNDS
        )
    if geometry == "homography":
        return cv2.findHomography(
            keypoints0, keypoints1, cv2.USAC_MAGSAC, tolerance, None, _MOST_ROUNDS, _CONFIDENCE
        )
    assert intrinsics is not None  # verify_pair has checked it
    camera0, camera1 = intrinsics
    focal_length = float(np.mean([np.diag(camera.matrix)[:2] for camera in intrinsics]))
    rays0, rays1 = camera0.rays(keypoints0), camera1.rays(keypoints1)
    return find_essential_matrix(rays0, rays1, tolerance / focal_length)
