"""The vins_features node: turns `tracks` into the features that the estimator of VINS-Fusion takes.

It publishes `feature_tracker/feature` (sensor_msgs/PointCloud: points x, y, 1 in normalised, undistorted
coordinates; channels id, camera, u, v, vx, vy and three unused ones). See `rosdata.vins` for which tracks
become features. The estimator's own images must not arrive, because it would track them as well.
"""

from __future__ import annotations

import array

from geometry_msgs.msg import Point32
from rclpy.node import Node
from sensor_msgs.msg import ChannelFloat32, PointCloud

from lightglue_ros.errors import ConfigError
from lightglue_ros.msg import Tracks
from lightglue_ros.nodes import qos
from lightglue_ros.nodes.lazy_publisher import LOG_PERIOD
from lightglue_ros.nodes.ros_parameters import declare_all
from lightglue_ros.nodes.spin import run_node
from lightglue_ros.rosdata.parameter_spec import Spec
from lightglue_ros.rosdata.vins import CHANNELS, VinsFeatures, VinsFrontEnd

TOPIC = "feature_tracker/feature"
SPECS = {
    "cameras": Spec(
        ["left", "right"],
        "Names of the one or two cameras of the estimator in the tracks, in the estimator's order.",
        is_read_only=True,
    )
}


class VinsFeaturesNode(Node):
    """Publishes features for VINS-Fusion; see the head of this module.

    Raises:
        ConfigError: a parameter cannot be used.
    """

    def __init__(self) -> None:
        super().__init__("vins_features")
        self._front_end = VinsFrontEnd(declare_all(self, SPECS)["cameras"])
        overrides = {"qos_overriding_options": qos.overridable()}
        self._features = self.create_publisher(PointCloud, TOPIC, qos.result_qos(), **overrides)
        self.create_subscription(Tracks, "tracks", self._on_tracks, qos.result_qos(), **overrides)

    def _on_tracks(self, message: Tracks) -> None:
        try:
            features = self._front_end.take(message)
        except ConfigError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=LOG_PERIOD)
            return
        if features is not None:
            self._features.publish(_to_message(features))


def _to_message(features: VinsFeatures) -> PointCloud:
    return PointCloud(
        header=features.header,
        points=[Point32(x=x, y=y, z=1.0) for x, y in features.rays.tolist()],
        channels=[
            ChannelFloat32(name=name, values=array.array("f", values.tobytes()))
            for name, values in zip(CHANNELS, features.channels, strict=True)
        ],
    )


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; the exit status is 1 if it could not start."""
    return run_node("vins_features", lambda _done: VinsFeaturesNode(), args)
