"""Points in space from the matches of rectified stereo pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightglue_ros.core.canvas import canvas_pixel
from lightglue_ros.core.features import PairMatches
from lightglue_ros.core.refinement import MOST_DETAIL

# In pixels of the canvas. A right match has the same row in both images, to a pixel. A smaller disparity says
# little about the depth: its standard deviation is then half of the depth.
ROW_TOLERANCE = 1.0
LEAST_DISPARITY = 1.0
# Standard deviation of the disparity of a right match (bench/points.py): after refinement in pixels of the
# images that refinement compares, without it in pixels of the canvas.
REFINED_DEVIATION = 0.25
DEVIATION = 0.5


@dataclass(frozen=True)
class StereoPair:
    """Two rectified cameras; pixels are those of the images, with the centre of the first pixel at (0, 0).

    Attributes:
        focal_lengths: (x, y) of both cameras in pixels.
        centre0: (x, y) of the first camera's principal point in pixels.
        centre1: the same of the second camera.
        baseline: metres from the first camera to the second along x; negative if the second is on the left.
    """

    focal_lengths: tuple[float, float]
    centre0: tuple[float, float]
    centre1: tuple[float, float]
    baseline: float


@dataclass(frozen=True, eq=False)
class Points:
    """M points in the optical frame of the first camera: x to the right, y down, z forward.

    Attributes:
        positions: float32 [M, 3], metres.
        deviations: float32 [M], standard deviation of z in metres, if the match is right.
        keypoints: float32 [M, 2], pixels of the first image.
        indices: uint32 [M], index of each keypoint among the keypoints of the first image.
    """

    positions: np.ndarray
    deviations: np.ndarray
    keypoints: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def colours(self, image: np.ndarray | None) -> np.ndarray:
        """Return the colours of the keypoints in an image, uint8 [M, 3] RGB; white without an image.

        The image is uint8 [H, W] grey or [H, W, 3] RGB.
        """
        if image is None:
            return np.full((len(self), 3), 255, np.uint8)
        columns, rows = np.rint(self.keypoints).astype(int).T
        height, width = image.shape[:2]
        found = image[rows.clip(0, height - 1), columns.clip(0, width - 1)]
        return np.broadcast_to(found.reshape(len(self), -1), (len(self), 3))


def triangulate(
    matches: PairMatches,
    inliers: np.ndarray | None,
    stereo: StereoPair,
    image_sizes: Sequence[Sequence[float]],
    canvas_size: tuple[int, int],
) -> Points:
    """Make points of the matches of a rectified stereo pair that can be right.

    Left out are outliers, refined matches that failed the check (two of three are wrong), matches on
    different rows, and those with a disparity of less than a pixel of the canvas.

    Args:
        inliers: bool [M], matches that agree with the geometry; None if they were not verified.
        image_sizes: (width, height) of both original images.
        canvas_size: (width, height) of the canvas that they were shrunk to.
    """
    pixel = max(canvas_pixel(size, canvas_size) for size in image_sizes)
    first = matches.keypoints0.astype(np.float64) - stereo.centre0
    second = matches.keypoints1.astype(np.float64) - stereo.centre1
    # Positive for points in front of the cameras, whichever of them is on the left.
    disparities = (first[:, 0] - second[:, 0]) * np.sign(stereo.baseline)
    used = disparities >= LEAST_DISPARITY * pixel
    used &= np.abs(first[:, 1] - second[:, 1]) <= ROW_TOLERANCE * pixel
    for flags in (inliers, matches.checked):
        used &= True if flags is None else flags
    depths = stereo.focal_lengths[0] * abs(stereo.baseline) / disparities[used]
    rays = np.column_stack([first[used] / stereo.focal_lengths, np.ones(len(depths))])
    return Points(
        (rays * depths[:, None]).astype(np.float32),
        (depths / disparities[used] * _deviation(matches, pixel)).astype(np.float32),
        matches.keypoints0[used],
        matches.indices0[used].astype(np.uint32),
    )


def _deviation(matches: PairMatches, pixel: float) -> float:
    """Return the standard deviation of the disparity in pixels of the original images."""
    if matches.checked is None:
        return DEVIATION * pixel
    return REFINED_DEVIATION * max(1.0, pixel / MOST_DETAIL)
