"""Features of images and matches of pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from lightglue_ros.core.rotation import turn_points, turn_points_back, turned_size
from lightglue_ros.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Features:
    """Keypoints of N images, padded to K slots; true slots of the mask come first, best score first.

    Attributes:
        keypoints: float32 [N, K, 2], original pixels, centre of the first pixel at (0, 0).
        scores: float32 [N, K], detector score, 0 in padded slots.
        mask: bool [N, K], True in slots that hold a keypoint.
        descriptors: float32 [N, K, D], unit length, 0 in padded slots.
        image_sizes: float32 [N, 2], (width, height) of the original images.
        rotations: for each image the degrees clockwise by which it was turned before extraction (see
            `rotation`); None if no image was.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    mask: np.ndarray
    descriptors: np.ndarray
    image_sizes: np.ndarray
    rotations: tuple[int, ...] | None = None

    @classmethod
    def empty(cls, images: int, slots: int, width: int) -> Features:
        """Make features of N = `images` images without a keypoint, K = `slots` and D = `width`."""
        return cls(
            np.zeros((images, slots, 2), np.float32),
            np.zeros((images, slots), np.float32),
            np.zeros((images, slots), bool),
            np.zeros((images, slots, width), np.float32),
            np.ones((images, 2), np.float32),
        )

    @classmethod
    def pad(
        cls,
        keypoints: np.ndarray,
        scores: np.ndarray,
        descriptors: np.ndarray,
        image_size: tuple[int, int],
        slots: int,
    ) -> Features:
        """Put one image's keypoints [M, 2], scores [M] and descriptors [M, D] into K = `slots` slots.

        The best keypoints come first; those beyond K are left out. `image_size` is the original image's
        (width, height).
        """
        count = min(len(keypoints), slots)
        features = cls.empty(1, slots, descriptors.shape[1])
        features.keypoints[0, :count] = keypoints[:count]
        features.scores[0, :count] = scores[:count]
        features.mask[0, :count] = True
        features.descriptors[0, :count] = descriptors[:count]
        features.image_sizes[0] = image_size
        return features

    @classmethod
    def concatenate(cls, parts: Sequence[Features]) -> Features:
        """Join the images of at least one part, in their order; all parts are of one model."""
        together = LazyFeatures.join(parts)
        if together is not None:
            return together
        arrays = zip(*(part.by_name().values() for part in parts), strict=True)
        return _features(map(np.concatenate, arrays), _joined_rotations(parts))

    def of_image(self, slot: int) -> Features:
        """Return the features of one image, without a copy."""
        return self.of_images(slice(slot, slot + 1))

    def of_images(self, slots: slice) -> Features:
        """Return the features of some images, without a copy."""
        arrays = (array[slots] for array in self.by_name().values())
        return _features(arrays, self.rotations and self.rotations[slots])

    def copy(self) -> Features:
        """Copy the arrays."""
        return _features((array.copy() for array in self.by_name().values()), self.rotations)

    def turned_back(self, rotations: Sequence[int]) -> Features:
        """Return features of turned images in the pixels of the originals.

        Args:
            rotations: degrees clockwise by which each image was turned.
        """
        sizes = _turned_sizes(self.image_sizes, rotations)
        keypoints = _turned_keypoints(turn_points_back, self.keypoints, self.mask, rotations, sizes)
        return replace(self, keypoints=keypoints, image_sizes=sizes, rotations=tuple(rotations))

    @property
    def num_images(self) -> int:
        """N, the number of images."""
        return len(self.keypoints)

    def check(self, slots: int, width: int, model: str) -> None:
        """Check that a model can match the features, with K = `slots` and D = `width`.

        Raises:
            ConfigError: they are of another model, or have an empty slot before a keypoint.
        """
        if self.descriptors.shape[1:] != (slots, width):
            found = self.descriptors.shape
            raise ConfigError(
                f"the features have {found[1]} slots per image and descriptors of {found[2]} numbers",
                allowed=f"{slots} and {width}, those of model {model}",
                fix="extract them with the same model; Features.pad fills up slots",
            )
        # The matcher reads as many slots as the image with the most keypoints has.
        if (self.mask[:, 1:] & ~self.mask[:, :-1]).any():
            raise ConfigError(
                "the mask of the features has an empty slot before a keypoint",
                allowed="keypoints in the first slots, best score first",
                fix="make them with Features.pad",
            )

    def by_name(self) -> dict[str, np.ndarray]:
        """Return the arrays by their names among the tensors (see `contract`), in the order of the fields."""
        return {tensor: getattr(self, field) for field, tensor in _TENSORS.items()}

    def inputs(self) -> dict[str, np.ndarray]:
        """Return the arrays by name as the matcher takes them: as if the turned images were the originals.

        The matcher compares positions, and would find no match between an upright image and one on its head.
        """
        arrays = self.by_name()
        if self.rotations is not None:
            arrays["keypoints"] = _turned_keypoints(
                turn_points, self.keypoints, self.mask, self.rotations, self.image_sizes
            )
            arrays["image_sizes"] = _turned_sizes(self.image_sizes, self.rotations)
        return arrays


def _features(arrays: Iterable[np.ndarray], rotations: tuple[int, ...] | None) -> Features:
    keypoints, scores, mask, descriptors, image_sizes = arrays
    return Features(keypoints, scores, mask, descriptors, image_sizes, rotations)


def _turned_sizes(sizes: np.ndarray, rotations: Sequence[int]) -> np.ndarray:
    pairs = [turned_size(size, rotation) for size, rotation in zip(sizes, rotations, strict=True)]
    return np.array(pairs, np.float32).reshape(-1, 2)


def _turned_keypoints(
    move: Callable[[np.ndarray, int, Sequence[float]], np.ndarray],
    keypoints: np.ndarray,
    mask: np.ndarray,
    rotations: Sequence[int],
    sizes: np.ndarray,
) -> np.ndarray:
    """Move the keypoints [N, K, 2] of N images; padded slots stay 0."""
    moved = [move(*of_image) for of_image in zip(keypoints, rotations, sizes, strict=True)]
    return np.where(mask[..., None], np.array(moved).reshape(keypoints.shape), np.float32(0))


def _joined_rotations(parts: Sequence[Features]) -> tuple[int, ...] | None:
    if all(part.rotations is None for part in parts):
        return None
    return tuple(it for part in parts for it in part.rotations or (0,) * part.num_images)


# Fields of Features, and the tensors of the contract that they hold.
_TENSORS = {
    "keypoints": "keypoints",
    "scores": "keypoint_scores",
    "mask": "keypoint_mask",
    "descriptors": "descriptors",
    "image_sizes": "image_sizes",
}


class FeatureSource(Protocol):
    """Holder of the features of N images, such as a GPU's memory."""

    def array(self, name: str) -> np.ndarray:
        """Return a tensor of all N images by its name in the contract."""

    def keep(self, slot: int) -> FeatureSource | None:
        """Copy an image's features to where they stay, as the only ones there; None if there is no place."""


class LazyFeatures(Features):
    """Features that lie elsewhere; an array is fetched when it is first asked for.

    Args:
        places: of each image, where its features lie, and which image of that source it is.
        rotations: see `Features`; the sources have the keypoints in the pixels of the turned images.
    """

    places: tuple[tuple[FeatureSource, int], ...]

    def __init__(
        self, places: Iterable[tuple[FeatureSource, int]], rotations: tuple[int, ...] | None = None
    ) -> None:
        vars(self).update(places=tuple(places), rotations=rotations)

    def __getattr__(self, name: str) -> np.ndarray:
        """Fetch an array, and keep it."""
        if name not in _TENSORS:
            raise AttributeError(name)
        array = np.array([source.array(_TENSORS[name])[slot] for source, slot in self.places])
        if self.rotations is not None and name == "image_sizes":
            array = _turned_sizes(array, self.rotations)
        if self.rotations is not None and name == "keypoints":
            array = _turned_keypoints(turn_points_back, array, self.mask, self.rotations, self.image_sizes)
        vars(self)[name] = array
        return array

    @classmethod
    def join(cls, parts: Sequence[Features]) -> LazyFeatures | None:
        """Join parts that lie elsewhere, without fetching them; None if one does not."""
        lazy = [part for part in parts if isinstance(part, LazyFeatures)]
        if len(lazy) < len(parts):
            return None
        return cls([place for part in lazy for place in part.places], _joined_rotations(lazy))

    @property
    def num_images(self) -> int:
        """N, the number of images."""
        return len(self.places)

    def of_images(self, slots: slice) -> Features:
        """Return the features of some images, without fetching them."""
        return LazyFeatures(self.places[slots], self.rotations and self.rotations[slots])

    def copy(self) -> Features:
        """Copy the features to where later ones do not overwrite them, without fetching them if possible."""
        kept = [source.keep(slot) for source, slot in self.places]
        sources = [source for source in kept if source is not None]
        if len(sources) < len(kept):
            return super().copy()
        return LazyFeatures([(source, 0) for source in sources], self.rotations)

    def turned_back(self, rotations: Sequence[int]) -> Features:
        """Return features of turned images in the pixels of the originals, without fetching them."""
        return LazyFeatures(self.places, tuple(rotations))


# The arrays of PairMatches, which messages and files have under the same names.
MATCH_ARRAYS = ("keypoints0", "keypoints1", "scores", "indices0", "indices1")


@dataclass(frozen=True, eq=False)
class PairMatches:
    """Matches of one pair of images, M of them, best detected keypoint of the first image first.

    Attributes:
        keypoints0: float32 [M, 2], pixels of the first original image.
        keypoints1: float32 [M, 2], pixels of the second original image.
        scores: float32 [M], in (0, 1].
        indices0: int32 [M], slot of each keypoint among the keypoints of the first image.
        indices1: int32 [M], slot of each keypoint among the keypoints of the second image.
        layers: number of transformer layers that the pair went through.
        checked: bool [M], True for a refined match that leads from the second image back to its first
            keypoint (see `refinement`); None if the matches were not refined. Refinement moves `keypoints1`
            by up to two canvas pixels from the keypoints of the second image's features.
    """

    keypoints0: np.ndarray
    keypoints1: np.ndarray
    scores: np.ndarray
    indices0: np.ndarray
    indices1: np.ndarray
    layers: int
    checked: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of_outputs(
        cls, outputs: Mapping[str, np.ndarray], number: int, keypoints0: np.ndarray, keypoints1: np.ndarray
    ) -> PairMatches:
        """Take pair `number` out of the outputs of a matcher; keypoints [K, 2] are those of both images."""
        partners = outputs["matches"][number]
        indices0 = np.flatnonzero(partners >= 0).astype(np.int32)
        indices1 = partners[indices0]
        scores, layers = outputs["match_scores"][number][indices0], int(outputs["layers"][number])
        return cls(keypoints0[indices0], keypoints1[indices1], scores, indices0, indices1, layers)

    @classmethod
    def of_pairs(
        cls, outputs: Mapping[str, np.ndarray], pairs: np.ndarray, keypoints: np.ndarray
    ) -> list[PairMatches]:
        """Take the first pairs, int64 [P, 2], out of the outputs; a static export may have matched more.

        The keypoints [N, K, 2] are those of the images that the pairs name.
        """
        return [
            cls.of_outputs(outputs, number, keypoints[first], keypoints[second])
            for number, (first, second) in enumerate(pairs)
        ]

    @classmethod
    def empty(cls) -> PairMatches:
        """Make the result of a pair that was not matched."""
        points, indices = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
        return cls(points, points, np.zeros(0, np.float32), indices, indices, 0)


def pair_indices(pairs: Sequence[tuple[int, int]], count: int) -> np.ndarray:
    """Check pairs of `count` images and return them as int64 [P, 2].

    Raises:
        ConfigError: a pair is not two whole numbers, or names an image that is not there.
    """
    try:
        indices = np.array(list(pairs)) if len(pairs) else np.zeros((0, 2), np.int64)
    except ValueError:  # pairs of different lengths
        indices = np.zeros(0)
    if indices.ndim != 2 or indices.shape[1] != 2 or indices.dtype.kind not in "iu":
        allowed = "a list of (first, second), two whole numbers each"
        raise ConfigError(f"pairs are {list(pairs)}", allowed=allowed)
    if len(indices) and (indices.min() < 0 or indices.max() >= count):
        allowed = f"(first, second) with both from 0 to {count - 1}" if count else "no pairs without images"
        named = [tuple(pair) for pair in indices.tolist()]
        raise ConfigError(f"pairs {named} name images that are not there", allowed=allowed)
    return indices.astype(np.int64)
