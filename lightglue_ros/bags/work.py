"""What one process does: plans the frames of a bag, and matches runs of them.

A chunk of frames gives the same bytes wherever and whenever it is matched: what it needs of the frames before
it is extracted again (frames are not matched for that), unless the process has just matched those.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lightglue_ros.bags.plan import (
    CAMERA_INFO_TYPE,
    Plan,
    check_recorded,
    images_of,
    make_calibration,
    make_plan,
)
from lightglue_ros.core import MatchPipeline, ModelError
from lightglue_ros.core.store import find_model
from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.frame import RigFrame
from lightglue_ros.rig.processor import FrameProcessor
from lightglue_ros.rosdata.bag_recovery import need_closed
from lightglue_ros.rosdata.bags import MATCHES_TYPE, Bag, message_types, typestore
from lightglue_ros.rosdata.decoding import CameraImage
from lightglue_ros.rosdata.messages import result_to_message
from lightglue_ros.rosdata.parameters import MatcherSettings


@dataclass(frozen=True)
class Source:
    """A bag and what to do with it.

    Attributes:
        bag: folder or file.
        settings: of the matcher.
        model_sha256: see `split_model`.
        key: says all of this, and nothing else does.
    """

    bag: Path
    settings: MatcherSettings
    model_sha256: str
    key: str


@dataclass(frozen=True)
class PlanTask:
    """Plan the frames of a bag; becomes a `Plan`."""

    source: Source


@dataclass(frozen=True)
class ChunkTask:
    """Match frames first to last - 1 of a plan; becomes a `Chunk`.

    Attributes:
        source: the bag.
        plan: file of its plan.
        first: number of the first frame.
        last: number of the frame after the last.
        num_threads: of the CPU provider.
    """

    source: Source
    plan: Path
    first: int
    last: int
    num_threads: int


Task = PlanTask | ChunkTask


@dataclass(frozen=True)
class Chunk:
    """What became of the frames of a chunk.

    Attributes:
        messages: time in nanoseconds and serialised message of each frame of which an image could be decoded.
        counts: of `pairs`, of those of them that are `missing` an image, and of `matches`.
        rejected: how many images turned out to be broken, by cause.
    """

    messages: list[tuple[int, bytes]]
    counts: dict[str, int]
    rejected: dict[str, int]

    def to_bytes(self) -> bytes:
        """The chunk as a file: a line of JSON, and the messages one after the other."""
        about = {
            "counts": self.counts,
            "rejected": self.rejected,
            "messages": [(time, len(data)) for time, data in self.messages],
        }
        return b"".join([json.dumps(about).encode(), b"\n", *(data for _, data in self.messages)])

    @classmethod
    def from_bytes(cls, content: bytes) -> Chunk:
        """Read what `to_bytes` made."""
        line, _, rest = content.partition(b"\n")
        about, begin = json.loads(line), 0
        messages = []
        for time, length in about["messages"]:
            messages.append((time, rest[begin : begin + length]))
            begin += length
        return cls(messages, about["counts"], about["rejected"])


def split_model(model: str) -> tuple[Path, str]:
    """The folder of a split model, and SHA-256 of its files.

    Raises:
        ModelError: there is no such model, or it is a pipeline.onnx.
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


class Worker:
    """Does tasks one after the other; what the last one loaded and extracted serves the next."""

    def __init__(self) -> None:
        self._pipeline: MatchPipeline | None = None
        self._settings: tuple[MatcherSettings, str] | None = None
        self._matcher: _BagMatcher | None = None
        self._key: tuple[str, Path] | None = None

    def do(self, task: Task) -> Plan | Chunk:
        """Do a task.

        Raises:
            BrokenBagError: the bag ends in the middle.
            ConfigError, ModelError, ProviderError: see their texts.
        """
        if isinstance(task, PlanTask):
            need_closed(task.source.bag)
            with Bag(task.source.bag) as bag:
                return make_plan(bag, task.source.settings)
        return self._matcher_of(task).match(task.first, task.last)

    def _matcher_of(self, task: ChunkTask) -> _BagMatcher:
        key = (task.source.key, task.source.bag)
        if self._matcher is None or self._key != key:
            pipeline = self._load(task)
            plan = Plan.from_bytes(task.plan.read_bytes())
            self._matcher, self._key = _BagMatcher(task.source, plan, pipeline), key
        return self._matcher

    def _load(self, task: ChunkTask) -> MatchPipeline:
        values = replace(task.source.settings.values, num_threads=task.num_threads)
        settings = replace(task.source.settings, values=values)
        asked = (settings, task.source.model_sha256)
        if self._pipeline is None or self._settings != asked:
            if split_model(values.model)[1] != task.source.model_sha256:
                raise ModelError(
                    f"model {values.model} is another one here than where this was started",
                    fix="copy the model store to every machine",
                )
            self._pipeline, self._settings = settings.load(), asked
        return self._pipeline


class _BagMatcher:
    """Matches frames of one bag."""

    def __init__(self, source: Source, plan: Plan, pipeline: MatchPipeline) -> None:
        self._settings = source.settings
        self._bag = Bag(source.bag)
        self._plan = plan
        self._model = pipeline.info.model
        self._calibration = make_calibration(source.settings.values)
        self._processor: FrameProcessor[CameraImage] = FrameProcessor(
            pipeline, source.settings.frame, self._calibration
        )
        self._next: int | None = None

    def match(self, first: int, last: int) -> Chunk:
        if self._next != first:
            self._go_to(first)
        self._next = None
        messages: list[tuple[int, bytes]] = []
        counts: Counter[str] = Counter(pairs=0, missing=0, matches=0)
        rejected: Counter[str] = Counter()
        for number, frame in self._frames(first, last):
            self._set_camera_infos(number)
            result = self._processor.process(frame, self._settings.frame)
            rejected.update(error.cause for _, error in result.rejected)
            counts["pairs"] += len(result.pairs)
            counts["missing"] += sum(pair.is_missing for pair in result.pairs)
            counts["matches"] += sum(len(pair.matches) for pair in result.pairs)
            if result.first_image is not None:
                message = result_to_message(message_types(), result, self._model)
                data = bytes(typestore().serialize_cdr(message, MATCHES_TYPE))
                messages.append((int(self._plan.times[number]), data))
        self._next = last
        return Chunk(messages, dict(counts), dict(rejected))

    def _set_camera_infos(self, frame: int) -> None:
        for camera in range(len(self._settings.frame.rig.cameras)):
            info = self._plan.camera_info(camera, frame)
            if info is not None:
                self._calibration.set_info(camera, typestore().deserialize_cdr(info, CAMERA_INFO_TYPE))

    def _go_to(self, frame: int) -> None:
        """Extract as much of the past as matching goes back to, as if all frames before had been matched."""
        rig = self._settings.frame.rig
        begin, first = self._plan.epoch_begin(frame), frame
        reach = max(map(rig.frames_back, range(len(rig.cameras))))
        self._processor.clear_history()
        while not self._processor.history_is_full and first > begin:
            # Further back where cameras are between two images or images are broken.
            first, reach = max(begin, frame - reach), 2 * reach
            self._processor.clear_history()
            for _, past in self._frames(first, frame):
                self._processor.add_to_history(past, self._settings.frame)

    def _frames(self, first: int, last: int) -> Iterator[tuple[int, RigFrame[CameraImage]]]:
        """Read frames and their images, one after the other."""
        refs = [self._plan.refs(frame) for frame in range(first, last)]
        wanted = {(camera, ref) for of in refs for camera, ref in enumerate(of) if ref is not None}
        times = [ref.time for _, ref in wanted]
        values = self._settings.values
        images = images_of(self._bag, values, min(times), max(times) + 1)
        read: dict[tuple[int, tuple[int, int]], CameraImage] = {}
        for frame, of_frame in enumerate(refs, first):
            needed = {(camera, ref) for camera, ref in enumerate(of_frame) if ref is not None}
            while not needed <= read.keys():
                camera, ref, message = next(images, (0, None, None))
                if message is None:
                    raise ConfigError(
                        f"bag {self._bag.path} has changed since its frames were planned",
                        fix="remove what is not finished, OUT.part, and begin anew",
                    )
                if (camera, ref) in wanted:
                    read[camera, ref] = check_recorded(message.data, values)
            found = tuple(read.pop((c, ref)) if ref is not None else None for c, ref in enumerate(of_frame))
            yield frame, self._plan.rig_frame(frame, found)
