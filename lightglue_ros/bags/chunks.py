"""Matches chunks of frames.

A chunk gives the same bytes wherever and whenever it is matched: the frames before it that its pairs need are
extracted again, without being matched, unless this process has just matched them.
"""

from __future__ import annotations

import hashlib
import pickle
import traceback
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lightglue_ros.bags.camera_info_index import make_calibration, set_camera_infos
from lightglue_ros.bags.frame_index import FrameIndex
from lightglue_ros.bags.recorded_images import check_image
from lightglue_ros.bags.recorded_masks import RecordedMasks
from lightglue_ros.bags.tally import Tally
from lightglue_ros.core import Features, MatchPipeline, ModelError
from lightglue_ros.core.store import SPLIT, find_model
from lightglue_ros.rig.calibration_watch import RowErrors, row_errors
from lightglue_ros.rig.extracted_references import ExtractedReferences
from lightglue_ros.rig.frame import FrameResult, RigFrame
from lightglue_ros.rig.processor import FrameProcessor
from lightglue_ros.rig.tracks import FrameKeypoints
from lightglue_ros.rosdata.bags import Bag, Place
from lightglue_ros.rosdata.decoding import CameraImage
from lightglue_ros.rosdata.messages import result_to_message
from lightglue_ros.rosdata.parameters import MatcherParameters
from lightglue_ros.rosdata.points import point_clouds
from lightglue_ros.rosdata.typestore import MATCHES_TYPE, POINTS_TYPE, message_types, point_types, typestore


class StampedKeypoints(NamedTuple):
    """Keypoints and matches of a frame, from which its tracks are made.

    Attributes:
        time: of the message in nanoseconds; None if the frame failed and has no message.
        headers: of each camera's image; None if it is missing.
        frame: the keypoints.
    """

    time: int | None
    headers: list[Any]
    frame: FrameKeypoints


@dataclass
class MatchedChunk:
    """Matches of a chunk.

    Attributes:
        messages: (time in nanoseconds, serialized message) of each frame with at least one decoded image.
        keypoints: of each such frame, if tracks are wanted: a chunk does not know the tracks that come to it.
        points: (time in nanoseconds, serialized PointCloud2) of each stereo pair, if points are wanted.
        counts: numbers of frames, pairs, missing pairs and matches.
        tally: findings about the frames.
        row_errors: of each stereo pair, by its name.
        tracebacks: of frames that failed, each once.
    """

    messages: list[tuple[int, bytes]] = field(default_factory=list)
    keypoints: list[StampedKeypoints] = field(default_factory=list)
    points: list[tuple[int, bytes]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)
    row_errors: dict[str, RowErrors] = field(default_factory=dict)
    tracebacks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ChunkSource:
    """The bag of a chunk, and what it is matched with.

    Attributes:
        bags: folders or files of the bag, or of bags that together hold the rig.
        unpacked: see `Bag`.
        index: file of its pickled `FrameIndex`.
        settings: the matcher's settings.
        model_sha256: see `hash_model`.
    """

    bags: tuple[Path, ...]
    unpacked: Path
    index: Path
    settings: MatcherParameters
    model_sha256: str


def hash_model(model: str) -> tuple[Path, str]:
    """Return the folder of a split model and the SHA-256 of its files.

    Raises:
        ModelError: the model is missing, or is a pipeline.onnx.
    """
    extractor, matcher = find_model(model).paths(SPLIT).values()
    digest = hashlib.sha256()
    for file in (extractor, matcher):
        digest.update(file.read_bytes())
    return extractor.absolute().parent, digest.hexdigest()


# First frames of a bag that are matched at most to find out the rotations of its cameras.
MOST_SEARCHED_FRAMES = 100

# Its model, bag and history serve the next chunk. A process serves one run, whose bags have the same model.
_last: ChunkMatcher | None = None


def match_chunk(source: ChunkSource, chunk: range) -> MatchedChunk:
    """Match the frames of a bag that have these numbers."""
    return _matcher(source).match(chunk)


def find_rotations(source: ChunkSource) -> tuple[int, ...]:
    """Find out by matching the first frames of a bag how its cameras are turned."""
    return _matcher(source).find_rotations()


def _matcher(source: ChunkSource) -> ChunkMatcher:
    global _last
    if _last is None or _last.source != source:
        pipeline = _last.pipeline if _last else _load(source)
        references = _last.references if _last else ExtractedReferences()
        if _last is not None:
            _last.close()
        _last = ChunkMatcher(source, pipeline, references)
    return _last


def _load(source: ChunkSource) -> MatchPipeline:
    if hash_model(source.settings.model)[1] != source.model_sha256:
        raise ModelError(
            f"model {source.settings.model} is not the same here as on the machine where the run began",
            fix="copy the model store to every machine",
        )
    return source.settings.load()


class ChunkMatcher:
    """Matches chunks of one bag.

    Raises:
        ConfigError: a reference cannot be read.
    """

    def __init__(self, source: ChunkSource, pipeline: MatchPipeline, references: ExtractedReferences) -> None:
        self.source = source
        self.pipeline = pipeline
        self.references = references
        self._index: FrameIndex = pickle.loads(source.index.read_bytes())
        self._bag = Bag(*source.bags, unpacked=source.unpacked)
        self._calibration = make_calibration(source.settings)
        self._settings = source.settings.frame
        self._masks = RecordedMasks(source.settings, self._index.masks, self._bag)
        self._processor: FrameProcessor[CameraImage] = FrameProcessor(
            pipeline, self._settings, self._calibration, references, self._masks.masks
        )
        self._processor.apply(self._settings)
        self._next: int | None = None

    def close(self) -> None:
        """Close the bag."""
        self._bag.close()

    def find_rotations(self) -> tuple[int, ...]:
        """Match the first frames until the rotations are found; see `find_rotations`."""
        self._next = None
        for time, frame in self._index.frames[:MOST_SEARCHED_FRAMES]:
            self._masks.set(time)
            with suppress(Exception):  # such a frame fails in its chunk, too
                self._processor.process(self._read(frame), replace(self._settings, geometry="none"))
            if not self._processor.rotations.is_searching:
                break
        return self._processor.rotations.rotations

    def match(self, chunk: range) -> MatchedChunk:
        """Match the frames of a chunk; see `match_chunk`."""
        if self._next != chunk.start:
            self._extract_past(chunk.start)
        self._next = None
        matched = MatchedChunk()
        if self.pipeline.fallback_warning:
            matched.tally.say("note", self.pipeline.fallback_warning)
        for time, frame in self._index.frames[chunk.start : chunk.stop]:
            set_camera_infos(self._calibration, self._index.camera_infos, time)
            self._masks.set(time)
            images = self._read(frame)
            try:
                result = self._processor.process(images, self._settings)
            # ONNX Runtime and OpenCV raise their own errors; they end this frame only.
            except Exception as error:
                self._take_failed(images, matched)
                _note_failure(error, matched)
            else:
                self._take(time, result, matched)
                self._take_keypoints(time, images, result, matched)
                # The next frame would copy the features of a result that is still held from a GPU.
                del result
        self._next = chunk.stop
        return matched

    def _take(self, time: int, result: FrameResult[CameraImage], matched: MatchedChunk) -> None:
        """Add the matches of a frame, and count."""
        if result.first_image is not None:
            message = result_to_message(message_types(), result, self.pipeline.info.model)
            matched.messages.append((time, bytes(typestore().serialize_cdr(message, MATCHES_TYPE))))
            self._take_points(time, result, matched)
            self._take_row_errors(result, matched)
        matched.counts.update(
            frames=int(result.first_image is not None),
            pairs=len(result.pairs),
            missing=sum(pair.is_missing for pair in result.pairs),
            matches=sum(len(pair.matches) for pair in result.pairs),
        )
        for camera, error in result.rejected:
            matched.tally.add("rejected", self.source.settings.cameras[camera], error.cause, str(error))
        self._masks.count_problems(matched.tally)
        for name, pair in zip(self.source.settings.pairs, result.pairs, strict=False):
            if pair.unverified:
                matched.tally.add("unverified", name, pair.unverified)

    def _take_keypoints(
        self,
        time: int,
        frame: RigFrame[CameraImage],
        result: FrameResult[CameraImage],
        matched: MatchedChunk,
    ) -> None:
        """Add the keypoints of a frame for its tracks."""
        if self.source.settings.publish_tracks and result.first_image is not None:
            headers = [image and image.header for image in result.images]
            keypoints = FrameKeypoints.of_result(frame, result, self._calibration)
            matched.keypoints.append(StampedKeypoints(time, headers, keypoints))

    def _take_failed(self, frame: RigFrame[CameraImage], matched: MatchedChunk) -> None:
        """Add a frame that failed to the past of the later ones, for tracks as well."""
        features = self._add_to_history(frame)
        if self.source.settings.publish_tracks and any(features):
            keypoints = FrameKeypoints.of_unmatched(frame, self._settings.rig, features)
            matched.keypoints.append(StampedKeypoints(None, [], keypoints))

    def _take_points(self, time: int, result: FrameResult[CameraImage], matched: MatchedChunk) -> None:
        if self.source.settings.publish_points:
            canvas, note = self.pipeline.image_size, partial(matched.tally.say, "note")
            for message in point_clouds(point_types(), result, self._calibration, canvas, note):
                matched.points.append((time, bytes(typestore().serialize_cdr(message, POINTS_TYPE))))

    def _take_row_errors(self, result: FrameResult[CameraImage], matched: MatchedChunk) -> None:
        if self.source.settings.watches_calibration:
            canvas = self.pipeline.image_size
            for name, errors, pixel in row_errors(result, self._calibration, canvas):
                matched.row_errors.setdefault(name, RowErrors()).add(errors, pixel)

    def _extract_past(self, first: int) -> None:
        """Extract as much of the past as the pairs need, as if all frames before had been matched."""
        history = self._processor.history
        begin, reach = first, self._settings.rig.most_frames_back
        history.clear()
        while (lacking := history.incomplete) and begin > min(self._epoch_begin(first, c) for c in lacking):
            # Further back where cameras are between two images, or images are broken.
            begin, reach = max(0, first - reach), 2 * reach
            history.clear()
            for time, frame in self._index.frames[begin:first]:
                self._masks.set(time)
                self._add_to_history(self._read(frame))

    def _add_to_history(self, frame: RigFrame[CameraImage]) -> Sequence[Features | None]:
        # A frame that fails here is in no history, wherever its chunk begins.
        with suppress(Exception):
            return self._processor.add_to_history(frame, self._settings)
        return []

    def _epoch_begin(self, number: int, camera: int) -> int:
        """Return the number of the first frame since the time of a camera was set back."""
        frames = self._index.frames
        epoch = frames[number][1].epochs[camera]
        return bisect_left(frames, epoch, key=lambda timed: timed[1].epochs[camera])

    def _read(self, frame: RigFrame[Place]) -> RigFrame[CameraImage]:
        """Read the images of a frame, which were checked when it was indexed."""
        images = (
            None if place is None or topic is None else self._check(place, topic.kind)
            for place, topic in zip(frame.images, self._index.topics, strict=True)
        )
        return replace(frame, images=tuple(images))

    def _check(self, place: Place, kind: str) -> CameraImage:
        return check_image(self._bag.read(place), kind, self.source.settings.max_image_pixels)


def _note_failure(error: Exception, matched: MatchedChunk) -> None:
    what = f"{type(error).__name__}: {error}"
    where = "".join(traceback.format_exception(error))
    matched.tally.add("failed", "", type(error).__name__, " ".join(what.split()))
    if where not in matched.tracebacks:
        matched.tracebacks.append(where)
