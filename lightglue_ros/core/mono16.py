"""Converts 16-bit images to 8 bits.

Cameras of 10, 12 or 14 bits and thermal cameras use only a part of the 16 bits; divided by 256, their images
would be black. So a range of values is stretched to 0 to 255. The range is either fixed, for cameras whose
range is known, or taken from each image. Percentiles give the range of an image, so that single hot pixels do
not count. The conversion is linear inside the range; values beyond it become 0 and 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import cv2
import numpy as np

from lightglue_ros.errors import ConfigError

MONO16_NORMALISATIONS = ("percentile", "fixed")
# Percentiles are computed on a grid of about this many pixels: more change them by less than a grey level.
_SAMPLES = 65536


@dataclass(frozen=True)
class Mono16Range:
    """Range of 16-bit values that becomes 0 to 255.

    Attributes:
        kind: ``percentile`` (of each image) or ``fixed``.
        fixed_range: values that become 0 and 255; used by ``fixed``.
        percentiles: percentiles of an image's values that become 0 and 255; used by ``percentile``.

    Raises:
        ConfigError: a value is not allowed.
    """

    kind: str = "percentile"
    fixed_range: tuple[int, int] = (0, 65535)
    percentiles: tuple[float, float] = (1.0, 99.0)

    def __post_init__(self) -> None:
        if self.kind not in MONO16_NORMALISATIONS:
            raise ConfigError(
                f"parameter mono16_normalisation is '{self.kind}'", allowed=", ".join(MONO16_NORMALISATIONS)
            )
        _check_range("mono16_range", self.fixed_range, 65535)
        _check_range("mono16_percentiles", self.percentiles, 100.0)

    def to_8_bits(self, image: np.ndarray) -> np.ndarray:
        """Convert uint16 [H, W] or [H, W, C] to uint8; return uint8 images as they are."""
        if image.dtype == np.uint8:
            return image
        low, high = self.fixed_range if self.kind == "fixed" else self._percentiles_of(image)
        values = image.reshape(len(image), -1)
        if low:
            # convertScaleAbs with an offset would mirror the values below the range. cv2.subtract with a
            # scalar takes 50 times as long.
            values = np.maximum(values, np.uint16(low))
            values -= np.uint16(low)
        return cv2.convertScaleAbs(values, alpha=255.0 / max(high - low, 1)).reshape(image.shape)

    def _percentiles_of(self, image: np.ndarray) -> tuple[int, int]:
        # An odd stride sees all colours of a Bayer pattern alike.
        stride = isqrt(image.shape[0] * image.shape[1] // _SAMPLES) | 1
        counts = np.cumsum(np.bincount(image[::stride, ::stride].ravel(), minlength=65536))
        low, high = (np.searchsorted(counts, max(1.0, p / 100.0 * counts[-1])) for p in self.percentiles)
        return int(low), int(high)


def _check_range(name: str, values: tuple[float, ...], most: float) -> None:
    if len(values) != 2 or not 0 <= values[0] < values[1] <= most:
        raise ConfigError(
            f"parameter {name} is {list(values)}",
            allowed=f"[least, most], two numbers from 0 to {most:g}, the first below the second",
            fix=f"{name}: [{'0, 4095' if most > 100 else '1.0, 99.0'}]",
        )
