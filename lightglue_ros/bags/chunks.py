"""Matches chunks of frames.

A chunk gives the same bytes wherever and whenever it is matched: the frames before it that its pairs need are
extracted again, without being matched, unless this process has just matched them.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lightglue_ros.bags.camera_info_index import camera_info_at, make_calibration
from lightglue_ros.bags.frame_index import FrameIndex
from lightglue_ros.bags.recorded_images import ImageRef, check_recorded_image, read_images
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


@dataclass(frozen=True)
class ChunkSource:
    """The bag of a chunk, and what it is matched with.

    Attributes:
        bag: folder or file of the bag.
        index: file of its `FrameIndex`.
        settings: the matcher's settings.
        model_sha256: see `hash_model`.
        num_threads: threads of the CPU provider; 0 is one for each core.
    """

    bag: Path
    index: Path
    settings: MatcherParameters
    model_sha256: str
    num_threads: int


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


# Its model, bag and history serve the next chunk.
_last: ChunkMatcher | None = None


def match_chunk(source: ChunkSource, first: int, last: int) -> bytes:
    """Match frames first to last - 1 of a bag.

    Returns:
        JSON with `messages`: (time in nanoseconds, serialized message in base 64) of each frame with at least
        one decoded image; and `counts` of frames, pairs, missing pairs, matches and rejected images.

    Raises:
        BrokenBagError, ConfigError, ModelError, ProviderError: see their texts.
    """
    global _last
    if _last is None or _last.source != source:
        before, _last = _last, None
        _last = ChunkMatcher(source, _load(source, before))
    return _last.match(first, last)


def _load(source: ChunkSource, before: ChunkMatcher | None) -> MatchPipeline:
    """Return the pipeline of the last bag, which is closed, or load another model."""
    if before is not None:
        before.close()
        if replace(before.source, bag=source.bag, index=source.index) == source:
            return before.pipeline
    values = replace(source.settings, num_threads=source.num_threads)
    if hash_model(values.model)[1] != source.model_sha256:
        raise ModelError(
            f"model {values.model} is not the same here as on the machine where the run began",
            fix="copy the model store to every machine",
        )
    return values.load()


class ChunkMatcher:
    """Matches chunks of one bag.

    Attributes:
        source: the bag.
        pipeline: the loaded model.
    """

    def __init__(self, source: ChunkSource, pipeline: MatchPipeline) -> None:
        self.source = source
        self.pipeline = pipeline
        self._index = FrameIndex.from_bytes(source.index.read_bytes())
        self._bag = Bag(source.bag)
        self._calibration = make_calibration(source.settings)
        self._processor: FrameProcessor[CameraImage] = FrameProcessor(
            pipeline, source.settings.frame, self._calibration
        )
        self._next: int | None = None

    def close(self) -> None:
        """Close the bag."""
        self._bag.close()

    def match(self, first: int, last: int) -> bytes:
        """Match frames first to last - 1; see `match_chunk`."""
        if self._next != first:
            self._extract_past(first)
        self._next = None
        messages = []
        counts = Counter(frames=0, pairs=0, missing=0, matches=0, rejected=0)
        for time, frame in self._read(first, last):
            self._set_camera_infos(time)
            result = self._processor.process(frame, self.source.settings.frame)
            if result.first_image is not None:
                message = result_to_message(message_types(), result, self.pipeline.info.model)
                data = bytes(typestore().serialize_cdr(message, MATCHES_TYPE))
                messages.append((time, b64encode(data).decode()))
            counts.update(
                frames=int(result.first_image is not None),
                pairs=len(result.pairs),
                missing=sum(pair.is_missing for pair in result.pairs),
                matches=sum(len(pair.matches) for pair in result.pairs),
                rejected=len(result.rejected),
            )
        self._next = last
        return json.dumps({"counts": counts, "messages": messages}).encode()

    def _set_camera_infos(self, time: int) -> None:
        for camera, infos in enumerate(self._index.camera_infos):
            info = camera_info_at(infos, time)
            if info is not None:
                self._calibration.set_info(camera, info)

    def _extract_past(self, first: int) -> None:
        """Extract as much of the past as the pairs need, as if all frames before had been matched."""
        settings = self.source.settings.frame
        epoch_begin, begin = self._index.epoch_begin(first), first
        reach = max((view.back for pair in settings.rig.pairs for view in pair), default=0)
        self._processor.history.clear()
        while not self._processor.history.is_full and begin > epoch_begin:
            # Further back where cameras are between two images, or images are broken.
            begin, reach = max(epoch_begin, first - reach), 2 * reach
            self._processor.history.clear()
            for _, frame in self._read(begin, first):
                self._processor.add_to_history(frame, settings)

    def _read(self, first: int, last: int) -> Iterator[tuple[int, RigFrame[CameraImage]]]:
        """Read the images of frames first to last - 1; yields each frame after its time in nanoseconds."""
        frames = self._index.frames[first:last]
        wanted = {place for frame in frames for place in enumerate(frame.images) if place[1] is not None}
        times = [ref.time for _, ref in wanted]
        values = self.source.settings
        recorded = read_images(self._bag, values, min(times), max(times) + 1)
        found: dict[tuple[int, ImageRef], CameraImage] = {}
        for time, frame in zip(self._index.times[first:last], frames, strict=True):
            needed = {place for place in enumerate(frame.images) if place[1] is not None}
            while not needed <= found.keys():
                camera, ref, message = next(recorded, (0, None, None))
                if message is None:
                    raise ConfigError(
                        f"bag {self._bag.path} has changed since its frames were indexed",
                        fix="remove what is not finished, OUT.part, and begin anew",
                    )
                if (camera, ref) in wanted:
                    found[camera, ref] = check_recorded_image(message.data, values)
            images = tuple(ref and found.pop((camera, ref)) for camera, ref in enumerate(frame.images))
            yield time, replace(frame, images=images)
