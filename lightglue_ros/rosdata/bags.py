"""Reads and writes rosbag2 (sqlite3 or MCAP; reads also compressed bags) through the library rosbags."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.typestore import known_definition, rosbag2, type_hash

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
STORAGES = ("sqlite3", "mcap")
_STORAGE_OF_SUFFIX = {".db3": "sqlite3", ".mcap": "mcap"}
# ROS 2 before Jazzy cannot read the QoS profiles of version 9.
_WRITTEN_VERSION = 8


class BrokenBagError(ConfigError):
    """A bag that cannot be read, or not to its end."""


class BagMessage(NamedTuple):
    """A recorded message: topic, time of recording in nanoseconds, and serialized message (CDR)."""

    topic: str
    time: int
    data: bytes


class Bag(AbstractContextManager):
    """A recorded bag; a context manager that closes it.

    Args:
        path: folder of a rosbag2, or one of its .db3 or .mcap files.

    Attributes:
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

    def __exit__(self, *error: object) -> None:
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
        """Read messages of topics in the order in which they were recorded.

        Args:
            topics: the wanted topics.
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

        Raises:
            BrokenBagError: the file is broken.
        """
        connections = [one for one in self._reader.connections if one.topic not in leave_out]
        topics = {
            one.id: writer.add_topic(
                one.topic, one.msgtype, one.msgdef.data, one.digest, one.ext.offered_qos_profiles
            )
            for one in connections
        }
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


class BagWriter(rosbag2.Writer):
    """Writes a bag; a context manager that leaves the bag without index and metadata after an error.

    Args:
        folder: the new bag; its parent exists.
        storage: ``sqlite3`` or ``mcap``.
    """

    def __init__(self, folder: Path, storage: str) -> None:
        plugin = rosbag2.StoragePlugin[storage.upper()]
        super().__init__(folder, version=_WRITTEN_VERSION, storage_plugin=plugin)
        self._topics: dict[tuple[str, str], Any] = {}

    def add_topic(
        self, topic: str, kind: str, definition: str = "", digest: str = "", qos: str | Sequence[Any] = ""
    ) -> Any:
        """Add a topic, unless it is there already; returns what `write` takes.

        Args:
            topic: its name.
            kind: its type.
            definition: the definition of the type and of those in it; empty for a type that we know.
            digest: the hash of the type; empty if it is not known.
            qos: the QoS profiles that its publishers offered, in a bag's YAML or as rosbags reads them.
        """
        # A topic with several publishers may be recorded several times.
        if (topic, kind) not in self._topics:
            definition = definition or known_definition(kind)
            self._topics[topic, kind] = self.add_connection(
                topic,
                kind,
                msgdef=definition,
                rihs01=digest or type_hash(kind, definition),
                offered_qos_profiles=rosbag2.metadata.parse_qos(qos) if isinstance(qos, str) else qos,
            )
        return self._topics[topic, kind]


def storage_files(path: Path) -> list[Path]:
    """Return the .db3 or .mcap files of a bag, sorted by name with numbers by value.

    Raises:
        ConfigError: there is no bag.
    """
    files = path.iterdir() if path.is_dir() else [path] * path.exists()
    found = [file for file in files if _STORAGE_OF_SUFFIX.keys() & file.suffixes]
    if not found:
        raise ConfigError(
            f"there is no bag {path}",
            allowed="folder of a rosbag2, or its .db3 or .mcap file",
            fix="check the path",
        )
    words = {file: re.split("([0-9]+)", file.name) for file in found}
    return sorted(found, key=lambda file: [int(one) if one.isdigit() else one for one in words[file]])


def storage_of(found: Sequence[Path]) -> str:
    """Return the storage of a bag's files: ``sqlite3`` or ``mcap``."""
    return next(_STORAGE_OF_SUFFIX[suffix] for suffix in found[0].suffixes if suffix in _STORAGE_OF_SUFFIX)


def metadata_of(path: Path) -> dict[str, Any]:
    """Read a bag's metadata.yaml; returns an empty dictionary if it is missing or broken."""
    try:
        return yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    except (OSError, TypeError, KeyError, UnicodeDecodeError, yaml.YAMLError):
        return {}
