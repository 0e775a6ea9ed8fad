"""Error of a camera's pose that is estimated from matches, and the curve over many such errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

RANSAC_TOLERANCE = 1.0  # pixels
RANSAC_CONFIDENCE = 0.99999
THRESHOLDS = 1.0, 3.0, 5.0  # degrees
NO_POSE = 180.0  # degrees


@dataclass(frozen=True)
class Camera:
    """A pair of frames of a moving camera.

    Attributes:
        matrix: float64 [3, 3], intrinsics in pixels.
        poses: float64 [frames, 4, 4], camera to world.
    """

    matrix: np.ndarray
    poses: np.ndarray

    def motion(self, first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
        """Rotation [3, 3] and translation [3] that bring points of one frame's camera to another's."""
        transform = np.linalg.inv(self.poses[second]) @ self.poses[first]
        return transform[:3, :3], transform[:3, 3]


def read_camera(folder: Path) -> Camera:
    """Intrinsics and poses of a KITTI sequence."""
    matrix = np.loadtxt(folder / "calib.txt")[0].reshape(3, 4)[:, :3]
    rows = np.loadtxt(folder / "poses.txt").reshape(-1, 3, 4)
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows
    return Camera(matrix, poses)


def pose_error(
    matches: np.ndarray, matrix: np.ndarray, motion: tuple[np.ndarray, np.ndarray], seed: int
) -> float:
    """Error in degrees of the pose estimated from matches [M, 4], shuffled by the seed."""
    shuffled = np.random.default_rng(seed).permutation(matches.astype(np.float64))
    if len(shuffled) < 5:
        return NO_POSE
    first, second = shuffled[:, :2].copy(), shuffled[:, 2:].copy()
    essential, inliers = cv2.findEssentialMat(
        first, second, matrix, cv2.RANSAC, RANSAC_CONFIDENCE, RANSAC_TOLERANCE
    )
    if essential is None or essential.shape != (3, 3):
        return NO_POSE
    _, rotation, translation, _ = cv2.recoverPose(essential, first, second, matrix, mask=inliers)
    true_rotation, true_translation = motion
    return max(rotation_error(rotation, true_rotation), direction_error(translation[:, 0], true_translation))


def rotation_error(rotation: np.ndarray, expected: np.ndarray) -> float:
    """Angle in degrees between two rotations [3, 3]."""
    vector, _ = cv2.Rodrigues(rotation.T @ expected)
    return float(np.degrees(np.linalg.norm(vector)))


def direction_error(direction: np.ndarray, expected: np.ndarray) -> float:
    """Angle in degrees between two lines along [3] vectors, 0 to 90."""
    sine = np.linalg.norm(np.cross(direction, expected))
    return float(np.degrees(np.arctan2(sine, abs(direction @ expected))))


def area_under_curve(errors: Sequence[float], threshold: float) -> float:
    """Return the area under the recall curve from 0 to the threshold, as a share of the maximum.

    The curve is that of SuperGlue's evaluation (Sarlin et al., CVPR 2020): straight lines from (0, 0) through
    (i-th smallest error, i / number of errors), and level from the last error below the threshold.
    """
    ordered = np.sort(errors)
    below = ordered[ordered < threshold]
    recall = np.arange(1 + len(below)) / len(ordered)
    x = np.concatenate([[0.0], below, [threshold]])
    y = np.concatenate([recall, recall[-1:]])
    return float((np.diff(x) * (y[:-1] + y[1:]) / 2).sum() / threshold)
