"""The command line: `lightglue_ros`, `python -m lightglue_ros` and `ros2 run lightglue_ros`.

This file puts the commands together. Each command is the module of its name. The module is imported when the
command runs, so that `--help` needs neither NumPy nor ONNX Runtime.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Container
from importlib import import_module

from lightglue_ros import __version__
from lightglue_ros.errors import ConfigError, LightGlueRosError

COMMANDS = {
    "export": "write a model as ONNX files into the model store (needs PyTorch)",
    "match": "match images",
    "bag": "match recorded bags",
    "bench": "measure where the time goes, and the rate of the running node",
    "demo": "play two images into the matcher over ROS 2 and look at the matches",
}
# ROS reads the arguments of the nodes (--ros-args -p name:=value).
NODES = {
    "matcher": "publish the matches of camera topics",
    "viewer": "draw the matches on the images",
    "player": "publish images, videos or a bag as cameras",
    "vins_features": "turn tracks into the features of VINS-Fusion",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    is_node = argv[:1] and argv[0] in NODES and not {"-h", "--help"} & set(argv[1:])
    try:
        if is_node:
            return run_node(argv[0], argv[1:])
        arguments = make_parser(argv[:1]).parse_args(argv)
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever reads the output, such as `head`, has enough. Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (LightGlueRosError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # A node that is interrupted while it starts has done what it was told.
        return 0 if is_node else 130


def make_parser(complete: Container[str] = COMMANDS) -> argparse.ArgumentParser:
    """Make the parser; only the commands named in `complete` are imported and have their arguments."""
    parser = argparse.ArgumentParser(
        prog="lightglue_ros", description="Matches keypoints between the cameras of a robot with LightGlue."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name in complete:
            module = import_module(f"lightglue_ros.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    for name, text in NODES.items():
        usage = f"ros2 run lightglue_ros {name} --ros-args -p name:=value"
        commands.add_parser(name, help=f"node: {text}", description=f"A ROS 2 node: {text}.", epilog=usage)
    return parser


def run_node(name: str, arguments: list[str]) -> int:
    """Run a node until it ends and return its exit status. Raises a ConfigError if ROS 2 is missing."""
    # The node installs handlers of its own later.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    require_ros(name)
    return import_module(f"lightglue_ros.nodes.{name}").main(arguments)


def require_ros(command: str) -> None:
    """Raise a ConfigError unless ROS 2 and the messages of this package can be imported."""
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
