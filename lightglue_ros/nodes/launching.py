"""Arguments and nodes that the launch files share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

from launch import LaunchContext, LaunchDescription
from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.parameter_files import parameters_of, read_file
from lightglue_ros.rosdata.parameters import SPECS

# Ready parameter files by name.
RIGS = {
    path.stem: path
    for path in sorted((Path(get_package_share_directory("lightglue_ros")) / "config").glob("*.yaml"))
}
DEFAULT_RIG = "matcher"
# Arguments for the image topics of cameras, by the cameras' names.
TOPICS = {"left": "left_topic", "right": "right_topic"}
# Parameters of the matcher that are arguments as well. Empty is the value of the parameters file.
PARAMETERS = ("model", "provider", "num_threads", "image_qos", "verification")
AS_IN_FILE = "Empty: as in the parameters file."
BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
# Likeness of a name to an argument's from which it is taken for misspelt. Launch files that include ours may
# have arguments of their own, such as model_name.
MISSPELT = 0.85
# Seconds until a node that has ended starts again: time for the middleware to forget the old one.
RESPAWN_DELAY = 2.0

ARGUMENTS = [
    DeclareLaunchArgument(
        "rig", default_value="", choices=["", *RIGS], description="A ready parameters file, by its name."
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value="",
        description="Your own parameters file, in place of a rig. Begin with a copy of the default: "
        f"{RIGS[DEFAULT_RIG]}.",
    ),
    *(
        DeclareLaunchArgument(
            name,
            default_value="",
            description=f"Topic of the images of the camera {camera}. {AS_IN_FILE}",
        )
        for camera, name in TOPICS.items()
    ),
    *(
        DeclareLaunchArgument(
            name,
            default_value="",
            choices=["", *SPECS[name].choices] if SPECS[name].choices else None,
            description=f"{SPECS[name].description} {AS_IN_FILE}",
        )
        for name in PARAMETERS
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the nodes and topics."),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="",
        description=f"true takes the time from /clock (simulation). {AS_IN_FILE}",
    ),
    DeclareLaunchArgument(
        "respawn",
        default_value="false",
        description=f"true starts a node that has ended again, after {RESPAWN_DELAY:g} s.",
    ),
    DeclareLaunchArgument("log_level", default_value="info", description="Least severity of log lines."),
]


def description(
    arguments: Sequence[DeclareLaunchArgument], nodes: Callable[[LaunchContext], list[Node]]
) -> LaunchDescription:
    """Make the description of a launch file: the shared arguments, its own, and its nodes."""

    def start(context: LaunchContext) -> list[Node]:
        _warn_of_misspelt(context, [it.name for it in (*ARGUMENTS, *arguments)])
        return nodes(context)

    return LaunchDescription([*ARGUMENTS, *arguments, OpaqueFunction(function=start)])


def _warn_of_misspelt(context: LaunchContext, names: Sequence[str]) -> None:
    """Log given arguments that are nearly named as one of `names`, because ROS ignores them."""
    for given in sorted(context.launch_configurations.keys() - set(names)):
        if near := get_close_matches(given, names, 1, MISSPELT):
            get_logger("launch").warning(
                f"argument {given} is ignored, because this launch file does not have it (did you mean "
                f"{near[0]}?); fix: --show-args prints the names"
            )


def argument(context: LaunchContext, name: str) -> str:
    """Return the value of a launch argument."""
    return LaunchConfiguration(name).perform(context)


def is_true(context: LaunchContext, name: str) -> bool:
    """Return the value of a launch argument that is true or false.

    Raises:
        ConfigError: the value is neither.
    """
    value = argument(context, name)
    if value.lower() not in BOOLEANS:
        raise ConfigError(f"argument {name} is '{value}'", allowed=", ".join(BOOLEANS))
    return BOOLEANS[value.lower()]


def params_file(context: LaunchContext) -> Path:
    """Return the path of the parameters file.

    Raises:
        ConfigError: the file is missing or has no parameters of the matcher (ROS would go on without it),
            is no YAML, or a rig is given as well.
    """
    given, rig = argument(context, "params_file"), argument(context, "rig")
    if given and rig:
        raise ConfigError("arguments rig and params_file are both given", allowed="one of the two")
    path = Path(given).expanduser() if given else RIGS[rig or DEFAULT_RIG]
    if not path.is_file():
        raise ConfigError(
            f"there is no params_file {path}",
            allowed="a file of ROS parameters",
            fix=f"cp {RIGS[DEFAULT_RIG]} {path}, and change it there",
        )
    parameters_of(path)
    return path


def camera_topics(context: LaunchContext) -> dict[str, str]:
    """Return the image topic of each camera: of the parameters file, or as an argument.

    Raises:
        ConfigError: the rig has no camera for an argument, or the file cannot be used.
    """
    parameters = read_file(params_file(context))
    topics = dict(zip(parameters.cameras, parameters.image_topics, strict=False))
    for camera, topic in _given_topics(context).items():
        if camera not in topics:
            raise ConfigError(
                f"argument {TOPICS[camera]} is given, and the rig has the cameras {', '.join(topics)}",
                fix="set image_topics in a params_file",
            )
        topics[camera] = topic
    return topics


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

    Raises:
        ConfigError: an argument cannot be used.
    """
    values = _given_parameters(context)
    if _given_topics(context):
        values["image_topics"] = list(camera_topics(context).values())
    if argument(context, "use_sim_time"):
        values["use_sim_time"] = is_true(context, "use_sim_time")
    values |= overrides or {}
    return Node(
        package="lightglue_ros",
        executable=executable,
        name=name or executable,
        namespace=argument(context, "namespace"),
        output="screen",
        parameters=[
            ParameterFile(str(params_file(context))),
            {key: ParameterValue(value, value_type=_type_of(value)) for key, value in values.items()},
        ],
        arguments=["--ros-args", "--log-level", argument(context, "log_level")],
        respawn=is_true(context, "respawn"),
        respawn_delay=RESPAWN_DELAY,
    )


def _given_topics(context: LaunchContext) -> dict[str, str]:
    return {camera: topic for camera, name in TOPICS.items() if (topic := argument(context, name))}


def _given_parameters(context: LaunchContext) -> dict[str, Any]:
    texts = {name: text for name in PARAMETERS if (text := argument(context, name))}
    values = {
        name: int(text) if text.isdecimal() and isinstance(SPECS[name].default, int) else text
        for name, text in texts.items()
    }
    for name, value in values.items():
        SPECS[name].check(name, value)
    return values


def _type_of(value: Any) -> Any:
    """Return the type that launch_ros is told, because it reads strings as YAML otherwise."""
    return list[str] if isinstance(value, list) else type(value)
