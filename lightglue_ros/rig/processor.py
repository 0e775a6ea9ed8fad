"""Matches the frames of a rig, in the same way for the node and for the `bag` command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol

import numpy as np

from lightglue_ros.core import Features, MatchPipeline, PairMatches
from lightglue_ros.core.masks import Mask
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.core.refinement import Refiner
from lightglue_ros.core.rotation import turned_size
from lightglue_ros.errors import ConfigError, RejectedImageError
from lightglue_ros.rig.extracted_references import ExtractedReferences, in_parts
from lightglue_ros.rig.frame import FrameResult, FrameSettings, ImageT, RigFrame, RigPair
from lightglue_ros.rig.history import ExtractedImage, History
from lightglue_ros.rig.masks import CameraMasks
from lightglue_ros.rig.rig import FOLDER_IMAGES_PER_RUN, Rig, View, without_rank
from lightglue_ros.rig.rotations import RotationFinder
from lightglue_ros.rig.verification import Intrinsics, Verification, verify_pair

# Both images of a pair; None if one is missing.
Images = tuple[ExtractedImage[Any] | None, ExtractedImage[Any] | None]


class Calibration(Protocol):
    """Intrinsics of the cameras of a rig."""

    def intrinsics(self, camera: int, image_size: tuple[int, int]) -> Intrinsics:
        """Return the intrinsics of a camera for images of (width, height) pixels.

        Raises:
            ConfigError: they are not known, or they belong to images of another size.
        """


@dataclass(frozen=True, eq=False)
class ExtractedFrame(Generic[ImageT]):
    """A frame whose images were extracted, and whose pairs were not matched yet.

    Attributes:
        frame: as it came.
        present: images with their features, for this frame's pairs and those of later frames.
        result: so far, without pairs.
    """

    frame: RigFrame[ImageT]
    present: list[ExtractedImage[ImageT] | None]
    result: FrameResult[ImageT]


class FrameProcessor(Generic[ImageT]):
    """Matches one frame after the other; each image is extracted once. Use it from one thread at a time.

    On a CPU one thread may `extract` a frame while another one matches the frame before, unless `apply` would
    change settings.

    Args:
        pipeline: of a split model, because features of past images are matched again.
        settings: of the first frame.
        calibration: of the cameras; only the geometry essential needs it.
        references: extracted images of this pipeline, to use again; None extracts with the first frame.
        masks: of the cameras; None if they have none.

    Attributes:
        extracted: number of images extracted so far.
        history: past images; whoever jumps to another frame clears it and fills it by `add_to_history`.
        rotations: of the cameras' images before extraction.
    """

    def __init__(
        self,
        pipeline: MatchPipeline,
        settings: FrameSettings,
        calibration: Calibration | None = None,
        references: ExtractedReferences | None = None,
        masks: CameraMasks | None = None,
    ) -> None:
        self.extracted = 0
        self._pipeline = pipeline
        self._calibration = calibration
        self._references = references or ExtractedReferences()
        self._masks = masks
        self.history: History[ImageT] = History(settings.rig)
        self.rotations = RotationFinder(settings.rig, settings.rotations)
        self._settings: FrameSettings | None = None
        self._refiner = Refiner(settings.refine, pipeline.info.extractor)
        self._epochs: tuple[int, ...] = (0,) * len(settings.rig.cameras)

    def process(
        self, frame: RigFrame[ImageT], settings: FrameSettings, keep_pixels: bool = False
    ) -> FrameResult[ImageT]:
        """Match a frame; past images keep their data for pictures of pairs through time if `keep_pixels`."""
        return self.match(self.extract(frame, settings, keep_pixels))

    def extract(
        self, frame: RigFrame[ImageT], settings: FrameSettings, keep_pixels: bool = False
    ) -> ExtractedFrame[ImageT]:
        """Decode and extract the images of a frame, the first half of `process`."""
        self.apply(settings)
        before = self._pipeline.times
        images, decoded, rejected = _decode(frame.images, settings.mono16)
        self.rotations.search(
            self._pipeline, [image if isinstance(image, np.ndarray) else None for image in decoded]
        )
        masks = self._masks.of_frame(frame.stamps, decoded) if self._masks else None
        features = self._extract(decoded, masks)  # each image once
        present = self._extracted_images(images, features, decoded, masks, settings.rig, keep_pixels)
        inference = (self._pipeline.times - before).inference
        result = FrameResult(settings, images, features, rejected, inference=inference)
        return ExtractedFrame(frame, present, result)

    def match(self, extracted: ExtractedFrame[ImageT]) -> FrameResult[ImageT]:
        """Match the pairs of a frame, the second half of `process`; frames come in their order."""
        frame, result = extracted.frame, extracted.result
        if result.first_image is None:
            return result
        settings, before = result.settings, self._pipeline.times
        self._forget_if_time_was_set_back(frame)
        choices = self._match(extracted.present, settings.rig)  # all pairs in one run; then they are refined
        self.rotations.take(
            (views[0].camera, views[1].camera, len(pair.matches))
            for views, (pair, *_) in choices.items()
            if not pair.is_missing
        )
        unverified = self._verify(choices, settings)
        pairs = _choose_best(choices, settings.rig)
        self.history.add(extracted.present, frame.between)
        inference = result.inference + (self._pipeline.times - before).inference
        return replace(result, pairs=pairs, unverified=unverified, inference=inference)

    def add_to_history(self, frame: RigFrame[ImageT], settings: FrameSettings) -> Sequence[Features | None]:
        """Extract a frame without matching it, as one of the past of later frames; returns its features."""
        extracted = self.extract(frame, settings)
        if extracted.result.first_image is not None:
            self._forget_if_time_was_set_back(frame)
            self.history.add(extracted.present, frame.between)
        return extracted.result.features

    def apply(self, settings: FrameSettings) -> None:
        """Take over settings that have changed since the last frame, and prepare the pipeline for them."""
        if settings is self._settings:
            return
        if self._settings is None or settings.image_size != self._settings.image_size:
            self._pipeline.set_image_size(settings.image_size)
        self._pipeline.max_keypoints = settings.max_keypoints or self._pipeline.info.max_keypoints
        self._pipeline.match_threshold = settings.match_threshold
        self._refiner = Refiner(settings.refine, self._pipeline.info.extractor)
        if settings.rotations != self.rotations.given:
            self.rotations = RotationFinder(settings.rig, settings.rotations)
        self.rotations.set_rig(settings.rig)
        rig = settings.rig
        self._pipeline.prepare(len(rig.cameras), *rig.run_shape)
        self._references.extract(self._pipeline, settings)
        self.history.set_rig(rig)
        self._settings = settings

    def _forget_if_time_was_set_back(self, frame: RigFrame[ImageT]) -> None:
        for camera, (before, epoch) in enumerate(zip(self._epochs, frame.epochs, strict=True)):
            if epoch != before:
                self.history.forget(camera)
        self._epochs = frame.epochs

    def _extract(
        self, decoded: Sequence[np.ndarray | Features | None], masks: Sequence[Mask | None] | None
    ) -> list[Features | None]:
        """Extract all images; features that were extracted elsewhere stay as they are."""
        images = [image if isinstance(image, np.ndarray) else None for image in decoded]
        features = [image if isinstance(image, Features) else None for image in decoded]
        slots = [slot for slot, image in enumerate(images) if image is not None]
        self.extracted += len(slots)
        if slots:  # a node that is given features loads no extractor
            # A camera keeps its slot when another one is missing.
            extracted = self._pipeline.extract(images, self.rotations.rotations or None, masks)
            for slot in slots:
                features[slot] = extracted.of_image(slot)
        return features

    def _extracted_images(
        self,
        images: Sequence[ImageT | None],
        features: Sequence[Features | None],
        decoded: Sequence[np.ndarray | Features | None],
        masks: Sequence[Mask | None] | None,
        rig: Rig,
        keep_pixels: bool = False,
    ) -> list[ExtractedImage[ImageT] | None]:
        in_pairs = {view.camera for pair in rig.pairs for view in pair}
        present: list[ExtractedImage[ImageT] | None] = [None] * len(images)
        for camera, (image, found, pixels) in enumerate(zip(images, features, decoded, strict=True)):
            if image is None or found is None:
                continue
            grey = None
            # Features from elsewhere come without an image, and their matches stay as they are.
            if isinstance(pixels, np.ndarray) and camera in in_pairs:
                rotations = self.rotations.rotations
                rotation = rotations[camera] if rotations else 0
                mask = masks[camera] if masks else None
                grey = self._refiner.prepare(pixels, self._pipeline.image_size, rotation, mask)
            kept = image if keep_pixels else image.without_pixels()
            present[camera] = ExtractedImage(kept, found, grey)
        return present

    def _match(self, present: Sequence[ExtractedImage[ImageT] | None], rig: Rig) -> _Choices[ImageT]:
        """Match all pairs in one run, and then each folder of references in runs of its own.

        A pair with a missing image is left out and comes out empty.
        """
        images = {views: self._images_of(views, present, rig) for views in rig.matched_pairs}
        single = [pairs[0] for pairs in images.values() if len(pairs) == 1]
        runs: list[Sequence[Images]] = [single]
        info = self._pipeline.info
        limits = info.pairs, info.batch and info.batch - 1  # of a static export
        most = min([FOLDER_IMAGES_PER_RUN, *filter(None, limits)])
        for pairs in images.values():
            if len(pairs) > 1:
                runs += in_parts(pairs, most)
        matches: dict[tuple[int, int], PairMatches] = {}
        for run in runs:
            whole = [(one, two) for one, two in run if one is not None and two is not None]
            numbers = [(id(first), id(second)) for first, second in whole]
            matches |= zip(numbers, self._match_present(whole), strict=True)
        nothing = PairMatches.empty()
        return {
            views: [_make_pair(it, matches.get((id(it[0]), id(it[1])), nothing)) for it in pairs]
            for views, pairs in images.items()
        }

    def _images_of(
        self, views: tuple[View, View], present: Sequence[ExtractedImage[ImageT] | None], rig: Rig
    ) -> list[Images]:
        """Return both images of a pair; of a folder of references all images, each with the camera's."""
        first, second = (
            [self.history.look_up(view, present)]
            if rig.reference_of(view) is None
            else self._references.of(view, rig)
            for view in views
        )
        is_missing = None in first or None in second
        pairs: list[Images] = [(one, two) for one in first for two in second]
        return [(None, None)] if is_missing and len(pairs) > 1 else pairs

    def _match_present(
        self, pairs: Sequence[tuple[ExtractedImage[ImageT], ExtractedImage[ImageT]]]
    ) -> list[PairMatches]:
        if not pairs:
            return []
        # By identity: an image that is in several pairs goes in once.
        images = list({id(image): image for pair in pairs for image in pair}.values())
        slots = {id(image): slot for slot, image in enumerate(images)}
        features = Features.concatenate([image.features for image in images])
        matches = self._pipeline.match_features(features, [(slots[id(a)], slots[id(b)]) for a, b in pairs])
        canvas = self._pipeline.image_size
        return [
            self._refiner.refine(of_pair, first.grey, second.grey, canvas)
            for of_pair, (first, second) in zip(matches, pairs, strict=True)
        ]

    def _verify(self, choices: _Choices[ImageT], settings: FrameSettings) -> str:
        """Verify the pairs that have both images; return why others could not be verified."""
        if settings.geometry == "none":
            return ""
        problems: dict[str, None] = {}
        for views, pairs in choices.items():
            for number, pair in enumerate(pairs):
                if not pair.is_missing:
                    try:
                        verification = self._verify_pair(pair, views, settings)
                        pairs[number] = replace(pair, verification=verification)
                    except ConfigError as error:
                        pairs[number] = replace(pair, unverified=str(error))
                        problems[str(error)] = None
        return "; ".join(problems)

    def _verify_pair(
        self, pair: RigPair[ImageT], views: tuple[View, View], settings: FrameSettings
    ) -> Verification:
        geometry = settings.geometry
        sizes = [(image.width, image.height) for image in (pair.image0, pair.image1) if image is not None]
        intrinsics = None
        if geometry == "essential" and any(map(settings.rig.reference_of, views)):
            raise ConfigError(
                f"pair {settings.rig.name_of(views)} has a reference, whose intrinsics are unknown"
            )
        if geometry == "essential" and self._calibration is not None:
            known = self._calibration.intrinsics
            intrinsics = known(views[0].camera, sizes[0]), known(views[1].camera, sizes[1])
        turned = list(map(turned_size, sizes, pair.rotations))  # as they lay on the canvas
        return verify_pair(pair.matches, geometry, turned, self._pipeline.image_size, intrinsics)


# The candidates of each pair without its rank: one, or one for each image of a folder of references.
_Choices = dict[tuple[View, View], list[RigPair[ImageT]]]


def _make_pair(images: Images, matches: PairMatches) -> RigPair[Any]:
    first, second = images
    return RigPair(
        None if first is None else first.image,
        None if second is None else second.image,
        matches,
        num_keypoints0=0 if first is None else first.num_keypoints,
        num_keypoints1=0 if second is None else second.num_keypoints,
        rotations=(first.rotation if first else 0, second.rotation if second else 0),
    )


def _choose_best(choices: _Choices[ImageT], rig: Rig) -> list[RigPair[ImageT]]:
    """Return the matches of each pair of the rig; of a folder the best, second best, and so on, by rank."""
    for pairs in choices.values():
        if len(pairs) > 1:
            pairs.sort(key=lambda pair: pair.agreeing, reverse=True)
    best = []
    for views in rig.pairs:
        pairs, rank = choices[without_rank(views)], max(views[0].rank, views[1].rank)
        best.append(pairs[min(rank, len(pairs) - 1)])  # only one if the camera is missing
    return best


def _decode(
    images: Sequence[ImageT | None], mono16: Mono16Range
) -> tuple[list[ImageT | None], list[np.ndarray | Features | None], list[tuple[int, RejectedImageError]]]:
    """Decode the images of a frame; a broken image is rejected, as if its camera were missing."""
    usable: list[ImageT | None] = [None] * len(images)
    decoded: list[np.ndarray | Features | None] = [None] * len(images)
    rejected = []
    for camera, image in enumerate(images):
        if image is not None:
            try:
                decoded[camera] = image.decode(mono16)
                usable[camera] = image
            except RejectedImageError as error:
                rejected.append((camera, error))
    return usable, decoded, rejected
