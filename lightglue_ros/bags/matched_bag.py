"""Writes the matched bag: the messages of the input and the results, in the order of their times.

Tracks are made here, one frame after the other. The chunks cannot make them, because they are matched in any
order and do not know the ids of the frames before them.
"""

from __future__ import annotations

import heapq
import json
import pickle
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lightglue_ros.bags.chunks import ChunkSource, MatchedChunk
from lightglue_ros.bags.frame_index import FrameIndex
from lightglue_ros.bags.tally import Finding, Tally
from lightglue_ros.rig.calibration_watch import RowErrors
from lightglue_ros.rig.tracks import Tracker
from lightglue_ros.rosdata.bag_writer import BagWriter, known_topic
from lightglue_ros.rosdata.bags import Bag, metadata_of
from lightglue_ros.rosdata.messages import tracks_to_message
from lightglue_ros.rosdata.parameters import MatcherParameters
from lightglue_ros.rosdata.recording import Message, Topic
from lightglue_ros.rosdata.typestore import (
    MATCHES_TOPIC,
    MATCHES_TYPE,
    POINTS_TOPIC,
    POINTS_TYPE,
    TRACKS_TOPIC,
    TRACKS_TYPE,
    message_types,
    typestore,
)

# Keys of the custom data in the output's metadata.
_KEY, _SUMMARY = "lightglue_ros_job", "lightglue_ros_summary"


@dataclass(frozen=True)
class Output:
    """The wanted output.

    Attributes:
        path: folder of the bag.
        matches_only: leave out the messages of the input.
        storage: ``sqlite3`` or ``mcap``; None is the storage of the input.
    """

    path: Path
    matches_only: bool = False
    storage: str | None = None


@dataclass(frozen=True)
class Summary:
    """Result of matching a bag.

    Attributes:
        frames: number of messages on /matches.
        pairs: number of pairs in them.
        missing: number of pairs without one of their images.
        matches: number of matches.
        images: number of recorded images.
        findings: what was left out, and what else the user should know.
        row_errors: p50 and p95 of the row errors of each stereo pair in pixels, by its name.
    """

    frames: int
    pairs: int
    missing: int
    matches: int
    images: int
    findings: list[Finding]
    row_errors: dict[str, dict[str, float]]

    @property
    def rejected(self) -> int:
        """Number of images that cannot be used."""
        return sum(one.count for one in self.findings if one.kind == "rejected")

    @property
    def is_complete(self) -> bool:
        """True if nothing that was recorded was left out."""
        return not any(one.is_loss for one in self.findings)


def read_summary(path: Path, key: str) -> Summary | None:
    """Read the summary of an output; None if the output is not of the job with this key."""
    custom = metadata_of(path).get("custom_data") or {}
    if custom.get(_KEY) != key:
        return None
    values = json.loads(custom[_SUMMARY])
    return Summary(**{**values, "findings": [Finding(**one) for one in values["findings"]]})


def write_matched_bag(
    source: ChunkSource, chunks: Sequence[Path], output: Output, key: str, folder: Path
) -> tuple[Path, Summary]:
    """Write a matched bag; returns it and its summary.

    Args:
        source: the input.
        chunks: files of its chunks: pickled results of `match_chunk`.
        output: the wanted output; only the name of its path is used.
        key: hash of all that the output depends on.
        folder: the folder to make a folder for the new bag in.
    """
    # The file in a bag is named after the bag's folder, so that folder has its final name.
    path = Path(tempfile.mkdtemp(dir=folder)) / output.path.name
    index: FrameIndex = pickle.loads(source.index.read_bytes())
    counts, tally = Counter[str](images=index.images), Tally()
    errors = defaultdict[str, RowErrors](RowErrors)
    tally.update(index.tally)
    with (
        Bag(*source.bags, unpacked=source.unpacked) as bag,
        BagWriter(path, output.storage or bag.storage) as writer,
    ):
        ours = _result_topics(source.settings)
        topics = {one: writer.add_topic(one) for one in ours}
        results = _read_results(source.settings, chunks, ours, counts, tally, errors)
        recorded = iter(())
        if not output.matches_only:
            names = {one.name for one in ours}
            copied = {one: writer.add_topic(one) for one in bag.topics if one.name not in names}
            recorded = bag.messages_of(copied.__contains__)
            topics |= copied
            left_out = writer.add_extras(bag.extras())
            if left_out:
                tally.say("note", f"{left_out} attachments and metadata are left out: only mcap has a place")
        # Of the same time, messages of the input come first.
        for message in heapq.merge(recorded, results, key=lambda message: message.time):
            writer.write(topics[message.topic], message)
        for line in index.damage if output.matches_only else bag.problems():
            tally.say("damaged", line)
        names = ("frames", "pairs", "missing", "matches", "images")
        for name, of_pair in errors.items():
            if problem := of_pair.problem(source.settings.calibration_limit):
                tally.add("calibration", name, problem)
        summary = Summary(
            **{name: counts[name] for name in names},
            findings=tally.findings(),
            row_errors={
                name: {f"p{percent}": round(of_pair.percentile(percent), 2) for percent in (50, 95)}
                for name, of_pair in errors.items()
            },
        )
        writer.custom_data[_KEY] = key
        writer.custom_data[_SUMMARY] = json.dumps(asdict(summary))
    return path, summary


def _result_topics(settings: MatcherParameters) -> list[Topic]:
    """Return the topics that a matched bag has in addition to those of the input, or in place of them."""
    tracks = [known_topic(TRACKS_TOPIC, TRACKS_TYPE)] if settings.publish_tracks else []
    points = [known_topic(POINTS_TOPIC, POINTS_TYPE)] if settings.publish_points else []
    return [known_topic(MATCHES_TOPIC, MATCHES_TYPE), *tracks, *points]


def _read_results(
    settings: MatcherParameters,
    chunks: Sequence[Path],
    topics: Sequence[Topic],
    counts: Counter[str],
    tally: Tally,
    errors: defaultdict[str, RowErrors],
) -> Iterator[Message]:
    tracker = Tracker()
    for file in chunks:
        chunk: MatchedChunk = pickle.loads(file.read_bytes())
        counts.update(chunk.counts)
        tally.update(chunk.tally)
        for name, of_pair in chunk.row_errors.items():
            errors[name].update(of_pair)
        # Without publish_tracks, a chunk has no keypoints.
        results = {
            MATCHES_TOPIC: chunk.messages,
            TRACKS_TOPIC: make_tracks(tracker, chunk, settings.cameras),
            POINTS_TOPIC: chunk.points,
        }
        streams = (_messages(topic, results[topic.name]) for topic in topics)
        yield from heapq.merge(*streams, key=lambda message: message.time)


def _messages(topic: Topic, results: Iterable[tuple[int, bytes]]) -> Iterator[Message]:
    return (Message(topic, time, data, None, time) for time, data in results)


def make_tracks(tracker: Tracker, chunk: MatchedChunk, cameras: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """Make the serialized tracks of a chunk's frames, each with its time."""
    for time, headers, frame in chunk.keypoints:
        tracks = tracker.update(frame)
        if time is not None:
            message = tracks_to_message(message_types(), cameras, headers, tracks)
            yield time, bytes(typestore().serialize_cdr(message, TRACKS_TYPE))
