"""Verification in the running matcher, with intrinsics from CameraInfo where it needs them."""

from functools import partial
from itertools import cycle

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo

from lightglue_ros.cli.demo import same_row_share
from lightglue_ros.msg import PairMatches
from lightglue_ros.nodes import qos
from lightglue_ros.rig.verification import Intrinsics, verify_pair
from lightglue_ros.rosdata.messages import message_to_inliers, message_to_matches

# What skimage.data.stereo_motorcycle says of its two cameras.
LEFT = np.array([[994.978, 0, 311.193], [0, 994.978, 254.877], [0, 0, 1]])
RIGHT = np.array([[994.978, 0, 342.279], [0, 994.978, 254.877], [0, 0, 1]])
SIZE = (741, 500)
CANVAS = (320, 224)


def camera_info(projection, k=LEFT, d=()):
    p = np.column_stack([projection, np.zeros(3)])
    size = {"width": SIZE[0], "height": SIZE[1]}
    return CameraInfo(distortion_model="plumb_bob", d=list(d), k=k.ravel(), p=p.ravel(), **size)


def publish_infos(robot, infos):
    """Make a function that publishes the CameraInfo of each topic."""
    profile = qos.image_qos("sensor_data")
    publishers = {topic: robot.create_publisher(CameraInfo, topic, profile) for topic in infos}

    def publish():
        for topic, publisher in publishers.items():
            publisher.publish(infos[topic])

    return publish


def has_kind(kind, message):
    expected = getattr(PairMatches, f"VERIFICATION_{kind.upper()}")
    return all(pair.verification == expected for pair in message.pairs)


def assert_is_that_of_the_core(pair, geometry, intrinsics=None):
    """The message says what the core makes of its matches."""
    found = verify_pair(message_to_matches(pair), geometry, (SIZE, SIZE), CANVAS, intrinsics)
    np.testing.assert_array_equal(message_to_inliers(pair), found.inliers)
    np.testing.assert_array_equal(pair.matrix.reshape(3, 3), found.matrix)


def row_shares(pair):
    """Shares of all matches and of the inliers that lie on the same row, to a pixel of the canvas."""
    matches, inliers = message_to_matches(pair), message_to_inliers(pair)
    both = matches.keypoints0, matches.keypoints1
    tolerance = SIZE[0] / CANVAS[0]
    return same_row_share(*both, tolerance), same_row_share(*(of[inliers] for of in both), tolerance)


def test_verification_changes_while_running_and_leaves_more_on_the_same_row(robot, images):
    stereo = robot()
    (pair,) = stereo.match(images).pairs
    assert pair.verification == PairMatches.VERIFICATION_NONE
    assert len(pair.inliers) == 0
    for geometry in ("fundamental", "homography"):
        assert stereo.set_parameters(verification=geometry)[0].successful
        (pair,) = stereo.show_until(images, partial(has_kind, geometry), geometry).pairs
        assert_is_that_of_the_core(pair, geometry)
        before, after = row_shares(pair)
        assert 0.1 < np.mean(pair.inliers) < 1.0
        assert after > before
    # No frame of black images has a geometry, and that is no error.
    black = dict.fromkeys(images, np.zeros(SIZE[::-1], np.uint8))
    (pair,) = stereo.show_until(black, lambda m: not m.pairs[0].scores, "matches of black images").pairs
    assert pair.verification == PairMatches.VERIFICATION_HOMOGRAPHY
    assert not pair.matrix.any()
    assert stereo.set_parameters(verification="none")[0].successful
    stereo.show_until(images, lambda m: len(m.pairs[0].scores) > 0 and not m.pairs[0].inliers, "none")
    refused = stereo.set_parameters(verification="affine")[0]
    assert "verification is 'affine'; allowed: none, fundamental" in refused.reason


def test_essential_waits_for_camera_info_and_takes_each_cameras_own(robot, motorcycle):
    left, right = motorcycle
    views = cycle(({"left": left, "right": right}, {"left": right, "right": left}))
    infos = {"left/camera_info": camera_info(LEFT), "right/camera_info": camera_info(RIGHT)}
    stereo = robot(pairs=["left:right", "right@-1:right"], calibration_limit=0.0)
    stereo.repeat_until(lambda: stereo.show(next(views)), lambda: stereo.messages, "matches")
    assert not any(map(stereo.count_subscribers, infos))

    assert stereo.set_parameters(verification="essential")[0].successful
    told = "camera left: nothing has come on /left/camera_info yet; camera right: nothing has come on"
    stereo.repeat_until(
        lambda: stereo.show(next(views)),
        lambda: told in stereo.diagnostics.get("pairs unverified", ""),
        "diagnostics of missing intrinsics",
    )
    stereo.wait_until(lambda: "pairs unverified" in stereo.status.message, "a warning")
    assert stereo.status.level == DiagnosticStatus.WARN
    assert len(stereo.messages[-1].pairs[0].scores) > 100
    assert not any(pair.verification for pair in stereo.messages[-1].pairs)

    publish = publish_infos(stereo, infos)
    stereo.clear()

    def act():
        publish()
        stereo.show(next(views))

    def moved():
        """Two equal images in a row, where a frame was dropped, have no geometry."""
        return [message for message in stereo.messages if all(pair.matrix.any() for pair in message.pairs)]

    stereo.repeat_until(act, moved, "essential")
    pair, through_time = moved()[0].pairs
    assert has_kind("essential", moved()[0])
    both = Intrinsics(LEFT), Intrinsics(RIGHT)
    assert_is_that_of_the_core(pair, "essential", both)
    assert_is_that_of_the_core(through_time, "essential", both[1:] * 2)
    before, after = row_shares(pair)
    assert after > before
    stereo.repeat_until(
        act, lambda: stereo.diagnostics["pairs unverified"] == "none", "diagnostics without a problem"
    )

    assert stereo.set_parameters(verification="none")[0].successful
    stereo.wait_until(lambda: not any(map(stereo.count_subscribers, infos)), "the end of the subscriptions")


def test_camera_info_that_was_published_once_before_the_node_started_is_taken(robot, images):
    profile = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    calibrated = rclpy.create_node("calibrated")
    for topic, info in (("left", camera_info(LEFT)), ("right", camera_info(RIGHT))):
        calibrated.create_publisher(CameraInfo, f"{topic}/camera_info", profile).publish(info)
    stereo = robot(verification="essential")
    stereo.show_until(images, partial(has_kind, "essential"), "essential")
    calibrated.destroy_node()


def test_raw_images_go_by_k_and_d(robot, motorcycle):
    """Images bent as by a wide lens: the cameras differ by a step to the right only if that is undone."""
    bent = [Intrinsics(matrix, np.array([-0.8, 0, 0, 0, 0])) for matrix in (LEFT, RIGHT)]
    left, right = (_bend(image, camera) for image, camera in zip(motorcycle, bent, strict=True))
    images, infos = ["left/image_raw", "right/image_raw"], ["/left_info", "/right_info"]
    size = {"image_width": 640, "image_height": 480}
    stereo = robot(
        connected=False, image_topics=images, camera_info_topics=infos, verification="essential", **size
    )
    stereo.add_cameras({"left": images[0], "right": images[1]})
    stereo.wait_until_connected()
    # P is of the rectified images, and wrong on purpose.
    infos = [camera_info(np.eye(3), k=camera.matrix, d=camera.distortion) for camera in bent]
    publish = publish_infos(stereo, dict(zip(("/left_info", "/right_info"), infos, strict=True)))

    def act():
        publish()
        stereo.show({"left": left, "right": right})

    stereo.repeat_until(act, lambda: any(map(partial(has_kind, "essential"), stereo.messages)), "essential")
    (pair,) = next(filter(partial(has_kind, "essential"), stereo.messages)).pairs
    matches = message_to_matches(pair)
    found = verify_pair(matches, "essential", (SIZE, SIZE), (640, 480), tuple(bent))
    np.testing.assert_array_equal(message_to_inliers(pair), found.inliers)
    assert _turn(pair.matrix.reshape(3, 3)) < 0.02
    straight = tuple(Intrinsics(camera.matrix) for camera in bent)
    unbent = verify_pair(matches, "essential", (SIZE, SIZE), (640, 480), straight)
    assert _turn(unbent.matrix) > 0.04


def _turn(essential):
    """How far an essential matrix is from that of a step to the right, which has two elements."""
    step = np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]])
    return np.abs(essential * np.sign(essential[1, 2]) - step).max()


def _bend(image, camera):
    """A picture without distortion as a camera with distortion would have taken it."""
    pixels = np.stack(np.meshgrid(*map(np.arange, SIZE)), axis=-1).reshape(-1, 2).astype(np.float32)
    seen = np.column_stack([camera.rays(pixels), np.ones(len(pixels))]) @ camera.matrix[:2].T
    return cv2.remap(image, seen.reshape(*SIZE[::-1], 2).astype(np.float32), None, cv2.INTER_LINEAR)
