"""Watches whether stereo pairs still have the geometry that they were calibrated for.

A match of two cameras that stand as their calibration says has the same row in both images, once these are
rectified. A camera that has turned or moved since leaves its mark in the rows: with a relative rotation of
0.3 degrees about x or z the median row error of EuRoC's cameras goes from 0.16 to 2.4 or 1.2 px. Rows do not
show a rotation about y (0.22 px), a wrong baseline, or a wrong focal length of both cameras.

The median is judged, because it does not ask for inliers, which a lost calibration takes away: of half of the
matches it says the right thing whatever the others are. Refined matches that failed the check are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lightglue_ros.core.canvas import canvas_pixel
from lightglue_ros.core.features import PairMatches
from lightglue_ros.core.refinement import MOST_DETAIL
from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.frame import FrameResult
from lightglue_ros.rig.verification import Intrinsics

# Errors are counted in steps of this many pixels. Larger ones count as the last step.
_STEP = 0.02
_STEPS = 1000
# The errors of this many seconds are counted together, and the last ones of these make a minute.
_SECONDS = 5
_PERIODS = 12
# Fewer errors are not judged: a wall without texture gives some wrong matches and nothing else.
LEAST_ERRORS = 300


@dataclass(frozen=True, eq=False)
class StereoRows:
    """Two calibrated cameras, and how they turn to make their rows the same.

    Attributes:
        cameras: intrinsics of both cameras' images.
        rotations: from each camera to the rectified one, float64 [3, 3]; those of rectified images are 1.
    """

    cameras: tuple[Intrinsics, Intrinsics]
    rotations: tuple[np.ndarray, np.ndarray]

    def errors(self, matches: PairMatches) -> np.ndarray:
        """Return the distances of the matches' rows in pixels of the images, float64 [M].

        Refined matches that failed the check are left out.
        """
        kept = slice(None) if matches.checked is None else matches.checked
        keypoints = matches.keypoints0[kept], matches.keypoints1[kept]
        rows = []
        for points, camera, rotation in zip(keypoints, self.cameras, self.rotations, strict=True):
            if not len(points):
                return np.zeros(0)
            rays = np.column_stack([camera.rays(points), np.ones(len(points))]) @ rotation.T
            rows.append(rays[:, 1] / rays[:, 2])
        focal_length = float(np.mean([camera.matrix[1, 1] for camera in self.cameras]))
        return np.abs(rows[0] - rows[1]) * focal_length


class StereoCalibration(Protocol):
    """Calibration of the cameras of a rig."""

    def stereo_rows(self, first: int, second: int, image_sizes: Sequence[tuple[int, int]]) -> StereoRows:
        """Return the geometry of two cameras with images of (width, height) pixels.

        Raises:
            ConfigError: it is not known, or the two were not calibrated as a stereo pair.
        """


class RowErrors:
    """Counts row errors, in steps of 0.02 px up to 20 px.

    Attributes:
        pixel: side of the largest canvas pixel of the counted matches, in pixels of the images.
    """

    def __init__(self) -> None:
        self.pixel = 1.0
        self._counts = np.zeros(_STEPS, np.int64)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def add(self, errors: np.ndarray, pixel: float) -> None:
        """Count errors in pixels of the images."""
        steps = np.minimum(errors[np.isfinite(errors)] / _STEP, _STEPS - 1).astype(int)
        self._counts += np.bincount(steps, minlength=_STEPS)
        self.pixel = max(self.pixel, pixel)

    def update(self, other: RowErrors) -> None:
        """Add the counts of others."""
        self._counts += other._counts
        self.pixel = max(self.pixel, other.pixel)

    def percentile(self, percent: float) -> float:
        """Return a percentile in pixels of the images; 0 if nothing was counted."""
        sums = np.cumsum(self._counts)
        # The middle of a step.
        return float(np.searchsorted(sums, percent / 100 * sums[-1]) + 0.5) * _STEP if sums[-1] else 0.0

    def problem(self, limit: float) -> str:
        """Return in words how the median exceeds a limit in pixels; empty if it does not, or with limit 0.

        Refinement compares images of at most two pixels per pixel of the canvas, so the limit of larger
        images grows with them.
        """
        limit *= max(1.0, self.pixel / MOST_DETAIL)
        median = self.percentile(50)
        if not limit or len(self) < LEAST_ERRORS or median <= limit:
            return ""
        return f"median row error {median:.2f} px (limit {limit:.2f} px)"


def row_errors(
    result: FrameResult[Any], calibration: StereoCalibration, canvas_size: tuple[int, int]
) -> Iterator[tuple[str, np.ndarray, float]]:
    """Find the row errors of each pair of two cameras whose stereo geometry is known.

    Yields:
        The pair's name, the errors in pixels of the images, and the side of a canvas pixel in these.
    """
    for name, cameras, pair, images in result.pairs_of_two_cameras():
        sizes = [(image.width, image.height) for image in images]
        try:
            rows = calibration.stereo_rows(*cameras, sizes)
        except ConfigError:
            continue  # not a stereo pair, or not known yet
        pixel = max(canvas_pixel(size, canvas_size) for size in sizes)
        yield name, rows.errors(pair.matches), pixel


class CalibrationWatch:
    """Counts the row errors of the last minute, by the clock of the frames.

    Attributes:
        errors: of each pair by its name. It is replaced as a whole, so that any thread may read it.
    """

    def __init__(self) -> None:
        self.errors: Mapping[str, RowErrors] = {}
        self._periods: defaultdict[int, defaultdict[str, RowErrors]] = defaultdict(
            lambda: defaultdict(RowErrors)
        )

    def update(
        self,
        result: FrameResult[Any],
        stamp: int,
        calibration: StereoCalibration,
        canvas_size: tuple[int, int],
    ) -> None:
        """Count the errors of a frame that was taken at a time in nanoseconds."""
        now = stamp // (_SECONDS * 1_000_000_000)
        for name, errors, pixel in row_errors(result, calibration, canvas_size):
            self._periods[now][name].add(errors, pixel)
        # Later ones are from before time was set back.
        for period in [it for it in self._periods if not now - _PERIODS < it <= now]:
            del self._periods[period]
        sums: defaultdict[str, RowErrors] = defaultdict(RowErrors)
        for pairs in self._periods.values():
            for name, errors_of_pair in pairs.items():
                sums[name].update(errors_of_pair)
        self.errors = dict(sums)

    def problem(self, limit: float) -> str:
        """Return the pairs whose median exceeds a limit in pixels, in words; empty if there is none."""
        problems = {name: errors.problem(limit) for name, errors in self.errors.items()}
        return "; ".join(
            f"the calibration of pair {name} does not hold: {text}" for name, text in problems.items() if text
        )
