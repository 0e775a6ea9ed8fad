"""Point clouds of a frame's rectified stereo pairs, for the message classes of rclpy and those of rosbags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightglue_ros.core.rotation import turned_size
from lightglue_ros.errors import ConfigError, RejectedImageError
from lightglue_ros.rig.frame import FrameResult
from lightglue_ros.rig.points import Points, triangulate
from lightglue_ros.rosdata.camera_info import RigCalibration
from lightglue_ros.rosdata.decoding import CameraImage

# As in the message: z_std is the standard deviation of z in metres, id the index of the keypoint in the first
# image, rgb blue, green, red and 0, as RViz and Foxglove read a colour.
_POINT = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("z_std", "<f4"),
        ("id", "<u4"),
        ("rgb", "u1", 4),
    ]
)


@dataclass(frozen=True)
class PointTypes:
    """Classes of sensor_msgs/PointCloud2 and sensor_msgs/PointField.

    Attributes:
        flat: converts a uint8 array to the value of a flat field.
    """

    cloud: type
    field: type
    flat: Callable[[np.ndarray], Any]


def point_clouds(
    types: PointTypes,
    result: FrameResult[CameraImage],
    calibration: RigCalibration,
    canvas_size: tuple[int, int],
    on_problem: Callable[[str], object],
) -> Iterator[Any]:
    """Make a PointCloud2 of each pair of two cameras that is present, with the header of its first image.

    `on_problem` is called with the pair and the reason if a pair gives no points, such as no CameraInfo.
    """
    for name, cameras, pair, images in result.pairs_of_two_cameras():
        sizes = [(image.width, image.height) for image in images]
        try:
            stereo = calibration.stereo_pair(*cameras, sizes)
        except ConfigError as error:
            on_problem(f"no points of {name}: {error}")
            continue
        inliers = None if pair.verification is None else pair.verification.inliers
        turned = list(map(turned_size, sizes, pair.rotations))  # as they lay on the canvas
        points = triangulate(pair.matches, inliers, stereo, turned, canvas_size)
        # The pair's own image has lost its pixels unless pictures are drawn.
        colours = points.colours(_pixels(result, cameras[0]))
        yield _message(types, images[0].header, points, colours)


def _pixels(result: FrameResult[CameraImage], camera: int) -> np.ndarray | None:
    """Decode the image of a camera; None if features came in its place."""
    image = result.images[camera]
    try:
        decoded = None if image is None else image.decode(result.settings.mono16)
    except RejectedImageError:
        return None
    return decoded if isinstance(decoded, np.ndarray) else None


def _message(types: PointTypes, header: Any, points: Points, colours: np.ndarray) -> Any:
    rows = np.zeros(len(points), _POINT)
    rows["x"], rows["y"], rows["z"] = points.positions.T
    rows["z_std"], rows["id"] = points.deviations, points.indices
    rows["rgb"][:, :3] = colours[:, ::-1]
    kinds = {"id": types.field.UINT32}
    fields = [
        types.field(
            name=name,
            offset=_POINT.fields[name][1],
            datatype=kinds.get(name, types.field.FLOAT32),
            count=1,
        )
        for name in _POINT.names
    ]
    return types.cloud(
        header=header,
        height=1,
        width=len(rows),
        fields=fields,
        is_bigendian=False,
        point_step=_POINT.itemsize,
        row_step=rows.nbytes,
        data=types.flat(rows.view(np.uint8)),
        is_dense=True,
    )
