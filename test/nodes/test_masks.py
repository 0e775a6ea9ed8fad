"""Masks of a running matcher: a file and a topic."""

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.nodes import qos
from lightglue_ros.nodes.conversions import array_to_image


def half(images, rows):
    """A mask of the left camera that is black in some rows."""
    mask = np.full(images["left"].shape[:2], 255, np.uint8)
    mask[rows] = 0
    return mask


def rows_of(message, number):
    """The rows of the keypoints of the first or the second image in the matches of a pair."""
    (pair,) = message.pairs
    return np.array((pair.keypoints0, pair.keypoints1)[number]).reshape(-1, 2)[:, 1]


def test_masks_of_a_file_and_a_topic_hold_and_an_old_or_wrong_one_is_named(robot, images, tmp_path):
    cv2.imwrite(str(tmp_path / "arm.png"), half(images, slice(300, None)))
    stereo = robot(
        mask_files=["", str(tmp_path / "arm.png")],
        mask_topics=["left/mask", ""],
        mask_max_age=0.2,
        lazy=False,
    )
    stereo.hear_log()
    publisher = stereo.create_publisher(Image, "left/mask", qos.image_qos("reliable"))
    message = stereo.match(images)
    assert rows_of(message, 1).max() < 299.5
    stereo.wait_for_log("camera left is matched without a mask: no mask has come on /left/mask")

    def show(mask):
        stereo.show(images)
        made = array_to_image(mask, Header())
        made.header.stamp = stereo.last_stamp
        publisher.publish(made)

    def is_masked():
        return any(len(rows_of(it, 0)) and rows_of(it, 0).min() > 149.5 for it in stereo.messages[-1:])

    # The mask of a moment comes after its images, and is used for the next ones.
    stereo.repeat_until(lambda: show(half(images, slice(150))), is_masked, "matches below a mask")
    assert rows_of(stereo.messages[-1], 1).max() < 299.5
    stereo.match_at(1000.0, images)
    stereo.wait_for_log(
        r"the newest mask on /left/mask is of [0-9.]+ s after the image; allowed: up to 0\.2 s"
    )
    coloured = np.dstack([half(images, slice(150))] * 3)
    stereo.repeat_until(
        lambda: show(coloured),
        lambda: any("/left/mask has the encoding 'rgb8'; allowed: mono8" in line.msg for line in stereo.log),
        "a wrong mask in the log",
    )
    stereo.repeat_until(
        lambda: show(coloured), lambda: "rgb8" in stereo.diagnostics.get("masks", ""), "it in the diagnostics"
    )


def test_a_file_that_is_no_mask_ends_the_start_with_a_line(failing, model_folder, tmp_path):
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((5, 8), np.uint8))
    line = failing("matcher", mask_files=[str(tmp_path / "black.png"), ""])
    assert f"parameter mask_files, camera left: mask {tmp_path / 'black.png'} is all black" in line
    assert "parameter mask_topics is ['left/mask'] for 2 cameras" in failing(
        "matcher", mask_topics=["left/mask"]
    )
