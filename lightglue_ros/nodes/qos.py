"""Quality of service: sensor data in, system default out (REP 2003), both open to qos_overrides."""

from __future__ import annotations

from copy import copy

from rclpy.qos import QoSPresetProfiles, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from lightglue_ros.core import ConfigError

IMAGE_QOS = ("sensor_data", "reliable")


def image_qos(name: str) -> QoSProfile:
    """A profile for an image topic: ``sensor_data`` (best effort) or ``reliable``; both keep few images.

    A new one for each topic, since rclpy writes a topic's overrides into it.

    Raises:
        ConfigError: there is no profile of that name.
    """
    if name not in IMAGE_QOS:
        raise ConfigError(f"parameter image_qos is '{name}'", allowed=", ".join(IMAGE_QOS))
    profile = copy(QoSPresetProfiles.SENSOR_DATA.value)
    if name == "reliable":
        profile.reliability = QoSReliabilityPolicy.RELIABLE
    return profile


def result_qos() -> QoSProfile:
    """A profile for a topic of results."""
    return copy(QoSPresetProfiles.SYSTEM_DEFAULT.value)


def overridable() -> QoSOverridingOptions:
    """Let users change history, depth and reliability with the parameters `qos_overrides.*`."""
    return QoSOverridingOptions.with_default_policies()
