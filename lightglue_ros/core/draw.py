"""Draws matches: the images of a pair side by side with a line for each match, coloured by its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lightglue_ros.core.pipeline import PairMatches


@dataclass(frozen=True)
class DrawnPair:
    """A pair of a rig, to be drawn.

    Attributes:
        title: is written above it.
        image0: uint8 [H, W] grey or [H, W, 3] RGB.
        image1: the same, of any size.
        matches: in pixels of these images.
    """

    title: str
    image0: np.ndarray
    image1: np.ndarray
    matches: PairMatches


def draw_pairs(pairs: Sequence[DrawnPair], longest_side: int) -> np.ndarray:
    """Draw the pairs of a rig, one below the other.

    Args:
        pairs: at least one.
        longest_side: images are shrunk to so many pixels, never enlarged.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    rows = [_draw_shrunk(pair, longest_side) for pair in pairs]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def _draw_shrunk(pair: DrawnPair, longest_side: int) -> np.ndarray:
    image0, keypoints0 = _shrink(pair.image0, pair.matches.keypoints0, longest_side)
    image1, keypoints1 = _shrink(pair.image1, pair.matches.keypoints1, longest_side)
    matches = replace(pair.matches, keypoints0=keypoints0, keypoints1=keypoints1)
    return draw_matches(image0, image1, matches, pair.title)


def _shrink(image: np.ndarray, keypoints: np.ndarray, longest_side: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = image.shape[:2]
    if max(height, width) <= longest_side:
        return image, keypoints
    factor = longest_side / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    scale = np.array([size[0] / width, size[1] / height], np.float32)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), (keypoints + 0.5) * scale - 0.5


def draw_matches(
    image0: np.ndarray, image1: np.ndarray, matches: PairMatches, title: str | None = None
) -> np.ndarray:
    """Draw the matches of two images.

    Args:
        image0: uint8 [H, W] grey or [H, W, 3] RGB.
        image1: the same, of any size.
        matches: in pixels of these images.
        title: is written above them; None is how many there are.

    Returns:
        uint8 [max(H0, H1), W0 + W1, 3] RGB; lines go from red (score 0) over yellow to green (score 1).
    """
    picture = _side_by_side(image0, image1)
    offset = np.array([image0.shape[1], 0], np.float32)
    colours = score_colours(matches.scores)
    # Best matches last, on top.
    for match in np.argsort(matches.scores):
        start = _pixel(matches.keypoints0[match])
        end = _pixel(matches.keypoints1[match] + offset)
        colour = colours[match].tolist()
        # Smoothed lines take seven times as long.
        cv2.line(picture, start, end, colour, 1)
        cv2.circle(picture, start, 2, colour, -1, cv2.LINE_AA)
        cv2.circle(picture, end, 2, colour, -1, cv2.LINE_AA)
    _write(picture, f"{len(matches)} matches" if title is None else title)
    return picture


def score_colours(scores: np.ndarray) -> np.ndarray:
    """RGB colours, uint8 [M, 3], for scores in 0 to 1: red, yellow, green."""
    red = np.clip(2.0 - 2.0 * scores, 0.0, 1.0)
    green = np.clip(2.0 * scores, 0.0, 1.0)
    return (255 * np.stack([red, green, np.zeros_like(red)], axis=-1)).astype(np.uint8)


def _side_by_side(image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
    height = max(image0.shape[0], image1.shape[0])
    picture = np.zeros((height, image0.shape[1] + image1.shape[1], 3), np.uint8)
    picture[: image0.shape[0], : image0.shape[1]] = _rgb(image0)
    picture[: image1.shape[0], image0.shape[1] :] = _rgb(image1)
    return picture


def _rgb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def _pixel(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _write(picture: np.ndarray, text: str) -> None:
    for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(picture, text, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, thickness, cv2.LINE_AA)
