"""The node with the images of a bag, against the same bag through `lightglue_ros bag`."""

import json
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")

from ament_index_python.packages import get_package_share_directory
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from lightglue_ros.cli import main
from lightglue_ros.msg import Matches
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.rosdata.bags import MATCHES_TYPE, Bag, BagWriter, metadata_of

FRAMES, BEGIN, PERIOD = 5, 1_600_000_000, 0.5
RIG = """
/**:
  ros__parameters:
    pairs: ["left:right", "left@-1:left", "right@-2:right"]
    sync_slop: 0.01
    max_keypoints: 256
"""


def test_the_node_publishes_what_the_bag_command_writes(robot, motorcycle, tmp_path):
    frames = []
    for frame in range(FRAMES):
        crops = (image[4 * frame : 4 * frame + 400, 6 * frame : 6 * frame + 600] for image in motorcycle)
        frames.append(dict(zip(("left", "right"), (crop.copy() for crop in crops), strict=True)))
    with BagWriter(tmp_path / "bag", "mcap") as writer:
        topics = {
            camera: writer.add_topic(f"/{camera}/image_rect", "sensor_msgs/msg/Image") for camera in frames[0]
        }
        for number, images in enumerate(frames):
            time_ns = round((BEGIN + number * PERIOD) * 1e9)
            stamp = Time(sec=time_ns // 10**9, nanosec=time_ns % 10**9)
            for camera, image in images.items():
                message = array_to_image(image, Header(stamp=stamp, frame_id=f"{camera}_optical"))
                writer.write(topics[camera], time_ns, serialize_message(message))
    rig = tmp_path / "rig.yaml"
    rig.write_text(RIG)
    small = ["-p", "image_width:=320", "-p", "image_height:=224"]
    words = ["bag", tmp_path / "bag", "-o", tmp_path / "out", "--params-file", rig, *small]
    assert main([str(word) for word in words]) == 0
    with Bag(tmp_path / "out") as bag:
        expected = [deserialize_message(one.data, Matches) for one in bag.messages(["/matches"])]
    assert all(len(message.pairs[0].scores) > 50 for message in expected)

    stereo = robot(params_file=rig)
    for number, images in enumerate(frames):
        # One after the other, for a busy node takes the newest frame only.
        stereo.repeat_until(
            lambda number=number, images=images: stereo.show_at(BEGIN + number * PERIOD, images),
            lambda number=number: len(stereo.messages) > number,
            f"the matches of frame {number}",
        )
    assert stereo.messages == expected


def test_matches_in_a_bag_have_the_type_hash_that_ros_2_gives_them(tmp_path):
    description = Path(get_package_share_directory("lightglue_ros")) / "msg" / "Matches.json"
    if not description.is_file():
        pytest.skip("this ROS 2 has no type hashes")
    hashes = {
        one["type_name"]: one["hash_string"] for one in json.loads(description.read_text())["type_hashes"]
    }
    with BagWriter(tmp_path / "bag", "mcap") as writer:
        writer.add_topic("/matches", MATCHES_TYPE)
    (topic,) = metadata_of(tmp_path / "bag")["topics_with_message_count"]
    assert topic["topic_metadata"]["type_description_hash"] == hashes[MATCHES_TYPE]
