"""Writes rosbag2: topics and messages as they were recorded, or new ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from lightglue_ros.core.files import named_in_errors
from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.bags import STORAGES
from lightglue_ros.rosdata.recording import Extras, Message, Topic
from lightglue_ros.rosdata.sqlite_storage import SqliteWriter
from lightglue_ros.rosdata.typestore import known_definition, qos_of_version_8, type_hash

# ROS 2 before Jazzy cannot read the QoS profiles of version 9.
_VERSION = 8
# Errors of writing a file of either storage.
_ERRORS = (OSError, sqlite3.Error)


def known_topic(name: str, kind: str) -> Topic:
    """Make a topic of a message type that we know."""
    return Topic(name, kind, definition=known_definition(kind).encode(), definition_encoding="ros2msg")


class BagWriter(AbstractContextManager):
    """Writes a bag; a context manager that leaves the bag without index and metadata after an error.

    Args:
        folder: the new bag; its parent exists.
        storage: ``sqlite3`` or ``mcap``.

    Raises:
        ConfigError: the storage is unknown, or the bag cannot be written: the disk may be full.

    Attributes:
        path: the folder.
        custom_data: texts by name that go into the bag's metadata; may be changed until the bag is closed.
    """

    def __init__(self, folder: Path, storage: str) -> None:
        self.path = folder
        self.custom_data: dict[str, str] = {}
        self._storage = storage
        kind = _writer(storage)
        self._file = folder / f"{folder.name}{kind.suffix}"
        with named_in_errors(self._file, _ERRORS):
            folder.mkdir()
            self._writer = kind(self._file)
        self._topics: dict[tuple[str, str, str, bytes], int] = {}
        self._added: list[Topic] = []
        self._counts: list[int] = []
        self._begin, self._end = 2**63 - 1, 0

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                with named_in_errors(self._file, _ERRORS):
                    self._finish()
        finally:
            # After an error the rest cannot be written either.
            with suppress(*_ERRORS):
                self._writer.close()

    def add_topic(self, topic: Topic) -> int:
        """Add a topic, unless it is there already; returns what `write` takes."""
        # A topic with several publishers may be recorded several times.
        key = topic.recorded_name, topic.kind, topic.encoding, topic.definition
        if key not in self._topics:
            known = topic.type_hash
            if not known and topic.definition_encoding in ("", "ros2msg"):
                known = type_hash(topic.kind, topic.definition.decode(errors="replace"))
            topic = replace(topic, type_hash=known, qos=qos_of_version_8(topic.qos))
            with named_in_errors(self._file, _ERRORS):
                self._topics[key] = self._writer.add_topic(topic)
            self._added.append(topic)
            self._counts.append(0)
        return self._topics[key]

    def write(self, topic: int, message: Message) -> None:
        """Write a message on a topic that `add_topic` added."""
        with named_in_errors(self._file, _ERRORS):
            self._writer.write(topic, message)
        self._counts[topic - 1] += 1
        self._begin, self._end = min(self._begin, message.time), max(self._end, message.time)

    def add_extras(self, extras: Iterable[Extras]) -> int:
        """Add attachments and metadata; returns how many of them the storage has no place for."""
        return sum(map(self._writer.add_extras, extras))

    def _finish(self) -> None:
        metadata = self._metadata()
        self._writer.finish(yaml.safe_dump(metadata, sort_keys=False), _VERSION)
        text = yaml.safe_dump({"rosbag2_bagfile_information": metadata}, sort_keys=False)
        (self.path / "metadata.yaml").write_text(text)

    def _metadata(self) -> dict[str, Any]:
        about = {
            "starting_time": {"nanoseconds_since_epoch": self._begin},
            "duration": {"nanoseconds": max(0, self._end - self._begin)},
            "message_count": sum(self._counts),
        }
        topics = [
            {
                "topic_metadata": {
                    "name": topic.recorded_name,
                    "type": topic.kind,
                    "serialization_format": topic.encoding,
                    "offered_qos_profiles": topic.qos,
                    "type_description_hash": topic.type_hash,
                },
                "message_count": count,
            }
            for topic, count in zip(self._added, self._counts, strict=True)
        ]
        return {
            "version": _VERSION,
            "storage_identifier": self._storage,
            **about,
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [self._file.name],
            "files": [{"path": self._file.name, **about}],
            "custom_data": self.custom_data or None,
            "ros_distro": "lightglue_ros",
        }


def _writer(storage: str) -> Any:
    if storage == "sqlite3":
        return SqliteWriter
    if storage != "mcap":
        raise ConfigError(f"storage is '{storage}'", allowed=", ".join(STORAGES))
    from lightglue_ros.rosdata.mcap_storage import McapWriter

    return McapWriter
