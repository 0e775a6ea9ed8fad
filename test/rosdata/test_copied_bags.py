"""What is copied from bag to bag is the same there."""

import resource

import pytest
from bag_files import write_mcap

mcap_reader = pytest.importorskip("mcap.reader", reason="no mcap here (pip install mcap)")

from lightglue_ros.errors import ConfigError  # noqa: E402
from lightglue_ros.rosdata.bag_writer import BagWriter, known_topic  # noqa: E402
from lightglue_ros.rosdata.bags import STORAGES, Bag  # noqa: E402
from lightglue_ros.rosdata.recording import Message  # noqa: E402

CDR = b"\0\1\0\0\1\0\0\0"
IDL = b"module my_msgs { module msg { struct Status { uint8 a; }; }; };"
MESSAGES = [
    ("/text", ("std_msgs/msg/String", "ros2msg", b"string data"), "cdr", 1, CDR),
    ("/idl", ("my_msgs/msg/Status", "ros2idl", IDL), "cdr", 2, CDR),
    ("/json", ("imu", "jsonschema", b'{"type": "object"}'), "json", 3, b'{"a": 1}'),
    ("/protobuf", ("foxglove.Log", "protobuf", b"\x0a\x02\xff\xfe"), "protobuf", 4, b"\x0a\x03abc"),
    ("/typeless", None, "json", 5, b"{}"),
    ("/undefined", ("my_msgs/msg/Status", "", b""), "cdr", 6, CDR),
    ("no/slash", ("my_msgs/Status", "ros2msg", b"this is % no definition"), "cdr", 7, CDR),
]


def copy(file, folder, storage):
    with Bag(file) as bag, BagWriter(folder, storage) as writer:
        topics = {topic: writer.add_topic(topic) for topic in bag.topics}
        left_out = writer.add_extras(bag.extras())
        for message in bag.messages_of(lambda topic: True):
            writer.write(topics[message.topic], message)
    return left_out


def content(file):
    """All that an MCAP file holds, read by the library mcap."""
    with file.open("rb") as stream:
        reader = mcap_reader.make_reader(stream)
        messages = [
            (
                (schema.name, schema.encoding, schema.data) if schema else None,
                (channel.topic, channel.message_encoding, channel.metadata["from"]),
                (message.log_time, message.publish_time, message.sequence, message.data),
            )
            for schema, channel, message in reader.iter_messages()
        ]
        attachments = [(one.name, one.media_type, one.data) for one in reader.iter_attachments()]
        metadata = [(one.name, one.metadata) for one in reader.iter_metadata() if one.name != "rosbag2"]
        return messages, attachments, metadata


def test_topics_of_any_encoding_attachments_and_metadata_are_copied_byte_for_byte(tmp_path):
    file = write_mcap(tmp_path / "recorded.mcap", MESSAGES)
    assert copy(file, tmp_path / "copy", "mcap") == 0
    copied = tmp_path / "copy" / "copy.mcap"
    assert content(copied) == content(file)
    assert [len(one) for one in content(file)] == [len(MESSAGES), 1, 1]


def test_a_database_keeps_the_encodings_and_tells_what_it_cannot_hold(tmp_path):
    file = write_mcap(tmp_path / "recorded.mcap", MESSAGES)
    assert copy(file, tmp_path / "copy", "sqlite3") == 2
    with Bag(file) as before, Bag(tmp_path / "copy") as after:
        for old, new in zip(before.topics, after.topics, strict=True):
            names = ("recorded_name", "kind", "encoding")
            assert [getattr(old, name) for name in names] == [getattr(new, name) for name in names]
        data = [[one.data for one in bag.messages_of(lambda topic: True)] for bag in (before, after)]
        assert data[0] == data[1] == [row[-1] for row in MESSAGES]


@pytest.mark.parametrize("storage", STORAGES)
def test_another_reader_reads_a_copy_with_a_type_that_nobody_defined(tmp_path, storage):
    """ROS 2 Humble records databases without definitions."""
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    rows = [row for row in MESSAGES if row[0] in ("/text", "/undefined")]
    copy(write_mcap(tmp_path / "recorded.mcap", rows), tmp_path / "copy", storage)
    with rosbag2.Reader(tmp_path / "copy") as reader:
        found = [(connection.topic, connection.msgtype, data) for connection, _, data in reader.messages()]
    assert found == [(topic, schema[0], data) for topic, schema, _, _, data in rows]


def test_names_and_types_are_understood_as_ros_writes_them(tmp_path):
    with Bag(write_mcap(tmp_path / "recorded.mcap", MESSAGES)) as bag:
        assert bag.types["/no/slash"] == "my_msgs/msg/Status"
        assert bag.types["/typeless"] == ""
        assert "/typeless (of no type)" in bag.describe_topics()


def record(folder, storage):
    """Write 2 MB."""
    talk = known_topic("/talk", "std_msgs/msg/String")
    with BagWriter(folder, storage) as writer:
        number = writer.add_topic(talk)
        for time_ns in range(200):
            writer.write(number, Message(talk, time_ns, bytes(10_000), None, time_ns))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_that_cannot_grow_is_named_with_the_cause(tmp_path, storage):
    bag, limits = tmp_path / "bag", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(ConfigError, match=f"cannot write {bag}/bag.*: "):
            record(bag, storage)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
