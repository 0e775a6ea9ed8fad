"""Verifies matches by the geometry of two views: which of them agree with one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from lightglue_ros.core.canvas import canvas_pixel
from lightglue_ros.core.features import PairMatches
from lightglue_ros.errors import ConfigError

# One more than the solver of the model needs: any set of that many has a matrix that fits it.
_LEAST_MATCHES = {"fundamental": 8, "homography": 5, "essential": 6}
GEOMETRIES = tuple(_LEAST_MATCHES)
# A wrong matrix is taken with a probability of 1 - this.
_CONFIDENCE = 0.9999
_MOST_ROUNDS = 10_000
# A round of the essential matrix takes a quarter of a millisecond; with this many, half of the matches may be
# false. Its USAC refines what it finds: on made scenes with noise 95% of the true matches are inliers, 88%
# without. OpenCV 5.0's USAC methods find no essential matrix.
_MOST_ESSENTIAL_ROUNDS = 300
_ESSENTIAL_METHOD = cv2.RANSAC if cv2.__version__.startswith("5.0") else cv2.USAC_ACCURATE


@dataclass(frozen=True)
class Intrinsics:
    """How a camera sees, in pixels with the centre of the first one at (0, 0).

    Attributes:
        matrix: float64 [3, 3], focal lengths and centre.
        distortion: float64 [D], coefficients in OpenCV's order; none of a rectified image.
        is_fisheye: whether they are those of the equidistant model (OpenCV's fisheye).
    """

    matrix: np.ndarray
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(0))
    is_fisheye: bool = False

    def rays(self, keypoints: np.ndarray) -> np.ndarray:
        """Where the rays to keypoints [M, 2] pierce the plane at distance 1: float64 [M, 2]."""
        points = keypoints.astype(np.float64)
        if not self.distortion.any() and not self.is_fisheye:
            focal_lengths, centre = self.matrix[[0, 1], [0, 1]], self.matrix[:2, 2]
            return (points - centre) / focal_lengths
        undistort = cv2.fisheye.undistortPoints if self.is_fisheye else cv2.undistortPoints
        return undistort(points[:, None], self.matrix, self.distortion)[:, 0]


@dataclass(frozen=True)
class Verification:
    """The geometry of a pair of images and the matches that agree with it.

    Attributes:
        geometry: fundamental, homography or essential.
        matrix: float64 [3, 3], from the first image to the second, of pixels (essential: of rays, with the
            singular values 1, 1, 0); None where none was found.
        inliers: bool [M], whether each match agrees; all False without a matrix.
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
    """Verify the matches of a pair of images; an inlier is at most a pixel of the canvas away.

    Args:
        matches: of the pair.
        geometry: see `verify`.
        image_sizes: (width, height) of both original images.
        canvas_size: (width, height) of the canvas that they were shrunk to.
        intrinsics: of both cameras; essential needs them.

    Raises:
        ConfigError: there is no such geometry, or the intrinsics are missing.
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
            ``essential`` (a rigid scene and calibrated cameras). Only essential knows of distortion.
        tolerance: how far an inlier may be away, in pixels.
        intrinsics: of the first and the second camera; essential needs them.

    Raises:
        ConfigError: there is no such geometry, or the intrinsics are missing.
    """
    if geometry not in GEOMETRIES:
        raise ConfigError(f"geometry '{geometry}'", allowed=", ".join(GEOMETRIES))
    if geometry == "essential" and intrinsics is None:
        raise ConfigError("the essential matrix needs the intrinsics of the cameras")
    nothing = Verification(geometry, None, np.zeros(len(keypoints0), bool))
    if len(keypoints0) < _LEAST_MATCHES[geometry]:
        return nothing
    try:
        matrix, inliers = _estimate(keypoints0, keypoints1, geometry, tolerance, intrinsics)
    except cv2.error:
        # OpenCV raises for some degenerate points, such as all of them in one place.
        return nothing
    # Several solutions of one minimal set come stacked: nothing decides between them.
    if matrix is None or matrix.shape != (3, 3):
        return nothing
    if geometry == "essential":
        # OpenCV's methods scale it differently.
        matrix = matrix * np.sqrt(2) / np.linalg.norm(matrix)
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
    rays = [camera.rays(of) for of, camera in zip((keypoints0, keypoints1), intrinsics, strict=True)]
    focal_length = np.mean([np.diag(camera.matrix)[:2] for camera in intrinsics])
    return cv2.findEssentialMat(
        *rays,
        np.eye(3),
        _ESSENTIAL_METHOD,
        _CONFIDENCE,
        tolerance / focal_length,
        _MOST_ESSENTIAL_ROUNDS,
    )
