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
from lightglue_ros.core.contract import EXTRACTOR, MATCHER, PIPELINE, GraphInfo
from lightglue_ros.core.device import DeviceRunner
from lightglue_ros.core.device_lock import device_lock
from lightglue_ros.core.features import Features, PairMatches, pair_indices
from lightglue_ros.core.host import HostRunner
from lightglue_ros.core.masks import Mask, MaskPlacer, TurnedMask, masks_of, turned_masks
from lightglue_ros.core.refinement import Refiner
from lightglue_ros.core.rotation import turn_all, turn_all_back
from lightglue_ros.core.session import GraphSession
from lightglue_ros.core.stage_times import StageTimes, ThreadTimes
from lightglue_ros.core.store import find_model
from lightglue_ros.errors import ConfigError, ModelError

DEFAULT_IMAGE_SIZE = (640, 480)
# filter_threshold of the reference implementation (cvg/LightGlue, lightglue.py, default_conf).
DEFAULT_MATCH_THRESHOLD = 0.1


class MatchPipeline:
    """Extracts keypoints of N images and matches P pairs of them, each in one run.

    The first run is slow; `warm_up` does it. Use a pipeline from one thread at a time; on a CPU one may
    extract while another one matches. On a GPU make, warm up and run it in one thread, which has CUDA graphs.
    Pipelines on GPUs in one process wait for each other, also while one is made (TensorRT: minutes).

    With free shapes, XFeat and DISK run on the part of the canvas that the images need (see `canvas`), and
    `extract` runs once for all images that need the same part. A static export, a pipeline.onnx and the other
    models always run on the whole canvas.

    On a GPU every run has the whole canvas and the numbers of images and pairs of `warm_up`, because each
    change of a shape costs as much as many runs. Features stay there from `extract` to `match_features`, and
    an array of them comes down when it is first asked for. What `Features.copy` returns stays there, too, and
    is matched with the features of later images, as for pairs through time.

    Args:
        model: name in the model store, folder of a model, or path of a pipeline.onnx.
        provider: ``auto`` (cuda if it really runs the model, else cpu) or by name: ``cpu``, ``cuda``,
            ``tensorrt`` (see `GraphSession`).
        image_size: (width, height) of the canvas in pixels, rounded up to the model's divisor.
        max_keypoints: at most this many keypoints per image, 1 to the model's K; None is K.
        match_threshold: least score of a match, 0 to 1.
        refine: method that `match` refines the matches with, see `Refiner`; `match_features` has no images.
        num_threads: threads of the CPU provider; 0 is one per core.
        spin_threads: see `GraphSession`.
        allow_fallback: use the CPU if a provider that was asked for by name cannot run the model.
        cuda_graph: see `GraphSession`.
        gpu_memory_limit: of each graph, see `GraphSession`.
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
        gpu_memory_limit: int = 0,
        graphs: Sequence[str] | None = None,
    ) -> None:
        files = find_model(model)
        self._sessions = {
            graph: GraphSession(
                path,
                graph,
                provider=provider,
                num_threads=num_threads,
                spin_threads=spin_threads,
                allow_fallback=allow_fallback,
                cuda_graph=cuda_graph,
                gpu_memory_limit=gpu_memory_limit,
            )
            for graph, path in files.paths(graphs).items()
        }
        first, *others = self._sessions.values()
        self.info: GraphInfo = first.info
        for other in others:
            files.require_same_model(first.info, other.info)
        is_on_gpu = all(it.provider in ("cuda", "tensorrt") for it in self._sessions.values())
        runner = DeviceRunner if is_on_gpu else HostRunner
        self._runner: DeviceRunner | HostRunner = runner(self._sessions)
        # One run of a pipeline.onnx takes all images, and a pair must not depend on the size of the others.
        self._on_parts = self.is_split and not self._runner.has_fixed_shapes
        self.set_image_size(image_size)
        self.max_keypoints = self.info.max_keypoints if max_keypoints is None else max_keypoints
        self.match_threshold = match_threshold
        self.refiner = Refiner(refine, self.info.extractor)
        self._of_thread = ThreadTimes()
        self._masks = MaskPlacer(self.info.keypoint_reach)
        # On a GPU, the least numbers of a run.
        self._cameras = self._pairs = self._images = 0
        self._warm_for: tuple[tuple[int, int], int, int, int] | None = None

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
        """Seconds that each stage has taken so far in this thread; subtract earlier ones to time a frame."""
        return replace(self._of_thread.times)

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
        self.info.check(images or 0, pairs or 0, max_keypoints)
        if match_threshold is not None and not 0.0 <= match_threshold <= 1.0:
            raise ConfigError(f"match_threshold is {match_threshold}", allowed="0 to 1")
        if image_size is not None:
            self._new_canvas(image_size)

    def cancel(self) -> None:
        """End the present run and refuse all later ones, which raise; from any thread."""
        for session in self._sessions.values():
            session.cancel()

    def close(self) -> None:
        """Free the graphs and end their threads, whoever still holds this object; on a GPU in its thread."""
        with device_lock:
            self._sessions.clear()  # those of the runner as well
            del self._runner

    def warm_up(self, cameras: int = 2, pairs: int = 1, images: int | None = None) -> None:
        """Run once on black images that fill the canvas, so that the first real frame is not slow.

        On a GPU all later runs have at least these numbers, and a run with less is filled up.

        On a CPU, the first run on another part of the canvas, or with another number of images, then takes 1
        to 8 ms longer than the next one. Later changes between them take 0.3 ms (XFeat).

        Args:
            cameras: number of images that are extracted at a time.
            pairs: number of pairs that are matched at a time.
            images: number of images that the pairs name, with those of past frames; None is `cameras`.
        """
        images = cameras if images is None else images
        self._warm_for = (self.image_size, cameras, pairs, images)
        if self._runner.has_fixed_shapes:
            self._cameras, self._pairs, self._images = cameras, pairs, images
        black = np.zeros((self.image_size[1], self.image_size[0]), np.uint8)
        cameras, pairs = min(cameras, self.info.batch or cameras), min(pairs, self.info.pairs or pairs)
        blacks, of_pairs = [black] * cameras, [(0, cameras - 1)] * pairs
        if not self.is_split:
            self.match(blacks, of_pairs)
            return
        features = self.extract(blacks) if EXTRACTOR in self._sessions else self._no_features(cameras)
        if MATCHER in self._sessions:
            self.match_features(features, of_pairs)

    def prepare(self, cameras: int, pairs: int, images: int) -> None:
        """Warm up on a GPU if these numbers, or the canvas, are others than those of the last `warm_up`."""
        if self._runner.has_fixed_shapes and self._warm_for != (self.image_size, cameras, pairs, images):
            self.warm_up(cameras, pairs, images)

    def match(
        self,
        images: Sequence[np.ndarray | None],
        pairs: Sequence[tuple[int, int]],
        rotations: Sequence[int] | None = None,
        masks: Sequence[Mask | np.ndarray | None] | None = None,
    ) -> list[PairMatches]:
        """Match pairs of images; each image is extracted once.

        Args:
            images: uint8 [H, W] grey or [H, W, 3] RGB, any sizes; None for a missing camera.
            pairs: (first, second), indices into `images`.
            rotations: degrees clockwise, 0, 90, 180 or 270, by which each image is turned so that it is
                upright; None is no rotation. Keypoints are in pixels of the image as it is given.
            masks: of each image, uint8 or bool [h, w] with the aspect of the image as it is given, 0 where no
                keypoint may be; None for an image without one. A `Mask` is brought to the canvas but once.

        Returns:
            One `PairMatches` per pair, empty if one of its images is missing.

        Raises:
            ImageError: an image or a mask has another type or shape, or a mask is all black.
            ConfigError: a pair names an image that is not there.
        """
        masks = masks_of(masks, len(images))
        matches = self._match_images(images, pairs, rotations, masks)
        with self._of_thread.times.measured("refine"):
            return self.refiner.refine_images(matches, images, pairs, self.image_size, rotations, masks)

    def _match_images(
        self,
        images: Sequence[np.ndarray | None],
        pairs: Sequence[tuple[int, int]],
        rotations: Sequence[int] | None,
        masks: Sequence[Mask | None] | None,
    ) -> list[PairMatches]:
        if self.is_split:
            return self.match_features(self.extract(images, rotations, masks), pairs)
        indices = pair_indices(pairs, len(images))
        if not len(indices):
            return []
        self.check(images=len(images), pairs=len(indices))
        batch = self._place(turn_all(images, rotations), self.image_size, turned_masks(masks, rotations))
        with self._of_thread.times.measured("match"):
            outputs = self._runner.run_pipeline(
                batch, self._max_keypoints, indices, self._match_threshold, self._most_pairs(len(indices))
            )
        keypoints = turn_all_back(outputs["keypoints"], rotations, batch.image_sizes)
        with self._of_thread.times.measured("unpad"):
            return PairMatches.of_pairs(outputs, indices, keypoints)

    def extract(
        self,
        images: Sequence[np.ndarray | None],
        rotations: Sequence[int] | None = None,
        masks: Sequence[Mask | np.ndarray | None] | None = None,
    ) -> Features:
        """Extract keypoints and descriptors, in one run for all images that need a canvas of the same size.

        For the images, their rotations and masks see `match`. The turned image is shrunk to fit the canvas.

        Raises:
            ImageError: an image or a mask has another type or shape, or a mask is all black.
            ModelError: the extractor is not loaded.
        """
        if not len(images):  # a matcher of features that came from elsewhere has no extractor
            return self._no_features(0)
        self._require(EXTRACTOR)
        self.check(images=len(images))
        made = turned_masks(masks_of(masks, len(images)), rotations)
        features = self._extract_all(turn_all(images, rotations), made)
        return features if rotations is None or not any(rotations) else features.turned_back(rotations)

    def _extract_all(
        self, images: Sequence[np.ndarray | None], masks: Sequence[TurnedMask | None]
    ) -> Features:
        if self._runner.has_fixed_shapes:
            batch = self._place(images, self.image_size, masks)
            return self._extract_batch(batch).of_images(slice(len(images)))
        features = self._no_features(len(images))
        for canvas_size, slots in self._canvas.group(images).items():
            of_group = [masks[slot] for slot in slots] if masks else []
            batch = self._place([images[slot] for slot in slots], canvas_size, of_group)
            for name, array in self._extract_batch(batch).by_name().items():
                features.by_name()[name][slots] = array[: len(slots)]
        return features

    def match_features(self, features: Features, pairs: Sequence[tuple[int, int]]) -> list[PairMatches]:
        """Match pairs (first, second) of images by the features of all N images, which come from `extract`.

        Raises:
            ConfigError: a pair names an image that is not there, or the features are not those of the model.
            ModelError: the matcher is not loaded.
        """
        self._require(MATCHER)
        count = features.num_images
        indices = pair_indices(pairs, count)
        # The features that the runner holds are its own, and a look at them would copy them.
        if not self._runner.holds(features):
            features.check(self.info.max_keypoints, self.info.descriptor_dim, self.info.model)
        if not len(indices):
            return []
        self.check(images=count, pairs=len(indices))
        shape = self.info.batch or max(self._images, count), self._most_pairs(len(indices))
        with self._of_thread.times.measured("match"):
            outputs = self._runner.match(features, indices, self._match_threshold, shape)
        with self._of_thread.times.measured("unpad"):
            return PairMatches.of_pairs(outputs, indices, features.keypoints)

    def _new_canvas(self, image_size: tuple[int, int]) -> Canvas:
        return Canvas.of_model(image_size, self.info, self._on_parts)

    def _most_pairs(self, count: int) -> int:
        return self.info.pairs or max(self._pairs, count)

    def _place(
        self,
        images: Sequence[np.ndarray | None],
        canvas_size: tuple[int, int],
        masks: Sequence[TurnedMask | None],
    ) -> CanvasBatch:
        with self._of_thread.times.measured("canvas"):
            empty = (self.info.batch or max(self._cameras, len(images))) - len(images)
            batch = self._canvas.place(
                [*images, *[None] * empty],
                canvas_size,
                least_channels=self._runner.least_channels,
                allocate=self._runner.allocate,
            )
            return replace(batch, masks=self._masks.place(masks, batch)) if masks else batch

    def _extract_batch(self, batch: CanvasBatch) -> Features:
        with self._of_thread.times.measured("extract"):
            return self._runner.extract(batch, self._max_keypoints)

    def _no_features(self, images: int) -> Features:
        return Features.empty(images, self.info.max_keypoints, self.info.descriptor_dim)

    def _require(self, graph: str) -> None:
        if graph not in self._sessions:
            raise ModelError(
                f"the {graph} of model {self.info.model} is not loaded, only {', '.join(self._sessions)}",
                allowed="a model exported with --split, and a MatchPipeline without the argument graphs",
            )
