"""Frames of a rig, before and after matching."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from lightglue_ros.core import Features, PairMatches
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import RejectedImageError
from lightglue_ros.rig.references import StoredImage
from lightglue_ros.rig.rig import Rig
from lightglue_ros.rig.verification import Verification


class FrameImage(Protocol):
    """An image of a camera that was checked and is not decoded yet."""

    @property
    def width(self) -> int:
        """Width of the original image in pixels."""

    @property
    def height(self) -> int:
        """Height of the original image in pixels."""

    def decode(self, mono16: Mono16Range) -> np.ndarray | Features:
        """Return uint8 [H, W] grey or [H, W, 3] RGB, or the features of an image extracted elsewhere.

        Raises:
            RejectedImageError: the image turns out to be broken.
        """

    def without_pixels(self: T) -> T:
        """Return the same image without its data, which may be megabytes."""


T = TypeVar("T")
ImageT = TypeVar("ImageT", bound=FrameImage)


@dataclass(frozen=True)
class RigFrame(Generic[T]):
    """Images of one moment, a slot for each camera.

    Attributes:
        images: image of each camera; None where the camera has none.
        stamps: times of the images in nanoseconds; None where the camera has no image.
        missing: cameras that have been in no frame for longer than the timeout. Any other camera without an
            image is `between` two images, or in frames of its own.
        epochs: for each camera a number that grows when its time is set back, and after a pause without
            frames; features of another epoch are forgotten.
    """

    images: tuple[T | None, ...]
    stamps: tuple[int | None, ...]
    missing: frozenset[int] = frozenset()
    epochs: tuple[int, ...] = ()

    @property
    def present(self) -> set[int]:
        """Cameras that have an image here."""
        return {camera for camera, image in enumerate(self.images) if image is not None}

    @property
    def between(self) -> list[int]:
        """Cameras that have no image here because they are between two images."""
        return [c for c, image in enumerate(self.images) if image is None and c not in self.missing]


@dataclass(frozen=True)
class FrameSettings:
    """Settings that may change from frame to frame.

    Attributes:
        rig: its pairs may change, its cameras may not.
        image_size: (width, height) of the canvas in pixels, before it is rounded up to the model's divisor.
        max_keypoints: cap per image; None is the model's K.
        match_threshold: least score of a match, 0 to 1.
        mono16: conversion of 16-bit images to 8 bits.
        geometry: fundamental, homography or essential verifies the matches; none does not.
        refine: method that refines the matches, see `Refiner`.
        rotations: for each camera the degrees clockwise by which its images are turned so that they are
            upright, 0, 90, 180 or 270; None is found out. Empty is no rotation.
    """

    rig: Rig
    image_size: tuple[int, int]
    max_keypoints: int | None
    match_threshold: float
    mono16: Mono16Range
    geometry: str = "none"
    refine: str = "auto"
    rotations: tuple[int | None, ...] = ()


@dataclass(frozen=True, eq=False)
class RigPair(Generic[T]):
    """Matches of one pair of the rig.

    Attributes:
        image0: first image, also where it belongs to a past frame or is a reference; None if it is missing.
            So is `image1`.
        matches: empty if an image is missing.
        verification: None if the matches were not verified.
        num_keypoints0: number of keypoints in the first image; 0 if it is missing. So is `num_keypoints1`.
        unverified: why they could not be verified, in words.
        rotations: of both images before extraction.
    """

    image0: T | StoredImage | None
    image1: T | StoredImage | None
    matches: PairMatches
    verification: Verification | None = None
    num_keypoints0: int = 0
    num_keypoints1: int = 0
    unverified: str = ""
    rotations: tuple[int, int] = (0, 0)

    @property
    def is_missing(self) -> bool:
        """True if one of the two images is missing."""
        return self.image0 is None or self.image1 is None

    @property
    def agreeing(self) -> int:
        """Number of inliers; of matches, if they were not verified."""
        found = self.verification
        return len(self.matches) if found is None else int(np.count_nonzero(found.inliers))


@dataclass(frozen=True, eq=False)
class FrameResult(Generic[T]):
    """Matches of one frame.

    Attributes:
        settings: that the frame was matched with.
        images: usable image of each camera; None where it is missing or was rejected.
        features: of each camera's image; None likewise.
        rejected: (camera, reason) of each image that turned out to be broken.
        pairs: one for each pair of the rig, in its order; empty if no camera has a usable image.
        unverified: reasons why pairs could not be verified, in words; empty if all were.
        inference: seconds inside ONNX Runtime.
    """

    settings: FrameSettings
    images: list[T | None]
    features: list[Features | None]
    rejected: list[tuple[int, RejectedImageError]]
    pairs: list[RigPair[T]] = field(default_factory=list)
    unverified: str = ""
    inference: float = 0.0

    @property
    def first_image(self) -> T | None:
        """Image of the first camera that has a usable one; None if no camera has."""
        return next((image for image in self.images if image is not None), None)

    def pairs_of_two_cameras(self) -> Iterator[tuple[str, tuple[int, int], RigPair[T], tuple[T, T]]]:
        """Yield name, cameras, matches and images of each pair of two cameras that has both images."""
        rig = self.settings.rig
        # There are no pairs if no camera has a usable image.
        for views, pair in zip(rig.pairs, self.pairs, strict=False):
            first, second = pair.image0, pair.image1
            if first is None or second is None or not rig.is_of_two_cameras(views):
                continue
            assert not isinstance(first, StoredImage)
            assert not isinstance(second, StoredImage)
            yield rig.name_of(views), (views[0].camera, views[1].camera), pair, (first, second)
