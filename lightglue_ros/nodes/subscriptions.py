"""Subscriptions of the matcher: images or features of its cameras, and their CameraInfo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo

from lightglue_ros.msg import Features
from lightglue_ros.nodes import image_input, qos
from lightglue_ros.rosdata.camera_info import RigCalibration
from lightglue_ros.rosdata.parameters import MatcherParameters


class InputSubscriptions:
    """Subscribes to the images, or features, of each camera.

    Args:
        node: subscribes.
        values: of its parameters.
        callback: called with the index of the camera and the message.

    Attributes:
        topics: full name of each camera's topic.
    """

    def __init__(self, node: Node, values: MatcherParameters, callback: Callable[[int, Any], None]) -> None:
        self._node = node
        self._values = values
        self._incompatible: set[int] = set()
        self._subscriptions: list[Subscription] = []
        try:
            for camera, topic in enumerate(values.input_topics):
                self._subscriptions.append(self._subscribe(camera, topic, partial(callback, camera)))
        except Exception:
            self.destroy()
            raise
        self.topics = [subscription.topic_name for subscription in self._subscriptions]

    def incompatible(self) -> str:
        """Name the publishers whose QoS the subscriptions cannot take; empty if there are none."""
        return "; ".join(filter(None, map(self._incompatible_text, sorted(self._incompatible))))

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _subscribe(self, camera: int, topic: str, callback: Callable[[Any], None]) -> Subscription:
        on_incompatible = partial(self._on_incompatible, camera)
        if not self._values.takes_features:
            return image_input.subscribe(self._node, self._values, topic, callback, on_incompatible)
        return self._node.create_subscription(
            Features,
            topic,
            callback,
            qos.image_qos(self._values.image_qos),
            qos_overriding_options=qos.overridable(),
            event_callbacks=qos.on_incompatible(on_incompatible),
        )

    def _on_incompatible(self, camera: int) -> None:
        self._incompatible.add(camera)
        text = self._incompatible_text(camera) or "a publisher with another QoS came and went"
        self._node.get_logger().warning(f"camera {self._values.cameras[camera]}: {text}")

    def _incompatible_text(self, camera: int) -> str:
        return qos.incompatible_text(self._node, self._subscriptions[camera], self._values.image_qos)


class CameraInfoSubscriptions:
    """Hands the CameraInfo of each camera to a calibration, while verification needs it.

    Args:
        node: subscribes.
        calibration: gets each message.
        geometry: of the verification; only essential needs CameraInfo.
    """

    def __init__(self, node: Node, calibration: RigCalibration, geometry: str) -> None:
        self._node = node
        self._calibration = calibration
        self._subscriptions: list[Subscription] = []
        self.follow(geometry)

    def follow(self, geometry: str) -> None:
        """Subscribe to what a geometry needs, and to nothing else."""
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
