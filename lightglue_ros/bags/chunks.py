"""Matches chunks of frames.

A chunk gives the same bytes wherever and whenever it is matched: the frames before it that its pairs need are
extracted again, without being matched, unless this process has just matched them.
"""

from __future__ import annotations

import hashlib
import pickle
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lightglue_ros.bags.camera_info_index import make_calibration, set_camera_infos
from lightglue_ros.bags.frame_index import FrameIndex
from lightglue_ros.bags.recorded_images import ImageRef, RecordedImages
from lightglue_ros.core import MatchPipeline, ModelError
from lightglue_ros.core.store import find_model
from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.frame import RigFrame
from lightglue_ros.rig.processor import FrameProcessor
from lightglue_ros.rosdata.bags import Bag
from lightglue_ros.rosdata.decoding import CameraImage
from lightglue_ros.rosdata.messages import result_to_message
from lightglue_ros.rosdata.parameters import MatcherParameters
from lightglue_ros.rosdata.typestore import MATCHES_TYPE, message_types, typestore

# (time in nanoseconds, serialized message) of each frame with at least one decoded image; and numbers of
# frames, pairs, missing pairs, matches and rejected images.
MatchedChunk = tuple[list[tuple[int, bytes]], Counter[str]]


@dataclass(frozen=True)
class ChunkSource:
    """The bag of a chunk, and what it is matched with.

    Attributes:
        bag: folder or file of the bag.
        index: file of its pickled `FrameIndex`.
        settings: the matcher's settings.
        model_sha256: see `hash_model`.
    """

    bag: Path
    index: Path
    settings: MatcherParameters
    model_sha256: str


def hash_model(model: str) -> tuple[Path, str]:
    """Return the folder of a split model and the SHA-256 of its files.

    Raises:
        ModelError: the model is missing, or is a pipeline.onnx.
    """
    files = find_model(model)
    if not files.is_split:
        raise ModelError(
            f"{files.pipeline} goes from images to matches and has no features to keep",
            allowed="a model with extractor.onnx and matcher.onnx",
            fix="lightglue_ros export MODEL --split",
        )
    digest = hashlib.sha256()
    for file in (files.extractor, files.matcher):
        digest.update(file.read_bytes())
    return files.extractor.absolute().parent, digest.hexdigest()


# Its model, bag and history serve the next chunk. A process serves one run, whose bags have the same model.
_last: ChunkMatcher | None = None


def match_chunk(source: ChunkSource, chunk: range) -> MatchedChunk:
    """Match the frames of a bag that have these numbers."""
    global _last
    if _last is None or _last.source != source:
        _last = ChunkMatcher(source, _last.pipeline if _last else _load(source))
    return _last.match(chunk)


def _load(source: ChunkSource) -> MatchPipeline:
    if hash_model(source.settings.model)[1] != source.model_sha256:
        raise ModelError(
            f"model {source.settings.model} is not the same here as on the machine where the run began",
            fix="copy the model store to every machine",
        )
    return source.settings.load()


class ChunkMatcher:
    """Matches chunks of one bag."""

    def __init__(self, source: ChunkSource, pipeline: MatchPipeline) -> None:
        self.source = source
        self.pipeline = pipeline
        self._index: FrameIndex = pickle.loads(source.index.read_bytes())
        self._recorded = RecordedImages(Bag(source.bag), source.settings)
        self._calibration = make_calibration(source.settings)
        self._settings = source.settings.frame
        self._processor: FrameProcessor[CameraImage] = FrameProcessor(
            pipeline, self._settings, self._calibration
        )
        self._next: int | None = None

    def match(self, chunk: range) -> MatchedChunk:
        """Match the frames of a chunk; see `match_chunk`."""
        if self._next != chunk.start:
            self._extract_past(chunk.start)
        self._next = None
        messages, counts = [], Counter[str]()
        for time, frame in self._read(chunk):
            set_camera_infos(self._calibration, self._index.camera_infos, time)
            result = self._processor.process(frame, self._settings)
            if result.first_image is not None:
                message = result_to_message(message_types(), result, self.pipeline.info.model)
                messages.append((time, bytes(typestore().serialize_cdr(message, MATCHES_TYPE))))
            counts.update(
                frames=int(result.first_image is not None),
                pairs=len(result.pairs),
                missing=sum(pair.is_missing for pair in result.pairs),
                matches=sum(len(pair.matches) for pair in result.pairs),
                rejected=len(result.rejected),
            )
        self._next = chunk.stop
        return messages, counts

    def _extract_past(self, first: int) -> None:
        """Extract as much of the past as the pairs need, as if all frames before had been matched."""
        frames, history = self._index.frames, self._processor.history
        epoch_begin = bisect_left(frames, frames[first][1].epoch, key=lambda timed: timed[1].epoch)
        begin, reach = first, self._settings.rig.most_frames_back
        history.clear()
        while not history.is_full and begin > epoch_begin:
            # Further back where cameras are between two images, or images are broken.
            begin, reach = max(epoch_begin, first - reach), 2 * reach
            history.clear()
            for _, frame in self._read(range(begin, first)):
                self._processor.add_to_history(frame, self._settings)

    def _read(self, chunk: range) -> Iterator[tuple[int, RigFrame[CameraImage]]]:
        """Read the images of a chunk; yields each frame after its time in nanoseconds."""
        frames = self._index.frames[chunk.start : chunk.stop]
        wanted = {place for _, frame in frames for place in enumerate(frame.images) if place[1] is not None}
        times = [ref.time for _, ref in wanted]
        recorded = self._recorded.read(min(times), max(times) + 1)
        found: dict[tuple[int, ImageRef], CameraImage] = {}

        def find(camera: int, ref: ImageRef) -> CameraImage:
            while (camera, ref) not in found:
                one, place, message = next(recorded, (0, None, None))
                if message is None:
                    raise ConfigError(
                        f"bag {self.source.bag} has changed since its frames were indexed",
                        fix="remove what is not finished, OUT.part, and begin anew",
                    )
                if (one, place) in wanted:
                    found[one, place] = self._recorded.check(message.data)
            return found.pop((camera, ref))

        for time, frame in frames:
            images = tuple(ref and find(camera, ref) for camera, ref in enumerate(frame.images))
            yield time, replace(frame, images=images)
