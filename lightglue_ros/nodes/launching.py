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
AS_IN_FILE = "Empty: as in the parameters file."

ARGUMENTS = [
    DeclareLaunchArgument(name, default_value=default, description=description)
    for name, default, description in (
        (
            "params_file",
            str(DEFAULT_PARAMETERS),
            "Parameters of the node: copy the default file, change image size and rig there.",
        ),
        ("model", "", f"Model: a name in the model store or a folder. {AS_IN_FILE}"),
        ("provider", "", f"Where the model runs: auto, cpu or cuda. {AS_IN_FILE}"),
        ("namespace", "", "Namespace of the node and its topics."),
        ("use_sim_time", "", f"true takes the time from /clock (simulation). {AS_IN_FILE}"),
        ("log_level", "info", "Least severity of log lines."),
    )
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
        executable: ``matcher`` or ``viewer``.
        name: the node's name, if it differs from the executable.
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
