"""Turns images by quarters before extraction, and keypoints back into the pixels of the original image.

A rotation is the angle in degrees CLOCKWISE by which an image is turned so that it is upright. Models know
upright images: XFeat finds no match between an image and the same image turned by 90 or 180 degrees.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lightglue_ros.errors import ConfigError

ROTATIONS = (0, 90, 180, 270)
# Name of the rotation that is found out.
AUTO = "auto"
_CODES = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def turn(image: np.ndarray, rotation: int) -> np.ndarray:
    """Turn an image, [H, W] or [H, W, C]; one that stays is not copied, and a view of BGR stays one."""
    if image.ndim == 3 and image.strides[2] < 0:
        return turn(image[..., ::-1], rotation)[..., ::-1]
    return cv2.rotate(image, _CODES[rotation]) if rotation else image


def turned_size(size: Sequence[float], rotation: int) -> tuple[int, int]:
    """Return the (width, height) of a turned image of (width, height)."""
    width, height = int(size[0]), int(size[1])
    return (height, width) if rotation % 180 else (width, height)


def turn_points(points: np.ndarray, rotation: int, size: Sequence[float]) -> np.ndarray:
    """Move points [M, 2] of an image of (width, height) to their pixels in the turned image."""
    last_x, last_y = size[0] - 1, size[1] - 1
    x, y = points[..., 0], points[..., 1]
    turned = {0: (x, y), 90: (last_y - y, x), 180: (last_x - x, last_y - y), 270: (y, last_x - x)}
    return np.stack(turned[rotation], axis=-1)


def turn_points_back(points: np.ndarray, rotation: int, size: Sequence[float]) -> np.ndarray:
    """Move points [M, 2] of a turned image to their pixels in the original of (width, height)."""
    return turn_points(points, -rotation % 360, turned_size(size, rotation))


def turn_all(
    images: Sequence[np.ndarray | None], rotations: Sequence[int] | None
) -> Sequence[np.ndarray | None]:
    """Turn images, None for a missing one; without a rotation they come back as they are.

    Raises:
        ConfigError: there is not one of `ROTATIONS` for each image.
    """
    if rotations is None:
        return images
    if len(rotations) != len(images) or any(it not in ROTATIONS for it in rotations):
        allowed = f"{', '.join(map(str, ROTATIONS))}, one for each of {len(images)} images"
        raise ConfigError(f"rotations are {list(rotations)}", allowed=allowed)
    # What is no image stays, and is named when it is placed.
    return [
        turn(image, it) if isinstance(image, np.ndarray) and image.ndim in (2, 3) else image
        for image, it in zip(images, rotations, strict=True)
    ]


def turn_all_back(
    points: np.ndarray, rotations: Sequence[int] | None, turned_sizes: np.ndarray
) -> np.ndarray:
    """Move points [N, K, 2] of turned images to their pixels in the originals; None is no rotation.

    Args:
        points: of the images, and of empty slots after them, which are left out if there are rotations.
        rotations: degrees clockwise by which each image was turned.
        turned_sizes: [N, 2], (width, height) of the turned images.
    """
    if rotations is None:
        return points
    rows = zip(points, rotations, turned_sizes, strict=False)
    return np.array([turn_points_back(row, turned, turned_size(size, turned)) for row, turned, size in rows])
