"""Writes the matched bag: the messages of the input and /matches, in the order of their times."""

from __future__ import annotations

import heapq
import json
import pickle
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from lightglue_ros.rosdata.bags import Bag, BagWriter, metadata_of
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

    frames: int = 0
    pairs: int = 0
    missing: int = 0
    matches: int = 0
    images: int = 0
    rejected: int = 0


def read_summary(path: Path, key: str) -> Summary | None:
    """Read the summary of an output; None if the output is not of the job with this key."""
    custom = metadata_of(path).get("custom_data") or {}
    return Summary(**json.loads(custom[_SUMMARY])) if custom.get(_KEY) == key else None


def write_matched_bag(
    source: Path, chunks: Sequence[Path], output: Output, key: str, folder: Path, counts: Counter[str]
) -> tuple[Path, Summary]:
    """Write a matched bag; returns it and its summary.

    Args:
        source: folder or file of the input.
        chunks: files of its chunks: pickled results of `match_chunk`.
        output: the wanted output; only the name of its path is used.
        key: hash of all that the output depends on.
        folder: the folder to make a folder for the new bag in.
        counts: numbers of images and of rejected images in the input.
    """
    # The file in a bag is named after the bag's folder, so that folder has its final name.
    path = Path(tempfile.mkdtemp(dir=folder)) / output.path.name
    with Bag(source) as bag, BagWriter(path, output.storage or bag.storage) as writer:
        matches = _read_matches(chunks, writer.add_topic(MATCHES_TOPIC, MATCHES_TYPE), counts)
        recorded = () if output.matches_only else bag.copies(writer, leave_out=[MATCHES_TOPIC])
        # Of the same time, messages of the input come first.
        for time, topic, data in heapq.merge(recorded, matches, key=itemgetter(0)):
            writer.write(topic, time, data)
        summary = Summary(**counts)
        writer.set_custom_data(_KEY, key)
        writer.set_custom_data(_SUMMARY, json.dumps(asdict(summary)))
    return path, summary


def _read_matches(
    chunks: Sequence[Path], topic: Any, counts: Counter[str]
) -> Iterator[tuple[int, Any, bytes]]:
    for file in chunks:
        messages, counts_of_chunk = pickle.loads(file.read_bytes())
        counts.update(counts_of_chunk)
        yield from ((time, topic, data) for time, data in messages)
