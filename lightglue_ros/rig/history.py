"""Matches the frames of a rig, also with frames before: each image is extracted once.

The features of a camera's past images are kept, as many as the pairs need and no more. A pair with an image
that is not there (the camera is missing, or there is no such frame yet) is left out of the run and comes
out empty.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from lightglue_ros.core import Features, MatchPipeline, PairMatches
from lightglue_ros.rig.rig import Rig, View
from lightglue_ros.rig.verification import Verification

T = TypeVar("T")


@dataclass(frozen=True)
class RigPair(Generic[T]):
    """What became of one pair of a rig.

    Attributes:
        label0: what the caller said of the first image; None where that image is not there.
        label1: the same of the second image.
        matches: empty where an image is not there.
        verification: of the matches; None where they were not verified.
    """

    label0: T | None
    label1: T | None
    matches: PairMatches
    verification: Verification | None = None

    @property
    def is_missing(self) -> bool:
        """Whether one of the two images is not there."""
        return self.label0 is None or self.label1 is None


@dataclass(frozen=True)
class _Image(Generic[T]):
    """An image of which only the features and the label are left: the features are those of one image."""

    features: Features
    label: T


class RigMatcher(Generic[T]):
    """Extracts each image of a rig once and matches its pairs, all in one run.

    One thread may `extract` a frame while another one matches the last.

    Args:
        pipeline: of a split model, for the features of past images are matched again.
        rig: its cameras and pairs.

    Attributes:
        extracted: how many images were extracted.
    """

    def __init__(self, pipeline: MatchPipeline, rig: Rig) -> None:
        self.extracted = 0
        self._pipeline = pipeline
        self._past: list[deque[_Image[T] | None]] = [deque() for _ in rig.cameras]
        self.set_rig(rig)

    def set_rig(self, rig: Rig) -> None:
        """Take other pairs of the same cameras; what is kept of past frames stays, if they need it."""
        self._rig = rig
        self._past = [deque(past, maxlen=rig.frames_back(camera)) for camera, past in enumerate(self._past)]

    def forget(self) -> None:
        """Forget all past frames."""
        for past in self._past:
            past.clear()

    def match(
        self, images: Sequence[np.ndarray | None], labels: Sequence[T], between: Sequence[int] = ()
    ) -> list[RigPair[T]]:
        """Extract the images of a frame and match its pairs; see `extract` and `match_features`."""
        return self.match_features(self.extract(images), labels, between)

    def extract(self, images: Sequence[np.ndarray | Features | None]) -> list[Features | None]:
        """Extract the images of a frame in one run.

        Args:
            images: of each camera, uint8 [H, W] grey or [H, W, 3] RGB; features of one image, extracted
                elsewhere, are handed on as they are; None where there is none.

        Returns:
            The features of each camera's image.

        Raises:
            ImageError: an image has another type or shape.
        """
        slots = [slot for slot, image in enumerate(images) if isinstance(image, np.ndarray)]
        extracted = self._pipeline.extract([images[slot] for slot in slots])
        self.extracted += len(slots)
        features = [image if isinstance(image, Features) else None for image in images]
        for row, slot in enumerate(slots):
            features[slot] = extracted.of_image(row)
        return features

    def match_features(
        self, features: Sequence[Features | None], labels: Sequence[T], between: Sequence[int] = ()
    ) -> list[RigPair[T]]:
        """Match the pairs of a frame.

        Args:
            features: of each camera's image, as `extract` makes them; None where there is none.
            labels: what is to be said of each image (a stamp, a header); comes back with its pairs, also
                when the image belongs to the past.
            between: slower cameras that have no image because they are between two; such a frame does not
                count as one of theirs.

        Returns:
            One `RigPair` for each pair of the rig, in their order.
        """
        present = _labelled(features, labels)
        views = [
            (self._look(present, first), self._look(present, second)) for first, second in self._rig.pairs
        ]
        results = iter(self._match([(a, b) for a, b in views if a is not None and b is not None]))
        self._remember(present, between)
        return [
            RigPair(
                None if first is None else first.label,
                None if second is None else second.label,
                PairMatches.empty() if first is None or second is None else next(results),
            )
            for first, second in views
        ]

    def keep(
        self, features: Sequence[Features | None], labels: Sequence[T], between: Sequence[int] = ()
    ) -> None:
        """Take a frame that is not matched itself as one of the past; see `match_features`."""
        self._remember(_labelled(features, labels), between)

    @property
    def remembers_all(self) -> bool:
        """Whether as many past frames are kept as the pairs need; then no older one has any effect."""
        return all(len(past) == past.maxlen for past in self._past)

    def _look(self, present: list[_Image[T] | None], view: View) -> _Image[T] | None:
        if not view.back:
            return present[view.camera]
        past = self._past[view.camera]
        return past[-view.back] if view.back <= len(past) else None

    def _match(self, pairs: list[tuple[_Image[T], _Image[T]]]) -> list[PairMatches]:
        if not pairs:
            return []
        # By identity, for an image may be in several pairs and goes in once.
        images = list({id(image): image for pair in pairs for image in pair}.values())
        slots = {id(image): slot for slot, image in enumerate(images)}
        features = Features.concatenate([image.features for image in images])
        return self._pipeline.match_features(features, [(slots[id(a)], slots[id(b)]) for a, b in pairs])

    def _remember(self, present: list[_Image[T] | None], between: Sequence[int]) -> None:
        for camera, image in enumerate(present):
            past = self._past[camera]
            if past.maxlen and camera not in between:
                # A copy, for the arrays of a frame hold the features of all its images.
                past.append(None if image is None else _Image(image.features.copy(), image.label))


def _labelled(features: Sequence[Features | None], labels: Sequence[T]) -> list[_Image[T] | None]:
    return [
        None if of_image is None else _Image(of_image, label)
        for of_image, label in zip(features, labels, strict=True)
    ]
