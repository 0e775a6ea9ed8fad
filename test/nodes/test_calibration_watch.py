"""The matcher tells on /diagnostics that the calibration of a stereo pair does not hold any more."""

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo

from lightglue_ros.nodes import qos

SIZE = (741, 500)
FOCAL_LENGTH, BASELINE = 994.978, 0.193001


def camera_info(camera):
    offset = -FOCAL_LENGTH * BASELINE if camera == "right" else 0.0
    p = [FOCAL_LENGTH, 0.0, 311.193, offset, 0.0, FOCAL_LENGTH, 254.877, 0.0, 0.0, 0.0, 1.0, 0.0]
    return CameraInfo(width=SIZE[0], height=SIZE[1], p=p)


def test_a_camera_that_turned_is_a_warning_with_the_pair_and_the_figure(robot, images):
    stereo = robot()
    publishers = {
        camera: stereo.create_publisher(CameraInfo, f"{camera}/camera_info", qos.image_qos("sensor_data"))
        for camera in images
    }
    median = "pair left:right row error p50 (px)"

    def show(images):
        for camera, publisher in publishers.items():
            publisher.publish(camera_info(camera))
        stereo.show(images)

    stereo.repeat_until(lambda: show(images), lambda: median in stereo.diagnostics, "row errors")
    assert float(stereo.diagnostics[median]) < 0.5
    assert float(stereo.diagnostics[median]) < float(stereo.diagnostics["pair left:right row error p95 (px)"])
    assert stereo.diagnostics["calibration"] == "none"
    # A turn about x moves all rows.
    turned = {**images, "right": np.roll(images["right"], 4, axis=0)}
    text = "the calibration of pair left:right does not hold: median row error "
    stereo.repeat_until(lambda: show(turned), lambda: text in stereo.status.message, "the warning")
    assert stereo.status.level == DiagnosticStatus.WARN
    assert stereo.diagnostics["calibration"].startswith(text)
    # The canvas is 320 pixels wide, and refinement compares images of at most twice that width.
    assert f"px (limit {0.5 * SIZE[0] / 640:.2f} px)" in stereo.diagnostics["calibration"]
    assert float(stereo.diagnostics[median]) > 0.5
    # Without a limit nothing is watched.
    stereo.set_parameters(calibration_limit=0.0)
    stereo.repeat_until(lambda: show(turned), lambda: median not in stereo.diagnostics, "no row errors")
    assert stereo.diagnostics["calibration"] == "none"
