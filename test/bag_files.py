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


def write_mcap(file, messages, finish=True, **options):
    """Write (topic, schema or None, message encoding, time in ns, data) by the library mcap.

    A schema is (name, encoding, data). `options` are those of the library's writer.
    """
    writer = pytest.importorskip("mcap.writer", reason="no mcap here (pip install mcap)")
    with file.open("wb") as stream:
        mcap = writer.Writer(stream, **options)
        mcap.start("ros2")
        schemas, channels = {None: 0}, {}
        for sequence, (topic, schema, encoding, time_ns, data) in enumerate(messages):
            if schema not in schemas:
                schemas[schema] = mcap.register_schema(*schema)
            if topic not in channels:
                channels[topic] = mcap.register_channel(topic, encoding, schemas[schema], {"from": "test"})
            mcap.add_message(channels[topic], time_ns, data, time_ns + 1, sequence)
        mcap.add_attachment(1, 2, "map.png", "image/png", b"\x89PNG")
        mcap.add_metadata("robot", {"serial": "7"})
        if finish:
            mcap.finish()
    return file


def split_bag(folder, parts):
    """Join bags of one file each to one bag of several files, whose metadata.yaml names them."""
    yaml = pytest.importorskip("yaml")
    folder.mkdir()
    names, files = [], []
    for part in parts:
        (file,) = (path for path in part.iterdir() if path.suffix != ".yaml")
        metadata = yaml.safe_load((part / "metadata.yaml").read_text())
        names.append(file.rename(folder / file.name).name)
        files += metadata["rosbag2_bagfile_information"]["files"]
    metadata["rosbag2_bagfile_information"] |= {"relative_file_paths": names, "files": files}
    (folder / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    return folder


def damage(file, position, size):
    """Overwrite a part of a file with zeros, as a bad block does."""
    with file.open("r+b") as stream:
        stream.seek(position)
        stream.write(bytes(size))
