"""Refines matches: moves the second keypoint of each match to the place that looks most like the first.

Keypoints of XFeat, DISK and SuperPoint are whole pixels of the canvas, so a match is half a pixel off. One
step of Lucas and Kanade's optical flow (IJCAI 1981), with the match as its beginning, compares the images
themselves. On the motorcycle stereo pair the median error of XFeat's disparities goes from 0.73 to 0.25 px,
and is 0.16 px for matches that pass the check and lie on the same row (bench/points.py).

The images are compared in grey at the scale of the originals, with at most `MOST_DETAIL` pixels per pixel of
the canvas along a side. 500 matches of two images of 1920 x 1080 would take 10 ms; at 1280 x 720 they take
4 ms. If the motorcycle pair is 2.9 times as large as the canvas, the median error is 0.71 px with 1.5 pixels
per pixel of the canvas, 0.70 px with 2 and 0.58 px with all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lightglue_ros.core.canvas import canvas_pixel, fitted_size
from lightglue_ros.core.features import PairMatches
from lightglue_ros.core.masks import Mask
from lightglue_ros.core.rotation import turn, turn_points, turn_points_back, turned_size
from lightglue_ros.core.shrinking import shrink
from lightglue_ros.errors import ConfigError

REFINEMENTS = ("auto", "none", "lucas_kanade")
# Extractors whose keypoints are whole pixels. ALIKED's are not: refinement raises the share of its matches
# within a pixel of the true epipolar line from 87.3 to 88.6% on KITTI frames i and i + 1, and lowers it from
# 53.5 to 51.7% on i and i + 5.
WHOLE_PIXELS = ("xfeat", "disk", "superpoint")
# Pixels of a compared image for one of the canvas, along a side. An image that a whole factor shrinks to at
# least `_LEAST_DETAIL` is shrunk by it: 1080p on 640 x 360 takes 0.7 ms in place of 1.7, and less to compare.
MOST_DETAIL = 2
_LEAST_DETAIL = 1.5
# Side of the square that is compared, in pixels of the compared images. 9 to 15 are equally right; time grows
# with the area.
_WINDOW = 11
# A keypoint that would move further, in pixels of the canvas, or out of its image, stays where it is: its
# match is wrong, or the surroundings have no texture. XFeat's descriptors are coarser than its keypoints, and
# many matches are the right corner's neighbour: with a limit of 2 pixels the share of matches within a pixel
# of the truth is lower by 6 points on KITTI frames i and i + 1 and on motorcycle. With 6 it is equal.
# A keypoint that would move into the black of a mask stays, too.
_LONGEST_MOVE = 4.0
# Back from the second image, a checked match ends this close to its first keypoint, in pixels of the images.
# Of the matches on KITTI frames i and i + 1 that pass, 90% are right; with 0.5 pixels 89%.
_CHECK_TOLERANCE = 0.3
_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.01)
# Scales that differ by less are taken for the same.
_SAME_SCALE = 1.05


@dataclass(frozen=True, eq=False)
class GreyImage:
    """A grey image for comparison, which takes at most `MOST_DETAIL` squared bytes for a pixel of the canvas.

    Attributes:
        pixels: uint8 [h, w].
        size: (width, height) of the image in full size, turned.
        rotation: degrees clockwise by which the original image was turned so that it is upright: patches
            of an upright and an unturned image do not look alike.
        mask: of the original image, into whose black no keypoint moves; None if it has none.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    rotation: int = 0
    mask: Mask | None = None

    @classmethod
    def of(
        cls,
        image: np.ndarray,
        canvas_size: tuple[int, int],
        rotation: int = 0,
        mask: Mask | None = None,
    ) -> GreyImage:
        """Make it of an image, uint8 [H, W] grey or [H, W, 3] RGB; a small grey image is not copied."""
        if image.shape[2:] == (1,):
            image = image[..., 0]
        size = turned_size(image.shape[1::-1], rotation)
        # Turned when it is small.
        fitted = turned_size(_compared_size(size, canvas_size), rotation)
        if image.ndim == 3 or fitted != image.shape[1::-1]:
            image = shrink(image, fitted, as_grey=True)
        return cls(turn(image, rotation), size, rotation, mask)

    def turned(self, keypoints: np.ndarray) -> np.ndarray:
        """Move keypoints [M, 2] of the original image to the pixels of the turned one."""
        return turn_points(keypoints, self.rotation, turned_size(self.size, self.rotation))

    def turned_back(self, keypoints: np.ndarray) -> np.ndarray:
        """Move keypoints [M, 2] of the turned image to the pixels of the original."""
        return turn_points_back(keypoints, self.rotation, turned_size(self.size, self.rotation))

    def detail(self, canvas_size: tuple[int, int]) -> float:
        """Return the number of its pixels for one of the canvas, along a side; at least 1."""
        return canvas_pixel(self.pixels.shape[1::-1], canvas_size)

    def at(self, detail: float, canvas_size: tuple[int, int]) -> GreyImage:
        """Shrink it to a detail."""
        factor = self.detail(canvas_size) / detail
        if factor < _SAME_SCALE:
            return self
        width, height = (max(1, round(length / factor)) for length in self.pixels.shape[1::-1])
        return self._shrunk((width, height))

    @property
    def scale(self) -> np.ndarray:
        """Pixels per pixel of the original, float32 [2] (x, y)."""
        return np.divide(self.pixels.shape[1::-1], self.size, dtype=np.float32)

    def _shrunk(self, size: tuple[int, int]) -> GreyImage:
        if size == self.pixels.shape[1::-1]:
            return self
        return replace(self, pixels=shrink(self.pixels, size))


class Refiner:
    """Refines matches by a method; whoever keeps images for later pairs keeps what `prepare` returns.

    Args:
        method: ``none``, ``lucas_kanade``, or ``auto``: lucas_kanade if the keypoints are whole pixels.
        extractor: name of the model that extracts the keypoints.

    Attributes:
        is_on: False if matches stay as they are.

    Raises:
        ConfigError: there is no such method.
    """

    def __init__(self, method: str, extractor: str) -> None:
        if method not in REFINEMENTS:
            raise ConfigError(f"refine is '{method}'", allowed=", ".join(REFINEMENTS))
        self.is_on = method == "lucas_kanade" or (method == "auto" and extractor in WHOLE_PIXELS)

    def prepare(
        self,
        image: np.ndarray | None,
        canvas_size: tuple[int, int],
        rotation: int = 0,
        mask: Mask | None = None,
    ) -> GreyImage | None:
        """Make what `refine` takes of an image, uint8 [H, W] grey or [H, W, 3] RGB; None if it is off.

        `rotation` and `mask` are those of its extraction.
        """
        return GreyImage.of(image, canvas_size, rotation, mask) if self.is_on and image is not None else None

    def refine(
        self,
        matches: PairMatches,
        first: GreyImage | None,
        second: GreyImage | None,
        canvas_size: tuple[int, int],
    ) -> PairMatches:
        """Refine the matches of a pair; they stay as they are if it is off or an image is not at hand."""
        if not self.is_on or first is None or second is None:
            return matches
        return refine(matches, first, second, canvas_size)

    def refine_images(
        self,
        matches: Sequence[PairMatches],
        images: Sequence[np.ndarray | None],
        pairs: Sequence[tuple[int, int]],
        canvas_size: tuple[int, int],
        rotations: Sequence[int] | None = None,
        masks: Sequence[Mask | None] | None = None,
    ) -> list[PairMatches]:
        """Refine the matches of pairs (first, second) of images; for rotations and masks see `GreyImage`."""
        if not self.is_on:
            return list(matches)
        needed = {image for pair in pairs for image in pair}
        rotations, masks = rotations or [0] * len(images), masks or [None] * len(images)
        greys = {it: self.prepare(images[it], canvas_size, rotations[it], masks[it]) for it in needed}
        return [
            self.refine(of_pair, greys[first], greys[second], canvas_size)
            for of_pair, (first, second) in zip(matches, pairs, strict=True)
        ]


def refine(
    matches: PairMatches, first: GreyImage, second: GreyImage, canvas_size: tuple[int, int]
) -> PairMatches:
    """Move the second keypoints of the matches of two images, and check each match.

    The images are brought to the same scale on the canvas. The matches' indices stay.

    Args:
        canvas_size: (width, height) of the canvas that both were matched on.
    """
    if not len(matches):
        return replace(matches, checked=np.zeros(0, bool))
    detail = min(first.detail(canvas_size), second.detail(canvas_size))
    first, second = first.at(detail, canvas_size), second.at(detail, canvas_size)
    images = _of_one_size(first.pixels, second.pixels)
    points0 = (first.turned(matches.keypoints0) + 0.5) * first.scale - 0.5
    points1 = (second.turned(matches.keypoints1) + 0.5) * second.scale - 0.5
    moved, is_found = _flow(*images, points0, points1)
    is_near = is_found & (np.linalg.norm(moved - points1, axis=1) <= _LONGEST_MOVE * detail)
    back, is_found_back = _flow(*images[::-1], moved, points0)
    ends = (moved + 0.5) / second.scale - 0.5
    is_inside = ((ends >= 0) & (ends <= np.subtract(second.size, 1))).all(axis=1)
    is_good = is_near & is_inside
    ends = second.turned_back(ends)
    if second.mask is not None:
        is_good &= second.mask.allows(ends, turned_size(second.size, second.rotation))
    checked = is_good & is_found_back & (np.linalg.norm(back - points0, axis=1) <= _CHECK_TOLERANCE)
    keypoints1 = np.where(is_good[:, None], ends, matches.keypoints1)
    return replace(matches, keypoints1=keypoints1.astype(np.float32), checked=checked)


def _compared_size(size: tuple[int, int], canvas_size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) in which an image is compared."""
    on_canvas = canvas_pixel(size, canvas_size)
    for factor in range(math.floor(on_canvas / _LEAST_DETAIL), math.ceil(on_canvas / MOST_DETAIL) - 1, -1):
        if size[0] % factor == size[1] % factor == 0:
            return size[0] // factor, size[1] // factor
    return fitted_size(size, (MOST_DETAIL * canvas_size[0], MOST_DETAIL * canvas_size[1]))


def _flow(
    image0: np.ndarray, image1: np.ndarray, points0: np.ndarray, points1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find points [M, 2] of the first image in the second, near points [M, 2]; and whether they are found."""
    points, is_found, _ = cv2.calcOpticalFlowPyrLK(
        image0,
        image1,
        points0.astype(np.float32),
        points1.astype(np.float32),  # a copy, which OpenCV overwrites
        winSize=(_WINDOW, _WINDOW),
        maxLevel=0,
        criteria=_STOP,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return points, is_found.ravel() != 0


def _of_one_size(image0: np.ndarray, image1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Enlarge two images to the same size, as OpenCV needs it, by repeating their last rows and columns."""
    height, width = np.maximum(image0.shape, image1.shape).tolist()
    first, second = (
        cv2.copyMakeBorder(image, 0, height - image.shape[0], 0, width - image.shape[1], cv2.BORDER_REPLICATE)
        if image.shape != (height, width)
        else image
        for image in (image0, image1)
    )
    return first, second
