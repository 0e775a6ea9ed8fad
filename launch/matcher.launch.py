"""Starts the matcher: `ros2 launch lightglue_ros matcher.launch.py`."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile

from launch import LaunchDescription
from lightglue_ros.core import ConfigError
from lightglue_ros.nodes.processes import profile_environment

DEFAULT_PARAMETERS = Path(get_package_share_directory("lightglue_ros")) / "config" / "matcher.yaml"

ARGUMENTS = [
    DeclareLaunchArgument(
        "params_file",
        default_value=str(DEFAULT_PARAMETERS),
        description="Parameters of the node: copy the default one, change image size and rig there.",
    ),
    DeclareLaunchArgument(
        "model",
        default_value="",
        description="Model: a name in the model store or a folder. Empty: what the parameters file says.",
    ),
    DeclareLaunchArgument(
        "provider",
        default_value="",
        description="Where the model runs: auto, cpu or cuda. Empty: what the parameters file says.",
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics."),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="",
        description="true takes time from /clock (simulation). Empty: what the parameters file says.",
    ),
    DeclareLaunchArgument("log_level", default_value="info", description="Least severity of log lines."),
]


def matcher_node(context):
    """The node, with the parameters file first and then what the command line says."""

    def argument(name):
        return LaunchConfiguration(name).perform(context)

    params_file = Path(argument("params_file")).expanduser()
    if not params_file.is_file():  # launch_ros would go on without it
        raise ConfigError(
            f"there is no params_file {params_file}",
            allowed="a file of ROS parameters",
            fix=f"cp {DEFAULT_PARAMETERS} {params_file}, and change it there",
        )
    overrides = {name: argument(name) for name in ("model", "provider") if argument(name)}
    if argument("use_sim_time"):
        overrides["use_sim_time"] = argument("use_sim_time").lower() in ("true", "1")
    return [
        Node(
            package="lightglue_ros",
            executable="matcher",
            name="matcher",
            namespace=argument("namespace"),
            output="screen",
            parameters=[ParameterFile(str(params_file)), overrides],
            arguments=["--ros-args", "--log-level", argument("log_level")],
        )
    ]


def generate_launch_description():
    """Called by `ros2 launch`."""
    environment = [SetEnvironmentVariable(name, value) for name, value in profile_environment().items()]
    return LaunchDescription([*ARGUMENTS, *environment, OpaqueFunction(function=matcher_node)])
