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

from lightglue_ros.core.canvas import Canvas, CanvasBatch, Placement
from lightglue_ros.core.contract import (
    CANVAS_MARGINS,
    EXTRACTOR,
    MATCHER,
    OUTPUTS,
    PIPELINE,
    GraphInfo,
)
from lightglue_ros.core.features import Features, PairMatches, pair_indices
from lightglue_ros.core.refinement import Refiner
from lightglue_ros.core.session import GraphSession
from lightglue_ros.core.stage_times import StageTimes
from lightglue_ros.core.store import find_model
from lightglue_ros.errors import ConfigError, ModelError

DEFAULT_IMAGE_SIZE = (640, 480)
# filter_threshold of the reference implementation (cvg/LightGlue, lightglue.py, default_conf).
DEFAULT_MATCH_THRESHOLD = 0.1
SPLIT = (EXTRACTOR, MATCHER)


class MatchPipeline:
    """Extracts keypoints of N images and matches P pairs of them, each in one run.

    Use it from one thread at a time. The first run is slow; `warm_up` does it on black images.

    With free shapes, XFeat and DISK run on the part of the canvas that the images need (see `canvas`), and
    `extract` runs once for all images that need the same part. A static export, a pipeline.onnx and the other
    models always run on the whole canvas.

    Args:
        model: name in the model store, folder of a model, or path of a pipeline.onnx.
        provider: ``auto`` (cuda if it really runs the model, else cpu) or by name: ``cpu``, ``cuda``,
            ``tensorrt``, ``openvino`` (see `GraphSession`).
        image_size: (width, height) of the canvas in pixels, rounded up to the model's divisor.
        max_keypoints: at most this many keypoints per image, 1 to the model's K; None is K.
        match_threshold: least score of a match, 0 to 1.
        refine: method that `match` refines the matches with, see `Refiner`; `match_features` has no images.
        num_threads: threads of the CPU provider; 0 is one per core.
        spin_threads: see `GraphSession`.
        allow_fallback: use the CPU if a provider that was asked for by name cannot run the model.
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
        refine: str = "auto",
        num_threads: int = 0,
        spin_threads: bool = False,
        allow_fallback: bool = False,
        cuda_graph: bool = False,
        graphs: Sequence[str] | None = None,
    ) -> None:
        files = find_model(model)
        if graphs is None:
            graphs = SPLIT if files.is_split else (PIPELINE,)
        else:
            files.require_split()
        self._sessions = {
            graph: GraphSession(
                getattr(files, graph),
                graph,
                provider=provider,
                num_threads=num_threads,
                spin_threads=spin_threads,
                allow_fallback=allow_fallback,
                cuda_graph=cuda_graph,
            )
            for graph in graphs
        }
        first, *others = self._sessions.values()
        self.info: GraphInfo = first.info
        for other in others:
            files.require_same_model(first.info, other.info)
        self.set_image_size(image_size)
        self.max_keypoints = self.info.max_keypoints if max_keypoints is None else max_keypoints
        self.match_threshold = match_threshold
        self.refiner = Refiner(refine, self.info.extractor)
        self._times = StageTimes()

    @property
    def provider(self) -> str:
        """Provider that runs the model, such as ``cpu`` or ``cuda (extractor), cpu (matcher)``."""
        names = {session.provider for session in self._sessions.values()}
        if len(names) == 1:
            return names.pop()
        return ", ".join(f"{session.provider} ({graph})" for graph, session in self._sessions.items())

    @property
    def fallback_reason(self) -> str:
        """Reason why the CPU runs a graph in place of another provider; empty if it does not."""
        reasons = [it.fallback_reason for it in self._sessions.values() if it.fallback_reason]
        return f"the model runs on {self.provider}: {reasons[0]}" if reasons else ""

    @property
    def fallback_warning(self) -> str:
        """The `fallback_reason`; empty with provider ``auto`` and a build of ONNX Runtime for CPUs."""
        is_expected = all(it.fallback_is_expected for it in self._sessions.values())
        return "" if is_expected else self.fallback_reason

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

    def rounded(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return an image size, (width, height), rounded up to the model's divisor; from any thread."""
        return self._new_canvas(image_size).size

    def placement(self, image_size: tuple[int, int]) -> Placement:
        """Return how an image of (width, height) pixels lies on its canvas; from any thread."""
        return self._canvas.placement(image_size)

    def check(
        self,
        *,
        image_size: tuple[int, int] | None = None,
        max_keypoints: int | None = None,
        match_threshold: float | None = None,
        images: int | None = None,
        pairs: int | None = None,
    ) -> None:
        """Check values, and the numbers of images and pairs of a run, from any thread; None is not checked.

        Raises:
            ConfigError: one of them cannot be set, or is too large for a static export.
        """
        for name, count, length, option in (
            ("images", images or 0, self.info.batch, "--batch"),
            ("pairs", pairs or 0, self.info.pairs, "--pairs"),
        ):
            if length is not None and count > length:
                raise ConfigError(
                    f"{count} {name} do not fit a model exported for {length}",
                    allowed=f"up to {length}",
                    fix=f"export it with {option} {count}, or without --image-size for any number",
                )
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
        """Run once on black images that fill the canvas, so that the first real frame is not slow.

        The first run on another part of the canvas, or with another number of images, then takes 1 to 8 ms
        longer than the next one. Later changes between them take 0.3 ms (XFeat on the CPU).
        """
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
        matches = self._match_images(images, pairs)
        with self._times.measured("refine"):
            return self.refiner.refine_images(matches, images, pairs, self.image_size)

    def _match_images(
        self, images: Sequence[np.ndarray | None], pairs: Sequence[tuple[int, int]]
    ) -> list[PairMatches]:
        if self.is_split:
            return self.match_features(self.extract(images), pairs)
        indices = pair_indices(pairs, len(images))
        if not len(images):
            return []
        self.check(images=len(images))
        batch = self._place(images, self.image_size)
        outputs = self._run("match", PIPELINE, vars(batch) | {"pairs": indices})
        return self._unpad(outputs["keypoints"], indices, outputs)

    def extract(self, images: Sequence[np.ndarray | None]) -> Features:
        """Extract keypoints and descriptors, in one run for all images that need a canvas of the same size.

        For the images see `match`.

        Raises:
            ImageError: an image has another type or shape.
            ModelError: the extractor is not loaded.
        """
        features = self._no_features(len(images))
        if not len(images):  # a matcher of features that came from elsewhere has no extractor
            return features
        self._require(EXTRACTOR)
        self.check(images=len(images))
        for canvas_size, slots in self._canvas.group(images).items():
            batch = self._place([images[slot] for slot in slots], canvas_size)
            outputs = self._run("extract", EXTRACTOR, vars(batch))
            arrays = (*(outputs[name] for name in OUTPUTS[EXTRACTOR]), batch.image_sizes)
            for kept, array in zip(vars(features).values(), arrays, strict=True):
                kept[slots] = array[: len(slots)]
        return features

    def match_features(self, features: Features, pairs: Sequence[tuple[int, int]]) -> list[PairMatches]:
        """Match pairs (first, second) of images by the features of all N images, which come from `extract`.

        Raises:
            ConfigError: a pair names an image that is not there, or the features are not those of the model.
            ModelError: the matcher is not loaded.
        """
        self._require(MATCHER)
        self._check_features(features)
        count = len(features.keypoints)
        indices = pair_indices(pairs, count)
        if not count:
            return []
        self.check(images=count)
        empty = (self.info.batch or count) - count
        filled = Features.concatenate([features, self._no_features(empty)]) if empty else features
        tensors = {
            "keypoints": filled.keypoints,
            "keypoint_scores": filled.scores,
            "keypoint_mask": filled.mask,
            "descriptors": filled.descriptors,
            "image_sizes": filled.image_sizes,
            "pairs": indices,
        }
        return self._unpad(features.keypoints, indices, self._run("match", MATCHER, tensors))

    def _check_features(self, features: Features) -> None:
        shape, expected = features.descriptors.shape[1:], (self.info.max_keypoints, self.info.descriptor_dim)
        if shape != expected:
            raise ConfigError(
                f"the features have {shape[0]} slots per image and descriptors of {shape[1]} numbers",
                allowed=f"{expected[0]} and {expected[1]}, those of model {self.info.model}",
                fix="extract them with the same model; Features.pad fills up slots",
            )
        # The matcher reads as many slots as the image with the most keypoints has.
        if (features.mask[:, 1:] & ~features.mask[:, :-1]).any():
            raise ConfigError(
                "the mask of the features has an empty slot before a keypoint",
                allowed="keypoints in the first slots, best score first",
                fix="make them with Features.pad",
            )

    def _new_canvas(self, image_size: tuple[int, int]) -> Canvas:
        # One run of a pipeline.onnx takes all images, and a pair must not depend on the size of the others.
        is_whole = self.info.is_static or not self.is_split
        margin = None if is_whole else CANVAS_MARGINS.get(self.info.extractor)
        canvas = Canvas(image_size, self.info.channels, self.info.divisor, margin)
        fixed = self.info.image_size
        if fixed is not None and canvas.size != fixed:
            fixed_text = f"{fixed[0]}x{fixed[1]}"
            raise ConfigError(
                f"image size {image_size[0]}x{image_size[1]} does not fit a model exported for {fixed_text}",
                allowed=f"{fixed_text}, or any size with a model exported with --image-size dynamic",
            )
        return canvas

    def _place(self, images: Sequence[np.ndarray | None], canvas_size: tuple[int, int]) -> CanvasBatch:
        with self._times.measured("canvas"):
            empty = (self.info.batch or len(images)) - len(images)
            return self._canvas.place([*images, *[None] * empty], canvas_size)

    def _run(self, stage: str, graph: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a graph with the settings; a static export gets as many pairs as it was exported for."""
        values = dict(tensors)
        values["max_keypoints"], values["match_threshold"] = self._max_keypoints, self._match_threshold
        if "pairs" in values:
            count = len(values["pairs"])
            self.check(pairs=count)
            values["pairs"] = np.pad(values["pairs"], ((0, (self.info.pairs or count) - count), (0, 0)))
        with self._times.measured(stage):
            return self._sessions[graph].run(values)

    def _unpad(
        self, keypoints: np.ndarray, pairs: np.ndarray, outputs: dict[str, np.ndarray]
    ) -> list[PairMatches]:
        results = []
        with self._times.measured("unpad"):
            # A static export may have matched more pairs than were asked for.
            for number, (first, second) in enumerate(pairs):
                partners = outputs["matches"][number]
                indices0 = np.flatnonzero(partners >= 0).astype(np.int32)
                indices1 = partners[indices0]
                points = keypoints[first][indices0], keypoints[second][indices1]
                scores, layers = outputs["match_scores"][number][indices0], int(outputs["layers"][number])
                results.append(PairMatches(*points, scores, indices0, indices1, layers))
        return results

    def _no_features(self, images: int) -> Features:
        return Features.empty(images, self.info.max_keypoints, self.info.descriptor_dim)

    def _require(self, graph: str) -> None:
        if graph not in self._sessions:
            raise ModelError(
                f"the {graph} of model {self.info.model} is not loaded, only {', '.join(self._sessions)}",
                allowed="a model exported with --split, and a MatchPipeline without the argument graphs",
            )
