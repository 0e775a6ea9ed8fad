"""Pictures of the pairs of a `Matches` message, the same in the node, in the viewer and of a bag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightglue_ros.core import PairMatches
from lightglue_ros.core.draw import DrawnPair, Style, draw_pairs
from lightglue_ros.rosdata.messages import message_to_inliers, message_to_matches

# Longest side of an image in the picture, in pixels.
LONGEST_SIDE = 640
# Stands for an image that is missing.
_BLACK = np.zeros((240, 320), np.uint8)

# First and second image of a pair, uint8 [H, W] or [H, W, 3] RGB; None if it is missing.
DecodedPair = tuple[np.ndarray | None, np.ndarray | None]


def draw_message(message: Any, images: Sequence[DecodedPair], style: Style) -> np.ndarray:
    """Draw all pairs of a message, of rclpy or of rosbags, as uint8 [H, W, 3] RGB.

    Args:
        message: lightglue_ros/Matches.
        images: of each of its pairs.
        style: see `Style`.
    """
    pairs = [_drawn_pair(pair, both) for pair, both in zip(message.pairs, images, strict=True)]
    return draw_pairs(pairs, LONGEST_SIDE, style)


def _drawn_pair(message: Any, images: DecodedPair) -> DrawnPair:
    is_seen = all(image is not None for image in images)
    is_missing = message.status == message.STATUS_MISSING
    inliers = message_to_inliers(message)
    says = "missing" if is_missing else f"{len(message.scores)} matches"
    says += "" if inliers is None else f", {np.count_nonzero(inliers)} inliers"
    says += "" if is_seen or is_missing else ", no image"
    title = f"{message.camera0}:{message.camera1}  {says}"
    first, second = (_BLACK if image is None else image for image in images)
    if not is_seen:
        return DrawnPair(title, first, second, PairMatches.empty())
    return DrawnPair(title, first, second, message_to_matches(message), inliers)
