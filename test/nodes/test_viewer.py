"""Pictures of the matches, by the matcher itself and by the viewer."""

import subprocess

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.core.draw import DrawnPair, draw_pairs
from lightglue_ros.msg import Matches, PairMatches
from lightglue_ros.nodes import drawing, qos
from lightglue_ros.nodes.conversions import message_to_matches
from lightglue_ros.nodes.processes import node_process

LARGE = np.full((960, 1280, 3), 128, np.uint8)
LARGE_MIB = LARGE.nbytes / 2**20


def look(robot):
    """Subscribe to the pictures; returns the list that they come to."""
    pictures = []
    robot.pictures = robot.create_subscription(Image, drawing.TOPIC, pictures.append, qos.picture_qos())
    return pictures


def expected_picture(message, images):
    """The picture of a message on matches with one pair."""
    (pair,) = message.pairs
    title = f"left:right  {len(pair.scores)} matches"
    return draw_pairs([DrawnPair(title, *images, message_to_matches(pair))], drawing.LONGEST_SIDE)


def pixels(picture):
    assert picture.encoding == "rgb8"
    return np.asarray(picture.data, np.uint8).reshape(picture.height, picture.width, 3)


def test_the_matcher_draws_only_while_somebody_looks_and_not_above_the_limit(robot, motorcycle):
    images = dict(zip(("left", "right"), motorcycle, strict=True))
    stereo = robot(drawing_rate=0.01)
    stereo.match(images)
    assert stereo.wait_for_diagnostics()["pictures drawn"] == "0"

    pictures = look(stereo)
    seen = []
    while not pictures:
        seen.append(stereo.match(images))
    seen += [stereo.match(images) for _ in range(5)]
    (picture,) = pictures
    (message,) = [message for message in seen if message.header == picture.header]
    np.testing.assert_array_equal(pixels(picture), expected_picture(message, motorcycle))
    assert stereo.wait_for_diagnostics()["pictures drawn"] == "1"

    assert stereo.set_parameters(drawing_rate=100.0)[0].successful
    stereo.repeat_until(lambda: stereo.show(images), lambda: len(pictures) > 3, "more pictures")
    stereo.destroy_subscription(stereo.pictures)
    stereo.wait_until(lambda: stereo.count_subscribers(drawing.TOPIC) == 0, "nobody to look")
    stereo.wait_for_diagnostics()
    drawn = stereo.wait_for_diagnostics()["pictures drawn"]
    for _ in range(5):
        stereo.match(images)
    assert stereo.wait_for_diagnostics()["pictures drawn"] == drawn


def test_a_missing_image_is_drawn_black_and_said_to_be_missing(robot, motorcycle):
    left, _ = motorcycle
    stereo = robot(camera_timeout=0.2)
    pictures = look(stereo)
    stereo.repeat_until(lambda: stereo.show({"left": left}), lambda: pictures, "a picture")
    picture = pixels(pictures[0])
    assert picture[:, :640].any()
    assert not picture[:, 640:].any()


def test_a_viewer_draws_in_place_of_the_matcher(robot, motorcycle):
    images = dict(zip(("left", "right"), motorcycle, strict=True))
    with node_process("viewer", {"drawing_rate": 100.0}) as viewer:
        stereo = robot(drawing_rate=100.0)
        stereo.processes.append(viewer)
        pictures = look(stereo)
        stereo.wait_until(
            lambda: (
                stereo.count_publishers(drawing.TOPIC) == 2
                and all(stereo.count_subscribers(f"{camera}/image_rect") == 2 for camera in images)
                and stereo.count_subscribers("matches") == 2
            ),
            "matcher and viewer",
        )
        # The matcher draws until it knows of the viewer as well.
        before, drawn = None, ""
        while drawn != before:
            stereo.match(images)
            before, drawn = drawn, stereo.wait_for_diagnostics()["pictures drawn"]
        seen = []
        pictures.clear()

        def has_picture():
            stamps = [picture.header.stamp for picture in pictures]
            return any(message.header.stamp in stamps for message in seen)

        while not has_picture():
            seen.append(stereo.match(images))
        picture, message = next(
            (picture, message)
            for message in seen
            for picture in pictures
            if picture.header.stamp == message.header.stamp
        )
        np.testing.assert_array_equal(pixels(picture), expected_picture(message, motorcycle))
        assert stereo.wait_for_diagnostics()["pictures drawn"] == drawn
        viewer.terminate()
        assert viewer.wait(20.0) == 0


def test_past_images_are_kept_for_pictures_only_while_somebody_looks(robot):
    """Of large images that are matched with the one 20 before; the features of 64 x 64 pixels are small."""
    stereo = robot(
        ["left"],
        cameras=["left"],
        image_topics=["left/image_rect"],
        pairs=["left@-20:left"],
        image_width=64,
        image_height=64,
        drawing_rate=100.0,
    )
    for _ in range(3):
        stereo.match({"left": LARGE})
    before = stereo.resident()
    for _ in range(20):
        stereo.match({"left": LARGE})
    assert stereo.resident() - before < 5 * LARGE_MIB

    pictures = look(stereo)
    # First come those of which the past image is not there any more.
    for _ in range(22):
        stereo.match({"left": LARGE})
    stereo.wait_until(lambda: pixels(pictures[-1])[:, :640].any() if pictures else False, "a past image")
    assert stereo.resident() - before > 15 * LARGE_MIB


def test_a_viewer_keeps_images_no_longer_than_matches_may_name_them(make_robot, ros):
    with node_process("viewer", {"drawing_rate": 100.0}) as viewer:
        stereo = make_robot(["left", "right"], viewer)
        matches = stereo.create_publisher(Matches, "matches", qos.result_qos())
        pictures = look(stereo)
        stereo.wait_until(
            lambda: (
                stereo.count_publishers(drawing.TOPIC) == 1
                and matches.get_subscription_count() == 2  # the viewer's and our own
                and all(camera.get_subscription_count() == 1 for camera in stereo.cameras.values())
            ),
            "the viewer",
        )

        def show_and_look():
            stereo.show({"left": LARGE, "right": LARGE})
            stamp = stereo.last_stamp
            pair = PairMatches(camera0="left", camera1="right", stamp0=stamp, stamp1=stamp)
            pair.width0, pair.height0 = pair.width1, pair.height1 = LARGE.shape[1::-1]
            matches.publish(Matches(header=Header(stamp=stamp), pairs=[pair]))

        def draw(count):
            for _ in range(count):
                pictures.clear()
                stereo.repeat_until(show_and_look, lambda: pictures, "a picture")

        draw(5)
        before = stereo.resident()
        draw(20)
        assert stereo.resident() - before < 10 * LARGE_MIB
        assert pixels(pictures[-1]).any()


def test_a_viewer_that_cannot_start_says_why(ros):
    with node_process(
        "viewer", {"cameras": ["left"], "drawing_rate": 5.0}, stderr=subprocess.PIPE, text=True
    ) as process:
        _, said = process.communicate(timeout=30.0)
    assert process.returncode == 1
    assert "2 topics for 1 cameras" in said
