"""The one place that resizes: images of any size onto the canvases of a batch.

An image is shrunk until it fits, never enlarged, with its aspect kept (area interpolation), and put in
the top-left corner; the rest of the canvas is zero. Keypoints come back in original pixels because the
graph divides by `scales`: x = (x_canvas + 0.5) / scale - 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lightglue_ros.errors import ConfigError, ImageError


@dataclass(frozen=True)
class CanvasBatch:
    """N images on their canvases, named and typed as the graph wants them (see `contract`).

    Attributes:
        images: uint8 [N, H, W, C].
        sizes: float32 [N, 2], (width, height) of each image inside its canvas.
        scales: float32 [N, 2], canvas pixels per original pixel (x, y).
        valid: bool [N], whether the slot holds an image.
        image_sizes: float32 [N, 2], (width, height) of each original image, 1 in empty slots.
    """

    images: np.ndarray
    sizes: np.ndarray
    scales: np.ndarray
    valid: np.ndarray
    image_sizes: np.ndarray


class Canvas:
    """Places images on canvases of one size; its buffers are used again by the next call.

    Args:
        image_size: (width, height) that was asked for, in pixels.
        channels: 1 (grey) or 3 (RGB); None is 1 where all images of a batch are grey, else 3.
        divisor: the canvas is rounded up to multiples of this.

    Raises:
        ConfigError: the size is not positive.
    """

    def __init__(self, image_size: tuple[int, int], channels: int | None, divisor: int) -> None:
        width, height = image_size
        if width < 1 or height < 1:
            raise ConfigError(
                f"image size {width}x{height} is empty",
                allowed="a width and a height of at least 1 pixel",
                fix="set image_width and image_height, for example 640 and 480",
            )
        self.requested_size = (width, height)
        self.size = (-(-width // divisor) * divisor, -(-height // divisor) * divisor)
        self.channels = channels
        self._images = np.zeros((0, self.size[1], self.size[0], channels or 1), np.uint8)
        self._covered: list[tuple[int, int]] = []

    @property
    def is_rounded_up(self) -> bool:
        """Whether the canvas is larger than what was asked for."""
        return self.size != self.requested_size

    def place(self, images: Sequence[np.ndarray | None]) -> CanvasBatch:
        """Put each image on a canvas of its own.

        Args:
            images: uint8 [H, W] grey, [H, W, 1] grey or [H, W, 3] RGB, any sizes; None is a missing camera.

        Returns:
            A batch that is valid until the next call.

        Raises:
            ImageError: an image has another type or shape.
        """
        count = len(images)
        for slot, image in enumerate(images):
            if image is not None:
                _check_image(image, slot)
        channels = self.channels or _channels_of(images)
        if count > len(self._images) or channels != self._images.shape[3]:
            count_kept = max(count, len(self._images))
            self._images = np.zeros((count_kept, self.size[1], self.size[0], channels), np.uint8)
            self._covered = [(0, 0)] * count_kept
        sizes = np.ones((count, 2), np.float32)
        scales = np.ones((count, 2), np.float32)
        image_sizes = np.ones((count, 2), np.float32)
        valid = np.zeros(count, bool)
        for slot, image in enumerate(images):
            size = (0, 0)
            if image is not None:
                image_size = (image.shape[1], image.shape[0])
                size = self._fitted_size(*image_size)
                self._draw(slot, image, size)
                sizes[slot] = size
                image_sizes[slot] = image_size
                scales[slot] = sizes[slot] / image_sizes[slot]
                valid[slot] = True
            self._clear_rest(slot, size)
        return CanvasBatch(self._images[:count], sizes, scales, valid, image_sizes)

    def _fitted_size(self, width: int, height: int) -> tuple[int, int]:
        scale = min(1.0, self.size[0] / width, self.size[1] / height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def _draw(self, slot: int, image: np.ndarray, size: tuple[int, int]) -> None:
        width, height = size
        # A view with a row step is an OpenCV matrix, so this goes straight into the canvas.
        target = self._images[slot, :height, :width]
        channels, wanted = _channels(image), target.shape[2]
        if channels > wanted:
            # Before it is shrunk, which is a third of the work then.
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if channels < wanted:
            cv2.cvtColor(_shrink(image, size), cv2.COLOR_GRAY2RGB, dst=target)
        else:
            _shrink(image, size, target)

    def _clear_rest(self, slot: int, size: tuple[int, int]) -> None:
        """Zero what the last image of this slot covered and the present one does not."""
        old_width, old_height = self._covered[slot]
        width, height = size
        if old_height > height:
            self._images[slot, height:old_height] = 0
        if old_width > width:
            self._images[slot, :height, width:old_width] = 0
        self._covered[slot] = size


def _shrink(image: np.ndarray, size: tuple[int, int], target: np.ndarray | None = None) -> np.ndarray:
    """Shrink an image to (width, height) by area interpolation, into `target` if there is one.

    OpenCV is slow where a pixel of the result is no whole number of pixels (1080p RGB to 800 x 450 takes it
    9 ms). So a whole factor that divides the image goes first, which leaves a fourth of it or less. Both
    steps map all of the image on all of the result: the geometry is that of a single one.
    """
    height, width = image.shape[:2]
    most = min(width // size[0], height // size[1])
    factor = max(k for k in range(1, most + 1) if width % k == height % k == 0)
    if factor > 1 and (width // factor, height // factor) != size:
        image = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, size, dst=target, interpolation=cv2.INTER_AREA)


def canvas_pixel(image_size: Sequence[float], canvas_size: tuple[int, int]) -> float:
    """How many pixels of an original image one pixel of its canvas is, 1 or more.

    Args:
        image_size: (width, height) of the original image.
        canvas_size: (width, height) that it is shrunk to fit.
    """
    return float(max(1.0, image_size[0] / canvas_size[0], image_size[1] / canvas_size[1]))


def _channels(image: np.ndarray) -> int:
    return 1 if image.ndim == 2 else image.shape[2]


def _channels_of(images: Sequence[np.ndarray | None]) -> int:
    return max((_channels(image) for image in images if image is not None), default=1)


def _check_image(image: np.ndarray, slot: int) -> None:
    is_image = (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3)))
        and image.size > 0
    )
    if not is_image:
        found = (
            f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        )
        raise ImageError(
            f"image {slot} is {found}",
            allowed="a NumPy array, uint8, [H, W] grey or [H, W, 3] RGB, not empty; None where there is none",
        )
