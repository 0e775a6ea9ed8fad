"""A bag played into the node, against the same bag through `lightglue_ros bag`."""

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")
rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="no rosbags here (pip install rosbags)")

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from lightglue_ros.cli import main
from lightglue_ros.core.bags import typestore
from lightglue_ros.msg import Matches
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.nodes.processes import node_process

FRAMES, PERIOD = 6, 500_000_000
PAIRS = ["left:right", "left@-1:left", "right@-2:right"]


def write_bag(folder, motorcycle):
    """Two frames a second, so that the node drops none of them on a busy machine."""
    with rosbag2.Writer(folder, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        topics = {
            camera: writer.add_connection(
                f"/{camera}/image_rect", "sensor_msgs/msg/Image", typestore=typestore()
            )
            for camera in ("left", "right")
        }
        for frame in range(FRAMES):
            time_ns = 1_600_000_000_000_000_000 + frame * PERIOD
            stamp = Time(sec=time_ns // 10**9, nanosec=time_ns % 10**9)
            for (camera, topic), image in zip(topics.items(), motorcycle, strict=True):
                crop = image[4 * frame : 4 * frame + 400, 6 * frame : 6 * frame + 600].copy()
                message = array_to_image(crop, Header(stamp=stamp, frame_id=f"{camera}_optical"))
                writer.write(topic, time_ns, serialize_message(message))
    return folder


def test_the_node_publishes_what_the_bag_command_writes(robot, motorcycle, tmp_path):
    bag, output, params = write_bag(tmp_path / "bag", motorcycle), tmp_path / "out", tmp_path / "rig.yaml"
    params.write_text(
        f"/**: {{ros__parameters: {{pairs: {PAIRS}, image_width: 320, image_height: 224, sync_slop: 0.01}}}}"
    )
    assert main(["bag", str(bag), "-o", str(output), "--params-file", str(params)]) == 0
    with rosbag2.Reader(output) as reader:
        (topic,) = (one for one in reader.connections if one.topic == "/matches")
        expected = [deserialize_message(data, Matches) for _, _, data in reader.messages([topic])]
    stereo = robot(params_file=params)
    player_parameters = {"bag": str(bag), "loop": False, "min_subscribers": 1, "image_qos": "reliable"}
    with node_process("player", player_parameters):
        stereo.wait_until(lambda: len(stereo.messages) == FRAMES, "the matches of all frames")
    assert [len(message.pairs[0].scores) > 100 for message in expected] == [True] * FRAMES
    assert stereo.messages == expected
