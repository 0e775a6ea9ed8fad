"""Finds out why the images of two cameras are in no frame together: their clocks, or the slop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Distance(NamedTuple):
    """Distance in time between the images of two cameras.

    Attributes:
        seconds: from an image of the camera with fewer images to the nearest one of the other, at most that
            for nine of ten images.
        is_slop: True if a larger slop would bring them together: the distance is at most half a period.
    """

    seconds: float
    is_slop: bool


def distance(first: Sequence[int], second: Sequence[int], slop: float) -> Distance | None:
    """Measure the distance between two cameras that are not in sync.

    Args:
        first: stamps of a camera's images in nanoseconds, in any order. So is `second`.
        second: those of the other camera.
        slop: largest difference between the stamps of a frame, in seconds.

    Returns:
        None if a camera has no image, or if most images are within the slop of the other camera's.
    """
    few, many = (np.sort(np.asarray(one, np.int64)) for one in sorted((first, second), key=len))
    if not len(few):
        return None
    after = np.searchsorted(many, few).clip(1, max(len(many) - 1, 1))
    nearest = np.abs(many[[after - 1, np.minimum(after, len(many) - 1)]] - few).min(axis=0)
    if np.median(nearest) <= 1e9 * slop:
        return None
    seconds = 1e-9 * float(np.quantile(nearest, 0.9, method="higher"))
    period = 1e-9 * float(np.median(np.diff(many))) if len(many) > 1 else 0.0
    return Distance(seconds, seconds <= 0.55 * period)
