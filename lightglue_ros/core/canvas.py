"""Places images of any size on the canvases of a batch.

An image is shrunk to fit the canvas, never enlarged, by area interpolation, and its aspect is kept. It lies
in the top-left corner; the rest of the canvas is zero. Keypoints come back in original pixels because the
graph divides by `scales`: x = (x_canvas + 0.5) / scale - 0.5.

An extractor's time grows with the pixels of its canvas, empty ones included. So an image gets the smallest
canvas that leaves a margin of zeros right of it and below it. The contract says for each
extractor how wide the margin must be. The canvas depends on the size of its image alone, and therefore the
image's features do not depend on the sizes of other images in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lightglue_ros.core.contract import CANVAS_MARGINS, NO_MASKS, GraphInfo
from lightglue_ros.core.shrinking import shrink
from lightglue_ros.errors import ConfigError, ImageError


@dataclass(frozen=True, eq=False)
class CanvasBatch:
    """N images on their canvases, named and typed as the inputs of the graph (see `contract`).

    Attributes:
        images: uint8 [N, H, W, C].
        sizes: float32 [N, 2], (width, height) of each image inside its canvas.
        scales: float32 [N, 2], canvas pixels per original pixel (x, y).
        valid: bool [N], True if the slot holds an image.
        masks: bool [N, H, W], True where a keypoint may be; [1, 1, 1] if no image has a mask.
        image_sizes: float32 [N, 2], (width, height) of each original image, 1 in empty slots.
    """

    images: np.ndarray
    sizes: np.ndarray
    scales: np.ndarray
    valid: np.ndarray
    masks: np.ndarray
    image_sizes: np.ndarray


@dataclass(frozen=True)
class Placement:
    """Place of an image on its canvas.

    Attributes:
        size: (width, height) of the shrunk image in pixels.
        canvas_size: (width, height) of the canvas in pixels.
    """

    size: tuple[int, int]
    canvas_size: tuple[int, int]

    @property
    def used(self) -> float:
        """Share of the canvas that the image covers, more than 0 and at most 1."""
        return (self.size[0] * self.size[1]) / (self.canvas_size[0] * self.canvas_size[1])


class Canvas:
    """Places images on canvases of a size, or on the part of a canvas that an image needs.

    Args:
        image_size: (width, height) in pixels.
        channels: 1 (grey) or 3 (RGB); None is 1 if all images of a batch are grey, else 3.
        divisor: width and height are rounded up to multiples of this.
        margin: least number of empty pixels right of an image and below it, as far as the canvas reaches;
            None places every image on the whole canvas.

    Attributes:
        size: (width, height) after rounding up.

    Raises:
        ConfigError: the size is not positive.
    """

    def __init__(
        self, image_size: tuple[int, int], channels: int | None, divisor: int, margin: int | None = None
    ) -> None:
        width, height = image_size
        if width < 1 or height < 1:
            raise ConfigError(
                f"image size {width}x{height} is empty",
                allowed="a width and a height of at least 1 pixel",
                fix="set image_width and image_height, for example 640 and 480",
            )
        self.size = (-(-width // divisor) * divisor, -(-height // divisor) * divisor)
        self._channels = channels
        self._divisor = divisor
        self._margin = margin

    @classmethod
    def of_model(cls, image_size: tuple[int, int], info: GraphInfo, on_parts: bool) -> Canvas:
        """Make the canvas of a model's extractor, or of its pipeline.onnx.

        Args:
            image_size: (width, height) in pixels.
            info: of the model.
            on_parts: an image may lie on a part of the canvas, if the extractor computes the same there.

        Raises:
            ConfigError: the size is not positive, or the model was exported for another size.
        """
        margin = CANVAS_MARGINS.get(info.extractor) if on_parts and not info.is_static else None
        canvas = cls(image_size, info.channels, info.divisor, margin)
        fixed = info.image_size
        if fixed is not None and canvas.size != fixed:
            fixed_text = f"{fixed[0]}x{fixed[1]}"
            raise ConfigError(
                f"image size {image_size[0]}x{image_size[1]} does not fit a model exported for {fixed_text}",
                allowed=f"{fixed_text}, or any size with a model exported with --image-size dynamic",
            )
        return canvas

    def placement(self, image_size: tuple[int, int]) -> Placement:
        """Shrink an image of (width, height) and find the part of the canvas that it needs."""
        size = fitted_size(image_size, self.size)
        if self._margin is None:
            return Placement(size, self.size)
        width, height = (
            min(-(-(length + self._margin) // self._divisor) * self._divisor, most)
            for length, most in zip(size, self.size, strict=True)
        )
        return Placement(size, (width, height))

    def group(self, images: Sequence[np.ndarray | None]) -> dict[tuple[int, int], list[int]]:
        """Group the slots that hold an image by the (width, height) of the canvas that the image needs.

        Raises:
            ImageError: an image has another type or shape than `place` takes.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for slot, image in enumerate(images):
            _check_image(image, slot)
            if image is not None:
                placement = self.placement((image.shape[1], image.shape[0]))
                groups.setdefault(placement.canvas_size, []).append(slot)
        return groups

    def place(
        self,
        images: Sequence[np.ndarray | None],
        canvas_size: tuple[int, int] | None = None,
        least_channels: int = 1,
        allocate: Callable[[tuple[int, int, int, int]], np.ndarray] | None = None,
    ) -> CanvasBatch:
        """Put each image on a canvas of its own.

        Args:
            images: uint8 [H, W] or [H, W, 1] grey, or [H, W, 3] RGB, of any sizes; None is a missing camera.
            canvas_size: (width, height) that holds the images after shrinking; None is `size`.
            least_channels: with 3, a batch of grey images has 3 channels as well, unless it can have but 1.
            allocate: makes the array uint8 of a shape [N, H, W, C], with any content; None is a new one.

        Raises:
            ImageError: an image has another type or shape.
        """
        count = len(images)
        for slot, image in enumerate(images):
            _check_image(image, slot)
        present = (_channels(image) for image in images if image is not None)
        channels = self._channels or max(least_channels, *present, 1)
        width, height = canvas_size or self.size
        shape = count, height, width, channels
        canvases = np.empty(shape, np.uint8) if allocate is None else allocate(shape)
        sizes, scales, image_sizes = np.ones((3, count, 2), np.float32)
        valid = np.zeros(count, bool)
        for slot, image in enumerate(images):
            if image is None:
                canvases[slot] = 0
            else:
                image_size = (image.shape[1], image.shape[0])
                size = fitted_size(image_size, self.size)
                canvases[slot, size[1] :] = 0
                canvases[slot, : size[1], size[0] :] = 0
                _draw(image, canvases[slot, : size[1], : size[0]])
                sizes[slot] = size
                image_sizes[slot] = image_size
                scales[slot] = sizes[slot] / image_sizes[slot]
                valid[slot] = True
        return CanvasBatch(canvases, sizes, scales, valid, NO_MASKS, image_sizes)


def _draw(image: np.ndarray, target: np.ndarray) -> None:
    """Shrink an image into a part of its canvas, uint8 [H, W, C]; OpenCV takes a view with a row step."""
    size = (target.shape[1], target.shape[0])
    channels, wanted = _channels(image), target.shape[2]
    if channels < wanted:
        cv2.cvtColor(shrink(image, size), cv2.COLOR_GRAY2RGB, dst=target)
    else:
        # Converted to grey before shrinking, which then takes a third of the time.
        shrink(image, size, target, as_grey=channels > wanted)


def fitted_size(image_size: tuple[int, int], canvas_size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) to which an image is shrunk to fit a canvas; its own size if it fits."""
    width, height = image_size
    scale = min(1.0, canvas_size[0] / width, canvas_size[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def canvas_pixel(image_size: Sequence[float], canvas_size: tuple[int, int]) -> float:
    """Return the side of a canvas pixel in pixels of the original image, 1 or more."""
    return float(max(1.0, image_size[0] / canvas_size[0], image_size[1] / canvas_size[1]))


def _channels(image: np.ndarray) -> int:
    return 1 if image.ndim == 2 else image.shape[2]


def _check_image(image: np.ndarray | None, slot: int) -> None:
    if image is None:
        return
    found = type(image).__name__
    if isinstance(image, np.ndarray):
        has_shape = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))
        if has_shape and image.dtype == np.uint8 and image.size:
            return
        found = f"{image.dtype} {list(image.shape)}"
    allowed = "a NumPy array, uint8, [H, W] grey or [H, W, 3] RGB, not empty; None for no image"
    raise ImageError(f"image {slot} is {found}", allowed=allowed)
