"""Starts the matcher: `ros2 launch lightglue_ros matcher.launch.py`."""

from launch.actions import DeclareLaunchArgument

from lightglue_ros.nodes import launching

VIEWER = DeclareLaunchArgument(
    "viewer",
    default_value="false",
    description="true starts a viewer, which draws matches/image in place of the matcher.",
)


def nodes(context):
    """The matcher, and a viewer if it is asked for."""
    has_viewer = launching.is_true(context, "viewer")
    return [launching.node(context, name) for name in ("matcher", "viewer")[: 1 + has_viewer]]


def generate_launch_description():
    """Called by `ros2 launch`."""
    return launching.description([VIEWER], nodes)
