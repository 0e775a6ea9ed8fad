"""Subscriptions to the cameras: images or features, and CameraInfo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from lightglue_ros.msg import Features
from lightglue_ros.nodes import qos
from lightglue_ros.rosdata.camera_info import RigCalibration
from lightglue_ros.rosdata.parameters import CameraParameters, MatcherParameters

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # its name in Humble
    from rclpy.qos_event import SubscriptionEventCallbacks


def subscribe(
    node: Node,
    values: CameraParameters,
    topic: str,
    callback: Callable[[Any], None],
    on_incompatible: Callable[[], None],
    takes_features: bool = False,
) -> Subscription:
    """Subscribe to the images of a camera, raw or compressed, or to its features.

    Args:
        topic: of the raw images, or of the features.
        on_incompatible: called when a publisher offers a QoS that the subscription cannot take.
    """
    is_compressed = values.image_transport == "compressed" and not takes_features
    if is_compressed:
        # Resolved before the suffix is added, so that remapping the topic of the raw images is enough.
        topic = f"{node.resolve_topic_name(topic)}/compressed"
    return node.create_subscription(
        Features if takes_features else CompressedImage if is_compressed else Image,
        topic,
        callback,
        qos.image_qos(values.image_qos),
        qos_overriding_options=qos.overridable(),
        event_callbacks=SubscriptionEventCallbacks(incompatible_qos=lambda _event: on_incompatible()),
    )


class InputSubscriptions:
    """Subscribes to the images, or features, of each camera.

    The callback is called with the index of the camera and the message.

    Attributes:
        topics: full name of each camera's topic.
    """

    def __init__(self, node: Node, values: MatcherParameters, callback: Callable[[int, Any], None]) -> None:
        self._node = node
        self._values = values
        self._subscriptions: list[Subscription] = []
        try:
            for camera, topic in enumerate(values.input_topics):
                take, on_incompatible = partial(callback, camera), partial(self._on_incompatible, camera)
                self._subscriptions.append(
                    subscribe(node, values, topic, take, on_incompatible, values.takes_features)
                )
        except Exception:
            self.destroy()
            raise
        self.topics = [subscription.topic_name for subscription in self._subscriptions]

    def incompatible(self) -> str:
        """Name the publishers whose QoS the subscriptions cannot take; empty if there are none."""
        return "; ".join(filter(None, map(self._incompatible_text, self._subscriptions)))

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_incompatible(self, camera: int) -> None:
        text = self._incompatible_text(self._subscriptions[camera])
        text = text or "a publisher with another QoS came and went"
        self._node.get_logger().warning(f"camera {self._values.cameras[camera]}: {text}")

    def _incompatible_text(self, subscription: Subscription) -> str:
        return qos.incompatible_text(self._node, subscription, self._values.image_qos)


class CameraInfoSubscriptions:
    """Hands the CameraInfo of each camera to a calibration, while the verification's geometry needs it."""

    def __init__(self, node: Node, calibration: RigCalibration, geometry: str) -> None:
        self._node = node
        self._calibration = calibration
        self._subscriptions: list[Subscription] = []
        self.follow(geometry)

    def follow(self, geometry: str) -> None:
        """Subscribe to what a geometry needs: CameraInfo for essential, else nothing."""
        if geometry != "essential":
            self.destroy()
        elif not self._subscriptions:
            self._subscriptions = [
                self._node.create_subscription(
                    CameraInfo,
                    topic,
                    partial(self._calibration.set_info, camera),
                    qos.image_qos("sensor_data"),
                    qos_overriding_options=qos.overridable(),
                )
                for camera, topic in enumerate(self._calibration.topics)
            ]

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
