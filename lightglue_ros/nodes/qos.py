"""Quality of service (QoS): cameras' topics as their publishers offer it, results reliable and volatile.

The parameters `qos_overrides.*` change single topics.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSPresetProfiles, QoSProfile, qos_check_compatible
from rclpy.qos import QoSDurabilityPolicy as Durability
from rclpy.qos import QoSPolicyKind as Policy
from rclpy.qos import QoSReliabilityPolicy as Reliability
from rclpy.qos_overriding_options import QoSOverridingOptions

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.camera_parameters import AUTO_QOS


def image_qos(name: str) -> QoSProfile:
    """Make a profile for images: ``sensor_data`` (best effort) or ``reliable``; both keep the newest five.

    Each topic gets a profile of its own, because rclpy writes the topic's overrides into it.
    """
    profile = copy(QoSPresetProfiles.SENSOR_DATA.value)
    if name == "reliable":
        profile.reliability = Reliability.RELIABLE
    return profile


def requested_qos(name: str, offers: Sequence[QoSProfile], takes_latched: bool = False) -> QoSProfile:
    """Make the profile of a subscription.

    Args:
        name: ``auto`` requests reliable if all publishers offer it, else best effort; others: `image_qos`.
        offers: profiles of the topic's publishers.
        takes_latched: also request what was published before (transient local) if all publishers offer it.
    """
    if name == AUTO_QOS:
        # Without publishers it is reliable, as most drivers offer it. When a driver begins with large images,
        # a change from best effort was seen to lose up to 6 of its first images.
        are_reliable = all(offer.reliability == Reliability.RELIABLE for offer in offers)
        name = "reliable" if are_reliable else "sensor_data"
    profile = image_qos(name)
    if takes_latched and offers and all(it.durability == Durability.TRANSIENT_LOCAL for it in offers):
        profile.durability = Durability.TRANSIENT_LOCAL
    return profile


def result_qos() -> QoSProfile:
    """Make a profile for a topic of results: reliable, the newest ten, nothing old for a late subscriber.

    These are the defaults of ROS 2. All policies are explicit: the system's default durability is transient
    local with Fast DDS, which gives a late subscriber a result of any age.
    """
    return QoSProfile(depth=10, reliability=Reliability.RELIABLE, durability=Durability.VOLATILE)


def picture_qos() -> QoSProfile:
    """Make a profile for a topic of pictures: only the newest, and reliable, as RViz requests by default."""
    return QoSProfile(depth=1)


def overridable() -> QoSOverridingOptions:
    """Allow users to change history, depth and reliability of a publisher with `qos_overrides.*`."""
    return QoSOverridingOptions.with_default_policies()


def overridable_queue() -> QoSOverridingOptions:
    """Allow users to change history and depth of a subscription; see `reliability_override` for the rest."""
    return QoSOverridingOptions((Policy.HISTORY, Policy.DEPTH))


def reliability_override(node: Node, topic: str) -> Reliability | None:
    """Return the reliability that the user demands of a subscription; None if its publishers decide.

    rclpy would declare this parameter with the reliability of the first subscription and apply that to each
    later one, so that nothing could follow the publishers.

    Args:
        topic: full name.

    Raises:
        ConfigError: there is no such reliability.
    """
    name = f"qos_overrides.{topic}.subscription.reliability"
    if not node.has_parameter(name):
        text = f"reliability for subscription `{topic}`; {AUTO_QOS}: see image_qos"
        node.declare_parameter(name, AUTO_QOS, ParameterDescriptor(description=text, read_only=True))
    value = node.get_parameter(name).value
    if value == AUTO_QOS:
        return None
    try:
        return Reliability[value.upper()]
    except KeyError as error:
        allowed = f"reliable, best_effort, {AUTO_QOS}"
        raise ConfigError(f"parameter {name} is '{value}'", allowed=allowed) from error


def incompatible_text(topic: str, requested: QoSProfile, offers: Sequence[QoSProfile], fix: str) -> str:
    """Describe publishers that do not offer the reliability that a subscription requests.

    Returns:
        The topic, both policies and the fix; empty if all publishers are compatible.
    """
    error = QoSCompatibility.ERROR
    lacking = [offer for offer in offers if qos_check_compatible(offer, requested)[0] == error]
    if not lacking:
        return ""
    return (
        f"{topic} is offered with reliability {lacking[0].reliability.name}, requested is "
        f"{requested.reliability.name}: its images do not arrive; fix: {fix}"
    )
