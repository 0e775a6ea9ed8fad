"""Arguments and nodes that the launch files share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile

from launch import LaunchContext
from lightglue_ros.errors import ConfigError
from lightglue_ros.nodes.fastdds import profile_environment

DEFAULT_PARAMETERS = Path(get_package_share_directory("lightglue_ros")) / "config" / "matcher.yaml"

ARGUMENTS = [
    DeclareLaunchArgument(
        "params_file",
        default_value=str(DEFAULT_PARAMETERS),
        description="Parameters of the node: copy the default file, change image size and rig there.",
    ),
    DeclareLaunchArgument(
        "model",
        default_value="",
        description="Model: a name in the model store or a folder. Empty: as in the parameters file.",
    ),
    DeclareLaunchArgument(
        "provider",
        default_value="",
        description="Where the model runs: auto, cpu or cuda. Empty: as in the parameters file.",
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics."),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="",
        description="true takes the time from /clock (simulation). Empty: as in the parameters file.",
    ),
    DeclareLaunchArgument("log_level", default_value="info", description="Least severity of log lines."),
]


def environment() -> list[SetEnvironmentVariable]:
    """Set our Fast DDS profile in the environment of all nodes, unless the user has a profile."""
    return [SetEnvironmentVariable(name, value) for name, value in profile_environment().items()]


def argument(context: LaunchContext, name: str) -> str:
    """Return the value of a launch argument."""
    return LaunchConfiguration(name).perform(context)


def is_true(value: str) -> bool:
    """Return True if the value of a launch argument means yes."""
    return value.lower() in ("true", "1")


def params_file(context: LaunchContext) -> Path:
    """Return the path of the parameters file.

    Raises:
        ConfigError: the file is missing; launch_ros would go on without it.
    """
    path = Path(argument(context, "params_file")).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"there is no params_file {path}",
            allowed="a file of ROS parameters",
            fix=f"cp {DEFAULT_PARAMETERS} {path}, and change it there",
        )
    return path


def node(
    context: LaunchContext,
    executable: str,
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Node:
    """Make a node with the parameters of the file, which the command line and `overrides` replace.

    Args:
        context: of the launch.
        executable: ``matcher`` or ``viewer``.
        name: the node's name, if it differs from the executable.
        overrides: parameters.
    """
    values = {key: argument(context, key) for key in ("model", "provider") if argument(context, key)}
    if argument(context, "use_sim_time"):
        values["use_sim_time"] = is_true(argument(context, "use_sim_time"))
    return Node(
        package="lightglue_ros",
        executable=executable,
        name=name or executable,
        namespace=argument(context, "namespace"),
        output="screen",
        parameters=[ParameterFile(str(params_file(context))), values | dict(overrides or {})],
        arguments=["--ros-args", "--log-level", argument(context, "log_level")],
    )
