"""Tracks: keypoints that show one point of the scene have one id, through time and across cameras.

`Tracker` takes the matches of one frame after the other:

- Keypoints of the present frame that are matched with each other are one point. Better scores join first.
- A point that is matched with a keypoint of a past frame takes over its id. The oldest track wins a conflict.
  Of a track's own matches, the newest past frame wins, and then the better score. A pair further back
  (`left@-5:left`) gives a track its id back that was lost in between.
- All other keypoints begin tracks, with new ids.

An id stands at most once in a camera and frame, and is never given to another track. After the time of a
camera was set back, its keypoints take over no ids from its images before that.

The ends of refined matches lie next to the keypoints. A track goes on from its own last position, by the step
from one end of its match to the other, so that its positions fit each other.

The same frames in the same order always give the same tracks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lightglue_ros.core import Features, PairMatches
from lightglue_ros.core.features import MATCH_ARRAYS
from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.frame import FrameResult, ImageT, RigFrame, RigPair
from lightglue_ros.rig.processor import Calibration
from lightglue_ros.rig.rig import Rig
from lightglue_ros.rig.verification import Intrinsics


@dataclass(frozen=True, eq=False)
class CameraTracks:
    """Tracks of the M keypoints of one image, best detected keypoint first.

    Attributes:
        ids: uint64 [M], from 1; each once.
        ages: uint32 [M], number of frames since the track began, this one included: 1 is new.
        keypoints: float32 [M, 2], pixels of the original image.
        rays: float32 [M, 2], normalised, undistorted coordinates; [0, 2] if the intrinsics are not known.
        scores: float32 [M], detector score.
    """

    ids: np.ndarray
    ages: np.ndarray
    keypoints: np.ndarray
    rays: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class FrameKeypoints:
    """Keypoints of one frame, and the matches that may join them to tracks.

    Attributes:
        rig: cameras and pairs.
        keypoints: float32 [M, 2] of each camera, in pixels; None if its image is missing.
        scores: float32 [M] of each camera, detector score; None likewise.
        matches: of each pair of the rig.
        intrinsics: of each camera; None if they are not known.
        between: see `RigFrame`.
        epochs: see `RigFrame`.
    """

    rig: Rig
    keypoints: Sequence[np.ndarray | None]
    scores: Sequence[np.ndarray | None]
    matches: Sequence[PairMatches]
    intrinsics: Sequence[Intrinsics | None]
    between: Sequence[int] = ()
    epochs: Sequence[int] = ()

    @classmethod
    def of_result(
        cls, frame: RigFrame[ImageT], result: FrameResult[ImageT], calibration: Calibration | None = None
    ) -> FrameKeypoints:
        """Take keypoints and matches from the result of a frame; of verified matches only the inliers."""
        is_verified = result.settings.geometry != "none"
        matches = [_joining(pair, is_verified) for pair in result.pairs]
        intrinsics = [
            None if image is None else _intrinsics(calibration, camera, (image.width, image.height))
            for camera, image in enumerate(result.images)
        ]
        return cls._make(frame, result.settings.rig, result.features, matches, intrinsics)

    @classmethod
    def of_unmatched(
        cls, frame: RigFrame[ImageT], rig: Rig, features: Sequence[Features | None]
    ) -> FrameKeypoints:
        """Take the keypoints of a frame that was added to the history without being matched."""
        matches = [PairMatches.empty()] * len(rig.pairs)
        return cls._make(frame, rig, features, matches, [None] * len(features))

    @classmethod
    def _make(
        cls,
        frame: RigFrame[ImageT],
        rig: Rig,
        features: Sequence[Features | None],
        matches: Sequence[PairMatches],
        intrinsics: Sequence[Intrinsics | None],
    ) -> FrameKeypoints:
        # Copies, because the arrays of a frame hold the features of all its images.
        keypoints = [None if it is None else it.keypoints[it.mask].copy() for it in features]
        scores = [None if it is None else it.scores[it.mask].copy() for it in features]
        return cls(rig, keypoints, scores, matches, intrinsics, frame.between, frame.epochs)


def _joining(pair: RigPair[ImageT], is_verified: bool) -> PairMatches:
    """Return the matches that may join keypoints."""
    if not is_verified or pair.is_missing:
        return pair.matches
    if pair.verification is None:
        return PairMatches.empty()
    matches, inliers = pair.matches, pair.verification.inliers
    arrays = {name: getattr(matches, name)[inliers] for name in MATCH_ARRAYS}
    checked = None if matches.checked is None else matches.checked[inliers]
    return replace(matches, **arrays, checked=checked)


def _intrinsics(
    calibration: Calibration | None, camera: int, image_size: tuple[int, int]
) -> Intrinsics | None:
    try:
        return None if calibration is None else calibration.intrinsics(camera, image_size)
    except ConfigError:
        return None


_NO_POINTS = np.zeros((0, 2), np.float32)


class _Image(NamedTuple):
    """Past image: for each keypoint its track's id, the frame in which the track began, and its position."""

    ids: np.ndarray
    begins: np.ndarray
    positions: np.ndarray


class _Joins(NamedTuple):
    """Matches between keypoints of the present frame, which are numbered over all cameras.

    `first` and `second` are int64 [M]. `first_ends` and `second_ends` are float32 [M, 2], in pixels.
    """

    first: np.ndarray
    second: np.ndarray
    first_ends: np.ndarray
    second_ends: np.ndarray
    scores: np.ndarray


class _Claims(NamedTuple):
    """Matches of keypoints of the present frame with tracks; keypoints are numbered over all cameras.

    Attributes:
        nodes: int64 [M], the keypoints.
        ids: int64 [M], the tracks.
        begins: int64 [M], frames in which the tracks began.
        ranks: int64 [M], lower is better: fewer frames back, and then a track of the same camera.
        scores: float32 [M].
        positions: float32 [M, 2], of the tracks in the present frame.
    """

    nodes: np.ndarray
    ids: np.ndarray
    begins: np.ndarray
    ranks: np.ndarray
    scores: np.ndarray
    positions: np.ndarray


_NO_NUMBERS, _NO_SCORES = np.zeros(0, np.int64), np.zeros(0, np.float32)
_NO_JOINS = _Joins(_NO_NUMBERS, _NO_NUMBERS, _NO_POINTS, _NO_POINTS, _NO_SCORES)
_NO_CLAIMS = _Claims(_NO_NUMBERS, _NO_NUMBERS, _NO_NUMBERS, _NO_NUMBERS, _NO_SCORES, _NO_POINTS)


class Tracker:
    """Tracker of keypoints through frames and across cameras; see the head of this module.

    Hand it every frame that a `FrameProcessor` matched, in their order:
    `tracker.update(FrameKeypoints.of_result(frame, processor.process(frame, settings)))`.
    """

    def __init__(self) -> None:
        self._frame = 0
        self._next_id = 1
        self._past: list[deque[_Image | None]] = []
        self._epochs: Sequence[int] = ()

    def forget(self) -> None:
        """Forget all past images; new tracks get ids that no track had before."""
        self._past = []

    def update(self, frame: FrameKeypoints) -> list[CameraTracks | None]:
        """Return the tracks of each camera's keypoints; None for a camera whose image is missing."""
        self._frame += 1
        self._remember_only_what_pairs_need(frame)
        counts = [0 if one is None else len(one) for one in frame.keypoints]
        starts = np.cumsum([0, *counts])
        cameras = np.repeat(np.arange(len(counts)), counts)
        positions = np.concatenate([one for one in frame.keypoints if one is not None] or [_NO_POINTS])
        joins, claims = self._read_matches(frame, starts)
        points, joined = _join(joins, cameras)
        ids, begins = self._take_over(points, claims, cameras)
        is_start = (points == np.arange(len(points))) & (begins == self._frame)
        _move(positions, is_start, claims, ids, joins, joined)
        images = [
            None if one is None else _Image(ids[start:end], begins[start:end], positions[start:end])
            for one, start, end in zip(frame.keypoints, starts[:-1], starts[1:], strict=True)
        ]
        for camera, image in enumerate(images):
            if camera not in frame.between:
                self._past[camera].append(image)
        return [
            None if image is None or scores is None else self._tracks(image, scores, intrinsics)
            for image, scores, intrinsics in zip(images, frame.scores, frame.intrinsics, strict=True)
        ]

    def _remember_only_what_pairs_need(self, frame: FrameKeypoints) -> None:
        """Forget what `History` forgets, so that both have the same past."""
        known = self._past or [deque() for _ in frame.keypoints]
        self._past = [deque(past, frame.rig.frames_back(camera)) for camera, past in enumerate(known)]
        for past, before, epoch in zip(self._past, self._epochs, frame.epochs, strict=False):
            if epoch != before:
                past.clear()
        self._epochs = frame.epochs

    def _read_matches(self, frame: FrameKeypoints, starts: np.ndarray) -> tuple[_Joins, _Claims]:
        joins, claims = [_NO_JOINS], [_NO_CLAIMS]
        for views, matches in zip(frame.rig.pairs, frame.matches, strict=True):
            if any(map(frame.rig.reference_of, views)):
                continue
            ends = [(matches.indices0, matches.keypoints0), (matches.indices1, matches.keypoints1)]
            if views[0].back:
                views, ends = views[::-1], ends[::-1]
            (now, then), ((nodes, here), (others, there)) = views, ends
            nodes = nodes + starts[now.camera]
            if not then.back:
                joins.append(_Joins(nodes, others + starts[then.camera], here, there, matches.scores))
            elif len(matches):
                image = self._past[then.camera][-then.back]
                assert image is not None  # it has matches
                ranks = np.full(len(nodes), 2 * then.back + (now.camera != then.camera))
                ids, begins, positions = (array[others] for array in image)
                claims.append(_Claims(nodes, ids, begins, ranks, matches.scores, here + (positions - there)))
        columns = [list(map(np.concatenate, zip(*parts, strict=True))) for parts in (joins, claims)]
        return _Joins(*columns[0]), _Claims(*columns[1])

    def _take_over(
        self, points: np.ndarray, claims: _Claims, cameras: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return for each keypoint the id of its point, and the frame in which its track began.

        `points` is the point of each keypoint, see `_join`.
        """
        seen_by = np.zeros(len(points), np.int64)
        np.bitwise_or.at(seen_by, points, 1 << cameras)
        seen = seen_by.tolist()
        order = np.lexsort((-claims.scores, claims.ranks, claims.ids))
        columns = order, points[claims.nodes[order]], claims.ids[order]
        taken: dict[int, int] = {}
        covered: dict[int, int] = {}
        for claim, point, track in np.stack(columns, axis=1).tolist():
            if point not in taken and not covered.get(track, 0) & seen[point]:
                taken[point] = claim
                covered[track] = covered.get(track, 0) | seen[point]
        ids, begins = np.zeros(len(points), np.int64), np.full(len(points), self._frame)
        known, winners = np.array(list(taken), np.int64), np.array(list(taken.values()), np.int64)
        ids[known], begins[known] = claims.ids[winners], claims.begins[winners]
        is_new = (points == np.arange(len(points))) & (ids == 0)
        count = int(np.count_nonzero(is_new))
        ids[is_new] = self._next_id + np.arange(count)
        self._next_id += count
        return ids[points], begins[points]

    def _tracks(self, image: _Image, scores: np.ndarray, intrinsics: Intrinsics | None) -> CameraTracks:
        rays = _NO_POINTS
        if intrinsics is not None and len(image.ids):
            rays = intrinsics.rays(image.positions).astype(np.float32)
        ages = (self._frame - image.begins + 1).astype(np.uint32)
        return CameraTracks(image.ids.astype(np.uint64), ages, image.positions, rays, scores)


def _join(joins: _Joins, cameras: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join the keypoints of the present frame to points, each with at most one keypoint of a camera.

    Args:
        joins: the matches between them.
        cameras: int64 [N], the camera of each keypoint.

    Returns:
        For each keypoint the number of its point, which is that of the point's first keypoint, int64 [N]; and
        the rows of the matches that joined two points.
    """
    points = list(range(len(cameras)))
    keypoints = [[node] for node in points]
    seen = (1 << cameras).tolist()
    joined = []
    order = np.argsort(-joins.scores, kind="stable")
    for row, *nodes in np.stack([order, joins.first[order], joins.second[order]], axis=1).tolist():
        kept, merged = sorted(points[node] for node in nodes)
        if not seen[kept] & seen[merged]:
            seen[kept] |= seen[merged]
            keypoints[kept] += keypoints[merged]
            for node in keypoints[merged]:
                points[node] = kept
            joined.append(row)
    return np.array(points, np.int64), np.array(joined, np.int64)


def _move(
    positions: np.ndarray,
    is_start: np.ndarray,
    claims: _Claims,
    ids: np.ndarray,
    joins: _Joins,
    joined: np.ndarray,
) -> None:
    """Move the keypoints of tracks to where their refined matches end.

    Args:
        positions: float32 [N, 2], of the keypoints.
        is_start: bool [N], True for the first keypoint of a new track, which stays.
        claims: the matches with tracks.
        ids: int64 [N], track of each keypoint.
        joins: the matches between the keypoints.
        joined: rows of the matches that joined two points.
    """
    order = np.lexsort((-claims.scores, claims.ranks))
    followed = order[claims.ids[order] == ids[claims.nodes[order]]]
    nodes, best = np.unique(claims.nodes[followed], return_index=True)
    positions[nodes] = claims.positions[followed[best]]
    is_placed = is_start.copy()
    is_placed[nodes] = True
    first, second, first_ends, second_ends, _ = (column[joined] for column in joins)
    # The joins of a point are a tree, so each round places the next keypoints of those that are left.
    while True:
        forth, back = is_placed[first] & ~is_placed[second], is_placed[second] & ~is_placed[first]
        if not (forth | back).any():
            return
        # In this order, so that matches that are not refined leave the keypoints as they are to the bit.
        positions[second[forth]] = second_ends[forth] + (positions[first[forth]] - first_ends[forth])
        positions[first[back]] = first_ends[back] + (positions[second[back]] - second_ends[back])
        is_placed[second[forth]] = is_placed[first[back]] = True
