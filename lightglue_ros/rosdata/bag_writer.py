"""Writes rosbag2 (sqlite3 or MCAP) without ROS, through the library rosbags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightglue_ros.rosdata.typestore import known_definition, rosbag2, type_hash

# ROS 2 before Jazzy cannot read the QoS profiles of version 9.
_FORMAT_VERSION = 8


class BagWriter(rosbag2.Writer):
    """Writes a bag; a context manager that leaves the bag without index and metadata after an error.

    Args:
        folder: the new bag; its parent exists.
        storage: ``sqlite3`` or ``mcap``.
    """

    def __init__(self, folder: Path, storage: str) -> None:
        plugin = rosbag2.StoragePlugin[storage.upper()]
        super().__init__(folder, version=_FORMAT_VERSION, storage_plugin=plugin)
        self._topics: dict[tuple[str, str], Any] = {}

    def add_topic(self, topic: str, kind: str, definition: str = "", qos: str = "") -> Any:
        """Add a topic; returns what `write` takes.

        Args:
            topic: its name.
            kind: its type.
            definition: the definition of the type and of those in it; empty for a type that we know.
            qos: the QoS profiles that its publishers offered, in a bag's YAML.
        """
        return self._add(topic, kind, definition, "", rosbag2.metadata.parse_qos(qos))

    def add_copy(self, connection: Any) -> Any:
        """Add a topic of another bag; returns what `write` takes."""
        qos = connection.ext.offered_qos_profiles
        return self._add(connection.topic, connection.msgtype, connection.msgdef.data, connection.digest, qos)

    def _add(self, topic: str, kind: str, definition: str, digest: str, qos: list[Any]) -> Any:
        # A topic with several publishers may be recorded several times.
        if (topic, kind) not in self._topics:
            definition = definition or known_definition(kind)
            digest = digest or type_hash(kind, definition)
            self._topics[topic, kind] = self.add_connection(
                topic, kind, msgdef=definition, rihs01=digest, offered_qos_profiles=qos
            )
        return self._topics[topic, kind]
