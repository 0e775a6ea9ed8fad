"""The topic tracks of the running matcher, and the features that vins_features makes of it."""

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")

from lifecycle_msgs.msg import Transition
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, PointCloud
from std_msgs.msg import Header

from lightglue_ros.cli import main
from lightglue_ros.msg import CameraTracks, PairMatches, Tracks
from lightglue_ros.nodes import qos
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.nodes.processes import node_process
from lightglue_ros.rosdata.bag_writer import BagWriter, known_topic
from lightglue_ros.rosdata.bags import Bag
from lightglue_ros.rosdata.recording import Message

BEGIN, PERIOD, HOUR = 1_600_003_600, 0.5, 3600
RIG = """
/**:
  ros__parameters:
    pairs: ["left:right", "left@-1:left", "right@-1:right", "left@-3:left"]
    publish_tracks: true
    max_keypoints: 256
    image_width: 320
    image_height: 224
    # Refined matches end next to the keypoints.
    refine: none
"""
# Stamps in seconds: time is set back after the fifth moment.
MOMENTS = [*(BEGIN + PERIOD * n for n in range(5)), *(BEGIN - HOUR + PERIOD * n for n in range(2))]


def images_of(images, moment):
    """A pair of views that differs from moment to moment."""
    return {
        camera: image[2 * moment : 2 * moment + 400, 3 * moment : 3 * moment + 600].copy()
        for camera, image in images.items()
    }


def write_bag(folder, images):
    with BagWriter(folder, "mcap") as writer:
        topics = {camera: known_topic(f"/{camera}/image_rect", "sensor_msgs/msg/Image") for camera in images}
        numbers = {camera: writer.add_topic(topic) for camera, topic in topics.items()}
        for moment, seconds in enumerate(MOMENTS):
            stamp = Time(nanoseconds=round(seconds * 1e9)).to_msg()
            recorded = round((BEGIN + PERIOD * moment) * 1e9)
            for camera, image in images_of(images, moment).items():
                data = serialize_message(
                    array_to_image(image, Header(stamp=stamp, frame_id=f"{camera}_optical"))
                )
                writer.write(numbers[camera], Message(topics[camera], recorded, data, None, recorded))


def camera_info(camera, image):
    height, width = image.shape[:2]
    info = CameraInfo(width=width, height=height, header=Header(frame_id=camera))
    info.p = [500.0, 0.0, 300.0, 0.0, 0.0, 500.0, 200.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def points_of(flat):
    return np.asarray(flat, np.float32).reshape(-1, 2)


def assert_that_tracks_agree_with_matches(tracks, messages):
    """Matched keypoints have one id, unless an id would then stand twice or an older track won."""
    seen, agreeing, followed, newest = {}, 0, 0, 0
    for message, matches in zip(tracks, messages, strict=True):
        assert message.header == matches.header
        for camera in message.cameras:
            ids = np.asarray(camera.ids)
            assert len(np.unique(ids)) == len(ids) == len(camera.ages) == len(camera.scores)
            seen[camera.camera, camera.header.stamp.sec, camera.header.stamp.nanosec] = camera
        for pair in matches.pairs:
            if pair.status == PairMatches.STATUS_OK:
                of0 = seen[pair.camera0, pair.stamp0.sec, pair.stamp0.nanosec]
                of1 = seen[pair.camera1, pair.stamp1.sec, pair.stamp1.nanosec]
                assert (len(of0.ids), len(of1.ids)) == (pair.num_keypoints0, pair.num_keypoints1)
                np.testing.assert_array_equal(
                    points_of(of0.keypoints)[pair.indices0], points_of(pair.keypoints0)
                )
                np.testing.assert_array_equal(
                    points_of(of1.keypoints)[pair.indices1], points_of(pair.keypoints1)
                )
                agreeing += np.count_nonzero(
                    np.asarray(of0.ids)[pair.indices0] == np.asarray(of1.ids)[pair.indices1]
                )
                followed += len(pair.scores)
        fresh = [one for it in message.cameras for one, age in zip(it.ids, it.ages, strict=True) if age == 1]
        assert min(fresh) == newest + 1
        newest = max(fresh)
    assert agreeing > 0.8 * followed > 500


def test_node_and_bag_give_the_same_tracks_which_agree_with_matches(robot, images, tmp_path):
    write_bag(tmp_path / "bag", images)
    rig = tmp_path / "rig.yaml"
    rig.write_text(RIG)
    words = ["bag", tmp_path / "bag", "-o", tmp_path / "out", "--params-file", rig]
    assert main([str(word) for word in words]) == 0
    with Bag(tmp_path / "out") as bag:
        of_bag = [deserialize_message(one.data, Tracks) for one in bag.messages(["/tracks"])]

    stereo = robot(params_file=rig)
    heard = stereo.hear(Tracks, "tracks", qos.result_qos())
    stereo.wait_until(lambda: stereo.count_publishers("tracks") > 0, "the topic tracks")

    def show(moment, seconds):
        count = len(heard)
        # One after the other, because a busy node takes the newest frame only.
        stereo.repeat_until(
            lambda: stereo.show_at(seconds, images_of(images, moment)),
            lambda: len(heard) > count and len(stereo.messages) > count,
            f"the tracks of moment {moment}",
        )

    for moment, seconds in enumerate(MOMENTS):
        show(moment, seconds)
    assert heard == of_bag
    assert_that_tracks_agree_with_matches(heard, stereo.messages)
    # After time was set back all ids are new.
    assert set(heard[5].cameras[0].ages) == {1}
    assert max(heard[6].cameras[0].ages) == 2
    assert all(len(camera.rays) == 0 for camera in heard[-1].cameras)

    # While the node runs no id is used again, and CameraInfo adds rays.
    publishers = {
        camera: stereo.create_publisher(CameraInfo, f"{camera}/camera_info", 1) for camera in images
    }
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
        assert stereo.change_state(transition)[0]
    stereo.wait_until_connected()
    newest = max(max(camera.ids) for message in heard for camera in message.cameras)
    moment = iter(range(1, 200))

    def show_with_info():
        views = images_of(images, 0)
        for camera, publisher in publishers.items():
            publisher.publish(camera_info(camera, views[camera]))
        stereo.show_at(BEGIN + HOUR + next(moment), views)

    stereo.repeat_until(show_with_info, lambda: all(len(it.rays) for it in heard[-1].cameras), "rays")
    left = heard[-1].cameras[0]
    rays = (points_of(left.keypoints) - [300, 200]) / 500
    np.testing.assert_allclose(points_of(left.rays), rays, atol=1e-6)
    assert all(min(camera.ids) > newest for message in heard[len(MOMENTS) :] for camera in message.cameras)


def tracks_message(number):
    left, right = (CameraTracks(camera=name) for name in ("left", "right"))
    for camera in (left, right):
        camera.header = Header(stamp=Time(seconds=number).to_msg(), frame_id=f"{camera.camera}_optical")
        camera.ids, camera.ages = [4, 2**33], [number + 1, 2]
        camera.keypoints, camera.rays, camera.scores = (
            [10.0, 20.0, 30.0, 40.0],
            [0.1, 0.2, 0.3, 0.4],
            [1.0, 1.0],
        )
    return Tracks(header=left.header, cameras=[left, right])


def test_vins_features_publishes_the_layout_that_the_estimator_reads(make_robot):
    with node_process("vins_features", {}) as process:
        listener = make_robot((), process)
        publisher = listener.create_publisher(Tracks, "tracks", qos.result_qos())
        heard = listener.hear(PointCloud, "feature_tracker/feature", qos.result_qos())
        numbers = iter(range(1, 1000))
        listener.repeat_until(
            lambda: publisher.publish(tracks_message(next(numbers))), lambda: heard, "features"
        )
        (first, *_) = heard
        assert first.header.frame_id == "left_optical"
        assert [(point.x, point.y, point.z) for point in first.points] == [
            pytest.approx((x, y, 1.0)) for x, y in [(0.1, 0.2), (0.3, 0.4)] * 2
        ]
        assert [list(channel.values) for channel in first.channels[:4]] == [
            [0, 1, 0, 1],
            [0, 0, 1, 1],
            [10, 30, 10, 30],
            [20, 40, 20, 40],
        ]
        assert [len(channel.values) for channel in first.channels] == [4] * 9


def test_vins_features_names_cameras_that_cannot_be(failing):
    assert "allowed: one camera or two different ones" in failing("vins_features", cameras=["a", "b", "c"])
