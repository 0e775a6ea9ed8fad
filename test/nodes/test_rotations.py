"""A running matcher whose right camera is mounted on its head."""

from types import SimpleNamespace

import numpy as np

from lightglue_ros.nodes.active_matcher import ActiveMatcher


def has_matches(message):
    return len(message.pairs[0].scores) > 100


def test_a_camera_on_its_head_is_found_said_and_shown(robot, images):
    stereo = robot(camera_rotations=["0", "auto"])
    stereo.hear_log()
    mounted = {"left": images["left"], "right": images["right"][::-1, ::-1].copy()}
    message = stereo.show_until(mounted, has_matches, "matches of a camera on its head")
    x, y = np.array(message.pairs[0].keypoints1).reshape(-1, 2).T
    height, width = mounted["right"].shape[:2]
    x0, y0 = np.array(message.pairs[0].keypoints0).reshape(-1, 2).T
    # Rectified images: the same row, and further to the left, once the second one is upright.
    assert np.median(np.abs(height - 1 - y - y0)) < 2
    assert np.median(x0 - (width - 1 - x)) > 2
    stereo.wait_for_log("camera right: its images are turned by 180 degrees clockwise, found by matching")
    stereo.repeat_until(
        lambda: stereo.show(mounted),
        lambda: stereo.diagnostics.get("camera right rotation (degrees)") == "180",
        "rotation in the diagnostics",
    )
    assert stereo.diagnostics["camera left rotation (degrees)"] == "0"


def test_a_rotation_that_is_found_while_another_one_is_logged_is_logged_too():
    found, lines = {1: 180}, []

    def info(text):
        if not lines:
            found[2] = 90  # by the search in another thread
        lines.append(text)

    matcher = SimpleNamespace(
        _processor=SimpleNamespace(rotations=SimpleNamespace(found=found)),
        _settings=SimpleNamespace(cameras=["a", "b", "c"]),
        _node=SimpleNamespace(get_logger=lambda: SimpleNamespace(info=info)),
    )
    for _ in range(2):
        ActiveMatcher._log_rotations(matcher)
    assert [line.split(":")[0] for line in lines] == ["camera b", "camera c"]
