"""Compares keypoints and matches by their coordinates, because equal scores may come in another order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightglue_ros.core import PairMatches

NEAR = 0.1  # pixels


def points_of(matches: PairMatches) -> np.ndarray:
    """Return the ends of matches, float32 [M, 4]: x0, y0, x1, y1."""
    return np.concatenate([matches.keypoints0, matches.keypoints1], axis=1)


def parts_of(matches: PairMatches) -> tuple[np.ndarray, ...]:
    """Return the ends and the scores of matches."""
    return matches.keypoints0, matches.keypoints1, matches.scores


def nearest(found: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the row of `found` [M, C] next to each of `expected` [L, C]; largest differences and indices."""
    if not len(found) or not len(expected):
        return np.full(len(expected), np.inf), np.zeros(len(expected), int)
    distances = np.abs(found[None] - expected[:, None]).max(axis=-1)
    index = distances.argmin(axis=1)
    return distances[np.arange(len(expected)), index], index


def equal_share(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the share of rows [M, C] that both have, of the larger of the two; 1 if both are empty."""
    if not len(found) and not len(expected):
        return 1.0
    common = min((nearest(*rows)[0] < NEAR).sum() for rows in ((found, expected), (expected, found)))
    return float(common / max(len(found), len(expected)))


def score_difference(
    found: np.ndarray, found_scores: np.ndarray, expected: np.ndarray, expected_scores: np.ndarray
) -> float:
    """Return the largest difference of scores among rows that both have."""
    distance, index = nearest(found, expected)
    both = distance < NEAR
    if not both.any():
        return 0.0
    return float(np.abs(found_scores[index[both]] - expected_scores[both]).max())


def compare(
    found: Sequence[PairMatches], expected: Sequence[PairMatches], least: float = 1.0, most: float = 1e-3
) -> tuple[bool, dict[str, float]]:
    """Compare matches of pairs.

    Args:
        found: matches of each pair.
        expected: the same pairs.
        least: share of equal matches that is enough.
        most: largest difference of scores that is allowed.
    """
    shares, differences = [1.0], [0.0]
    for ours, theirs in zip(found, expected, strict=True):
        if all(map(np.array_equal, parts_of(ours), parts_of(theirs))):
            continue
        ends = points_of(ours), points_of(theirs)
        shares.append(equal_share(*ends))
        differences.append(score_difference(ends[0], ours.scores, ends[1], theirs.scores))
    share, difference = min(shares), max(differences)
    ok = share >= least and difference <= most
    return ok, {"equal": share, "score_difference": difference, "matches": sum(map(len, expected))}
