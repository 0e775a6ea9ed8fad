"""The message types of bags: the standard ones and ours, as the library rosbags makes them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.messages import MessageTypes
from lightglue_ros.rosdata.points import PointTypes

try:
    from rosbags import typesys
    from rosbags.rosbag2.metadata import dump_qos_v8, parse_qos
except ImportError as missing:
    raise ConfigError(
        f"reading a bag needs the Python package rosbags ({missing})", fix="pip install rosbags mcap pyyaml"
    ) from missing

MATCHES_TOPIC = "/matches"
MATCHES_TYPE = "lightglue_ros/msg/Matches"
TRACKS_TOPIC = "/tracks"
TRACKS_TYPE = "lightglue_ros/msg/Tracks"
POINTS_TOPIC = "/points"
POINTS_TYPE = "sensor_msgs/msg/PointCloud2"
_UNKNOWN_HASH = "RIHS01_" + 64 * "0"


@cache
def typestore() -> Any:
    """Return rosbags' store of the message types of ROS 2 and of ours."""
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    for name in ("PairMatches", "Matches", "CameraTracks", "Tracks"):
        text = (files("lightglue_ros") / "definitions" / f"{name}.msg").read_text()
        store.register(typesys.get_types_from_msg(text, f"lightglue_ros/msg/{name}"))
    return store


@cache
def message_types() -> MessageTypes:
    """Return the classes of our messages."""
    types = typestore().types
    return MessageTypes(
        types[MATCHES_TYPE],
        types["lightglue_ros/msg/PairMatches"],
        types[TRACKS_TYPE],
        types["lightglue_ros/msg/CameraTracks"],
        types["builtin_interfaces/msg/Time"],
        np.ravel,
    )


def point_types() -> PointTypes:
    """Return the classes of a point cloud."""
    types = typestore().types
    return PointTypes(types[POINTS_TYPE], types["sensor_msgs/msg/PointField"], np.ravel)


def known_definition(kind: str) -> str:
    """Return the whole definition of a message type; empty if the type is unknown."""
    store = typestore()
    return store.generate_msgdef(kind, ros_version=2)[0] if kind in store.types else ""


def type_hash(kind: str, definition: str) -> str:
    """Return the hash of a message type as REP 2016 defines it."""
    try:
        store = typestore()
        if kind not in store.types:
            store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
            types = typesys.get_types_from_msg(definition, kind)
            store.register({name: known for name, known in types.items() if name not in store.types})
        return store.hash_rihs01(kind)
    # A message can be copied even if its definition is broken.
    except Exception:
        return _UNKNOWN_HASH


def qos_of_version_8(profiles: str) -> str:
    """Return QoS profiles in the form of YAML that every ROS 2 can read; empty if they are broken."""
    try:
        return dump_qos_v8(parse_qos(profiles))
    # A message can be copied even if its QoS is broken.
    except Exception:
        return ""
