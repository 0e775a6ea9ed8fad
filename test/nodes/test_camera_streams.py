"""What cameras may send to a running matcher, in a process of its own, over real DDS."""

import random
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

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
from unusual_files import turned

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.msg import PairMatches
from lightglue_ros.nodes import qos
from lightglue_ros.nodes.conversions import array_to_image, message_to_matches
from lightglue_ros.rosdata.decoding import check_compressed_image, check_image

MUTATIONS = 1000
MOST_GROWTH = 50 * 1024  # KiB
TYPES = {"raw": (Image, ""), "compressed": (CompressedImage, "/compressed")}


def connect(stereo, transport, reliability):
    """Give the robot cameras of that transport and reliability."""
    kind, suffix = TYPES[transport]
    stereo.cameras = {
        camera: stereo.create_publisher(kind, f"{camera}/image_rect{suffix}", qos.image_qos(reliability))
        for camera in stereo.cameras
    }
    stereo.wait_until_connected()
    return stereo


def is_ok(message):
    return message.pairs[0].status == PairMatches.STATUS_OK


def memory(process, name):
    """A line of /proc/PID/status, in KiB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def show_each(stereo, images, good):
    """Publish each as the left image beside a good right one, at a pace that the middleware keeps up with."""
    for image in images:
        stereo.show({"left": image, "right": good})
        stereo.listen(0.002)


@pytest.mark.parametrize(
    ("transport", "good", "bad", "mutate"),
    [
        ("raw", image_message(), BAD_RAW, mutated_image),
        (
            "compressed",
            compressed_message(JPEG),
            BAD_COMPRESSED,
            lambda chance: compressed_message(mutate_bytes(chance, JPEG)),
        ),
    ],
    ids=["raw", "compressed"],
)
def test_bad_and_mutated_images_are_rejected_by_cause_and_the_next_good_frame_is_matched(
    robot, transport, good, bad, mutate
):
    stereo = robot(
        connected=False, image_transport=transport, image_qos="reliable", image_width=64, image_height=64
    )
    connect(stereo, transport, "reliable")
    images = {"left": good, "right": good}
    stereo.show_until(images, is_ok, "matches of good images")
    chance = random.Random(0)
    show_each(stereo, [mutate(chance) for _ in range(MUTATIONS)], good)
    handled = stereo.wait_for_diagnostics()
    assert int(handled["images received"]) + int(handled["images rejected"]) >= MUTATIONS
    before = memory(stereo.process, "VmRSS")
    # From here on VmHWM is the most memory since now.
    Path(f"/proc/{stereo.process.pid}/clear_refs").write_text("5")

    def counts():
        diagnostics = stereo.wait_for_diagnostics()
        return {cause: int(diagnostics.get(f"images rejected: {cause}", 0)) for cause, *_ in bad}

    had = counts()
    for _ in range(5):
        # More than once, for of a frame that is overtaken nobody learns that its JPEG was broken.
        show_each(stereo, [image for _, image, _ in bad], good)
        now = counts()
        if all(now[cause] > had[cause] for cause in had):
            break
    assert all(now[cause] > had[cause] for cause in had), (had, now)
    assert memory(stereo.process, "VmHWM") - before < MOST_GROWTH
    assert is_ok(stereo.show_until(images, is_ok, "matches of good images"))
    stereo.process.send_signal(signal.SIGINT)
    assert stereo.process.wait(20.0) == 0
    said = stereo.process.stderr.read()
    assert "Traceback" not in said
    assert "a frame was lost" not in said
    assert said.count("; dropped (") < 0.1 * MUTATIONS


def test_size_and_encoding_may_change_from_frame_to_frame(robot, motorcycle):
    left, right = motorcycle
    grey = left[..., 1]
    deep = (grey[:400, :600].astype(np.uint16) * 16).astype(">u2")
    mosaic = left[:448, :640, 1].copy()
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = left[:448:2, :640:2, 0], left[1:448:2, 1:640:2, 2]
    stream = [
        array_to_image(left, Image().header),
        array_to_image(np.ascontiguousarray(grey[:300]), Image().header),
        image_message(
            width=600, height=400, encoding="mono16", step=1200, is_bigendian=1, data=deep.tobytes()
        ),
        image_message(width=640, height=448, encoding="bayer_rggb8", step=640, data=mosaic.tobytes()),
    ]
    pipeline = MatchPipeline("xfeat", image_size=(320, 224))
    stereo = robot()
    for image in stream:
        size = (image.width, image.height)
        found = stereo.show_until(
            {"left": image, "right": right},
            lambda message, size=size: (message.pairs[0].width0, message.pairs[0].height0) == size,
            f"the image of {size}",
        )
        array = check_image(image).decode(Mono16Range())
        (expected,) = pipeline.match([array, right], [(0, 1)])
        assert len(expected) > 50
        np.testing.assert_array_equal(message_to_matches(found.pairs[0]).keypoints0, expected.keypoints0)


def test_compressed_images_of_reliable_publishers_are_matched_as_what_they_hold(robot, motorcycle):
    left, right = motorcycle
    # A scene of about 10 K as a radiometric camera stores it.
    deep = 7430 + cv2.cvtColor(left, cv2.COLOR_RGB2GRAY).astype(np.uint16)
    jpeg = turned(cv2.imencode(".jpg", right[..., ::-1])[1].tobytes(), orientation=6)
    images = {
        "left": compressed_message(cv2.imencode(".png", deep)[1].tobytes(), "mono16; png compressed "),
        "right": compressed_message(jpeg, "bgr8; jpeg compressed bgr8"),
    }
    stereo = connect(robot(connected=False, image_transport="compressed"), "compressed", "reliable")
    (pair,) = stereo.match(images).pairs
    arrays = [check_compressed_image(image, 10**6).decode(Mono16Range()) for image in images.values()]
    (expected,) = MatchPipeline("xfeat", image_size=(320, 224)).match(arrays, [(0, 1)])
    assert len(expected) > 100
    np.testing.assert_array_equal(message_to_matches(pair).keypoints0, expected.keypoints0)
    assert (pair.width0, pair.height0, pair.width1, pair.height1) == (741, 500, 741, 500)


def test_a_broken_jpeg_makes_its_camera_missing_for_that_frame(robot):
    stereo = robot(connected=False, image_transport="compressed")
    connect(stereo, "compressed", "sensor_data")
    broken = compressed_message(JPEG[: len(JPEG) // 2])
    (pair,) = stereo.match({"left": broken, "right": compressed_message(JPEG)}).pairs
    assert pair.status == PairMatches.STATUS_MISSING
    assert (pair.width0, pair.width1) == (0, 64)


def test_an_incompatible_publisher_is_told_with_both_policies_and_the_parameter(robot):
    stereo = robot(connected=False, image_qos="reliable")
    stereo.wait_until(lambda: stereo.diagnostics.get("incompatible QoS", "none") != "none", "the diagnostics")
    stereo.process.send_signal(signal.SIGINT)
    stereo.process.wait(20.0)
    log = [line for line in stereo.process.stderr if "camera left" in line]
    assert len(log) == 1
    for said in (log[0], stereo.diagnostics["incompatible QoS"]):
        assert "/left/image_rect is offered with reliability BEST_EFFORT" in said
        assert "requested is RELIABLE" in said
        assert "image_qos: sensor_data" in said
