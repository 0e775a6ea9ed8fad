"""Quality of service: sensor data in, system default out (REP 2003). Both can be changed by qos_overrides."""

from __future__ import annotations

from copy import copy

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSPresetProfiles, QoSProfile, qos_check_compatible
from rclpy.qos import QoSReliabilityPolicy as Reliability
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.parameters import IMAGE_QOS


def image_qos(name: str) -> QoSProfile:
    """Make a profile for an image topic: ``sensor_data`` (best effort) or ``reliable``; both keep few images.

    Each topic gets a profile of its own, because rclpy writes the topic's overrides into it.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in IMAGE_QOS:
        raise ConfigError(f"parameter image_qos is '{name}'", allowed=", ".join(IMAGE_QOS))
    profile = copy(QoSPresetProfiles.SENSOR_DATA.value)
    if name == "reliable":
        profile.reliability = Reliability.RELIABLE
    return profile


def result_qos() -> QoSProfile:
    """Make a profile for a topic of results."""
    return copy(QoSPresetProfiles.SYSTEM_DEFAULT.value)


def picture_qos() -> QoSProfile:
    """Make a profile for a topic of pictures: only the newest, and reliable, as RViz requests by default."""
    return QoSProfile(depth=1)


def overridable() -> QoSOverridingOptions:
    """Allow users to change history, depth and reliability with the parameters `qos_overrides.*`."""
    return QoSOverridingOptions.with_default_policies()


def incompatible_text(node: Node, subscription: Subscription, image_qos: str) -> str:
    """Describe publishers of a topic that do not offer the reliability that a subscription requests.

    Returns:
        The topic, both policies and the parameter to change; empty if all publishers are compatible.
    """
    topic, requested = subscription.topic_name, subscription.qos_profile
    offers = [publisher.qos_profile for publisher in node.get_publishers_info_by_topic(topic)]
    error = QoSCompatibility.ERROR
    lacking = [offer for offer in offers if qos_check_compatible(offer, requested)[0] == error]
    if not lacking:
        return ""
    by_override = f"qos_overrides.{topic}.subscription.reliability: best_effort"
    return (
        f"{topic} is offered with reliability {lacking[0].reliability.name}, requested is "
        f"{requested.reliability.name}: its images do not arrive; fix: "
        f"{'image_qos: sensor_data' if image_qos == 'reliable' else by_override}"
    )
