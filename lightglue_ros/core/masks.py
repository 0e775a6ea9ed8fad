"""Masks: parts of an image that hold no keypoint, such as the robot's own arm.

A mask is black (0) where no keypoint may be. It has the aspect of its image and any size.

A pixel of the canvas is black if it touches a black pixel of the mask. Keypoints are at centres of pixels of
the canvas, so none of them comes out in the black, however much the mask is shrunk. Some extractors move
keypoints between pixels: there the black grows by the longest of these moves.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from lightglue_ros.core.canvas import CanvasBatch
from lightglue_ros.core.image_files import read_stored_image
from lightglue_ros.core.rotation import turn, turned_size
from lightglue_ros.errors import ConfigError, ImageError


class Mask:
    """A mask, which is brought to a canvas once and is then at hand; do not change the array.

    Args:
        pixels: uint8, uint16 or bool [h, w], 0 where no keypoint may be; or [h, w, 3] with three equal
            channels.
        name: what errors call it.

    Attributes:
        pixels: bool [h, w], False where no keypoint may be.

    Raises:
        ImageError: the array has another type or shape, has colours, or is all black.
    """

    def __init__(self, pixels: np.ndarray, name: str = "the mask") -> None:
        self.name = name
        is_array = isinstance(pixels, np.ndarray)
        found = f"{pixels.dtype} {list(pixels.shape)}" if is_array else type(pixels).__name__
        is_array = is_array and pixels.dtype in (np.uint8, np.uint16, np.bool_) and pixels.size > 0
        if is_array and pixels.ndim == 3 and pixels.shape[2] in (1, 3):
            if (pixels != pixels[..., :1]).any():
                raise ImageError(f"{name} has colours", allowed="grey: black (0) where no keypoint may be")
            pixels = pixels[..., 0]
        if not is_array or pixels.ndim != 2:
            raise ImageError(f"{name} is {found}", allowed="uint8, uint16 or bool, [h, w], not empty")
        self.pixels = pixels != 0
        if not self.pixels.any():
            raise ImageError(
                f"{name} is all black, so its image would have no keypoint",
                allowed="black (0) where no keypoint may be, anything else where keypoints may be",
                fix="invert the mask if its objects are white",
            )
        self._on_canvas: tuple[object, np.ndarray] = None, self.pixels
        self._other: Mask | None = None

    def joined(self, other: Mask) -> Mask:
        """Return a mask that is black where one of the two is."""
        both = Mask(self.pixels, self.name)
        both._other = other
        return both

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def require_aspect(self, image_size: Sequence[float]) -> None:
        """Check that the mask has the aspect of an image of (width, height).

        Raises:
            ImageError: it has another one, by more than a pixel of the mask that rounding may cost.
        """
        (width, height), (of_width, of_height) = self.size, image_size
        if abs(width * of_height - height * of_width) > of_width + of_height:
            raise ImageError(
                f"{self.name} has {width}x{height} pixels, which is another aspect than that of its image of "
                f"{of_width:.0f}x{of_height:.0f}",
                allowed="any size with the aspect of the image",
                fix="make it of an image of this camera, as the camera sends it",
            )

    def allows(self, keypoints: np.ndarray, image_size: Sequence[float]) -> np.ndarray:
        """Return which keypoints [M, 2] of an image of (width, height) are not in the black: bool [M]."""
        last = np.subtract(self.size, 1)
        places = np.floor((keypoints + 0.5) * np.divide(self.size, image_size)).astype(np.int64)
        columns, rows = np.clip(places, 0, last).T
        allowed: np.ndarray = self.pixels[rows, columns]
        return allowed if self._other is None else allowed & self._other.allows(keypoints, image_size)

    def on_canvas(self, size: tuple[int, int], rotation: int = 0, reach: int = 0) -> np.ndarray:
        """Bring the mask to an image of (width, height) pixels on its canvas: bool [height, width].

        Args:
            rotation: degrees clockwise by which the image was turned.
            reach: pixels of the canvas by which the black grows.
        """
        key = size, rotation, reach
        if self._on_canvas[0] != key:
            shrunk = _shrink(turn(self.pixels.view(np.uint8), rotation), size)
            if reach:
                shrunk = cv2.erode(shrunk, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
            placed = shrunk.view(np.bool_)
            if self._other is not None:
                placed = placed & self._other.on_canvas(size, rotation, reach)
            self._on_canvas = key, placed
        return self._on_canvas[1]


class TurnedMask(NamedTuple):
    """A mask, and the degrees clockwise by which its image was turned."""

    mask: Mask
    rotation: int


class MaskPlacer:
    """Brings the masks of a batch to its canvases; the same masks come out as the same array.

    Args:
        reach: see `Mask.on_canvas`.
    """

    def __init__(self, reach: int) -> None:
        self._reach = reach
        # The last array for each size of canvas. There are few sizes on a robot.
        self._last: dict[tuple[int, ...], tuple[object, np.ndarray]] = {}

    def place(self, masks: Sequence[TurnedMask | None], batch: CanvasBatch) -> np.ndarray:
        """Return the input `masks` bool [N, H, W] of a batch; images beyond the masks have none.

        Raises:
            ImageError: a mask has another aspect than its image.
        """
        shape = batch.images.shape[:3]
        key = tuple(masks), batch.image_sizes.tobytes(), batch.valid.tobytes()
        known, placed = self._last.get(shape, (None, batch.masks))
        if known != key:
            placed = np.ones(shape, np.bool_)
            for slot, turned in enumerate(masks):
                if turned is not None and batch.valid[slot]:
                    mask, rotation = turned
                    mask.require_aspect(turned_size(batch.image_sizes[slot], rotation))
                    width, height = batch.sizes[slot].astype(int).tolist()
                    placed[slot, :height, :width] = mask.on_canvas((width, height), rotation, self._reach)
            if len(self._last) >= _MOST_SIZES:
                self._last.clear()
            self._last[shape] = key, placed
        return placed


_MOST_SIZES = 8


def read_mask(path: str | os.PathLike[str]) -> Mask:
    """Read a mask from an image file, all of whose values but 0 mean that a keypoint may be there.

    Raises:
        ImageError: the file is missing or broken, or it is no mask.
    """
    return Mask(read_stored_image(path), f"mask {path}")


def masks_of(masks: Sequence[Mask | np.ndarray | None] | None, images: int) -> list[Mask | None] | None:
    """Check the masks of so many images, None for an image without one; None if no image has one.

    Raises:
        ConfigError: there is not one for each image.
        ImageError: one is no mask, see `Mask`.
    """
    if masks is None:
        return None
    if len(masks) != images:
        raise ConfigError(
            f"there are {len(masks)} masks for {images} images",
            allowed="one for each image; None for an image without a mask",
        )
    made = [
        mask if mask is None or isinstance(mask, Mask) else Mask(mask, f"mask {slot}")
        for slot, mask in enumerate(masks)
    ]
    return made if any(it is not None for it in made) else None


def turned_masks(
    masks: Sequence[Mask | None] | None, rotations: Sequence[int] | None
) -> list[TurnedMask | None]:
    """Join the masks of images and their rotations; empty if there is no mask."""
    if masks is None:
        return []
    turns = [0] * len(masks) if rotations is None else rotations
    return [TurnedMask(it, turn) if it else None for it, turn in zip(masks, turns, strict=True)]


def _shrink(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring a mask, uint8 [h, w] of 0 and 1, to (width, height); a pixel is 0 if it touches one that is 0."""
    if mask.shape == size[::-1]:
        return mask
    # Numbers of black pixels above and left of each corner.
    black = cv2.integral(1 - mask)
    (top, bottom), (left, right) = (
        _touched(*lengths) for lengths in zip(mask.shape, size[::-1], strict=True)
    )
    below, above = black[bottom], black[top]
    touched = below[:, right] - below[:, left] - above[:, right] + above[:, left]
    return (touched == 0).astype(np.uint8)


def _touched(pixels: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide a line of pixels into `count` parts; return the first pixel that each touches, and its end."""
    part = np.arange(count, dtype=np.int64)
    return part * pixels // count, -(-(part + 1) * pixels // count)
