"""The intrinsics of an image from the CameraInfo of its camera."""

from types import SimpleNamespace

import numpy as np
import pytest

from lightglue_ros.core import ConfigError
from lightglue_ros.rosdata.camera_info import RigCalibration, intrinsics_of

LEFT = np.array([[994.978, 0, 311.193], [0, 994.978, 254.877], [0, 0, 1]])
RIGHT = np.array([[994.978, 0, 342.279], [0, 994.978, 254.877], [0, 0, 1]])
SIZE = (741, 500)
WHOLE = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)


def camera_info(projection, k=LEFT, d=(), model="plumb_bob", size=SIZE, roi=WHOLE, binning=(0, 0)):
    """Make an object with the fields of sensor_msgs/CameraInfo."""
    fields = {"width": size[0], "height": size[1], "binning_x": binning[0], "binning_y": binning[1]}
    p = np.pad(projection, ((0, 0), (0, 1))).ravel()
    return SimpleNamespace(**fields, distortion_model=model, d=list(d), k=k.ravel(), p=p, roi=roi)


def test_camera_info_is_next_to_the_images_unless_its_topic_is_given():
    topics = ["/robot/left/image_rect", "/image_raw"]
    assert RigCalibration(["left", "right"], topics).topics == ["/robot/left/camera_info", "/camera_info"]
    assert RigCalibration(["left", "right"], topics, [""]).topics[1] == "/camera_info"
    assert RigCalibration(["left"], ["/left/image_rect/compressed"]).topics == ["/left/camera_info"]
    assert RigCalibration(["left", "right"], topics, ["a", "b"]).topics == ["a", "b"]


@pytest.mark.parametrize("is_rectified", [True, False])
def test_regions_and_binning_move_and_shrink_the_intrinsics(is_rectified):
    region = SimpleNamespace(x_offset=100, y_offset=60, width=400, height=200)
    info = camera_info(LEFT, k=RIGHT, roi=region, binning=(2, 4))
    found = intrinsics_of(info, is_rectified, (200, 50)).matrix
    whole = LEFT if is_rectified else RIGHT
    # The ray through the corner of a pixel is the same in both.
    for corner in ((0.0, 0.0), (40.0, 30.0)):
        ray = np.linalg.inv(found) @ [corner[0] - 0.5, corner[1] - 0.5, 1]
        seen = whole @ ray
        np.testing.assert_allclose(seen[:2], [100 + 2 * corner[0] - 0.5, 60 + 4 * corner[1] - 0.5])


def test_the_distortion_is_taken_where_images_are_raw_and_by_its_model():
    d = [0.1, 0.2, 0.3, 0.4]
    assert not intrinsics_of(camera_info(LEFT, d=d), True, SIZE).distortion.any()
    raw = intrinsics_of(camera_info(LEFT, d=d), False, SIZE)
    assert (raw.distortion.tolist(), raw.is_fisheye) == (d, False)
    for of_fisheye in (d, [0.0] * 4):
        info = camera_info(LEFT, d=of_fisheye, model="equidistant")
        fisheye = intrinsics_of(info, False, SIZE)
        assert (fisheye.distortion.tolist(), fisheye.is_fisheye) == (of_fisheye, True)
        assert not intrinsics_of(info, True, SIZE).is_fisheye


@pytest.mark.parametrize(
    ("info", "is_rectified", "says"),
    [
        (camera_info(np.zeros((3, 3))), True, "has P without focal lengths: the camera is not calibrated"),
        (camera_info(LEFT, k=LEFT * np.nan), False, "has K without focal lengths"),
        (camera_info(LEFT, d=[np.nan] * 5), False, "has D that is not finite: the camera is not calibrated"),
        (camera_info(LEFT, size=(1482, 1000)), True, "of images of 1482x1000, and the images have 741x500"),
        (camera_info(LEFT, d=[0.1], model="fov"), False, "the distortion 'fov' with 1 coefficients; allowed"),
        (camera_info(LEFT, d=[0.1] * 5, model="equidistant"), False, "equidistant with 4; fix: match"),
    ],
)
def test_camera_info_that_cannot_be_used_is_named(info, is_rectified, says):
    with pytest.raises(ConfigError, match=says):
        intrinsics_of(info, is_rectified, SIZE)


def moved(projection, tx, **others):
    """Make the CameraInfo of a camera with P[0, 3] = tx."""
    info = camera_info(projection, **others)
    info.p[3] = tx
    return info


def rig(left, right, topics=("/left/image_rect", "/right/image_rect")):
    calibration = RigCalibration(["left", "right"], topics)
    for camera, info in enumerate((left, right)):
        calibration.set_info(camera, info)
    return calibration


def test_p_of_both_cameras_is_the_geometry_of_a_stereo_pair_also_with_binning():
    infos = camera_info(LEFT, binning=(2, 2)), moved(RIGHT, -994.978 * 0.193, binning=(2, 2))
    size = SIZE[0] // 2, SIZE[1] // 2
    found = rig(*infos).stereo_pair(0, 1, [size, size])
    assert found.focal_lengths == pytest.approx((497.489, 497.489))
    assert found.centre0 == pytest.approx(((311.193 + 0.5) / 2 - 0.5, (254.877 + 0.5) / 2 - 0.5))
    assert found.centre1[0] - found.centre0[0] == pytest.approx(31.086 / 2)
    assert found.baseline == pytest.approx(0.193)
    assert rig(*infos[::-1]).stereo_pair(0, 1, [size, size]).baseline == pytest.approx(-0.193)


@pytest.mark.parametrize(
    ("right", "topics", "says"),
    [
        (moved(RIGHT, -100.0), ("/left/image_rect", "/right/image_raw"), "of camera right are not rectified"),
        (moved(RIGHT, 0.0), ("/left/image_rect", "/right/image_rect"), "not those of a stereo pair: .* 0 m"),
        (moved(2 * RIGHT, -9.0), ("/left/image_rect", "/right/image_rect"), "994.98 and 1989.96 px"),
        (None, ("/left/image_rect", "/right/image_rect"), "camera right: nothing has come on"),
    ],
)
def test_two_cameras_that_are_no_stereo_pair_are_named(right, topics, says):
    with pytest.raises(ConfigError, match=says):
        rig(camera_info(LEFT), right, topics).stereo_pair(0, 1, [SIZE, SIZE])


def test_rows_of_raw_images_are_known_from_r_and_p_of_cameras_that_were_calibrated_together():
    raw = ("/left/image_raw", "/right/image_raw")
    left, right = camera_info(LEFT), moved(RIGHT, -994.978 * 0.193, k=RIGHT)
    turn = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
    left.r, right.r = np.eye(3).ravel(), turn.ravel()
    rows = rig(left, right, raw).stereo_rows(0, 1, [SIZE, SIZE])
    np.testing.assert_array_equal(rows.rotations, [np.eye(3), turn])
    np.testing.assert_array_equal([camera.matrix for camera in rows.cameras], [LEFT, RIGHT])
    # Rectified images have been turned already.
    np.testing.assert_array_equal(rig(left, right).stereo_rows(0, 1, [SIZE, SIZE]).rotations, [np.eye(3)] * 2)
    right.r = np.zeros(9)
    with pytest.raises(ConfigError, match=r"camera right: /right/camera_info has R that is no rotation"):
        rig(left, right, raw).stereo_rows(0, 1, [SIZE, SIZE])
    for alone in (camera_info(RIGHT), moved(np.zeros((3, 3)), 0.0)):
        with pytest.raises(ConfigError, match="not those of a stereo pair"):
            rig(left, alone, raw).stereo_rows(0, 1, [SIZE, SIZE])
