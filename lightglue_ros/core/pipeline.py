"""From images to matches: one run of the graphs for all cameras and all pairs.

from lightglue_ros.core import MatchPipeline

pipeline = MatchPipeline("xfeat", image_size=(640, 480))
(pair,) = pipeline.match([left, right], [(0, 1)])
pair.keypoints0, pair.keypoints1, pair.scores
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lightglue_ros.core.canvas import Canvas, CanvasBatch
from lightglue_ros.core.contract import EXTRACTOR, MATCHER, PIPELINE, GraphInfo
from lightglue_ros.core.features import Features, PairMatches
from lightglue_ros.core.session import GraphSession
from lightglue_ros.core.stage_times import StageTimes
from lightglue_ros.core.store import ModelFiles, find_model
from lightglue_ros.errors import ConfigError, ModelError

DEFAULT_IMAGE_SIZE = (640, 480)
# filter_threshold of the reference implementation (cvg/LightGlue, lightglue.py, default_conf).
DEFAULT_MATCH_THRESHOLD = 0.1
SPLIT = (EXTRACTOR, MATCHER)


class MatchPipeline:
    """Extracts keypoints of N images and matches P pairs of them, each in one run.

    Use it from one thread at a time: the next call uses the canvases again. The first run is slow; `warm_up`
    does it on black images.

    Args:
        model: name in the model store, folder of a model, or path of a pipeline.onnx.
        provider: ``auto`` (cuda if it really loads, else cpu) or by name: ``cpu``, ``cuda``, ``tensorrt``,
            ``openvino`` (see `GraphSession`).
        image_size: (width, height) of the canvas in pixels, rounded up to the model's divisor.
        max_keypoints: at most this many keypoints per image, 1 to the model's K; None is K.
        match_threshold: least score of a match, 0 to 1.
        num_threads: threads of the CPU provider; 0 is one per core.
        allow_fallback: use the CPU if a provider that was asked for by name does not load.
        cuda_graph: see `GraphSession`.
        graphs: which graphs of a split model to load, ``("extractor", "matcher")`` or one of them, for a
            process that only extracts, or matches features from elsewhere. None loads a split model whole,
            or else a pipeline.onnx, which can only `match`.

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
        graphs: Sequence[str] | None = None,
    ) -> None:
        files = find_model(model)
        has_one_graph_of_two = graphs is not None and len(graphs) == 1
        if graphs is None:
            graphs = SPLIT if files.is_split else (PIPELINE,)
        elif not files.is_split:
            raise ModelError(
                f"{files.pipeline} goes from images to matches and has no features to keep or to send",
                allowed="a model with extractor.onnx and matcher.onnx",
                fix="export it with --split",
            )
        self._sessions = {
            graph: GraphSession(
                getattr(files, graph),
                graph,
                provider=provider,
                num_threads=num_threads,
                allow_fallback=allow_fallback,
                cuda_graph=cuda_graph,
                shares_cores=has_one_graph_of_two,  # another process runs the other graph
            )
            for graph in graphs
        }
        first, *others = self._sessions.values()
        self.info: GraphInfo = first.info
        self.provider: str = first.provider
        for other in others:
            _check_same_model(files, first.info, other.info)
        self.set_image_size(image_size)
        self.max_keypoints = self.info.max_keypoints if max_keypoints is None else max_keypoints
        self.match_threshold = match_threshold
        self._times = StageTimes()

    @property
    def times(self) -> StageTimes:
        """Seconds that each stage has taken so far; subtract an earlier value to time one frame."""
        return replace(self._times)

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the canvas, after rounding up to the model's divisor."""
        return self._canvas.size

    @property
    def is_split(self) -> bool:
        """True if features can be extracted and matched apart; False with a pipeline.onnx."""
        return PIPELINE not in self._sessions

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
        """Change the canvas to (width, height) pixels, rounded up to the model's divisor.

        Raises:
            ConfigError: the size is empty, or the model was exported for another size.
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
        """Check values before they are used, from any thread; None is not checked.

        Args:
            image_size: (width, height) of the canvas.
            max_keypoints: cap per image.
            match_threshold: least score of a match.
            images: number of images in one run.
            pairs: number of pairs in one run.

        Raises:
            ConfigError: one of them cannot be set, or is too large for a static export.
        """
        _check_count(images or 0, self.info.batch, "images", "--batch")
        _check_count(pairs or 0, self.info.pairs, "pairs", "--pairs")
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

    def cancel(self) -> None:
        """End the present run and refuse all later ones, which raise; from any thread."""
        for session in self._sessions.values():
            session.cancel()

    def warm_up(self, cameras: int = 2, pairs: int = 1) -> None:
        """Run once on black images, so that the first real frame is not slow."""
        black = np.zeros((self.image_size[1], self.image_size[0]), np.uint8)
        cameras, pairs = min(cameras, self.info.batch or cameras), min(pairs, self.info.pairs or pairs)
        images, of_pairs = [black] * cameras, [(0, cameras - 1)] * pairs
        if not self.is_split:
            self.match(images, of_pairs)
            return
        features = self._no_features(cameras)
        if EXTRACTOR in self._sessions:
            features = self.extract(images)
        if MATCHER in self._sessions:
            self.match_features(features, of_pairs)

    def match(
        self, images: Sequence[np.ndarray | None], pairs: Sequence[tuple[int, int]]
    ) -> list[PairMatches]:
        """Match pairs of images; each image is extracted once.

        Args:
            images: uint8 [H, W] grey or [H, W, 3] RGB, any sizes; None for a missing camera.
            pairs: (first, second), indices into `images`.

        Returns:
            One `PairMatches` per pair, empty if one of its images is missing.

        Raises:
            ImageError: an image has another type or shape.
            ConfigError: a pair names an image that is not there.
        """
        if self.is_split:
            return self.match_features(self.extract(images), pairs)
        indices = _pair_indices(pairs, len(images))
        if not len(images):
            return []
        tensors = {
            **_image_tensors(self._place(images)),
            "pairs": self._fill_pairs(indices),
            "max_keypoints": self._max_keypoints,
            "match_threshold": self._match_threshold,
        }
        with self._times.measured("match"):
            outputs = self._sessions[PIPELINE].run(tensors)
        return self._unpad(outputs["keypoints"], indices, outputs)

    def extract(self, images: Sequence[np.ndarray | None]) -> Features:
        """Extract keypoints and descriptors of all images in one run.

        Args:
            images: uint8 [H, W] grey or [H, W, 3] RGB, any sizes; None for a missing camera.

        Raises:
            ImageError: an image has another type or shape.
            ModelError: the extractor is not loaded.
        """
        if not len(images):  # a matcher of features that came from elsewhere has no extractor
            return self._no_features(0)
        extractor = self._session(EXTRACTOR)
        batch = self._place(images)
        with self._times.measured("extract"):
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
            ModelError: the matcher is not loaded.
        """
        matcher = self._session(MATCHER)
        count = len(features.keypoints)
        indices = _pair_indices(pairs, count)
        if not count:
            return []
        _check_count(count, self.info.batch, "images", "--batch")
        tensors = {
            "keypoints": _fill(features.keypoints, self.info.batch),
            "keypoint_scores": _fill(features.scores, self.info.batch),
            "keypoint_mask": _fill(features.mask, self.info.batch),
            "descriptors": _fill(features.descriptors, self.info.batch),
            "image_sizes": _fill(features.image_sizes, self.info.batch),
            "pairs": self._fill_pairs(indices),
            "match_threshold": self._match_threshold,
        }
        with self._times.measured("match"):
            outputs = matcher.run(tensors)
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
        with self._times.measured("canvas"):
            _check_count(len(images), self.info.batch, "images", "--batch")
            empty = (self.info.batch or len(images)) - len(images)
            return self._canvas.place([*images, *[None] * empty])

    def _fill_pairs(self, indices: np.ndarray) -> np.ndarray:
        _check_count(len(indices), self.info.pairs, "pairs", "--pairs")
        return _fill(indices, self.info.pairs)

    def _unpad(
        self, keypoints: np.ndarray, pairs: np.ndarray, outputs: dict[str, np.ndarray]
    ) -> list[PairMatches]:
        with self._times.measured("unpad"):
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

    def _no_features(self, images: int) -> Features:
        return Features.empty(images, self.info.max_keypoints, self.info.descriptor_dim)

    def _session(self, graph: str) -> GraphSession:
        if graph not in self._sessions:
            raise ModelError(
                f"the {graph} of model {self.info.model} is not loaded, only {', '.join(self._sessions)}",
                allowed="a model exported with --split, and a MatchPipeline without the argument graphs",
            )
        return self._sessions[graph]


def _check_same_model(files: ModelFiles, extractor: GraphInfo, matcher: GraphInfo) -> None:
    for field in ("model", "max_keypoints", "descriptor_dim", "weights_sha256", "batch", "pairs"):
        if getattr(extractor, field) != getattr(matcher, field):
            raise ModelError(
                f"{files.extractor} and {files.matcher} do not belong together: {field} is "
                f"{getattr(extractor, field)} in one and {getattr(matcher, field)} in the other",
                fix=f"lightglue_ros export {extractor.model} --split",
            )


def _check_count(count: int, length: int | None, what: str, option: str) -> None:
    """Check that a static export, with `length` images or pairs, has room for `count`."""
    if length is not None and count > length:
        raise ConfigError(
            f"{count} {what} do not fit a model exported for {length}",
            allowed=f"up to {length}",
            fix=f"export it with {option} {count}, or without --image-size for any number",
        )


def _fill(values: np.ndarray, length: int | None) -> np.ndarray:
    """Append zeros to [n, ...] up to the length of a static export; None is dynamic."""
    if length is None or len(values) == length:
        return values
    filled = np.zeros((length, *values.shape[1:]), values.dtype)
    filled[: len(values)] = values
    return filled


def _image_tensors(batch: CanvasBatch) -> dict[str, np.ndarray]:
    return {"images": batch.images, "sizes": batch.sizes, "scales": batch.scales, "valid": batch.valid}


def _pair_indices(pairs: Sequence[tuple[int, int]], count: int) -> np.ndarray:
    """Check pairs of `count` images and return them as int64 [P, 2]."""
    try:
        indices = np.array(list(pairs)) if len(pairs) else np.zeros((0, 2), np.int64)
    except ValueError:  # pairs of different lengths
        indices = np.zeros(0)
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
