import cv2
import numpy as np
import pytest

from lightglue_ros.core import ConfigError, ImageError
from lightglue_ros.core.image_sources import Repeated, open_source
from lightglue_ros.rosdata.bags import Bag


def write_bag(folder, storage, topics):
    """Record two messages of no content on each topic, given with its type."""
    rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="no rosbags here (pip install rosbags)")
    typesys = pytest.importorskip("rosbags.typesys")
    types = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    with rosbag2.Writer(folder, version=9, storage_plugin=rosbag2.StoragePlugin[storage]) as writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=types) for topic, kind in topics.items()
        }
        for time in (100, 200):
            for number, topic in enumerate(topics):
                writer.write(connections[topic], time + number, b"\0\1\0\0" + topic.encode())
    return folder


def test_a_folder_is_repeated_in_the_order_of_names(tmp_path):
    for value in (30, 10, 20):
        cv2.imwrite(str(tmp_path / f"{value}.png"), np.full((2, 2), value, np.uint8))
    images = Repeated(open_source(tmp_path))
    assert [int(images.next_image()[0, 0]) for _ in range(4)] == [10, 20, 30, 10]
    assert images.passes == 1


def test_what_is_no_source_is_refused(tmp_path):
    torn = tmp_path / "torn.avi"
    torn.write_bytes(b"RIFF and no more")
    (tmp_path / "empty").mkdir()
    for path, says in (
        (torn, "cannot be read as a video"),
        (tmp_path / "none.mp4", "no video file"),
        (tmp_path / "none.png", "no image file"),
        (tmp_path / "empty", "holds no images"),
    ):
        with pytest.raises(ImageError, match=says):
            open_source(path)


@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
def test_a_bag_gives_its_images_in_the_order_of_time(tmp_path, storage):
    kind = "sensor_msgs/msg/Image"
    bag = Bag(write_bag(tmp_path / "bag", storage, {"/a": kind, "/talk": "std_msgs/msg/String", "/b": kind}))
    assert bag.image_types() == {"/a": kind, "/b": kind}
    for _ in range(2):
        messages = bag.messages(bag.image_types())
        found = [(message.topic, message.time, message.data[4:]) for message in messages]
        assert found == [("/a", 100, b"/a"), ("/b", 102, b"/b"), ("/a", 200, b"/a"), ("/b", 202, b"/b")]
    bag.close()


def test_one_file_of_a_bag_and_one_of_its_topics_may_be_named(tmp_path):
    topics = dict.fromkeys(("/a", "/b"), "sensor_msgs/msg/CompressedImage")
    (file,) = write_bag(tmp_path / "bag", "MCAP", topics).glob("*.mcap")
    with Bag(file) as bag:
        assert {message.topic for message in bag.messages(bag.image_types(["/b"]))} == {"/b"}
        assert [message.time for message in bag.messages(["/b"], start=102)] == [201]


def test_what_is_no_bag_of_images_is_refused(tmp_path):
    talk = write_bag(tmp_path / "talk", "MCAP", {"/talk": "std_msgs/msg/String"})
    torn = tmp_path / "torn.mcap"
    torn.write_bytes(b"\x89MCAP0\r\n and no more")
    other = tmp_path / "other.txt"
    other.write_text("no bag")
    for path, topics, says in (
        (tmp_path / "none", (), "there is no bag"),
        (tmp_path, (), "cannot be read"),
        (torn, (), "cannot be read"),
        (other, (), "there is no bag"),
        (talk, (), r"has no images; allowed: .*it has: /talk \(std_msgs/msg/String\)"),
        (talk, ("/left",), "has no images on /left"),
    ):
        with pytest.raises(ConfigError, match=says) as caught:
            Bag(path).image_types(topics)
        assert "\n" not in str(caught.value)
