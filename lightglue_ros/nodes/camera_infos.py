"""Subscribes to the CameraInfo of a rig's cameras, while verification needs it (see `rig.verifier`)."""

from __future__ import annotations

from functools import partial

from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo

from lightglue_ros.nodes import qos
from lightglue_ros.rig.verifier import RigVerifier
from lightglue_ros.rosdata.parameters import MatcherParameters


def make_verifier(node: Node, values: MatcherParameters) -> RigVerifier:
    """A verifier of a node's rig, that knows the topics by their names after remapping."""
    image_topics = [node.resolve_topic_name(topic) for topic in values.image_topics]
    return RigVerifier(values.cameras, image_topics, values.camera_info_topics)


class CameraInfoSubscriptions:
    """Hands CameraInfo to a verifier.

    Args:
        node: that subscribes.
        verifier: of its rig.
    """

    def __init__(self, node: Node, verifier: RigVerifier) -> None:
        self._node = node
        self._verifier = verifier
        self._subscriptions: list[Subscription] = []

    def subscribe(self, geometry: str) -> None:
        """Subscribe to what a geometry needs, and to nothing else."""
        if geometry != "essential":
            self.stop()
        elif not self._subscriptions:
            self._subscriptions = [
                self._node.create_subscription(
                    CameraInfo,
                    topic,
                    partial(self._verifier.set_info, camera),
                    qos.image_qos("sensor_data"),
                    qos_overriding_options=qos.overridable(),
                )
                for camera, topic in enumerate(self._verifier.topics)
            ]

    def stop(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
