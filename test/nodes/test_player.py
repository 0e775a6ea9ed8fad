"""The player in a process of its own, heard over real DDS."""

import os
import subprocess
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

import rclpy
from bag_files import write_bag
from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from unusual_files import GIGAPIXEL_PNG

from lightglue_ros.nodes import qos
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.nodes.processes import node_process
from lightglue_ros.rosdata.messages import stamp_in_ns

DEADLINE = 30.0
# Recorded from here on, every 50 ms; the images were taken 7 ms before.
RECORDED = 1_600_000_000_000_000_000
PERIOD, AGE = 50_000_000, 7_000_000
FRAMES = 6
COUNT = 20
COUNTED = {"loop": False, "min_subscribers": 1, "image_qos": "reliable"}


def as_time(nanoseconds):
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def recorded_messages():
    """(topic, message, time) of a stereo camera, one half of it compressed, and of something else."""
    for frame in range(FRAMES):
        time_ns = RECORDED + frame * PERIOD
        header = Header(frame_id="left_optical", stamp=as_time(time_ns - AGE))
        yield "/cam/left", array_to_image(np.full((4, 6), frame, np.uint8), header), time_ns
        jpeg = CompressedImage(header=header, format="jpeg", data=b"x%d" % frame)
        yield "/cam/right/compressed", jpeg, time_ns
        yield "/talk", String(data="hello"), time_ns


def record(folder, storage):
    messages = [
        (
            topic,
            f"{type(message).__module__.split('.')[0]}/msg/{type(message).__name__}",
            serialize_message(message),
            time_ns,
        )
        for topic, message, time_ns in recorded_messages()
    ]
    return str(write_bag(folder, storage, messages))


class Audience:
    """Hears topics of the player until it ends and keeps the messages."""

    def __init__(self, topics, profile):
        self.node = rclpy.create_node("audience")
        self.heard = {topic: [] for topic in topics}
        for topic, kind in topics.items():
            self.node.create_subscription(kind, topic, self.heard[topic].append, profile)

    def listen_to(self, depth=100, **parameters):
        # Deep enough to keep all until this process has found the player.
        depths = {f"qos_overrides./{topic.lstrip('/')}.publisher.depth": depth for topic in self.heard}
        with node_process("player", {**COUNTED, **depths, **parameters}) as player:
            deadline = time.monotonic() + DEADLINE
            while player.poll() is None:
                assert time.monotonic() < deadline, self.heard
                rclpy.spin_once(self.node, timeout_sec=0.05)
        while self._spin_hears_more():
            pass
        assert player.returncode == 0

    def _spin_hears_more(self):
        before = sum(map(len, self.heard.values()))
        rclpy.spin_once(self.node, timeout_sec=0.1)
        return sum(map(len, self.heard.values())) > before

    def stamps(self, topic):
        return [stamp_in_ns(message.header) for message in self.heard[topic]]

    def values(self, topic):
        """The brightness of each image."""
        return [round(np.mean(message.data)) for message in self.heard[topic]]


@pytest.fixture
def audience(ros):
    made = []

    def make(profile=100, **topics):
        made.append(Audience({topic.replace("__", "/"): kind for topic, kind in topics.items()}, profile))
        return made[-1]

    yield make
    for one in made:
        one.node.destroy_node()


@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
def test_a_bag_is_played_as_it_was_recorded_with_its_clock(audience, tmp_path, storage):
    bag = record(tmp_path / "bag", storage)
    listener = audience(
        __cam__left=Image, __cam__right__compressed=CompressedImage, __clock=Clock, __talk=String
    )
    listener.listen_to(bag=bag, clock=True)
    expected = list(recorded_messages())
    assert listener.heard["/cam/left"] == [m for topic, m, _ in expected if topic == "/cam/left"]
    compressed = listener.heard["/cam/right/compressed"]
    assert compressed == [m for topic, m, _ in expected if topic == "/cam/right/compressed"]
    assert not listener.heard["/talk"]
    clock = [m.clock.sec * 10**9 + m.clock.nanosec for m in listener.heard["/clock"]]
    assert clock == sorted(clock)
    assert clock[-1] == RECORDED + (FRAMES - 1) * PERIOD
    assert clock[0] >= RECORDED - PERIOD
    assert any((tick - RECORDED) % PERIOD for tick in clock), "no time between the images"


def test_a_bag_that_loops_begins_again_and_may_have_new_stamps(audience, tmp_path):
    bag = record(tmp_path / "bag", "MCAP")
    listener = audience(__cam__left=Image, __cam__right__compressed=CompressedImage)
    start = time.time_ns()
    listener.listen_to(
        bag=bag, image_topics=["/cam/left"], loop=True, count=FRAMES + 2, keep_stamps=False, speed=0.5
    )
    assert listener.values("/cam/left") == [*range(FRAMES), 0, 1]
    stamps = listener.stamps("/cam/left")
    assert stamps[-1] - stamps[0] > (FRAMES + 1) * PERIOD
    assert start < stamps[0] < time.time_ns()
    assert not listener.heard["/cam/right/compressed"]


def test_a_video_is_played_at_its_own_rate_beside_a_still_image(audience, tmp_path):
    video, still = str(tmp_path / "video.avi"), str(tmp_path / "still.png")
    writer = cv2.VideoWriter(video, cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48), isColor=True)
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no videos")
    for value in range(5):
        writer.write(np.full((48, 64, 3), 40 * value, np.uint8))
    writer.release()
    cv2.imwrite(still, np.full((4, 6), 99 * 257, np.uint16))
    listener = audience(left__image_rect=Image, right__image_rect=Image)
    listener.listen_to(images=[video, still], clock=True)
    assert np.abs(np.subtract(listener.values("left/image_rect"), [0, 40, 80, 120, 160])).max() <= 2
    # The 16 bits of the file stay, each byte is 99.
    assert listener.values("right/image_rect") == [99] * 5
    assert {m.encoding for m in listener.heard["right/image_rect"]} == {"mono16"}
    # With a clock, stamps are its time, exactly.
    assert np.diff(listener.stamps("left/image_rect")).tolist() == [50_000_000] * 4
    assert listener.stamps("left/image_rect") == listener.stamps("right/image_rect")
    assert {m.header.frame_id for m in listener.heard["right/image_rect"]} == {"right"}


def test_most_large_images_arrive_between_processes(audience, tmp_path, noise):
    """1080p rgb8 from two cameras at 10 Hz, best effort. Fast DDS's default profile loses two of three."""
    file = str(tmp_path / "image.png")
    cv2.imwrite(file, noise(1080, 1920))
    listener = audience(qos.image_qos("sensor_data"), left__image_rect=Image, right__image_rect=Image)
    listener.listen_to(depth=5, images=[file, file], loop=True, count=COUNT, image_qos="sensor_data")
    for topic in ("left/image_rect", "right/image_rect"):
        assert {len(message.data) for message in listener.heard[topic]} == {1920 * 1080 * 3}
        assert len(listener.heard[topic]) >= 0.7 * COUNT


@pytest.fixture
def failing_player(ros):
    """Starts a player that cannot start; checks that it says so in one line, and returns that."""

    def start(environment=None, **parameters):
        options = {"stderr": subprocess.PIPE, "text": True, "env": environment}
        with node_process("player", parameters, **options) as process:
            _, said = process.communicate(timeout=20.0)
        assert process.returncode == 1
        assert len(said.strip().splitlines()) == 1, said
        return said

    return start


def test_player_errors_are_one_line(failing_player, tmp_path):
    jpeg = cv2.imencode(".jpg", np.zeros((480, 640, 3), np.uint8))[1].tobytes()
    cut, gigapixel = tmp_path / "cut.jpg", tmp_path / "gigapixel.png"
    cut.write_bytes(jpeg[: len(jpeg) // 2])
    gigapixel.write_bytes(GIGAPIXEL_PNG)
    for parameters, says in (
        ({}, "nothing to play"),
        ({"images": ["one.png", "two.png"], "rate": -1.0}, "rate"),
        ({"images": ["a.png", "b.png"], "bag": "bag"}, "images and bag are both given"),
        ({"images": ["/no/such.png", "/no/such.png"]}, "no image file /no/such.png"),
        ({"images": [str(cut), str(cut)]}, f"{cut} cannot be read as an image: jpeg image"),
        ({"images": [str(gigapixel), str(gigapixel)]}, "20000x60000 pixels, more than OpenCV decodes"),
        ({"images": ["one.png"]}, "1 images and 2 topics for 2 cameras"),
        ({"images": "one.png"}, "expecting type 'STRING_ARRAY'"),
        ({"bag": "/no/such/bag"}, "no bag /no/such/bag"),
    ):
        assert says in failing_player(**parameters)


def test_without_rosbags_a_bag_names_what_is_missing(failing_player, tmp_path):
    (tmp_path / "rosbags").mkdir()
    (tmp_path / "rosbags" / "__init__.py").write_text("raise ImportError('no rosbags on this robot')")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    said = failing_player(environment={**os.environ, "PYTHONPATH": path}, bag=str(tmp_path))
    assert "needs the Python package rosbags" in said
    assert "pip install rosbags" in said
