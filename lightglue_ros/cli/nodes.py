"""The commands that run a ROS 2 node. ROS reads their arguments (--ros-args -p name:=value)."""

from __future__ import annotations

import signal
from importlib import import_module

from lightglue_ros.errors import ConfigError

NODES = {
    "matcher": "publish the matches of camera topics",
    "viewer": "draw the matches on the images",
    "player": "publish images, videos or a bag as cameras",
}


def run_node(name: str, arguments: list[str]) -> int:
    """Run a node until it ends and return its exit status.

    Raises:
        ConfigError: ROS 2 or the messages of this package are missing.
    """
    # The node installs handlers of its own later.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    require_ros(name)
    return import_module(f"lightglue_ros.nodes.{name}").main(arguments)


def require_ros(command: str) -> None:
    """Check that ROS 2 and the messages of this package can be imported.

    Raises:
        ConfigError: one of them cannot.
    """
    try:
        import rclpy  # noqa: F401
    except ImportError as missing:
        raise ConfigError(
            f"{command} needs ROS 2, and rclpy cannot be imported ({missing})",
            fix="source /opt/ros/jazzy/setup.bash, or the setup.bash of your ROS 2",
        ) from missing
    try:
        import lightglue_ros.msg  # noqa: F401
    except ImportError as missing:
        raise ConfigError(
            f"{command} needs the messages of lightglue_ros, which colcon builds ({missing})",
            fix="colcon build, source install/setup.bash, and run it outside of the source folder",
        ) from missing
