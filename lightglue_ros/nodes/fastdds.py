"""Our profile of Fast DDS. With its default shared-memory segment it loses large images between processes."""

from __future__ import annotations

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from rclpy.utilities import get_rmw_implementation_identifier

PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
# The variable's name in Fast DDS 2, which these distributions have.
OLD_PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
OLD_DISTRIBUTIONS = ("humble", "iron", "jazzy")


def profile_environment() -> dict[str, str]:
    """Return the variable that gives Fast DDS our profile; empty if the user has set a profile."""
    if os.environ.get(PROFILE_VARIABLE) or os.environ.get(OLD_PROFILE_VARIABLE):
        return {}
    variable, profile = _variable_and_profile()
    return {variable: profile}


def fix_of_lost_messages() -> str:
    """Return what helps where messages are lost between processes: our profile in both, or fewer bytes."""
    if not get_rmw_implementation_identifier().startswith("rmw_fastrtps"):
        return "image_transport: compressed, or a lower rate"
    variable, profile = _variable_and_profile()
    return f"start the cameras' drivers with {variable}={profile}"


def _variable_and_profile() -> tuple[str, str]:
    is_old = os.environ.get("ROS_DISTRO") in OLD_DISTRIBUTIONS
    profile = Path(get_package_share_directory("lightglue_ros")) / "config" / "fastdds.xml"
    return OLD_PROFILE_VARIABLE if is_old else PROFILE_VARIABLE, str(profile)
