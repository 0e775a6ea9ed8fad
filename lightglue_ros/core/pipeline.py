"""From images to matches: one run of the graphs for all cameras and all pairs.

from lightglue_ros.core import MatchPipeline

pipeline = MatchPipeline("xfeat", image_size=(640, 480))
(pair,) = pipeline.match([left, right], [(0, 1)])
pair.keypoints0, pair.keypoints1, pair.scores
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import numpy as np

from lightglue_ros.core.canvas import Canvas, CanvasBatch
from lightglue_ros.core.contract import EXTRACTOR, MATCHER, PIPELINE, GraphInfo
from lightglue_ros.core.session import GraphSession
from lightglue_ros.core.store import ModelFiles, find_model
from lightglue_ros.errors import ConfigError, ModelError

DEFAULT_IMAGE_SIZE = (640, 480)
# filter_threshold of the reference implementation (cvg/LightGlue, lightglue.py, default_conf).
DEFAULT_MATCH_THRESHOLD = 0.1


@dataclass(frozen=True)
class Features:
    """Keypoints of N images, padded to K slots; true slots of the mask come first, best score first.

    Attributes:
        keypoints: float32 [N, K, 2], original pixels, centre of the first pixel at (0, 0).
        scores: float32 [N, K], detector score, 0 in padded slots.
        mask: bool [N, K], whether the slot holds a keypoint.
        descriptors: float32 [N, K, D], unit length, 0 in padded slots.
        image_sizes: float32 [N, 2], (width, height) of the original images.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    mask: np.ndarray
    descriptors: np.ndarray
    image_sizes: np.ndarray

    @classmethod
    def pad(
        cls,
        keypoints: np.ndarray,
        scores: np.ndarray,
        descriptors: np.ndarray,
        image_size: tuple[int, int],
        slots: int,
    ) -> Features:
        """The features of one image in K = `slots` slots; of more keypoints the first are taken.

        Args:
            keypoints: [M, 2], best score first.
            scores: [M].
            descriptors: [M, D].
            image_size: (width, height) of the original image.
            slots: K of the model.
        """
        count = min(len(keypoints), slots)

        def padded(values: np.ndarray) -> np.ndarray:
            filled = np.zeros((1, slots, *values.shape[1:]), np.float32)
            filled[0, :count] = values[:count]
            return filled

        return cls(
            padded(keypoints),
            padded(scores),
            np.arange(slots)[None] < count,
            padded(descriptors),
            np.array([image_size], np.float32),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Features]) -> Features:
        """The features of all images of the parts (at least one part, all of one model), in their order."""
        return cls(
            *(np.concatenate(arrays) for arrays in zip(*(part._arrays() for part in parts), strict=True))
        )

    def of_image(self, slot: int) -> Features:
        """The features of one image, without a copy."""
        return Features(*(array[slot : slot + 1] for array in self._arrays()))

    def copy(self) -> Features:
        """The same features in arrays of their own."""
        return Features(*(array.copy() for array in self._arrays()))

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.keypoints, self.scores, self.mask, self.descriptors, self.image_sizes


@dataclass(frozen=True)
class PairMatches:
    """Matches of one pair of images, M of them, best detected keypoint of the first image first.

    Attributes:
        keypoints0: float32 [M, 2], pixels of the first original image.
        keypoints1: float32 [M, 2], pixels of the second original image.
        scores: float32 [M], in (0, 1].
        indices0: int32 [M], slot of each keypoint among the keypoints of the first image.
        indices1: int32 [M], the same for the second image.
        layers: how many transformer layers the pair went through.
    """

    keypoints0: np.ndarray
    keypoints1: np.ndarray
    scores: np.ndarray
    indices0: np.ndarray
    indices1: np.ndarray
    layers: int

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls) -> PairMatches:
        """No matches, of a pair that went through no layer."""
        points, indices = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
        return cls(points, points, np.zeros(0, np.float32), indices, indices, 0)


@dataclass
class StageTimes:
    """Seconds that each stage has taken.

    Attributes:
        canvas: resizing and letterboxing.
        extract: inside ONNX Runtime, images to features.
        match: inside ONNX Runtime, features to matches; with a pipeline.onnx images to matches.
        unpad: dropping the padding.
    """

    canvas: float = 0.0
    extract: float = 0.0
    match: float = 0.0
    unpad: float = 0.0

    @property
    def inference(self) -> float:
        """Seconds inside ONNX Runtime."""
        return self.extract + self.match

    def __sub__(self, before: StageTimes) -> StageTimes:
        """What was taken since then."""
        return StageTimes(*(getattr(self, it.name) - getattr(before, it.name) for it in fields(self)))


class MatchPipeline:
    """Extracts keypoints of N images and matches P pairs of them, each in one run.

    Use it from one thread at a time: the next call uses the canvases again.

    Args:
        model: name in the model store, folder of a model, or path of a pipeline.onnx.
        provider: ``auto`` (cuda where it really loads, else cpu) or by name: ``cpu``, ``cuda``, ``tensorrt``,
            ``openvino`` (see `GraphSession`).
        image_size: (width, height) of the canvas in pixels, rounded up to the model's divisor.
        max_keypoints: at most this many keypoints per image, 1 to the model's K; None is K.
        match_threshold: least score of a match, 0 to 1.
        num_threads: threads of the CPU provider; 0 is one per core.
        allow_fallback: take the CPU where a provider asked for by name does not load.
        cuda_graph: see `GraphSession`.
        only: ``extractor`` or ``matcher`` loads that graph of a split model alone, for a process that only
            extracts, or matches what others have extracted.

    Raises:
        ConfigError, ModelError, ProviderError: see their texts.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "xfeat",
        provider: str = "auto",
        image_size: tuple[int, int] = DEFAULT_IMAGE_SIZE,
        *,
        max_keypoints: int | None = None,
        match_threshold: float = DEFAULT_MATCH_THRESHOLD,
        num_threads: int = 0,
        allow_fallback: bool = False,
        cuda_graph: bool = False,
        only: str | None = None,
    ) -> None:
        options = {
            "provider": provider,
            "num_threads": num_threads,
            "allow_fallback": allow_fallback,
            "cuda_graph": cuda_graph,
            "beside_others": only is not None,
        }
        files = find_model(model)
        self._extractor = self._matcher = self._pipeline = None
        if not files.is_split:
            self._pipeline = GraphSession(files.pipeline, PIPELINE, **options)
        if files.is_split and only != MATCHER:
            self._extractor = GraphSession(files.extractor, EXTRACTOR, **options)
        if files.is_split and only != EXTRACTOR:
            self._matcher = GraphSession(files.matcher, MATCHER, **options)
        if self._extractor and self._matcher:
            self._check_same_model(files)
        self._session = self._extractor or self._matcher or self._pipeline
        self.set_image_size(image_size)
        self.max_keypoints = self.info.max_keypoints if max_keypoints is None else max_keypoints
        self.match_threshold = match_threshold
        self._times = StageTimes()
        self.warm_up()

    @property
    def times(self) -> StageTimes:
        """Seconds that each stage has taken so far: one frame's are the difference to those before it."""
        return replace(self._times)

    @property
    def info(self) -> GraphInfo:
        """What the model says about itself."""
        return self._session.info

    @property
    def provider(self) -> str:
        """The provider that really loaded."""
        return self._session.provider

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the canvas, after rounding up to the model's divisor."""
        return self._canvas.size

    @property
    def can_extract_alone(self) -> bool:
        """Whether the model is split, so that features can be kept and matched later."""
        return self._pipeline is None

    @property
    def max_keypoints(self) -> int:
        """At most this many keypoints per image, 1 to the model's K."""
        return int(self._max_keypoints[0])

    @max_keypoints.setter
    def max_keypoints(self, value: int) -> None:
        self.check(max_keypoints=value)
        self._max_keypoints = np.array([value], np.int64)

    @property
    def match_threshold(self) -> float:
        """Least score of a match, 0 to 1."""
        return float(self._match_threshold[0])

    @match_threshold.setter
    def match_threshold(self, value: float) -> None:
        self.check(match_threshold=value)
        self._match_threshold = np.array([value], np.float32)

    def set_image_size(self, image_size: tuple[int, int]) -> None:
        """Change the canvas to (width, height) pixels; `image_size` says what it was rounded up to.

        Raises:
            ConfigError: the size is empty, or the model was exported for another one.
        """
        self._canvas = self._new_canvas(image_size)

    def check(
        self,
        *,
        image_size: tuple[int, int] | None = None,
        max_keypoints: int | None = None,
        match_threshold: float | None = None,
        images: int | None = None,
        pairs: int | None = None,
    ) -> None:
        """Check values before they are set or matched with, from any thread; None is not checked.

        Args:
            image_size: (width, height) of the canvas.
            max_keypoints: cap per image.
            match_threshold: least score of a match.
            images: how many there will be in one run.
            pairs: how many there will be in one run.

        Raises:
            ConfigError: one of them cannot be set, or is too many for a static export.
        """
        self._check_fits(images or 0, self.info.batch, "images")
        self._check_fits(pairs or 0, self.info.pairs, "pairs")
        slots = self.info.max_keypoints
        if max_keypoints is not None and max_keypoints not in range(1, slots + 1):
            raise ConfigError(
                f"max_keypoints is {max_keypoints}",
                allowed=f"1 to {slots}, the keypoint slots of this model",
                fix=f"lightglue_ros export {self.info.model} --split --max-keypoints {max(max_keypoints, 1)}",
            )
        if match_threshold is not None and not 0.0 <= match_threshold <= 1.0:
            raise ConfigError(f"match_threshold is {match_threshold}", allowed="0 to 1")
        if image_size is not None:
            self._new_canvas(image_size)

    def need_split(self) -> None:
        """Do nothing with a split model.

        Raises:
            ModelError: the model is a pipeline.onnx, which keeps no features.
        """
        if self._pipeline is not None:
            raise ModelError(
                f"{self._pipeline.path} goes from images to matches and has no features to hand out",
                allowed="a model with extractor.onnx and matcher.onnx",
                fix=f"lightglue_ros export {self.info.model} --split",
            )

    def cancel(self) -> None:
        """End the run in work, if any, and let no other begin: for a process that is told to end.

        From any thread. The call that was in work, and all later ones, raise.
        """
        for session in (self._extractor, self._matcher, self._pipeline):
            if session is not None:
                session.cancel()

    def warm_up(self, cameras: int = 2, pairs: int = 1) -> None:
        """Run once on black images, so that the first real frame is not the slow one."""
        black = np.zeros((self.image_size[1], self.image_size[0]), np.uint8)
        cameras, pairs = min(cameras, self.info.batch or cameras), min(pairs, self.info.pairs or pairs)
        images, of_pairs = [black] * cameras, [(0, cameras - 1)] * pairs
        if self._pipeline is not None:
            self.match(images, of_pairs)
            return
        features = self._no_features(cameras) if self._extractor is None else self.extract(images)
        if self._matcher is not None:
            self.match_features(features, of_pairs)

    def match(
        self, images: Sequence[np.ndarray | None], pairs: Sequence[tuple[int, int]]
    ) -> list[PairMatches]:
        """Match pairs of images, each image extracted once.

        Args:
            images: uint8 [H, W] grey or [H, W, 3] RGB, any sizes; None for a missing camera.
            pairs: (first, second), indices into `images`.

        Returns:
            One `PairMatches` for each pair, empty where an image is missing.

        Raises:
            ImageError: an image has another type or shape.
            ConfigError: a pair names an image that is not there.
        """
        if self._pipeline is None:
            return self.match_features(self.extract(images), pairs)
        indices = _check_pairs(pairs, len(images))
        if not len(images):
            return []
        batch = self._place(images)
        with _add_time_to(self._times, "match"):
            outputs = self._pipeline.run(
                {
                    **_image_tensors(batch),
                    "pairs": self._filled(indices, self.info.pairs, "pairs"),
                    "max_keypoints": self._max_keypoints,
                    "match_threshold": self._match_threshold,
                }
            )
        return self._unpad(outputs["keypoints"], indices, outputs)

    def extract(self, images: Sequence[np.ndarray | None]) -> Features:
        """Extract keypoints and descriptors of all images in one run.

        Args:
            images: uint8 [H, W] grey or [H, W, 3] RGB, any sizes; None for a missing camera.

        Raises:
            ImageError: an image has another type or shape.
            ModelError: the model is a pipeline.onnx, which keeps no features, or has no extractor loaded.
        """
        self.need_split()
        if not len(images):
            return self._no_features(0)
        extractor = self._loaded(self._extractor, EXTRACTOR)
        batch = self._place(images)
        with _add_time_to(self._times, "extract"):
            outputs = extractor.run({**_image_tensors(batch), "max_keypoints": self._max_keypoints})
        count = len(images)
        return Features(
            outputs["keypoints"][:count],
            outputs["keypoint_scores"][:count],
            outputs["keypoint_mask"][:count],
            outputs["descriptors"][:count],
            batch.image_sizes[:count],
        )

    def match_features(self, features: Features, pairs: Sequence[tuple[int, int]]) -> list[PairMatches]:
        """Match pairs of images by features that were extracted before.

        Args:
            features: of N images.
            pairs: (first, second), indices of images.

        Raises:
            ConfigError: a pair names an image that is not there.
            ModelError: the model is a pipeline.onnx, which takes images only, or has no matcher loaded.
        """
        self.need_split()
        matcher = self._loaded(self._matcher, MATCHER)
        indices = _check_pairs(pairs, len(features.keypoints))
        if not len(features.keypoints):
            return []
        of_images = {
            "keypoints": features.keypoints,
            "keypoint_scores": features.scores,
            "keypoint_mask": features.mask,
            "descriptors": features.descriptors,
            "image_sizes": features.image_sizes,
        }
        with _add_time_to(self._times, "match"):
            outputs = matcher.run(
                {
                    **{name: self._filled(of, self.info.batch, "images") for name, of in of_images.items()},
                    "pairs": self._filled(indices, self.info.pairs, "pairs"),
                    "match_threshold": self._match_threshold,
                }
            )
        return self._unpad(features.keypoints, indices, outputs)

    def _new_canvas(self, image_size: tuple[int, int]) -> Canvas:
        canvas = Canvas(image_size, self.info.channels, self.info.divisor)
        fixed = self.info.image_size
        if fixed is not None and canvas.size != fixed:
            fixed_text = f"{fixed[0]}x{fixed[1]}"
            raise ConfigError(
                f"image size {image_size[0]}x{image_size[1]} does not fit a model exported for {fixed_text}",
                allowed=f"{fixed_text}, or any size with a model exported with --image-size dynamic",
            )
        return canvas

    def _place(self, images: Sequence[np.ndarray | None]) -> CanvasBatch:
        with _add_time_to(self._times, "canvas"):
            self._check_fits(len(images), self.info.batch, "images")
            empty = (self.info.batch or len(images)) - len(images)
            return self._canvas.place([*images, *[None] * empty])

    def _filled(self, values: np.ndarray, length: int | None, what: str) -> np.ndarray:
        """Values [n, ...] with zeros up to the length of a static export; the same where that is dynamic."""
        self._check_fits(len(values), length, what)
        if length is None or len(values) == length:
            return values
        filled = np.zeros((length, *values.shape[1:]), values.dtype)
        filled[: len(values)] = values
        return filled

    def _check_fits(self, count: int, length: int | None, what: str) -> None:
        if length is not None and count > length:
            option = {"images": "--batch", "pairs": "--pairs"}[what]
            raise ConfigError(
                f"{count} {what} do not fit a model exported for {length}",
                allowed=f"up to {length}",
                fix=f"export it with {option} {count}, or without --image-size for any number",
            )

    def _unpad(
        self, keypoints: np.ndarray, pairs: np.ndarray, outputs: dict[str, np.ndarray]
    ) -> list[PairMatches]:
        with _add_time_to(self._times, "unpad"):
            return [
                _pair_matches(keypoints[first], keypoints[second], partners, scores, int(layers))
                for (first, second), partners, scores, layers in zip(
                    # A static export has matched more pairs than were asked for.
                    pairs,
                    outputs["matches"],
                    outputs["match_scores"],
                    outputs["layers"],
                    strict=not self.info.is_static,
                )
            ]

    def _no_features(self, count: int) -> Features:
        """Features of so many images without a keypoint."""
        slots, width = self.info.max_keypoints, self.info.descriptor_dim
        return Features(
            np.zeros((count, slots, 2), np.float32),
            np.zeros((count, slots), np.float32),
            np.zeros((count, slots), bool),
            np.zeros((count, slots, width), np.float32),
            np.ones((count, 2), np.float32),
        )

    def _loaded(self, session: GraphSession | None, graph: str) -> GraphSession:
        if session is None:
            raise ModelError(
                f"the {graph} of model {self.info.model} was not loaded",
                fix="make the MatchPipeline without the argument only",
            )
        return session

    def _check_same_model(self, files: ModelFiles) -> None:
        extractor, matcher = self._extractor.info, self._matcher.info
        for field in ("model", "max_keypoints", "descriptor_dim", "weights_sha256", "batch"):
            if getattr(extractor, field) != getattr(matcher, field):
                raise ModelError(
                    f"{files.extractor} and {files.matcher} do not belong together: {field} is "
                    f"{getattr(extractor, field)} in one and {getattr(matcher, field)} in the other",
                    fix=f"lightglue_ros export {extractor.model} --split",
                )


def _image_tensors(batch: CanvasBatch) -> dict[str, np.ndarray]:
    return {"images": batch.images, "sizes": batch.sizes, "scales": batch.scales, "valid": batch.valid}


def _check_pairs(pairs: Sequence[tuple[int, int]], count: int) -> np.ndarray:
    indices = np.array(list(pairs)) if len(pairs) else np.zeros((0, 2), np.int64)
    if indices.ndim != 2 or indices.shape[1] != 2 or indices.dtype.kind not in "iu":
        raise ConfigError(
            f"pairs are {list(pairs)}", allowed="a list of (first, second), two whole numbers each"
        )
    if len(indices) and (indices.min() < 0 or indices.max() >= count):
        raise ConfigError(
            f"pairs {[tuple(pair) for pair in indices.tolist()]} name images that are not there",
            allowed=f"(first, second) with both from 0 to {count - 1}"
            if count
            else "no pairs without images",
        )
    return indices.astype(np.int64)


def _pair_matches(
    keypoints0: np.ndarray, keypoints1: np.ndarray, partners: np.ndarray, scores: np.ndarray, layers: int
) -> PairMatches:
    indices0 = np.flatnonzero(partners >= 0).astype(np.int32)
    indices1 = partners[indices0]
    return PairMatches(
        keypoints0[indices0], keypoints1[indices1], scores[indices0], indices0, indices1, layers
    )


@contextmanager
def _add_time_to(times: StageTimes, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    setattr(times, stage, getattr(times, stage) + time.perf_counter() - start)
