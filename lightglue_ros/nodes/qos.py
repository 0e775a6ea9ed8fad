"""Quality of service: sensor data in, system default out (REP 2003), both open to qos_overrides."""

from __future__ import annotations

from rclpy.qos import QoSPresetProfiles, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

IMAGE_QOS = ("sensor_data", "reliable")


def image_qos(name: str) -> QoSProfile:
    """The profile of image topics: ``sensor_data`` (best effort) or ``reliable``; both keep few images."""
    if name == "reliable":
        return QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
    return QoSPresetProfiles.SENSOR_DATA.value


def result_qos() -> QoSProfile:
    """The profile of results."""
    return QoSPresetProfiles.SYSTEM_DEFAULT.value


def overridable() -> QoSOverridingOptions:
    """Let users change history, depth and reliability with the parameters `qos_overrides.*`."""
    return QoSOverridingOptions.with_default_policies()
