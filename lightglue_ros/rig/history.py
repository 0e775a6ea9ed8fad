"""Features of a rig's images, now and in past frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from lightglue_ros.core import Features
from lightglue_ros.core.refinement import GreyImage
from lightglue_ros.rig.rig import Rig, View

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ExtractedImage(Generic[T]):
    """An image and the features of this one image.

    Attributes:
        grey: for the refinement of its matches; None if they are not refined. It takes 0.3 MB for an image of
            640 x 480 pixels, and at most four times as much on a canvas of this size.
    """

    image: T
    features: Features
    grey: GreyImage | None = None

    @property
    def rotation(self) -> int:
        """Degrees clockwise by which the image was turned before extraction."""
        return self.features.rotations[0] if self.features.rotations else 0

    @property
    def num_keypoints(self) -> int:
        """Number of keypoints in the image."""
        return int(np.count_nonzero(self.features.mask))


class History(Generic[T]):
    """Past images of each camera, as many as the pairs of the rig need."""

    def __init__(self, rig: Rig) -> None:
        self._past: list[deque[ExtractedImage[T] | None]] = [deque() for _ in rig.cameras]
        self.set_rig(rig)

    def set_rig(self, rig: Rig) -> None:
        """Take other pairs of the same cameras; past images that these pairs need stay."""
        self._past = [deque(past, maxlen=rig.frames_back(camera)) for camera, past in enumerate(self._past)]

    def clear(self) -> None:
        """Forget all past images."""
        for past in self._past:
            past.clear()

    def forget(self, camera: int) -> None:
        """Forget the past images of a camera."""
        self._past[camera].clear()

    def look_up(self, view: View, present: Sequence[ExtractedImage[T] | None]) -> ExtractedImage[T] | None:
        """Find the image of a view in the present frame or a past one; None if it is missing."""
        if not view.back:
            return present[view.camera]
        past = self._past[view.camera]
        return past[-view.back] if view.back <= len(past) else None

    def add(self, present: Sequence[ExtractedImage[T] | None], between: Sequence[int]) -> None:
        """Make the present frame the newest of the past.

        Args:
            present: of each camera; None for a missing image.
            between: slower cameras that are between two images. The frame is none of theirs.
        """
        for camera, extracted in enumerate(present):
            if self._past[camera].maxlen and camera not in between:
                # A copy, because the arrays of a frame hold the features of all its images.
                self._past[camera].append(
                    extracted and replace(extracted, features=extracted.features.copy())
                )

    @property
    def incomplete(self) -> list[int]:
        """Cameras that have fewer past images than their pairs need."""
        return [camera for camera, past in enumerate(self._past) if len(past) != past.maxlen]
