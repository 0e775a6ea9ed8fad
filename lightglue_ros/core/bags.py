"""Reads image messages of a rosbag2, sqlite3 or MCAP, without ROS (through the library rosbags)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightglue_ros.core.errors import ConfigError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


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


class Bag:
    """The image topics of a bag.

    Args:
        path: folder of a rosbag2, or one of its .db3 or .mcap files.
        topics: those to read; none is all that have images.

    Attributes:
        types: the type of each topic that is read, such as sensor_msgs/msg/Image.

    Raises:
        ConfigError: rosbags is not installed, there is no bag, or it has no such images.
    """

    def __init__(self, path: str | Path, topics: Sequence[str] = ()) -> None:
        self._path = Path(path).expanduser()
        self._reader = self._open()
        recorded = {connection.topic: connection.msgtype for connection in self._reader.connections}
        images = {topic: kind for topic, kind in recorded.items() if kind in IMAGE_TYPES}
        lacking = [topic for topic in topics if topic not in images]
        if lacking or not images:
            raise ConfigError(
                f"bag {self._path} has no images{' on ' + ', '.join(lacking) if lacking else ''}",
                allowed=f"topics of {' or '.join(IMAGE_TYPES)}; it has: "
                + ", ".join(f"{topic} ({kind})" for topic, kind in sorted(recorded.items())),
            )
        self.types = {topic: images[topic] for topic in topics or sorted(images)}

    def __iter__(self) -> Iterator[BagMessage]:
        """All messages of these topics, in the order in which they were recorded.

        Raises:
            ConfigError: the file is broken.
        """
        connections = [one for one in self._reader.connections if one.topic in self.types]
        try:
            for connection, time, data in self._reader.messages(connections):
                yield BagMessage(connection.topic, time, bytes(data))
        # What a broken file raises depends on its storage and its compression.
        except Exception as error:
            raise self._broken(error) from error

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def _open(self) -> Any:
        try:
            from rosbags.rosbag2 import Reader
        except ImportError as missing:
            raise ConfigError(
                f"reading a bag needs the Python package rosbags ({missing})", fix="pip install rosbags"
            ) from missing
        if not self._path.exists():
            raise ConfigError(
                f"there is no bag {self._path}",
                allowed="folder of a rosbag2, or its .db3 or .mcap file",
                fix="check the path",
            )
        try:
            reader = Reader(self._path)
            reader.open()
        except Exception as error:
            raise self._broken(error) from error
        return reader

    def _broken(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"bag {self._path} cannot be read: {error}",
            allowed="a whole rosbag2 of sqlite3 or MCAP files",
            fix=f"ros2 bag reindex {self._path}",
        )
