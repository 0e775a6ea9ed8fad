"""The player in a process of its own, heard over real DDS."""

import os
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from bag_files import write_bag
from rclpy.serialization import serialize_message
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from unusual_files import GIGAPIXEL_PNG, turned

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
STEREO = {"left/image_rect": Image, "right/image_rect": Image}
COUNTED = {"loop": False, "min_subscribers": 1, "image_qos": "reliable"}


def recorded_messages():
    """(topic, message, time) of a stereo camera, one half of it compressed, and of something else."""
    for frame in range(FRAMES):
        time_ns = RECORDED + frame * PERIOD
        header = Header(frame_id="left_optical", stamp=Time(nanoseconds=time_ns - AGE).to_msg())
        yield "/cam/left", array_to_image(np.full((4, 6), frame, np.uint8), header), time_ns
        jpeg = CompressedImage(header=header, format="jpeg", data=b"x%d" % frame)
        yield "/cam/right/compressed", jpeg, time_ns
        yield "/talk", String(data="hello"), time_ns


@pytest.fixture(params=["MCAP", "SQLITE3"])
def bag(request, tmp_path):
    messages = [
        (
            topic,
            f"{type(message).__module__.split('.')[0]}/msg/{type(message).__name__}",
            serialize_message(message),
            time_ns,
        )
        for topic, message, time_ns in recorded_messages()
    ]
    return str(write_bag(tmp_path / "bag", request.param, messages))


def play(topics, profile=100, depth=100, **parameters):
    """Run a player to its end; returns the messages of each topic."""
    node = rclpy.create_node("audience")
    heard = {topic: [] for topic in topics}
    for topic, kind in topics.items():
        node.create_subscription(kind, topic, heard[topic].append, profile)
    # Deep enough to keep all until this process has found the player.
    depths = {f"qos_overrides./{topic}.publisher.depth": depth for topic in topics}
    with node_process("player", {**COUNTED, **depths, **parameters}) as player:
        deadline = time.monotonic() + DEADLINE
        while player.poll() is None:
            assert time.monotonic() < deadline, heard
            rclpy.spin_once(node, timeout_sec=0.05)
    before = -1
    while before != (before := sum(map(len, heard.values()))):
        rclpy.spin_once(node, timeout_sec=0.1)
    node.destroy_node()
    assert player.returncode == 0
    return heard


def stamps(messages):
    return [stamp_in_ns(message.header) for message in messages]


def values(messages):
    """The brightness of each image."""
    return [round(np.mean(message.data)) for message in messages]


def test_a_bag_is_played_as_it_was_recorded_with_its_clock(ros, bag):
    topics = {"cam/left": Image, "cam/right/compressed": CompressedImage, "clock": Clock, "talk": String}
    heard = play(topics, bag=bag, clock=True)
    expected = list(recorded_messages())
    for name in ("cam/left", "cam/right/compressed"):
        assert heard[name] == [message for topic, message, _ in expected if topic == f"/{name}"]
    assert not heard["talk"]
    clock = [m.clock.sec * 10**9 + m.clock.nanosec for m in heard["clock"]]
    assert clock == sorted(clock)
    assert clock[-1] == RECORDED + (FRAMES - 1) * PERIOD
    assert clock[0] >= RECORDED - PERIOD
    assert any((tick - RECORDED) % PERIOD for tick in clock), "no time between the images"


def test_misspelt_parameters_are_named_and_those_of_the_matcher_are_not(ros, tmp_path):
    """One file may have the parameters of all nodes."""
    path = str(tmp_path / "image.png")
    cv2.imwrite(path, np.zeros((4, 6), np.uint8))
    parameters = {"images": [path, path], "count": 1, "rates": 5.0, "sync_slop": 0.1}
    with node_process("player", parameters, stderr=subprocess.PIPE, text=True) as player:
        _, said = player.communicate(timeout=DEADLINE)
    assert "parameters that this node does not have are ignored: rates (did you mean rate?); " in said


@pytest.mark.parametrize("bag", ["MCAP"], indirect=True)
def test_of_a_damaged_bag_the_rest_is_played_and_the_damage_is_named(ros, bag):
    (Path(bag) / "metadata.yaml").write_text(
        "rosbag2_bagfile_information: {relative_file_paths: [bag.mcap, bag_1.mcap]}"
    )
    parameters = {**COUNTED, "min_subscribers": 0, "speed": 100.0, "bag": bag}
    with node_process("player", parameters, stderr=subprocess.PIPE, text=True) as player:
        _, said = player.communicate(timeout=DEADLINE)
    assert player.returncode == 0
    assert said.count("bag_1.mcap is missing, which metadata.yaml names") == 1


@pytest.mark.parametrize("bag", ["MCAP"], indirect=True)
def test_a_bag_that_loops_begins_again_and_may_have_new_stamps(ros, bag):
    start = time.time_ns()
    changes = {"image_topics": ["/cam/left"], "loop": True, "count": FRAMES + 2, "keep_stamps": False}
    heard = play({"cam/left": Image, "cam/right/compressed": CompressedImage}, bag=bag, speed=0.5, **changes)
    assert values(heard["cam/left"]) == [*range(FRAMES), 0, 1]
    first, *_, last = stamps(heard["cam/left"])
    assert last - first > (FRAMES + 1) * PERIOD
    assert start < first < time.time_ns()
    assert not heard["cam/right/compressed"]


def test_a_video_is_played_at_its_own_rate_beside_a_still_image(ros, tmp_path):
    video, still = str(tmp_path / "video.avi"), str(tmp_path / "still.png")
    writer = cv2.VideoWriter(video, cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48), isColor=True)
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no videos")
    for value in range(5):
        writer.write(np.full((48, 64, 3), 40 * value, np.uint8))
    writer.release()
    cv2.imwrite(still, np.full((4, 6), 99 * 257, np.uint16))
    left, right = play(STEREO, images=[video, still], clock=True).values()
    assert np.abs(np.subtract(values(left), [0, 40, 80, 120, 160])).max() <= 2
    # The 16 bits of the file stay, each byte is 99.
    assert values(right) == [99] * 5
    assert {(m.encoding, m.header.frame_id) for m in right} == {("mono16", "right")}
    # With a clock, stamps are its time, exactly.
    assert np.diff(stamps(left)).tolist() == [50_000_000] * 4
    assert stamps(left) == stamps(right)


def test_files_are_played_as_stored_whatever_exif_says(ros, tmp_path, noise):
    jpeg = cv2.imencode(".jpg", noise(48, 64))[1].tobytes()
    (tmp_path / "upright.jpg").write_bytes(jpeg)
    (tmp_path / "turned").mkdir()
    for orientation in (3, 6, 8):
        (tmp_path / "turned" / f"{orientation}.jpg").write_bytes(turned(jpeg, orientation))
    left, right = play(STEREO, images=[str(tmp_path / "turned"), str(tmp_path / "upright.jpg")]).values()
    assert [(m.width, m.height, m.data) for m in left] == [(64, 48, right[0].data)] * 3


def test_a_folder_is_played_in_the_order_of_numbers_and_a_damaged_image_leaves_only_its_own_moment_empty(
    ros, tmp_path
):
    folders = [tmp_path / name for name in ("left", "right")]
    for folder in folders:
        folder.mkdir()
        for number in range(1, 12):
            cv2.imwrite(str(folder / f"{number}.png"), np.full((4, 6), number, np.uint8))
    damaged = tmp_path / "left" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    left, right = play(STEREO, images=[str(folder) for folder in folders], clock=True).values()
    assert values(right) == list(range(1, 12))
    assert values(left) == [1, 2, *range(4, 12)]
    assert stamps(left) == [stamp for stamp in stamps(right) if stamp != stamps(right)[2]]


def test_a_folder_without_a_whole_image_is_an_error_that_names_each(ros, tmp_path):
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    parameters = {"images": [str(tmp_path)] * 2, "rate": 1000.0}
    with node_process("player", parameters, stderr=subprocess.PIPE, text=True) as player:
        _, said = player.communicate(timeout=DEADLINE)
    assert player.returncode == 1
    for name in ("1.jpg", "2.jpg"):
        assert said.count(f"{tmp_path / name} cannot be read as an image") == 1
    assert "no image can be read" in said


def test_most_large_images_arrive_between_processes(ros, tmp_path, noise):
    """1080p rgb8 from two cameras at 10 Hz, best effort. Fast DDS's default profile loses two of three."""
    file = str(tmp_path / "image.png")
    cv2.imwrite(file, noise(1080, 1920))
    best_effort = qos.image_qos("sensor_data")
    changes = {"loop": True, "count": COUNT, "image_qos": "sensor_data"}
    for messages in play(STEREO, best_effort, depth=5, images=[file, file], **changes).values():
        assert {len(message.data) for message in messages} == {1920 * 1080 * 3}
        assert len(messages) >= 0.5 * COUNT


def test_player_errors_are_one_line(failing, tmp_path):
    jpeg = cv2.imencode(".jpg", np.zeros((480, 640, 3), np.uint8))[1].tobytes()
    cut, gigapixel = tmp_path / "cut.jpg", tmp_path / "gigapixel.png"
    cut.write_bytes(jpeg[: len(jpeg) // 2])
    gigapixel.write_bytes(GIGAPIXEL_PNG)
    for parameters, says in (
        ({}, '--ros-args -p "images:=[left.png, right.png]"'),
        ({"images": ["one.png", "two.png"], "rate": -1}, "rate is -1.0; allowed: double from 0 to 1000"),
        ({"images": ["a.png", "b.png"], "bag": "bag"}, "images and bag are both given"),
        ({"images": ["/no/such.png", "/no/such.png"]}, "no image file /no/such.png"),
        ({"images": [str(cut), str(cut)]}, f"{cut} cannot be read as an image: jpeg image"),
        ({"images": [str(gigapixel), str(gigapixel)]}, "20000x60000 pixels, more than OpenCV decodes"),
        ({"images": ["one.png"]}, "1 images and 2 topics for 2 cameras"),
        (
            {"images": "one.png"},
            "images is 'one.png'; allowed: string_array; fix: for example images: [a, b]",
        ),
        ({"bag": "/no/such/bag"}, "no bag /no/such/bag"),
    ):
        assert says in failing("player", **parameters)


def test_without_rosbags_a_bag_names_what_is_missing(failing, tmp_path):
    (tmp_path / "rosbags").mkdir()
    (tmp_path / "rosbags" / "__init__.py").write_text("raise ImportError('no rosbags on this robot')")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    said = failing("player", environment={**os.environ, "PYTHONPATH": path}, bag=str(tmp_path))
    assert "needs the Python package rosbags" in said
    assert "pip install rosbags" in said
