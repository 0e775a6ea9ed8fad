"""Our profile of Fast DDS. With its default shared-memory segment it loses large images between processes."""

from __future__ import annotations

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory

PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
# The variable's name in Fast DDS 2, which these distributions have.
OLD_PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
OLD_DISTRIBUTIONS = ("humble", "iron", "jazzy")


def profile_environment() -> dict[str, str]:
    """Return the variable that gives Fast DDS our profile; empty if the user has set a profile."""
    if os.environ.get(PROFILE_VARIABLE) or os.environ.get(OLD_PROFILE_VARIABLE):
        return {}
    is_old = os.environ.get("ROS_DISTRO") in OLD_DISTRIBUTIONS
    profile = Path(get_package_share_directory("lightglue_ros")) / "config" / "fastdds.xml"
    return {OLD_PROFILE_VARIABLE if is_old else PROFILE_VARIABLE: str(profile)}
