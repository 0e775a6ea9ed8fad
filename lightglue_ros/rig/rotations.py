"""Finds out by matching how cameras are turned, and looks again when their matches collapse.

A camera is tried in four orientations against its partners in the pairs of the rig, and keeps the one with
the most matches. A trial takes about as long as four frames; between trials nothing is lost. Only rotations
against other cameras show in matches: if all cameras of a group are found out, its first one stays as it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np

from lightglue_ros.core import Features, MatchPipeline
from lightglue_ros.core.best_rotation import extract_turned
from lightglue_ros.core.rotation import ROTATIONS, turn_all
from lightglue_ros.rig.rig import Rig

# With fewer matches in the best orientation, or fewer than this many times those in the second best, a trial
# tells nothing and is repeated. XFeat finds up to 114 matches in a wrong orientation, all of them wrong.
LEAST_MATCHES = 20
LEAST_RATIO = 1.5
# Frames from the first such trial to the next one; the pause doubles up to the highest.
RETRY_FRAMES = 10
MOST_RETRY_FRAMES = 320
# A camera is tried again after this many frames in a row that have less than this share of the median of its
# matches in earlier frames.
COLLAPSED_FRAMES = 10
COLLAPSED_SHARE = 0.25
_MEDIAN_FRAMES = 30


class RotationFinder:
    """Knows the rotations of the cameras of a rig.

    Args:
        rig: the cameras, and the pairs that tell who is tried against whom.
        given: rotation of each camera, None to find it out; empty is no rotation.

    Attributes:
        rotations: of each camera in degrees clockwise; empty if none is given. Replaced as a whole.
        found: rotation of each camera that was found since somebody cleared it.
    """

    def __init__(self, rig: Rig, given: Sequence[int | None]) -> None:
        self.given = tuple(given)
        self.rotations = tuple(it or 0 for it in given)
        self.found: dict[int, int] = {}
        self._known: set[int] = set()
        self._pause, self._next_pause = 0, RETRY_FRAMES
        automatic = [camera for camera, it in enumerate(given) if it is None]
        self._counts: dict[int, deque[int]] = {c: deque(maxlen=_MEDIAN_FRAMES) for c in automatic}
        self._collapsed = dict.fromkeys(automatic, 0)
        self.set_rig(rig)

    def set_rig(self, rig: Rig) -> None:
        """Take other pairs of the same cameras; what was found stays."""
        self._partners: dict[int, set[int]] = {camera: set() for camera in range(len(rig.cameras))}
        for first, second in rig.pairs:
            if first.camera != second.camera and {first.camera, second.camera} <= set(self._partners):
                self._partners[first.camera].add(second.camera)
                self._partners[second.camera].add(first.camera)
        # Every camera is reached from a given one or from the first of its group, which stays as it is.
        reached = set(self._partners) - set(self._counts)
        self._automatic: set[int] = set()
        while True:
            new = {it for camera in reached for it in self._partners[camera]} - reached
            self._automatic |= new
            left = sorted(set(self._partners) - reached - new)
            if not new and not left:
                break
            reached |= new or {left[0]}

    @property
    def is_searching(self) -> bool:
        """True if a camera's rotation is not found yet."""
        return bool(self._automatic - self._known)

    def search(self, pipeline: MatchPipeline, images: Sequence[np.ndarray | None]) -> None:
        """Try the cameras that are not found yet in the images of a frame, None for a missing camera."""
        searched = self._automatic - self._known
        if not searched:
            return
        if self._pause:
            self._pause -= 1
            return
        present = {camera for camera, image in enumerate(images) if image is not None}
        chosen = dict.fromkeys(present - searched, 0)
        left = sorted(searched & present)
        if not any(self._partners[camera] & chosen.keys() for camera in left):
            return
        # Known cameras are turned before. A run has the images of a frame, because on a GPU and in static
        # exports it cannot have more.
        turned = turn_all(images, [0 if c in searched else it for c, it in enumerate(self.rotations)])
        features = extract_turned(pipeline, turned)
        is_unsure = False
        while (camera := next((it for it in left if self._partners[it] & chosen.keys()), None)) is not None:
            left.remove(camera)
            partners = sorted(self._partners[camera] & chosen.keys())
            others = [features[chosen[it] // 90].of_image(it) for it in partners]
            counts = _count_matches(pipeline, [of.of_image(camera) for of in features], others)
            second, best = sorted(counts)[-2:]
            if best < LEAST_MATCHES or best < LEAST_RATIO * second:
                is_unsure = True
                continue
            chosen[camera] = self.found[camera] = ROTATIONS[int(np.argmax(counts))]
            self._known.add(camera)
        self.rotations = tuple(
            chosen.get(c, it) if c in searched else it for c, it in enumerate(self.rotations)
        )
        self._pause = self._next_pause if is_unsure else 0
        self._next_pause = min(2 * self._next_pause, MOST_RETRY_FRAMES) if is_unsure else RETRY_FRAMES

    def take(self, matches: Iterable[tuple[int, int, int]]) -> None:
        """Take the numbers of matches in a frame: (first camera, second camera, matches) of each pair."""
        counts: dict[int, int] = {}
        for first, second, count in matches:
            if first != second and {first, second} <= set(self._partners):
                for camera in self._automatic & {first, second} & self._known:
                    counts[camera] = counts.get(camera, 0) + count
        for camera, count in counts.items():
            past = self._counts[camera]
            if len(past) >= COLLAPSED_FRAMES and count < COLLAPSED_SHARE * median(past):
                self._collapsed[camera] += 1
            else:
                self._collapsed[camera] = 0
                past.append(count)
            if self._collapsed[camera] >= COLLAPSED_FRAMES:
                self._known.discard(camera)
                self._collapsed[camera] = 0
                past.clear()


def _count_matches(
    pipeline: MatchPipeline, orientations: Sequence[Features], others: Sequence[Features]
) -> list[int]:
    """Return the number of matches of each orientation of an image with others."""
    pairs = [(0, number) for number in range(1, len(others) + 1)]
    return [
        sum(map(len, pipeline.match_features(Features.concatenate([turned, *others]), pairs)))
        for turned in orientations
    ]
