"""Points of a rectified stereo pair from the running matcher."""

import numpy as np
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField

from lightglue_ros.nodes import qos

SIZE = (741, 500)
# As skimage.data.stereo_motorcycle describes the pair.
FOCAL_LENGTH, ROW, COLUMNS, BASELINE = 994.978, 254.877, {"left": 311.193, "right": 342.279}, 0.193001


def camera_info(camera):
    offset = -FOCAL_LENGTH * BASELINE if camera == "right" else 0.0
    p = [FOCAL_LENGTH, 0.0, COLUMNS[camera], offset, 0.0, FOCAL_LENGTH, ROW, 0.0, 0.0, 0.0, 1.0, 0.0]
    return CameraInfo(width=SIZE[0], height=SIZE[1], p=p)


def test_points_have_the_place_the_index_and_the_colour_of_their_keypoints(robot, images):
    stereo = robot(publish_points=True)
    publishers = {
        camera: stereo.create_publisher(CameraInfo, f"{camera}/camera_info", qos.image_qos("sensor_data"))
        for camera in images
    }
    heard = stereo.hear(PointCloud2, "points", qos.result_qos())

    def act():
        for camera, publisher in publishers.items():
            publisher.publish(camera_info(camera))
        stereo.show(images)

    def both():
        """A cloud and the matches of the same frame."""
        found = {str(message.header.stamp): message for message in stereo.messages}
        return [(it, found[str(it.header.stamp)]) for it in heard if str(it.header.stamp) in found]

    stereo.repeat_until(act, both, "points")
    cloud, matches = both()[0]
    assert cloud.header == matches.header
    fields = {field.name: (field.offset, field.datatype, field.count) for field in cloud.fields}
    number, index = PointField.FLOAT32, PointField.UINT32
    assert fields == {
        name: (4 * place, index if name == "id" else number, 1)
        for place, name in enumerate(("x", "y", "z", "z_std", "id", "rgb"))
    }
    kinds = [(name, "<u4" if name in ("id", "rgb") else "<f4") for name in fields]
    points = np.frombuffer(cloud.data, np.dtype(kinds))
    assert len(points) == cloud.width > 100
    (pair,) = matches.pairs
    rows = np.searchsorted(pair.indices0, points["id"])
    left, right = (np.reshape(them, (-1, 2))[rows] for them in (pair.keypoints0, pair.keypoints1))
    assert np.asarray(pair.checked)[rows].all()
    disparities = left[:, 0] - right[:, 0] + COLUMNS["right"] - COLUMNS["left"]
    np.testing.assert_allclose(points["z"], FOCAL_LENGTH * BASELINE / disparities, rtol=1e-4)
    # Projected back, a point is at its keypoint.
    for name, column, centre in (("x", 0, COLUMNS["left"]), ("y", 1, ROW)):
        np.testing.assert_allclose(
            points[name] / points["z"] * FOCAL_LENGTH + centre, left[:, column], atol=1e-2
        )
    x, y = np.rint(left).astype(int).T
    colours = images["left"][y, x].astype(np.uint32)
    np.testing.assert_array_equal(points["rgb"], colours @ np.array([1 << 16, 1 << 8, 1], np.uint32))
