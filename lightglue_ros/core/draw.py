"""Draws matches: the images of a pair side by side, with a dot for each keypoint and lines for matches.

Hundreds of lines hide the images and each other. So only some are drawn, spread evenly over the first image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np

from lightglue_ros.core.canvas import fitted_size
from lightglue_ros.core.features import PairMatches
from lightglue_ros.core.shrinking import shrink

# Of two pictures. Keypoints with tracks have an age as well.
COLOURINGS = ("score", "disparity")
AGE = "age"
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
        colouring: ``score``, from red (0) over yellow to green (1); ``disparity``, the distance between the
            two positions of a match, from blue (smallest) over green to red (largest in the picture); or
            ``age``, the frames since the track of a keypoint began, from blue (new) over green to red (oldest
            in the picture), with trails.
        most_lines: highest number of lines per pair, in proportion fewer in pictures of less than 480 rows;
            0 draws only dots.
    """

    colouring: str = "score"
    most_lines: int = MOST_LINES


@dataclass(frozen=True, eq=False)
class ImageKeypoints:
    """All K keypoints of an image, which the matches' indices count, and their tracks if they are known.

    Attributes:
        positions: float32 [K, 2], in pixels.
        ages: int [K], frames since the track of each keypoint began, 1 is new; None without tracks.
        trails: float32 [L, K, 2], positions in the L frames before, newest first; NaN where a track was not
            seen.
    """

    positions: np.ndarray
    ages: np.ndarray | None = None
    trails: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 2), np.float32))


BothKeypoints = tuple[ImageKeypoints | None, ImageKeypoints | None]


@dataclass(frozen=True, eq=False)
class DrawnPair:
    """Pair of a rig, to be drawn; the attributes are arguments of `draw_matches`."""

    title: str
    image0: np.ndarray
    image1: np.ndarray
    matches: PairMatches
    inliers: np.ndarray | None = None
    keypoints: BothKeypoints = (None, None)


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
    keypoints: BothKeypoints = (None, None),
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
        keypoints: all keypoints of the two images, or None. Those without a match are drawn faintly.
        style: see `Style`.
        longest_side: images whose longest side has more pixels are shrunk to it.

    Returns:
        uint8 [max(H0, H1), W0 + W1, 3] RGB.
    """
    style = style or Style()
    is_inlier = np.ones(len(matches), bool) if inliers is None else inliers
    colours, legend = _colours(matches, is_inlier, keypoints, style.colouring)
    colours[~is_inlier] = OUTLIER_COLOUR
    text = _counts(len(matches), keypoints, inliers) if title is None else title
    image0, scale0 = _fit(image0, longest_side)
    image1, scale1 = _fit(image1, longest_side)
    height, width = max(len(image0), len(image1)), image0.shape[1]
    picture = np.zeros((height, width + image1.shape[1], 3), np.uint8)
    picture[: len(image0), :width], picture[: len(image1), width:] = _rgb(image0), _rgb(image1)
    place0, place1 = partial(_place, scale=scale0, left=0), partial(_place, scale=scale1, left=width)
    ends = np.stack([place0(matches.keypoints0), place1(matches.keypoints1)], axis=1)
    most = round(style.most_lines * min(1.0, height / _FULL_HEIGHT))
    lines = spread(ends[:, 0], matches.scores, (width, len(image0)), most)
    faint = picture.copy()
    sides = [
        (of_image, _keypoint_colours(of_image, keypoints, style.colouring), place, indices)
        for of_image, place, indices in zip(
            keypoints, (place0, place1), (matches.indices0, matches.indices1), strict=True
        )
        if of_image is not None
    ]
    for of_image, own_colours, place, indices in sides:
        lone = np.delete(np.arange(len(of_image.positions)), indices)
        for point, colour in zip(place(of_image.positions[lone]), own_colours[lone].tolist(), strict=True):
            _draw_point(faint, point, colour)
    # Best matches last, on top.
    for match in lines[np.argsort(matches.scores[lines])]:
        first, second = map(_pixel, ends[match])
        cv2.line(faint, first, second, colours[match].tolist(), 1, cv2.LINE_AA)
    _draw_points(faint, ends[~is_inlier], colours[~is_inlier])
    cv2.addWeighted(faint, _FAINT, picture, 1.0 - _FAINT, 0.0, dst=picture)
    if style.colouring == AGE:
        for of_image, own_colours, place, _ in sides:
            _draw_trails(picture, place(of_image.positions), place(of_image.trails), own_colours)
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


def _colours(
    matches: PairMatches, is_inlier: np.ndarray, keypoints: BothKeypoints, colouring: str
) -> tuple[np.ndarray, str]:
    """Return the colours of matches, uint8 [M, 3] RGB, and what they mean, in words."""
    if colouring == "score":
        return score_colours(matches.scores), ""
    if colouring == AGE:
        # A joined match has the same track in both images; the second one is the newer.
        for of_image, indices in zip(keypoints[::-1], (matches.indices1, matches.indices0), strict=True):
            if of_image is not None and of_image.ages is not None:
                oldest = _oldest(keypoints)
                return _age_colours(of_image.ages[indices], oldest), f"age 1 to {oldest} frames"
        return np.tile(np.array(_UNMATCHED, np.uint8), (len(matches), 1)), "no tracks"
    disparities = np.linalg.norm(matches.keypoints1 - matches.keypoints0, axis=1)
    if not is_inlier.any():
        return score_colours(np.zeros(len(matches))), ""
    least, largest = np.percentile(disparities[is_inlier], _PERCENTILES)
    share = np.clip((disparities - least) / max(largest - least, 1e-6), 0.0, 1.0)
    return _blue_to_red(share), f"disparity {least:.0f} to {largest:.0f} px"


def _keypoint_colours(of_image: ImageKeypoints, keypoints: BothKeypoints, colouring: str) -> np.ndarray:
    """Return the colours of an image's keypoints and trails, uint8 [K, 3] RGB."""
    if colouring == AGE and of_image.ages is not None:
        return _age_colours(of_image.ages, _oldest(keypoints))
    return np.tile(np.array(_UNMATCHED, np.uint8), (len(of_image.positions), 1))


def _oldest(keypoints: BothKeypoints) -> int:
    """Return the highest age in both images, at least 1."""
    ages = [it.ages for it in keypoints if it is not None and it.ages is not None]
    return max((int(it.max(initial=1)) for it in ages), default=1)


def _age_colours(ages: np.ndarray, oldest: int) -> np.ndarray:
    """Return RGB colours of ages [K]. Steps are logarithmic, because most tracks are young."""
    return _blue_to_red(np.log(np.maximum(ages, 1)) / np.log(max(oldest, 2)))


def _blue_to_red(share: np.ndarray) -> np.ndarray:
    """Return RGB colours, uint8 [K, 3], of numbers from 0 (blue) over green to 1 (red)."""
    colours = cv2.applyColorMap((255 * share).astype(np.uint8)[:, None], cv2.COLORMAP_JET)
    return np.zeros((0, 3), np.uint8) if colours is None else colours[:, 0, ::-1].copy()


def _fit(image: np.ndarray, longest_side: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Shrink an image to a longest side; return it and its scale, float32 [2] (x, y)."""
    image_size = image.shape[1], image.shape[0]
    size = image_size if longest_side is None else fitted_size(image_size, (longest_side, longest_side))
    scale = np.divide(size, image_size, dtype=np.float32)
    return (image if size == image_size else shrink(image, size)), scale


def _place(points: np.ndarray, scale: np.ndarray, left: int) -> np.ndarray:
    """Move points [..., 2] of an image to the picture, in which the shrunk image begins at a column."""
    return (points + 0.5) * scale - 0.5 + np.array([left, 0], np.float32)


def _counts(matches: int, keypoints: BothKeypoints, inliers: np.ndarray | None) -> str:
    text = f"{matches} matches"
    first, second = keypoints
    if first is not None and second is not None:
        text += f" of {len(first.positions)} and {len(second.positions)} keypoints"
    return text if inliers is None else f"{text}, {np.count_nonzero(inliers)} inliers"


def _draw_trails(picture: np.ndarray, ends: np.ndarray, trails: np.ndarray, colours: np.ndarray) -> None:
    """Draw trails [L, K, 2] that end at points [K, 2]."""
    if not len(trails):
        return
    paths = np.concatenate([ends[None], trails]).transpose(1, 0, 2)
    is_seen = np.isfinite(paths[..., 0])
    for path in np.flatnonzero(is_seen[:, 1:].any(axis=1)):
        points = np.rint(paths[path][is_seen[path]]).astype(np.int32)
        cv2.polylines(picture, [points], False, colours[path].tolist(), 1, cv2.LINE_AA)


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
