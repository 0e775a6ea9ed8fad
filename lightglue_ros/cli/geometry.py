"""Checks of matches against the geometry of two views."""

from __future__ import annotations

import cv2
import numpy as np

# With fewer, RANSAC finds a matrix (7 degrees of freedom) that half of random matches agree with.
_LEAST_MATCHES = 50


def same_row_share(keypoints0: np.ndarray, keypoints1: np.ndarray, tolerance: float) -> float:
    """Share of matches whose rows differ by at most `tolerance` pixels; in rectified stereo all should.

    Args:
        keypoints0: float32 [M, 2], pixels of the first image.
        keypoints1: float32 [M, 2], pixels of the second image.
        tolerance: in pixels.

    Returns:
        0 to 1; 0 without matches.
    """
    if not len(keypoints0):
        return 0.0
    return float(np.mean(np.abs(keypoints0[:, 1] - keypoints1[:, 1]) <= tolerance))


def epipolar_share(keypoints0: np.ndarray, keypoints1: np.ndarray, tolerance: float) -> float:
    """Share of matches that agree with one fundamental matrix (RANSAC) within `tolerance` pixels.

    Args and result as in `same_row_share`; 0 with too few matches to tell.
    """
    if len(keypoints0) < _LEAST_MATCHES:
        return 0.0
    if np.median(np.linalg.norm(keypoints1 - keypoints0, axis=1)) <= tolerance:
        # A camera that stands still: any epipolar geometry fits, and OpenCV finds none.
        return float(np.mean(np.linalg.norm(keypoints1 - keypoints0, axis=1) <= tolerance))
    cv2.setRNGSeed(0)
    try:
        matrix, inliers = cv2.findFundamentalMat(keypoints0, keypoints1, cv2.FM_RANSAC, tolerance, 0.999)
    except cv2.error:
        return 0.0
    is_found = matrix is not None and matrix.shape == (3, 3) and inliers.size == len(keypoints0)
    return float(np.mean(inliers != 0)) if is_found else 0.0
