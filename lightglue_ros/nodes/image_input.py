"""Subscriptions to the images of cameras, raw or compressed."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from lightglue_ros.nodes import qos
from lightglue_ros.rosdata.parameters import CameraParameters


def subscribe(
    node: Node,
    values: CameraParameters,
    topic: str,
    callback: Callable[[Image | CompressedImage], None],
    on_incompatible: Callable[[], None],
) -> Subscription:
    """Subscribe to the images of a camera.

    Args:
        node: node that subscribes.
        values: parameters of the node.
        topic: topic of the raw images.
        callback: called with each message.
        on_incompatible: called when a publisher offers a QoS that the subscription cannot take.
    """
    is_compressed = values.image_transport == "compressed"
    if is_compressed:
        # Resolved before the suffix is added, so that remapping the topic of the raw images is enough.
        topic = f"{node.resolve_topic_name(topic)}/compressed"
    return node.create_subscription(
        CompressedImage if is_compressed else Image,
        topic,
        callback,
        qos.image_qos(values.image_qos),
        qos_overriding_options=qos.overridable(),
        event_callbacks=qos.on_incompatible(on_incompatible),
    )
