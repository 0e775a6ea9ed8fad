"""Writes the matched bag: the messages of the input and /matches, in the order of their times."""

from __future__ import annotations

import heapq
import json
import tempfile
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from lightglue_ros.rosdata.bag_writer import BagWriter
from lightglue_ros.rosdata.bags import Bag, metadata_of
from lightglue_ros.rosdata.typestore import MATCHES_TYPE

MATCHES_TOPIC = "/matches"
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
    """Numbers of messages on /matches (`frames`), of pairs in them, of pairs without one of their images
    (`missing`), of matches, of recorded images, and of images that cannot be used (`rejected`).
    """

    frames: int
    pairs: int
    missing: int
    matches: int
    images: int
    rejected: int


def read_summary(path: Path, key: str) -> Summary | None:
    """Read the summary of an output; None if the output is not of the job with this key."""
    custom = metadata_of(path).get("custom_data") or {}
    return Summary(**json.loads(custom[_SUMMARY])) if custom.get(_KEY) == key else None


def write_matched_bag(
    source: Path, chunks: Sequence[Path], output: Output, key: str, folder: Path, counts: Mapping[str, int]
) -> tuple[Path, Summary]:
    """Write a matched bag.

    Args:
        source: the input.
        chunks: files of its chunks, see `match_chunk`.
        output: the wanted output; its path is left alone.
        key: hash of all that the output depends on.
        folder: where to make a folder for the new bag.
        counts: numbers for the summary from before the matching.

    Returns:
        The new bag, and its summary.

    Raises:
        BrokenBagError: the input ends in the middle.
    """
    # The file in a bag is named after the bag's folder, so that folder has its final name.
    path = Path(tempfile.mkdtemp(prefix="output-", dir=folder)) / output.path.name
    total = Counter(frames=0, pairs=0, missing=0, matches=0, images=0, rejected=0)
    total.update(counts)
    with Bag(source) as bag, BagWriter(path, output.storage or bag.storage) as writer:
        matches = _read_matches(chunks, writer.add_topic(MATCHES_TOPIC, MATCHES_TYPE), total)
        recorded = () if output.matches_only else bag.copies(writer, leave_out=[MATCHES_TOPIC])
        # Of the same time, messages of the input come first.
        for time, topic, data in heapq.merge(recorded, matches, key=itemgetter(0)):
            writer.write(topic, time, data)
        summary = Summary(**total)
        writer.set_custom_data(_KEY, key)
        writer.set_custom_data(_SUMMARY, json.dumps(asdict(summary)))
    return path, summary


def _read_matches(
    chunks: Sequence[Path], topic: Any, total: Counter[str]
) -> Iterator[tuple[int, Any, bytes]]:
    for file in chunks:
        chunk = json.loads(file.read_bytes())
        total.update(chunk["counts"])
        for time, message in chunk["messages"]:
            yield time, topic, b64decode(message)
