"""Shrinks images by area interpolation, band by band.

OpenCV has vector code for halving an image and not for other factors. So images are shrunk in other ways
where these are faster, to the same pixels within a grey level. On one core of a Xeon, 1080p RGB becomes 640 x
360 in 1.3 ms (OpenCV: 2.4) and 1280 x 720 grey in 1.5 ms (3.7).

A band of rows stays in the processor's cache from one step to the next, and no copy of a large image is made.
Colours are converted when the image is small: BGR, as cameras send it, need not be copied to RGB.
"""

from __future__ import annotations

import cv2
import numpy as np

# Bytes of a band. 72 rows of 1080p RGB take as long as all rows at once, 18 rows a fifth longer.
_BAND = 1 << 19


def shrink(
    image: np.ndarray, size: tuple[int, int], target: np.ndarray | None = None, *, as_grey: bool = False
) -> np.ndarray:
    """Shrink an image to (width, height) by area interpolation.

    Each step maps the whole image to the whole result, so the geometry is that of a single step.

    Args:
        image: uint8 [H, W] or [H, W, C]; RGB may be a view of BGR, ``bgr[..., ::-1]``.
        target: array for the result, uint8 [height, width] or [height, width, C]; may be a part of a canvas.
        as_grey: convert an RGB image to grey [height, width].
    """
    height, width = image.shape[:2]
    as_grey = as_grey and image.ndim == 3
    to_grey = cv2.COLOR_RGB2GRAY
    if image.ndim == 3 and image.strides[2] < 0:
        image, to_grey = image[..., ::-1], cv2.COLOR_BGR2GRAY
        if not as_grey:
            return cv2.cvtColor(shrink(image, size), cv2.COLOR_BGR2RGB, dst=target)
    factor = _whole_factor((width, height), size)
    if as_grey and factor % 2 == 0:
        # Converting a quarter of the pixels: 1.2 ms in place of 1.45 for 1080p, for each image of a frame.
        half = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        half = half if to_grey == cv2.COLOR_RGB2GRAY else half[..., ::-1]
        return shrink(half, size, target, as_grey=True)
    # How many rows become how many others in the first step.
    rows, rows_out = factor, 1
    is_grey = as_grey or image.ndim == 2 or image.shape[2] == 1
    if factor == 1 and is_grey and (2 * width, 2 * height) == (3 * size[0], 3 * size[1]):
        rows, rows_out = 3, 2
    if rows == 1 and not as_grey:
        return cv2.resize(image, size, dst=target, interpolation=cv2.INTER_AREA)
    between = (width * rows_out // rows, height * rows_out // rows)
    first = target if target is not None and between == size else None
    if first is None:
        first = np.empty((between[1], between[0], *(() if as_grey else image.shape[2:])), np.uint8)
    # Made once, because memory that is new to the process costs more than the work on it.
    count = min(max(1, _BAND // (image[:1].nbytes * rows)) * rows, height)
    grey = np.empty((count, width), np.uint8) if as_grey and rows > 1 else None
    two_thirds = _TwoThirds(count, width) if rows_out == 2 else None
    for top in range(0, height, count):
        band = image[top : top + count]
        out = first[top * rows_out // rows : (top + len(band)) * rows_out // rows]
        if as_grey:
            band = cv2.cvtColor(band, to_grey, dst=out if grey is None else grey[: len(band)])
        if two_thirds is not None:
            two_thirds(band, out)
        elif factor > 1:
            _average(factor, band, out)
    return first if between == size else cv2.resize(first, size, dst=target, interpolation=cv2.INTER_AREA)


def _whole_factor(image_size: tuple[int, int], size: tuple[int, int]) -> int:
    """Return the largest whole factor that divides an image size and leaves at least `size`."""
    most = min(length // wanted for length, wanted in zip(image_size, size, strict=True))
    return max(k for k in range(1, most + 1) if image_size[0] % k == image_size[1] % k == 0)


def _average(factor: int, band: np.ndarray, out: np.ndarray) -> None:
    """Average squares of a whole factor."""
    if factor % 2 == 0:
        half = out if factor == 2 else None
        half = cv2.resize(band, (band.shape[1] // 2, len(band) // 2), dst=half, interpolation=cv2.INTER_AREA)
        if factor == 4:
            _average(2, half, out)
        elif factor > 4:
            _blur_and_pick(factor // 2, half, out)
    else:
        _blur_and_pick(factor, band, out)


def _blur_and_pick(factor: int, band: np.ndarray, out: np.ndarray) -> None:
    """Average the squares around all pixels, which is vectorised, and pick those of the squares' middles.

    An even square has two middles in a row. `cv2.blur` averages around the second one. `INTER_NEAREST_EXACT`
    picks the first one in OpenCV 4.6 and the second one in 4.13, so it is used for odd squares only.
    """
    blurred = cv2.blur(band, (factor, factor))
    if factor % 2:
        cv2.resize(blurred, out.shape[1::-1], dst=out, interpolation=cv2.INTER_NEAREST_EXACT)
        return
    picked, out = np.atleast_3d(blurred[factor // 2 :: factor, factor // 2 :: factor], out)
    # NumPy copies one channel at a time in half the time of pixels of three.
    for channel in range(out.shape[2]):
        out[..., channel] = picked[..., channel]


class _TwoThirds:
    """Makes two pixels of three, along both sides, of grey bands of at most `rows` x `width` pixels."""

    def __init__(self, rows: int, width: int) -> None:
        self._rows = np.empty((rows // 3 * 2, width), np.uint8)
        self._planes = np.empty((5, rows // 3 * 2, width // 3), np.uint8)
        self._merged = np.empty((rows // 3 * 2, width // 3, 2), np.uint8)

    def __call__(self, band: np.ndarray, out: np.ndarray) -> None:
        """Shrink a band into `out`."""
        rows, merged = self._rows[: len(out)], self._merged[: len(out)]
        self._two_of_three(band[0::3], band[1::3], band[2::3], rows[0::2], rows[1::2])
        # Three neighbours in a row are taken for channels of a pixel, which OpenCV splits and merges fast.
        a, b, c, first, second = self._planes[:, : len(out)]
        cv2.split(rows.reshape(len(out), -1, 3), [a, b, c])
        self._two_of_three(a, b, c, first, second)
        out[...] = cv2.merge([first, second], dst=merged).reshape(out.shape)

    @staticmethod
    def _two_of_three(
        a: np.ndarray, b: np.ndarray, c: np.ndarray, first: np.ndarray, second: np.ndarray
    ) -> None:
        cv2.addWeighted(a, 2 / 3, b, 1 / 3, 0, dst=first)
        cv2.addWeighted(b, 1 / 3, c, 2 / 3, 0, dst=second)
