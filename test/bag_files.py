"""Bags recorded by rosbags."""

import pytest


def write_bag(folder, storage, messages):
    """Record (topic, type, serialised message, time in ns); skips the test if rosbags is not installed."""
    rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="no rosbags here (pip install rosbags)")
    typesys = pytest.importorskip("rosbags.typesys")
    types = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    with rosbag2.Writer(folder, version=9, storage_plugin=rosbag2.StoragePlugin[storage]) as writer:
        connections = {}
        for topic, kind, data, time_ns in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=types)
            writer.write(connections[topic], time_ns, data)
    return folder
