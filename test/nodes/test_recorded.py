"""The node with the images of a bag, against the same bag through `lightglue_ros bag` and the pipeline."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")

from ament_index_python.packages import get_package_share_directory
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.time import Time
from std_msgs.msg import Header

from lightglue_ros.cli import main
from lightglue_ros.core import MatchPipeline
from lightglue_ros.msg import Matches, PairMatches
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.rosdata.bag_writer import BagWriter, known_topic
from lightglue_ros.rosdata.bags import Bag, metadata_of
from lightglue_ros.rosdata.messages import message_to_matches
from lightglue_ros.rosdata.recording import Message
from lightglue_ros.rosdata.typestore import MATCHES_TYPE

OK, MISSING = PairMatches.STATUS_OK, PairMatches.STATUS_MISSING
PERIOD, HOUR = 0.5, 3600
BEGIN = 1_600_000_000 + HOUR
SMALL = (320, 224)
RIG = """
/**:
  ros__parameters:
    pairs: ["left:right", "left@-1:left"]
    camera_timeout: 0.2
    max_keypoints: 256
    image_width: 320
    image_height: 224
    overlap: true
"""
# (stamp, cameras) of each moment: stereo, a camera that is missing for a while, time set back by an hour.
BOTH = ("left", "right")
MOMENTS = [
    *((BEGIN + PERIOD * n, ("left",) if 3 <= n < 9 else BOTH) for n in range(12)),
    *((BEGIN - HOUR + PERIOD * n, BOTH) for n in range(3)),
]


def images_of(motorcycle, moment):
    """A pair of views that differs from moment to moment."""
    return {
        camera: image[4 * moment : 4 * moment + 400, 6 * moment : 6 * moment + 600].copy()
        for camera, image in zip(BOTH, motorcycle, strict=True)
        if camera in MOMENTS[moment][1]
    }


def write_bag(path, motorcycle):
    with BagWriter(path, "mcap") as writer:
        topics = {camera: known_topic(f"/{camera}/image_rect", "sensor_msgs/msg/Image") for camera in BOTH}
        numbers = {camera: writer.add_topic(topic) for camera, topic in topics.items()}
        for moment, (seconds, _) in enumerate(MOMENTS):
            stamp = Time(nanoseconds=round(seconds * 1e9)).to_msg()
            for camera, image in images_of(motorcycle, moment).items():
                message = array_to_image(image, Header(stamp=stamp, frame_id=f"{camera}_optical"))
                recorded = round((BEGIN + PERIOD * moment) * 1e9)
                data = serialize_message(message)
                writer.write(numbers[camera], Message(topics[camera], recorded, data, None, recorded))


def images_in(message):
    """Stamps of the images that each pair of a message is made of."""
    return tuple(
        (pair.stamp0.sec, pair.stamp0.nanosec, pair.stamp1.sec, pair.stamp1.nanosec) for pair in message.pairs
    )


def assert_that_an_index_is_the_same_keypoint_in_the_next_message(messages):
    """`left` of a message is `left@-1` of the next; its keypoints keep their indices and their number."""
    followed = 0
    for before, message in pairwise(messages):
        left, past = before.pairs[0], message.pairs[1]
        if past.status == MISSING:
            continue
        assert past.stamp0 == left.stamp0
        assert past.num_keypoints0 == left.num_keypoints0
        found, again = message_to_matches(left), message_to_matches(past)
        points = dict(zip(found.indices0.tolist(), found.keypoints0.tolist(), strict=True))
        for index, point in zip(again.indices0.tolist(), again.keypoints0.tolist(), strict=True):
            if index in points:
                assert point == points[index]
                followed += 1
    assert followed > 100


def test_node_bag_and_pipeline_give_the_same_bytes_for_the_same_frame(robot, motorcycle, tmp_path):
    write_bag(tmp_path / "bag", motorcycle)
    rig = tmp_path / "rig.yaml"
    rig.write_text(RIG)
    words = ["bag", tmp_path / "bag", "-o", tmp_path / "out", "--params-file", rig]
    assert main([str(word) for word in words]) == 0
    with Bag(tmp_path / "out") as bag:
        of_bag = [deserialize_message(one.data, Matches) for one in bag.messages(["/matches"])]

    stereo = robot(params_file=rig)
    for moment, (seconds, cameras) in enumerate(MOMENTS):
        images, count = images_of(motorcycle, moment), len(stereo.messages)
        if cameras == BOTH:
            # One after the other, because a busy node takes the newest frame only.
            stereo.repeat_until(
                lambda seconds=seconds, images=images: stereo.show_at(seconds, images),
                lambda count=count: len(stereo.messages) > count,
                f"the matches of moment {moment}",
            )
        else:
            stereo.show_at(seconds, images)
            stereo.listen(PERIOD)

    # The node and the bag find a camera missing at moments that depend on their clocks.
    of_node = {images_in(message): message for message in stereo.messages}
    common = [message for message in of_bag if images_in(message) in of_node]
    assert all(message == of_node[images_in(message)] for message in common)
    statuses = [[pair.status for pair in message.pairs] for message in common]
    assert statuses[:3] == [[OK, MISSING], [OK, OK], [OK, OK]]
    assert [MISSING, OK] in statuses
    assert statuses[-3:] == [[OK, MISSING], [OK, OK], [OK, OK]]

    assert_that_an_index_is_the_same_keypoint_in_the_next_message(stereo.messages)
    assert_that_an_index_is_the_same_keypoint_in_the_next_message(of_bag)

    pipeline = MatchPipeline("xfeat", "cpu", SMALL, max_keypoints=256)
    before, now = images_of(motorcycle, 1), images_of(motorcycle, 2)
    views = [now["left"], now["right"], before["left"]]
    counts = np.count_nonzero(pipeline.extract(views).mask, axis=1)
    for pair, expected in zip(common[2].pairs, pipeline.match(views, [(0, 1), (2, 0)]), strict=True):
        found = message_to_matches(pair)
        first, second = (0, 1) if pair.camera1 == "right" else (2, 0)
        assert (pair.num_keypoints0, pair.num_keypoints1) == (counts[first], counts[second])
        assert len(found) > 50
        for field in ("keypoints0", "keypoints1", "scores", "indices0", "indices1"):
            assert getattr(found, field).tobytes() == getattr(expected, field).tobytes()


def test_matches_in_a_bag_have_the_type_hash_that_ros_2_gives_them(tmp_path):
    description = Path(get_package_share_directory("lightglue_ros")) / "msg" / "Matches.json"
    if not description.is_file():
        pytest.skip("this ROS 2 has no type hashes")
    hashes = {
        one["type_name"]: one["hash_string"] for one in json.loads(description.read_text())["type_hashes"]
    }
    with BagWriter(tmp_path / "bag", "mcap") as writer:
        writer.add_topic(known_topic("/matches", MATCHES_TYPE))
    (topic,) = metadata_of(tmp_path / "bag")["topics_with_message_count"]
    assert topic["topic_metadata"]["type_description_hash"] == hashes[MATCHES_TYPE]
