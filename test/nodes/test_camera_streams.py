"""What cameras may send to a running matcher, in a process of its own, over real DDS."""

import os
import random
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from bad_images import (
    BAD_COMPRESSED,
    BAD_RAW,
    JPEG,
    compressed_message,
    image_message,
    mutate_bytes,
    mutated_image,
)
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from unusual_files import turned

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.msg import PairMatches
from lightglue_ros.nodes import qos
from lightglue_ros.rosdata.decoding import check_compressed_image
from lightglue_ros.rosdata.messages import message_to_matches

MUTATIONS = 1000
MOST_GROWTH = 50  # MiB
INCOMPATIBLE = "incompatible publishers"
KINDS = {"raw": (Image, ""), "compressed": (CompressedImage, "/compressed")}


@pytest.fixture
def connected(robot):
    """Starts a matcher, and cameras of a transport and a reliability."""

    def start(transport, reliability, **parameters):
        stereo = robot(connected=False, image_transport=transport, **parameters)
        kind, suffix = KINDS[transport]
        stereo.add_cameras({name: f"{name}/image_rect{suffix}" for name in stereo.cameras}, kind, reliability)
        stereo.wait_until_connected()
        return stereo

    return start


def is_ok(message):
    return message.pairs[0].status == PairMatches.STATUS_OK


def show_each(stereo, images, good):
    """Publish each as the left image beside a good right one, at a pace that the middleware keeps up with."""
    for image in images:
        stereo.show({"left": image, "right": good})
        stereo.listen(0.002)


COMPRESSED = compressed_message(JPEG)


def mutated_jpeg(chance):
    return compressed_message(mutate_bytes(chance, JPEG))


@pytest.mark.parametrize(
    ("transport", "good", "bad", "mutate"),
    [
        ("raw", image_message(), BAD_RAW, mutated_image),
        ("compressed", COMPRESSED, BAD_COMPRESSED, mutated_jpeg),
    ],
    ids=["raw", "compressed"],
)
def test_bad_and_mutated_images_are_rejected_by_cause_and_the_next_good_frame_is_matched(
    connected, transport, good, bad, mutate
):
    stereo = connected(transport, "reliable", image_qos="reliable", image_width=64, image_height=64)
    images = {"left": good, "right": good}
    stereo.show_until(images, is_ok, "matches of good images")
    chance = random.Random(0)
    show_each(stereo, [mutate(chance) for _ in range(MUTATIONS)], good)
    handled = stereo.wait_for_diagnostics()
    assert int(handled["images received"]) + int(handled["images rejected"]) >= MUTATIONS
    before = stereo.memory()
    # From here on VmHWM is the most memory since now.
    Path(f"/proc/{stereo.process.pid}/clear_refs").write_text("5")

    def counts():
        diagnostics = stereo.wait_for_diagnostics()
        return {cause: int(diagnostics.get(f"images rejected: {cause}", 0)) for cause, *_ in bad}

    had = counts()
    for _ in range(5):
        # More than once, because nobody learns that the JPEG of an overtaken frame was broken.
        show_each(stereo, [image for _, image, _ in bad], good)
        now = counts()
        if all(now[cause] > had[cause] for cause in had):
            break
    assert all(now[cause] > had[cause] for cause in had), (had, now)
    assert stereo.memory("VmHWM") - before < MOST_GROWTH
    assert is_ok(stereo.show_until(images, is_ok, "matches of good images"))
    said = stereo.end()
    assert "a frame was lost" not in said
    assert said.count("; dropped (") < 0.1 * MUTATIONS


def test_compressed_images_are_matched_as_what_they_hold_and_a_broken_one_makes_its_camera_missing(
    connected, motorcycle
):
    left, right = motorcycle
    # A scene of about 10 K as a radiometric camera stores it.
    deep = 7430 + cv2.cvtColor(left, cv2.COLOR_RGB2GRAY).astype(np.uint16)
    png = compressed_message(cv2.imencode(".png", deep)[1].tobytes(), "mono16; png compressed ")
    jpeg = cv2.imencode(".jpg", right[..., ::-1])[1].tobytes()
    arrays = [
        check_compressed_image(it, 10**6).decode(Mono16Range()) for it in (png, compressed_message(jpeg))
    ]
    (expected,) = MatchPipeline("xfeat", image_size=(320, 224)).match(arrays, [(0, 1)])
    assert len(expected) > 100
    stereo = connected("compressed", "reliable")
    for orientation in (3, 6, 8):
        right = compressed_message(turned(jpeg, orientation), "bgr8; jpeg compressed bgr8")
        (pair,) = stereo.match({"left": png, "right": right}).pairs
        np.testing.assert_array_equal(message_to_matches(pair).keypoints1, expected.keypoints1)
        assert (pair.width0, pair.height0, pair.width1, pair.height1) == (741, 500, 741, 500)

    broken = {"left": compressed_message(JPEG[: len(JPEG) // 2]), "right": COMPRESSED}
    (pair,) = stereo.show_until(broken, lambda message: not is_ok(message), "a missing camera").pairs
    assert pair.status == PairMatches.STATUS_MISSING
    assert (pair.width0, pair.width1) == (0, 64)


MIXED = {"left": ("left/image_rect", Image), "right": ("right/image_rect/compressed", CompressedImage)}
OTHER = {"left": ("left/jpeg", CompressedImage), "right": ("right/image_raw", Image)}


@pytest.mark.parametrize("cameras", [MIXED, OTHER], ids=["mixed", "other name"])
def test_each_camera_may_be_raw_or_compressed_on_a_topic_of_any_name(robot, cameras):
    topics = [topic for topic, _ in cameras.values()]
    stereo = robot(connected=False, image_topics=topics)
    stereo.add_cameras({})
    # The drivers start later than the node.
    stereo.wait_until(lambda: all(map(stereo.count_subscribers, topics)), "the matcher's subscriptions")
    stereo.cameras = {
        camera: stereo.create_publisher(kind, topic, 5) for camera, (topic, kind) in cameras.items()
    }
    images = {Image: image_message(), CompressedImage: COMPRESSED}
    shown = {camera: images[kind] for camera, (_, kind) in cameras.items()}
    stereo.show_until(shown, is_ok, "matches of both kinds")


def test_a_topic_of_another_type_is_named(robot):
    stereo = robot(connected=False)
    stereo.add_cameras({"right": "right/image_rect"})
    stereo.create_publisher(Header, "left/image_rect", 5)
    stereo.wait_until(
        lambda: (
            "/left/image_rect is published as std_msgs/msg/Header; allowed: sensor_msgs/msg/Image"
            in stereo.diagnostics.get(INCOMPATIBLE, "")
        ),
        "the type on /diagnostics",
    )


RELIABLE, BEST_EFFORT = ["RELIABLE"], ["BEST_EFFORT"]
TOPICS = ("left/image_rect", "right/image_rect")


def requests(stereo):
    """Reliabilities that the matcher requests on both topics."""
    return [stereo.requested(topic) for topic in TOPICS]


def test_subscriptions_follow_the_publishers_as_they_come_and_go_and_no_frame_is_lost(robot, images):
    stereo = robot()
    stereo.wait_until(lambda: requests(stereo) == [BEST_EFFORT] * 2, "best-effort subscriptions")
    stereo.add_cameras(dict(zip(stereo.cameras, TOPICS, strict=True)), reliability="reliable")
    stereo.wait_until(lambda: requests(stereo) == [RELIABLE] * 2, "reliable subscriptions")
    stereo.match(images)
    shown, before = 0, int(stereo.wait_for_diagnostics()["images received"])

    def follow(expected):
        """Show frames until the subscription follows, and some more; each is matched at the first try."""
        nonlocal shown
        more = 5
        while more:
            stereo.clear()
            stereo.show(images)
            shown += 1
            stereo.wait_for_matches(1)
            assert is_ok(stereo.messages[0])
            more -= requests(stereo) == expected

    other = stereo.create_publisher(Image, TOPICS[0], qos.image_qos("sensor_data"))
    follow([BEST_EFFORT, RELIABLE])
    stereo.destroy_publisher(other)
    follow([RELIABLE, RELIABLE])
    stereo.wait_until(
        lambda: int(stereo.diagnostics["images received"]) == before + 2 * shown, "each image, once"
    )
    assert stereo.diagnostics["images too late"] == "0"
    assert stereo.diagnostics[INCOMPATIBLE] == "none"
    assert "[WARN]" not in stereo.end()


def test_subscriptions_follow_the_publishers_of_topics_that_are_remapped_into_each_other(robot):
    left, right = TOPICS
    stereo = robot(connected=False, remappings={left: right, right: left})
    stereo.add_cameras({"right": right})
    stereo.create_publisher(Image, left, qos.image_qos("reliable"))
    stereo.wait_until(lambda: requests(stereo) == [RELIABLE, BEST_EFFORT], "subscriptions by topic")


@pytest.mark.parametrize(
    ("parameters", "fix"),
    [
        ({"image_qos": "reliable"}, "image_qos: auto"),
        (
            {"qos_overrides./left/image_rect.subscription.reliability": "reliable"},
            "qos_overrides./left/image_rect.subscription.reliability: auto",
        ),
    ],
    ids=["image_qos", "override"],
)
def test_an_incompatible_publisher_is_told_and_an_override_of_one_camera_leaves_the_others_alone(
    robot, parameters, fix
):
    override = {"qos_overrides./right/image_rect.subscription.reliability": "best_effort"}
    stereo = robot(connected=False, **parameters, **override)
    stereo.wait_until(lambda: stereo.diagnostics.get(INCOMPATIBLE, "none") != "none", "the diagnostics")
    assert requests(stereo) == [RELIABLE, BEST_EFFORT]
    (log,) = (line for line in stereo.end().splitlines() if "[WARN]" in line)
    for said in (log, stereo.diagnostics[INCOMPATIBLE]):
        assert "/left/image_rect is offered with reliability BEST_EFFORT" in said
        assert "requested is RELIABLE" in said
        assert said.endswith(f"fix: {fix}")
        assert "/right/image_rect" not in said


# Publishes images of 4 MB, more than the shared memory of Fast DDS holds without our profile.
DRIVER = """
import sys, time, rclpy
from sensor_msgs.msg import Image
from lightglue_ros.nodes import qos
rclpy.init()
node = rclpy.create_node("driver")
publisher = node.create_publisher(Image, "right/image_rect", qos.image_qos(sys.argv[1]))
image = Image(width=1252, height=1110, step=3756, encoding="bgr8", data=bytes(3756 * 1110))
while True:
    image.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(image)
    rclpy.spin_once(node, timeout_sec=0.1)
"""


@pytest.mark.parametrize(
    ("offered", "parameters", "fix"),
    [
        ("sensor_data", {}, "DEFAULT_PROFILES_FILE="),
        ("reliable", {"image_qos": "sensor_data"}, "image_qos: auto"),
    ],
    ids=["profile", "image_qos"],
)
def test_images_that_are_lost_between_driver_and_node_are_told_with_the_fix(robot, offered, parameters, fix):
    environment = {name: value for name, value in os.environ.items() if "PROFILES_FILE" not in name}
    stereo = robot(connected=False, **parameters)
    stereo.add_cameras({})
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, offered], env=environment)
    try:
        stereo.wait_until(lambda: fix in stereo.diagnostics.get("images lost", ""), "the diagnostics")
    finally:
        driver.kill()
        driver.wait()
    lost = stereo.diagnostics["images lost"]
    assert "/right/image_rect" in lost
    assert "/left/image_rect" not in lost
    assert lost in stereo.end()
