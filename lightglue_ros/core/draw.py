"""Draws matches: the images of a pair side by side, with a dot for each keypoint and lines for matches.

Hundreds of lines hide the images and each other. So only some are drawn, spread evenly over the first image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lightglue_ros.core.canvas import fitted_size, shrink
from lightglue_ros.core.features import PairMatches

COLOURINGS = ("score", "disparity")
MOST_LINES = 200
# Lower pictures have fewer lines in proportion. Most lines are nearly horizontal, and 200 of them hid the 193
# rows of a wide image.
_FULL_HEIGHT = 480

_FAINT = 0.5  # opacity of lines, of outliers and of keypoints without a match
_UNMATCHED = (120, 190, 255)
OUTLIER_COLOUR = (255, 0, 255)
# Disparities beyond these percentiles have the colours of the ends. Otherwise a few wrong matches would leave
# one colour for all others.
_PERCENTILES = (2, 98)


@dataclass(frozen=True)
class Style:
    """Look of a picture.

    Attributes:
        colouring: ``score``, from red (0) over yellow to green (1); or ``disparity``, the distance between
            the two positions of a match, from blue (smallest) over green to red (largest in the picture).
        most_lines: highest number of lines per pair, in proportion fewer in pictures of less than 480 rows;
            0 draws only dots.
    """

    colouring: str = "score"
    most_lines: int = MOST_LINES


@dataclass(frozen=True, eq=False)
class DrawnPair:
    """Pair of a rig, to be drawn; the attributes are arguments of `draw_matches`."""

    title: str
    image0: np.ndarray
    image1: np.ndarray
    matches: PairMatches
    inliers: np.ndarray | None = None


def draw_pairs(pairs: Sequence[DrawnPair], longest_side: int, style: Style | None = None) -> np.ndarray:
    """Draw one or more pairs of a rig, one below the other, as uint8 [H, W, 3] RGB; see `draw_matches`."""
    rows = [draw_matches(**vars(pair), style=style, longest_side=longest_side) for pair in pairs]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def draw_matches(
    image0: np.ndarray,
    image1: np.ndarray,
    matches: PairMatches,
    title: str | None = None,
    inliers: np.ndarray | None = None,
    *,
    unmatched: tuple[np.ndarray, np.ndarray] | None = None,
    style: Style | None = None,
    longest_side: int | None = None,
) -> np.ndarray:
    """Draw the matches of two images.

    Args:
        image0: uint8 [H, W] grey or [H, W, 3] RGB.
        image1: likewise, of any size.
        matches: in pixels of these images.
        title: text above the images; None is the number of matches.
        inliers: bool [M], True for matches that agree with the geometry; the others are drawn faintly in
            magenta.
        unmatched: keypoints [U0, 2] and [U1, 2] without a match, which are drawn faintly.
        style: see `Style`.
        longest_side: images whose longest side has more pixels are shrunk to it.

    Returns:
        uint8 [max(H0, H1), W0 + W1, 3] RGB.
    """
    style = style or Style()
    is_inlier = np.ones(len(matches), bool) if inliers is None else inliers
    colours, legend = _colours(matches, is_inlier, style.colouring)
    colours[~is_inlier] = OUTLIER_COLOUR
    text = _counts(len(matches), unmatched, inliers) if title is None else title
    lone = (np.zeros((0, 2), np.float32),) * 2 if unmatched is None else unmatched
    image0, points0, lone0 = _fit(image0, matches.keypoints0, lone[0], longest_side)
    image1, points1, lone1 = _fit(image1, matches.keypoints1, lone[1], longest_side)
    height, width = max(len(image0), len(image1)), image0.shape[1]
    picture = np.zeros((height, width + image1.shape[1], 3), np.uint8)
    picture[: len(image0), :width], picture[: len(image1), width:] = _rgb(image0), _rgb(image1)
    offset = np.array([width, 0], np.float32)
    ends = np.stack([points0, points1 + offset], axis=1)
    most = round(style.most_lines * min(1.0, height / _FULL_HEIGHT))
    lines = spread(points0, matches.scores, (width, len(image0)), most)
    faint = picture.copy()
    for point in (*lone0, *(lone1 + offset)):
        _draw_point(faint, point, _UNMATCHED)
    # Best matches last, on top.
    for match in lines[np.argsort(matches.scores[lines])]:
        first, second = map(_pixel, ends[match])
        cv2.line(faint, first, second, colours[match].tolist(), 1, cv2.LINE_AA)
    _draw_points(faint, ends[~is_inlier], colours[~is_inlier])
    cv2.addWeighted(faint, _FAINT, picture, 1.0 - _FAINT, 0.0, dst=picture)
    best_last = np.flatnonzero(is_inlier)[np.argsort(matches.scores[is_inlier])]
    _draw_points(picture, ends[best_last], colours[best_last])
    drawn = f"{len(lines)} lines" if len(lines) < len(matches) else ""
    _write(picture, ", ".join(filter(None, [text, drawn, legend])))
    return picture


def spread(points: np.ndarray, scores: np.ndarray, image_size: tuple[int, int], most: int) -> np.ndarray:
    """Choose at most `most` points, evenly over the image and the best of each place; return their indices.

    The image is divided into about `most` square cells. First each cell gives its best point, then its second
    best, and so on.

    Args:
        points: [M, 2] in pixels.
        scores: [M].
        image_size: (width, height).
    """
    if len(points) <= most:
        return np.arange(len(points))
    if most <= 0:
        return np.zeros(0, int)
    width, height = image_size
    column, row = np.floor(points / np.sqrt(width * height / most)).astype(int).T
    cell = row * (width + 1) + column
    order = np.lexsort((-scores, cell))
    rank = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
    return np.sort(order[np.lexsort((-scores[order], rank))][:most])


def _colours(matches: PairMatches, is_inlier: np.ndarray, colouring: str) -> tuple[np.ndarray, str]:
    """Return the colours of matches, uint8 [M, 3] RGB, and what they mean, in words."""
    if colouring == "score":
        return score_colours(matches.scores), ""
    disparities = np.linalg.norm(matches.keypoints1 - matches.keypoints0, axis=1)
    if not is_inlier.any():
        return score_colours(np.zeros(len(matches))), ""
    least, largest = np.percentile(disparities[is_inlier], _PERCENTILES)
    share = np.clip((disparities - least) / max(largest - least, 1e-6), 0.0, 1.0)
    colours = cv2.applyColorMap((255 * share).astype(np.uint8)[:, None], cv2.COLORMAP_JET)
    return colours[:, 0, ::-1].copy(), f"disparity {least:.0f} to {largest:.0f} px"


def _fit(
    image: np.ndarray, keypoints: np.ndarray, others: np.ndarray, longest_side: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shrink an image to a longest side; return it and the positions of two sets of keypoints in it."""
    image_size = image.shape[1], image.shape[0]
    size = image_size if longest_side is None else fitted_size(image_size, (longest_side, longest_side))
    if size == image_size:
        return image, keypoints, others
    scale = np.divide(size, image_size, dtype=np.float32)
    return shrink(image, size), (keypoints + 0.5) * scale - 0.5, (others + 0.5) * scale - 0.5


def _counts(matches: int, unmatched: tuple[np.ndarray, np.ndarray] | None, inliers: np.ndarray | None) -> str:
    text = f"{matches} matches"
    if unmatched is not None:
        text += f" of {matches + len(unmatched[0])} and {matches + len(unmatched[1])} keypoints"
    return text if inliers is None else f"{text}, {np.count_nonzero(inliers)} inliers"


def _draw_points(picture: np.ndarray, ends: np.ndarray, colours: np.ndarray) -> None:
    for both, colour in zip(ends, colours.tolist(), strict=True):
        for point in both:
            _draw_point(picture, point, colour)


def _draw_point(picture: np.ndarray, point: np.ndarray, colour: Sequence[int]) -> None:
    cv2.circle(picture, _pixel(point), 2, colour, -1, cv2.LINE_AA)


def score_colours(scores: np.ndarray) -> np.ndarray:
    """Return RGB colours, uint8 [M, 3], of scores from 0 (red) over yellow to 1 (green)."""
    red = np.clip(2.0 - 2.0 * scores, 0.0, 1.0)
    green = np.clip(2.0 * scores, 0.0, 1.0)
    return (255 * np.stack([red, green, np.zeros_like(red)], axis=-1)).astype(np.uint8)


def _rgb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def _pixel(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _write(picture: np.ndarray, text: str) -> None:
    """Write white text with a black edge: the text moved by a pixel, because OpenCV 5 widens thick text."""
    edge = [(x, y, (0, 0, 0)) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]
    for x, y, colour in (*edge, (0, 0, (255, 255, 255))):
        cv2.putText(picture, text, (8 + x, 22 + y), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, 1, cv2.LINE_AA)
