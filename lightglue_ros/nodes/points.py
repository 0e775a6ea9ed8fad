"""Publishes the points of rectified stereo pairs while somebody subscribes to them."""

from __future__ import annotations

import array
import math

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import PointCloud2, PointField

from lightglue_ros.core import MatchPipeline
from lightglue_ros.nodes.lazy_publisher import LOG_PERIOD, LazyPublisher
from lightglue_ros.rig.frame import FrameResult
from lightglue_ros.rosdata.camera_info import RigCalibration
from lightglue_ros.rosdata.decoding import CameraImage
from lightglue_ros.rosdata.points import PointTypes, point_clouds


class PointPublisher(LazyPublisher[FrameResult[CameraImage]]):
    """Publishes a PointCloud2 for each stereo pair of a frame; with several pairs, one after the other."""

    def __init__(
        self, node: Node, publisher: Publisher, calibration: RigCalibration, pipeline: MatchPipeline
    ) -> None:
        super().__init__(node, [publisher], math.inf, "making points")
        self._publisher = publisher
        self._calibration = calibration
        self._pipeline = pipeline

    def _publish(self, result: FrameResult[CameraImage]) -> None:
        canvas = self._pipeline.image_size
        for message in point_clouds(_TYPES, result, self._calibration, canvas, self._log):
            self._publisher.publish(message)

    def _log(self, problem: str) -> None:
        self._node.get_logger().warning(problem, throttle_duration_sec=LOG_PERIOD)


def _flat(values: np.ndarray) -> array.array:
    # rclpy takes an array in one copy.
    return array.array("B", values.tobytes())


_TYPES = PointTypes(PointCloud2, PointField, _flat)
