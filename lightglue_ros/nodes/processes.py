"""Runs our nodes in processes of their own, isolated from other ROS systems; for demo, bench and tests."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_prefix

from lightglue_ros.nodes.fastdds import profile_environment

EXIT_SECONDS = 10.0
# A name that only one process at a time can bind, and that vanishes with the process.
_held_domain = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def isolate() -> None:
    """Keep this process and its children on the loopback interface and in a domain of their own."""
    os.environ.update(profile_environment())
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    else:
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_DOMAIN_ID"] = str(_take_domain())


def _take_domain() -> int:
    """Choose a domain that nobody on this machine uses, and hold it for the life of this process."""
    # Linux's default ephemeral ports leave the domains 0 to 101 free for DDS.
    for domain in random.sample(range(1, 102), 101):
        # A participant has bound the first port of its domain (DDSI-RTPS, 9.6.1).
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
            port.bind(("", 7400 + 250 * domain))
            # Other runs may have taken the domain and have no participant yet.
            _held_domain.bind(f"\0lightglue_ros domain {domain}")
            return domain
    return int(os.environ.get("ROS_DOMAIN_ID", 0))  # held since an earlier call


@contextmanager
def node_process(
    command: str,
    parameters: Mapping[str, Any],
    params_file: Path | None = None,
    name: str | None = None,
    namespace: str | None = None,
    remappings: Mapping[str, str] | None = None,
    **popen_options: Any,
) -> Iterator[subprocess.Popen]:
    """Run a node of ours; at the end interrupt it and wait until it is gone.

    Args:
        command: ``matcher``, ``viewer``, ``player`` or ``vins_features``.
        parameters: ROS parameters, which replace those of the file.
        name: the node's name, if it differs from the command.
        namespace: the node's namespace, if it has one.
        remappings: new names of topics by their names.
        **popen_options: for `subprocess.Popen`.
    """
    script = Path(get_package_prefix("lightglue_ros")) / "lib" / "lightglue_ros" / command
    arguments = [sys.executable, str(script), "--ros-args"]
    if params_file is not None:
        arguments += ["--params-file", str(params_file)]
    if namespace is not None:
        arguments += ["-r", f"__ns:={namespace}"]
    if name is not None:
        arguments += ["-r", f"__node:={name}"]
    for old, new in (remappings or {}).items():
        arguments += ["-r", f"{old}:={new}"]
    for parameter, value in parameters.items():
        arguments += ["-p", f"{parameter}:={json.dumps(value)}"]
    process = subprocess.Popen(arguments, **popen_options)
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
