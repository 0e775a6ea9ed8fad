"""Runs our nodes as processes of their own, apart from other ROS systems; for demo, bench and tests."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_prefix, get_package_share_directory

PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
# What it is called in Fast DDS 2, which these distributions have.
OLD_PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
OLD_DISTRIBUTIONS = ("humble", "iron", "jazzy")
EXIT_SECONDS = 10.0


def profile_environment() -> dict[str, str]:
    """The variable that gives Fast DDS our profile; none where the user has a profile of their own.

    With its default shared-memory segment Fast DDS loses large images between processes.
    """
    if os.environ.get(PROFILE_VARIABLE) or os.environ.get(OLD_PROFILE_VARIABLE):
        return {}
    is_old = os.environ.get("ROS_DISTRO") in OLD_DISTRIBUTIONS
    profile = Path(get_package_share_directory("lightglue_ros")) / "config" / "fastdds.xml"
    return {OLD_PROFILE_VARIABLE if is_old else PROFILE_VARIABLE: str(profile)}


def isolate() -> None:
    """Keep this process and its children on the loopback and in a domain of their own."""
    os.environ.update(profile_environment())
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    else:
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    # Linux's default ephemeral ports leave the domains 0 to 101 free for DDS.
    os.environ["ROS_DOMAIN_ID"] = str(random.randint(1, 101))


def node_command(
    command: str, parameters: Mapping[str, Any], params_file: Path | None = None, name: str | None = None
) -> list[str]:
    """The command line that runs a node of ours (``matcher``, ``viewer`` or ``player``) with ROS parameters.

    Args:
        command: which node.
        parameters: they go before those of the file.
        params_file: more parameters.
        name: of the node, if not that of the command.
    """
    script = Path(get_package_prefix("lightglue_ros")) / "lib" / "lightglue_ros" / command
    arguments = [sys.executable, str(script), "--ros-args"]
    if params_file is not None:
        arguments += ["--params-file", str(params_file)]
    if name is not None:
        arguments += ["-r", f"__node:={name}"]
    for parameter, value in parameters.items():
        arguments += ["-p", f"{parameter}:={json.dumps(value)}"]
    return arguments


@contextmanager
def node_process(
    command: str,
    parameters: Mapping[str, Any],
    params_file: Path | None = None,
    name: str | None = None,
    **popen_options: Any,
) -> Iterator[subprocess.Popen]:
    """Run a node of ours; at the end interrupt it and wait until it is gone.

    Args:
        command: ``matcher``, ``viewer`` or ``player``.
        parameters: its ROS parameters; they go before those of the file.
        params_file: more parameters.
        name: of the node, if not that of the command.
        **popen_options: for `subprocess.Popen`.
    """
    process = subprocess.Popen(node_command(command, parameters, params_file, name), **popen_options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
