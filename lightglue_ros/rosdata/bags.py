"""Reads and writes rosbag2, sqlite3 or MCAP, without ROS (through the libraries rosbags and mcap)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.messages import MessageTypes

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
MATCHES_TYPE = "lightglue_ros/msg/Matches"
STORAGES = ("sqlite3", "mcap")
_STORAGE_OF = {".db3": "sqlite3", ".mcap": "mcap"}
# Version 9 writes QoS in a way that ROS 2 before Jazzy does not read.
_FORMAT_VERSION = 8
# Of a type whose definition nobody knows.
_NO_HASH = "RIHS01_" + 64 * "0"


class BrokenBagError(ConfigError):
    """A bag that cannot be read, or not to its end."""


@dataclass(frozen=True)
class BagMessage:
    """A message as it was recorded.

    Attributes:
        topic: where it was recorded.
        time: when it was recorded, in nanoseconds.
        data: the message, serialised (CDR).
    """

    topic: str
    time: int
    data: bytes


def _rosbags(module: str) -> Any:
    try:
        return import_module(f"rosbags.{module}")
    except ImportError as missing:
        raise ConfigError(
            f"reading a bag needs the Python package rosbags ({missing})",
            fix="pip install rosbags mcap pyyaml",
        ) from missing


class Bag:
    """A recorded bag.

    Args:
        path: folder of a rosbag2, or one of its .db3 or .mcap files.

    Attributes:
        path: as it was given.
        types: the type of each topic, such as sensor_msgs/msg/Image.
        storage: ``sqlite3`` or ``mcap``.

    Raises:
        BrokenBagError: the files are broken.
        ConfigError: rosbags is not installed, or there is no bag.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._reader = self._open()
        self.types = {connection.topic: connection.msgtype for connection in self._reader.connections}
        self.storage = storage_of(storage_files(self.path))

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def image_types(self, topics: Sequence[str] = ()) -> dict[str, str]:
        """The types of topics that have images; none is all that have.

        Raises:
            ConfigError: the bag has no such images.
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
        """The topics and their types in words."""
        return ", ".join(f"{topic} ({kind})" for topic, kind in sorted(self.types.items())) or "no topics"

    def messages(
        self, topics: Collection[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[BagMessage]:
        """Messages in the order in which they were recorded.

        Args:
            topics: of these topics only.
            start: recorded from then on, in nanoseconds.
            stop: recorded before then.

        Raises:
            BrokenBagError: the file is broken.
        """
        connections = [one for one in self._reader.connections if one.topic in topics]
        for connection, time, data in self._read(connections, start, stop):
            yield BagMessage(connection.topic, time, bytes(data))

    def copy_to(self, writer: BagWriter, leave_out: Collection[str] = ()) -> Iterator[BagMessage]:
        """Write all messages to another bag as they are; each is yielded before it is written.

        Args:
            writer: of the other bag.
            leave_out: topics that are not copied.

        Raises:
            BrokenBagError: the file is broken.
        """
        connections = [one for one in self._reader.connections if one.topic not in leave_out]
        copies = {one.id: writer.add_copy(one) for one in connections}
        for connection, time, data in self._read(connections, None, None):
            yield BagMessage(connection.topic, time, data)
            writer.write(copies[connection.id], time, data)

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def _read(
        self, connections: list[Any], start: int | None, stop: int | None
    ) -> Iterator[tuple[Any, int, bytes]]:
        if not connections:  # which rosbags takes as all
            return
        try:
            yield from self._reader.messages(connections, start, stop)
        # What a broken file raises depends on its storage and its compression.
        except Exception as error:
            raise self._broken(error) from error

    def _open(self) -> Any:
        rosbag2 = _rosbags("rosbag2")
        found = storage_files(self.path)
        # What a recorder that was killed leaves behind has no metadata.yaml; a single file needs none.
        is_bare = self.path.is_dir() and not (self.path / "metadata.yaml").exists() and len(found) == 1
        try:
            reader = rosbag2.Reader(found[0] if is_bare else self.path)
            reader.open()
        except Exception as error:
            raise self._broken(error) from error
        return reader

    def _broken(self, error: Exception) -> BrokenBagError:
        return BrokenBagError(
            f"bag {self.path} cannot be read: {error}",
            allowed="a whole rosbag2 of sqlite3 or MCAP files",
            fix=f"ros2 bag reindex {self.path}",
        )


def storage_files(path: Path) -> list[Path]:
    """The .db3 or .mcap files of a bag, in the order of their names, numbers by their value.

    Raises:
        ConfigError: there is no bag.
    """
    found = sorted(path.iterdir(), key=_natural) if path.is_dir() else [path] if path.exists() else []
    found = [file for file in found if set(file.suffixes) & set(_STORAGE_OF)]
    if not found:
        raise ConfigError(
            f"there is no bag {path}",
            allowed="folder of a rosbag2, or its .db3 or .mcap file",
            fix="check the path",
        )
    return found


def _natural(path: Path) -> list[tuple[int, str]]:
    words = "".join(letter if letter.isdigit() else f" {letter} " for letter in path.name).split()
    return [(int(word), "") if word.isdigit() else (-1, word) for word in words]


def storage_of(found: Sequence[Path]) -> str:
    """The storage of a bag's files: ``sqlite3`` or ``mcap``."""
    return next(_STORAGE_OF[suffix] for suffix in found[0].suffixes if suffix in _STORAGE_OF)


class BagWriter:
    """Writes a bag: a context manager, that leaves it without its index where an error ended the writing.

    Args:
        folder: that is made; its parent is there.
        storage: ``sqlite3`` or ``mcap``.
        notes: keys and values for the bag's custom data.

    Attributes:
        folder: as it was given.
    """

    def __init__(self, folder: Path, storage: str, notes: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        rosbag2 = _rosbags("rosbag2")
        self._writer = rosbag2.Writer(
            folder, version=_FORMAT_VERSION, storage_plugin=rosbag2.StoragePlugin[storage.upper()]
        )
        for key, value in (notes or {}).items():
            self._writer.set_custom_data(key, value)
        self._topics: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def add_copy(self, connection: Any) -> Any:
        """Add a topic of another bag; returns what to write to."""
        definition = connection.msgdef.data or _known_definition(connection.msgtype)
        return self._add(
            connection.topic,
            connection.msgtype,
            definition,
            connection.digest or _hash(connection.msgtype, definition),
            connection.ext.offered_qos_profiles,
        )

    def add_topic(self, topic: str, kind: str, definition: str = "", qos: str = "") -> Any:
        """Add a topic; returns what to write to.

        Args:
            topic: its name.
            kind: its type.
            definition: of the type, with those of the types in it; none is that of a standard type.
            qos: what its publishers offered, in YAML as in a bag.
        """
        definition = definition or _known_definition(kind)
        profiles = _rosbags("rosbag2.metadata").parse_qos(qos)
        return self._add(topic, kind, definition, _hash(kind, definition), profiles)

    def _add(self, topic: str, kind: str, definition: str, digest: str, qos: list[Any]) -> Any:
        # A topic that several nodes published may be there several times.
        if (topic, kind) not in self._topics:
            self._topics[topic, kind] = self._writer.add_connection(
                topic, kind, msgdef=definition, rihs01=digest, offered_qos_profiles=qos
            )
        return self._topics[topic, kind]

    def write(self, topic: Any, time: int, data: bytes | memoryview) -> None:
        """Write a serialised message (CDR), recorded at a time in nanoseconds."""
        self._writer.write(topic, time, data)


def metadata_of(path: Path) -> dict[str, Any]:
    """What the metadata.yaml of a bag says; empty where there is none, or a broken one."""
    yaml = _rosbags("rosbag2.reader")
    try:
        content = yaml.YAML(typ="safe").load((path / "metadata.yaml").read_text())
        return content["rosbag2_bagfile_information"]
    except (OSError, TypeError, KeyError, yaml.YAMLError):
        return {}


@cache
def typestore() -> Any:
    """The standard messages and ours, as rosbags reads and writes them."""
    ours = {}
    for name in ("Matches", "PairMatches"):
        text = (files("lightglue_ros") / "definitions" / f"{name}.msg").read_text()
        ours |= _rosbags("typesys").get_types_from_msg(text, f"lightglue_ros/msg/{name}")
    return _typestore_with(ours)


def _typestore_with(types: Mapping[str, Any]) -> Any:
    typesys = _rosbags("typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    store.register({name: definition for name, definition in types.items() if name not in store.types})
    return store


@cache
def message_types() -> MessageTypes:
    """The classes that rosbags makes of our messages' definitions."""
    types = typestore().types
    return MessageTypes(
        types[MATCHES_TYPE],
        types["lightglue_ros/msg/PairMatches"],
        types["builtin_interfaces/msg/Time"],
        np.ravel,
    )


def _known_definition(kind: str) -> str:
    """The whole definition of one of our types or a standard one; empty of another."""
    store = typestore()
    return store.generate_msgdef(kind, ros_version=2)[0] if kind in store.types else ""


def _hash(kind: str, definition: str) -> str:
    """The hash of a type, as REP 2016 defines it."""
    typesys = _rosbags("typesys")
    try:
        if kind in typestore().types:
            return typestore().hash_rihs01(kind)
        return _typestore_with(typesys.get_types_from_msg(definition, kind)).hash_rihs01(kind)
    # Messages can be copied whatever is wrong with their definition.
    except Exception:
        return _NO_HASH
