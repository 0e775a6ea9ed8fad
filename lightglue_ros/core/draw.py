"""Draws matches: the images of a pair side by side with a line for each match, coloured by its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lightglue_ros.core.canvas import fitted_size, shrink
from lightglue_ros.core.features import PairMatches

_FAINT = 0.5  # opacity of faint points and lines
_UNMATCHED = (120, 190, 255)
OUTLIER_COLOUR = (255, 0, 255)


@dataclass(frozen=True, eq=False)
class DrawnPair:
    """Pair of a rig, to be drawn; the attributes are arguments of `draw_matches`."""

    title: str
    image0: np.ndarray
    image1: np.ndarray
    matches: PairMatches
    inliers: np.ndarray | None = None


def draw_pairs(pairs: Sequence[DrawnPair], longest_side: int) -> np.ndarray:
    """Draw one or more pairs of a rig, one below the other, as uint8 [H, W, 3] RGB.

    Images whose longest side has more than `longest_side` pixels are shrunk to it.
    """
    rows = []
    for pair in pairs:
        image0, keypoints0 = _fit(pair.image0, pair.matches.keypoints0, longest_side)
        image1, keypoints1 = _fit(pair.image1, pair.matches.keypoints1, longest_side)
        matches = replace(pair.matches, keypoints0=keypoints0, keypoints1=keypoints1)
        rows.append(draw_matches(image0, image1, matches, pair.title, inliers=pair.inliers))
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def _fit(image: np.ndarray, keypoints: np.ndarray, longest_side: int) -> tuple[np.ndarray, np.ndarray]:
    image_size = image.shape[1], image.shape[0]
    size = fitted_size(image_size, (longest_side, longest_side))
    if size == image_size:
        return image, keypoints
    scale = np.divide(size, image_size, dtype=np.float32)
    return shrink(image, size), (keypoints + 0.5) * scale - 0.5


def draw_matches(
    image0: np.ndarray,
    image1: np.ndarray,
    matches: PairMatches,
    title: str | None = None,
    *,
    unmatched: tuple[np.ndarray, np.ndarray] | None = None,
    inliers: np.ndarray | None = None,
) -> np.ndarray:
    """Draw the matches of two images.

    Args:
        image0: uint8 [H, W] grey or [H, W, 3] RGB.
        image1: likewise, of any size.
        matches: in pixels of these images.
        title: text above the images; None is the number of matches.
        unmatched: keypoints [U0, 2] and [U1, 2] without a match, which are drawn faintly.
        inliers: bool [M], True for matches that agree with the geometry; the others are drawn faintly in
            magenta.

    Returns:
        uint8 [max(H0, H1), W0 + W1, 3] RGB; lines go from red (score 0) over yellow to green (score 1).
    """
    height, width = max(len(image0), len(image1)), image0.shape[1]
    picture = np.zeros((height, width + image1.shape[1], 3), np.uint8)
    picture[: len(image0), :width], picture[: len(image1), width:] = _rgb(image0), _rgb(image1)
    offset = np.array([width, 0], np.float32)
    ends = np.stack([matches.keypoints0, matches.keypoints1 + offset], axis=1)
    is_inlier = np.ones(len(matches), bool) if inliers is None else inliers
    # Without faint lines no copy is needed; the viewer draws many pictures per second.
    if unmatched is not None or inliers is not None:
        faint = picture.copy()
        for keypoint in () if unmatched is None else (*unmatched[0], *(unmatched[1] + offset)):
            _draw_point(faint, keypoint, _UNMATCHED)
        for match in np.flatnonzero(~is_inlier):
            _draw_match(faint, ends[match], OUTLIER_COLOUR)
        cv2.addWeighted(faint, _FAINT, picture, 1.0 - _FAINT, 0.0, dst=picture)
    colours = score_colours(matches.scores)
    # Best matches last, on top.
    for match in np.argsort(matches.scores):
        if is_inlier[match]:
            _draw_match(picture, ends[match], colours[match].tolist())
    _write(picture, _counts(len(matches), unmatched, inliers) if title is None else title)
    return picture


def _counts(matches: int, unmatched: tuple[np.ndarray, np.ndarray] | None, inliers: np.ndarray | None) -> str:
    text = f"{matches} matches"
    if unmatched is not None:
        text += f" of {matches + len(unmatched[0])} and {matches + len(unmatched[1])} keypoints"
    return text if inliers is None else f"{text}, {np.count_nonzero(inliers)} inliers"


def _draw_match(picture: np.ndarray, ends: np.ndarray, colour: Sequence[int]) -> None:
    # Anti-aliased lines take seven times as long.
    cv2.line(picture, _pixel(ends[0]), _pixel(ends[1]), colour, 1)
    for point in ends:
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
