"""Reads rosbag2 (sqlite3 or MCAP, also compressed) without ROS, through the library rosbags."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.bag_writer import BagWriter
from lightglue_ros.rosdata.typestore import rosbag2

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
STORAGES = ("sqlite3", "mcap")
_STORAGE_OF_SUFFIX = {".db3": "sqlite3", ".mcap": "mcap"}


class BrokenBagError(ConfigError):
    """A bag that cannot be read, or not to its end."""


@dataclass(frozen=True)
class BagMessage:
    """A recorded message.

    Attributes:
        topic: its topic.
        time: when it was recorded, in nanoseconds.
        data: the serialized message (CDR).
    """

    topic: str
    time: int
    data: bytes


class Bag:
    """A recorded bag; a context manager that closes it.

    Args:
        path: folder of a rosbag2, or one of its .db3 or .mcap files.

    Attributes:
        path: the argument of that name.
        types: the type of each topic, such as sensor_msgs/msg/Image.
        storage: ``sqlite3`` or ``mcap``.

    Raises:
        BrokenBagError: the files are broken.
        ConfigError: there is no bag.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        found = storage_files(self.path)
        self.storage = storage_of(found)
        # A recorder that was killed leaves no metadata.yaml; rosbags reads a single file without it.
        is_bare = self.path.is_dir() and not (self.path / "metadata.yaml").exists() and len(found) == 1
        try:
            self._reader = rosbag2.Reader(found[0] if is_bare else self.path)
            self._reader.open()
        except Exception as error:
            raise self._broken(error) from error
        self.types = {connection.topic: connection.msgtype for connection in self._reader.connections}

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def image_types(self, topics: Sequence[str] = ()) -> dict[str, str]:
        """Return the types of image topics.

        Args:
            topics: the wanted topics; all image topics if empty.

        Raises:
            ConfigError: one of the topics has no images, or the bag has none at all.
        """
        images = {topic: kind for topic, kind in self.types.items() if kind in IMAGE_TYPES}
        lacking = [topic for topic in topics if topic not in images]
        if lacking or not images:
            raise ConfigError(
                f"bag {self.path} has no images{' on ' + ', '.join(lacking) if lacking else ''}",
                allowed=f"topics of {' or '.join(IMAGE_TYPES)}; it has: {self.describe_topics()}",
            )
        return {topic: images[topic] for topic in topics or sorted(images)}

    def describe_topics(self) -> str:
        """Return the topics and their types in words."""
        return ", ".join(f"{topic} ({kind})" for topic, kind in sorted(self.types.items())) or "no topics"

    def messages(
        self, topics: Collection[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[BagMessage]:
        """Read messages in the order in which they were recorded.

        Args:
            topics: read these topics only.
            start: read messages recorded at or after this time, in nanoseconds.
            stop: read messages recorded before this time, in nanoseconds.

        Raises:
            BrokenBagError: the file is broken.
        """
        connections = [one for one in self._reader.connections if one.topic in topics]
        for connection, time, data in self._read(connections, start, stop):
            yield BagMessage(connection.topic, time, bytes(data))

    def copies(self, writer: BagWriter, leave_out: Collection[str] = ()) -> Iterator[tuple[int, Any, bytes]]:
        """Add the topics to another bag and read all messages as (time in nanoseconds, topic there, data).

        Args:
            writer: writes the other bag.
            leave_out: topics that are left out.

        Raises:
            BrokenBagError: the file is broken.
        """
        connections = [one for one in self._reader.connections if one.topic not in leave_out]
        topics = {one.id: writer.add_copy(one) for one in connections}
        for connection, time, data in self._read(connections):
            yield time, topics[connection.id], data

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def _read(self, connections: list[Any], *time_range: int | None) -> Iterator[tuple[Any, int, bytes]]:
        if not connections:  # rosbags would read all topics
            return
        try:
            yield from self._reader.messages(connections, *time_range)
        # The exception depends on the storage and its compression.
        except Exception as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> BrokenBagError:
        return BrokenBagError(
            f"bag {self.path} cannot be read: {error}",
            allowed="a whole rosbag2 of sqlite3 or MCAP files",
            fix=f"ros2 bag reindex {self.path}",
        )


def storage_files(path: Path) -> list[Path]:
    """Return the .db3 or .mcap files of a bag, sorted by name with numbers by value.

    Raises:
        ConfigError: there is no bag.
    """
    found = list(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    found = [file for file in found if set(file.suffixes) & set(_STORAGE_OF_SUFFIX)]
    if not found:
        raise ConfigError(
            f"there is no bag {path}",
            allowed="folder of a rosbag2, or its .db3 or .mcap file",
            fix="check the path",
        )
    return sorted(
        found,
        key=lambda file: [int(word) if word.isdigit() else word for word in re.split("([0-9]+)", file.name)],
    )


def storage_of(found: Sequence[Path]) -> str:
    """Return the storage of a bag's files: ``sqlite3`` or ``mcap``."""
    return next(_STORAGE_OF_SUFFIX[suffix] for suffix in found[0].suffixes if suffix in _STORAGE_OF_SUFFIX)


def metadata_of(path: Path) -> dict[str, Any]:
    """Read a bag's metadata.yaml; returns an empty dictionary if it is missing or broken."""
    try:
        return yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    except (OSError, TypeError, KeyError, UnicodeDecodeError, yaml.YAMLError):
        return {}
