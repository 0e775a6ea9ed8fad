import pytest
from bag_files import write_bag

from lightglue_ros.core import ConfigError
from lightglue_ros.rosdata.bags import Bag


def record(folder, storage, topics):
    """Record two messages on each topic, given with its type; their content is the topic's name."""
    messages = [
        (topic, kind, b"\0\1\0\0" + topic.encode(), time_ns + number)
        for time_ns in (100, 200)
        for number, (topic, kind) in enumerate(topics.items())
    ]
    return write_bag(folder, storage, messages)


@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
def test_a_bag_gives_its_images_in_the_order_of_time(tmp_path, storage):
    kind = "sensor_msgs/msg/Image"
    bag = Bag(record(tmp_path / "bag", storage, {"/a": kind, "/talk": "std_msgs/msg/String", "/b": kind}))
    assert bag.image_types() == {"/a": kind, "/b": kind}
    for _ in range(2):
        messages = bag.messages(bag.image_types())
        found = [(message.topic.name, message.time, message.data[4:]) for message in messages]
        assert found == [("/a", 100, b"/a"), ("/b", 102, b"/b"), ("/a", 200, b"/a"), ("/b", 202, b"/b")]
    bag.close()


def test_one_file_of_a_bag_and_one_of_its_topics_may_be_named(tmp_path):
    topics = dict.fromkeys(("/a", "/b"), "sensor_msgs/msg/CompressedImage")
    (file,) = record(tmp_path / "bag", "MCAP", topics).glob("*.mcap")
    with Bag(file) as bag:
        assert {message.topic.name for message in bag.messages(bag.image_types(["/b"]))} == {"/b"}


def test_what_is_no_bag_of_images_is_refused(tmp_path):
    talk = record(tmp_path / "talk", "MCAP", {"/talk": "std_msgs/msg/String"})
    torn = tmp_path / "torn.mcap"
    torn.write_bytes(b"\x89MCAP0\r\n and no more")
    other = tmp_path / "other.txt"
    other.write_text("no bag")
    for path, topics, says in (
        (tmp_path / "none", (), "there is no bag"),
        (tmp_path, (), "cannot be read: .*torn.mcap"),
        (torn, (), "cannot be read"),
        (other, (), "there is no bag"),
        (talk, (), r"has no images; allowed: .*it has: /talk \(std_msgs/msg/String\)"),
        (talk, ("/left",), "has no images on /left"),
    ):
        with pytest.raises(ConfigError, match=says) as caught:
            Bag(path).image_types(topics)
        assert "\n" not in str(caught.value)
