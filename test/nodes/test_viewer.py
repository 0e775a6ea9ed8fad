"""Pictures of the matches, by the matcher itself and by the viewer."""

import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.core.draw import Style
from lightglue_ros.msg import Matches, PairMatches, Tracks
from lightglue_ros.nodes import drawing, qos
from lightglue_ros.nodes.processes import node_process
from lightglue_ros.rosdata.drawing import RecentKeypoints, draw_message

LARGE = np.full((960, 1280, 3), 128, np.uint8)
LARGE_MIB = LARGE.nbytes / 2**20


def pixels(picture):
    assert picture.encoding == "rgb8"
    return np.asarray(picture.data, np.uint8).reshape(picture.height, picture.width, 3)


def drawn_of(pictures, messages):
    """Pictures and the messages that they are drawn of."""
    return [(drawn, of) for drawn in pictures for of in messages if drawn.header == of.header]


def is_drawn(picture, message, tracks, images, colour):
    """Whether a picture shows a message, with all keypoints of the tracks up to those of its frame."""
    known = RecentKeypoints()
    for frame in tracks:
        known.add_tracks(frame)
        if frame.header == message.header:
            break
    shown = [(images[pair.camera0], images[pair.camera1]) for pair in message.pairs]
    drawn = draw_message(message, shown, Style(colour), known.frames)
    return np.array_equal(pixels(picture), drawn)


def test_the_matcher_draws_inliers_only_while_somebody_looks_and_not_above_the_limit(robot, images):
    stereo = robot(drawing_rate=0.01, verification="fundamental", publish_tracks=True)
    stereo.match(images)
    assert stereo.wait_for_diagnostics()["pictures drawn"] == "0"

    tracks = stereo.hear(Tracks, "tracks", qos.result_qos())
    seen, pictures = stereo.hear(Matches, "matches", qos.result_qos()), stereo.look()
    stereo.repeat_until(lambda: stereo.show(images), lambda: tracks and drawn_of(pictures, seen), "a picture")
    for _ in range(5):
        stereo.match(images)
    assert len(pictures) == 1
    picture, message = drawn_of(pictures, seen)[0]
    assert is_drawn(picture, message, [it for it in tracks if it.header == message.header], images, "score")
    assert stereo.wait_for_diagnostics()["pictures drawn"] == "1"

    # The image of a camera that is missing is black.
    assert all(result.successful for result in stereo.set_parameters(drawing_rate=100.0, camera_timeout=0.2))
    stereo.repeat_until(
        lambda: stereo.show({"left": images["left"]}),
        lambda: not pixels(pictures[-1])[:, 640:].any(),
        "a missing image",
    )
    assert pixels(pictures[-1])[:, :640].any()

    stereo.destroy_subscription(stereo.subscription)
    stereo.wait_until(lambda: stereo.count_subscribers(drawing.TOPIC) == 0, "nobody to look")
    stereo.wait_for_diagnostics()
    drawn = stereo.wait_for_diagnostics()["pictures drawn"]
    for _ in range(5):
        stereo.match(images)
    assert stereo.wait_for_diagnostics()["pictures drawn"] == drawn


@pytest.mark.parametrize("remappings", [{}, {"matches": "other_matches"}], ids=["as they are", "remapped"])
def test_two_matchers_in_one_namespace_both_draw(robot, images, remappings):
    """Their pictures go to one topic; those of two pairs are higher than those of one."""
    stereo = robot(drawing_rate=100.0)
    pairs = ["left:right", "right:left"]
    small = {"image_width": 320, "image_height": 224, "drawing_rate": 100.0}
    with node_process("matcher", small | {"pairs": pairs}, name="other", remappings=remappings) as other:
        stereo.processes.append(other)
        pictures = stereo.look()
        stereo.wait_until(lambda: stereo.count_publishers(drawing.TOPIC) == 2, "both matchers")
        pictures.clear()
        stereo.repeat_until(
            lambda: stereo.show(images),
            lambda: len({picture.height for picture in pictures}) == 2,
            "pictures of both",
        )


def test_a_viewer_draws_in_place_of_the_matcher_and_knows_the_tracks(robot, images):
    with node_process("viewer", {"drawing_rate": 100.0, "drawing_colour": "age"}) as viewer:
        stereo = robot(pairs=["left:right", "left@-1:left"], drawing_rate=100.0, publish_tracks=True)
        stereo.processes.append(viewer)
        tracks = stereo.hear(Tracks, "tracks", qos.result_qos())
        seen, pictures = stereo.hear(Matches, "matches", qos.result_qos()), stereo.look()
        stereo.wait_until(
            lambda: (
                stereo.count_publishers(drawing.TOPIC) == 2
                and stereo.hearers() == [2, 2]
                and stereo.count_subscribers("matches") == 3  # the viewer's and ours
                and stereo.count_subscribers("tracks") == 2
            ),
            "matcher and viewer",
        )
        drawn = stereo.match_until_a_viewer_draws(images)
        pictures.clear()
        # From the ninth frame on both know all positions of the trails.
        stereo.repeat_until(
            lambda: stereo.show(images),
            lambda: any(is_drawn(*it, tracks, images, "age") for it in drawn_of(pictures[-1:], seen)),
            "a picture with trails",
        )
        assert stereo.wait_for_diagnostics()["pictures drawn"] == drawn
        viewer.terminate()
        assert viewer.wait(20.0) == 0


def test_a_viewer_draws_images_of_reliable_cameras_where_the_pictures_are_remapped(robot, images):
    with node_process("viewer", {"drawing_rate": 100.0}, remappings={drawing.TOPIC: "drawn"}) as viewer:
        stereo = robot(connected=False)
        stereo.processes.append(viewer)
        topics = {camera: f"{camera}/image_rect" for camera in images}
        stereo.add_cameras(topics, reliability="reliable")
        seen = stereo.hear(Matches, "matches", qos.result_qos())
        pictures = stereo.hear(Image, "drawn", qos.picture_qos())
        stereo.wait_until(
            lambda: all(stereo.requested(topic, "viewer") == ["RELIABLE"] for topic in topics.values()),
            "the viewer's subscriptions",
        )
        stereo.repeat_until(lambda: stereo.show(images), lambda: drawn_of(pictures, seen), "a picture")
        stereo.repeat_until(
            lambda: stereo.show(images), lambda: pixels(pictures[-1]).any(axis=2).mean() > 0.9, "images in it"
        )


def test_past_images_are_kept_for_pictures_only_while_somebody_looks(robot):
    """Of large images that are matched with the one 20 before; the features of 64 x 64 pixels are small."""
    size = {"image_width": 64, "image_height": 64}
    stereo = robot(["left"], pairs=["left@-20:left"], drawing_rate=100.0, **size)
    for _ in range(3):
        stereo.match({"left": LARGE})
    before = stereo.memory()
    for _ in range(20):
        stereo.match({"left": LARGE})
    assert stereo.memory() - before < 5 * LARGE_MIB

    pictures = stereo.look()
    # The past images of the first pictures are gone.
    for _ in range(22):
        stereo.match({"left": LARGE})
    stereo.wait_until(lambda: pixels(pictures[-1])[:, :640].any() if pictures else False, "a past image")
    assert stereo.memory() - before > 15 * LARGE_MIB


def test_a_viewer_keeps_images_no_longer_than_matches_may_name_them(make_robot, ros):
    with node_process("viewer", {"drawing_rate": 100.0}) as viewer:
        stereo = make_robot(["left", "right"], viewer)
        matches = stereo.create_publisher(Matches, "matches", qos.result_qos())
        pictures = stereo.look()
        stereo.wait_until(
            lambda: (
                stereo.count_publishers(drawing.TOPIC) == 1
                and matches.get_subscription_count() == 2  # the viewer's and our own
                and stereo.hearers() == [1, 1]
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
        before = stereo.memory()
        draw(20)
        assert stereo.memory() - before < 10 * LARGE_MIB
        assert pixels(pictures[-1]).any()


def test_a_viewer_that_cannot_start_says_why(failing):
    assert "2 topics for 1 cameras" in failing("viewer", cameras=["left"], drawing_rate=5.0)
