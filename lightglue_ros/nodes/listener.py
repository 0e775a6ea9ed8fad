"""Listens to a matcher in another process and keeps its messages; for demo, bench and tests."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time

from lightglue_ros.errors import LightGlueRosError
from lightglue_ros.msg import Matches
from lightglue_ros.nodes import qos
from lightglue_ros.nodes.processes import isolate, node_process

DEADLINE = 30.0


class Listener(Node):
    """Subscribes to `matches` and `/diagnostics`; a process that ends while we wait is an error.

    Attributes:
        messages: all `Matches`, oldest first.
        arrivals: arrival time of each, in seconds of the monotonic clock.
        latencies: seconds from the image stamp of each to its arrival.
        diagnostics: the values of the newest diagnostics by their names.
        status: the newest diagnostics themselves; None before the first.
    """

    def __init__(self, *processes: subprocess.Popen, namespace: str = "") -> None:
        super().__init__("listener", namespace=namespace or None)
        self.processes = list(processes)
        self.diagnostics: dict[str, str] = {}
        self.status: DiagnosticStatus | None = None
        self.clear()
        self.create_subscription(Matches, "matches", self._on_matches, qos.result_qos())
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def destroy_node(self) -> None:
        """Shut the executor down and destroy the node."""
        self._executor.shutdown()
        super().destroy_node()

    def clear(self) -> None:
        """Forget all messages."""
        self.messages: list[Matches] = []
        self.arrivals: list[float] = []
        self.latencies: list[float] = []

    def listen(self, seconds: float) -> None:
        """Receive messages for that many seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)
            self._check_processes()

    def wait_until(self, condition: Callable[[], bool], what: str, deadline: float = DEADLINE) -> None:
        """Receive messages until the condition holds.

        Raises:
            LightGlueRosError: it does not hold within `deadline` seconds, or a process ended.
        """
        end = time.monotonic() + deadline
        while not condition():
            self._check_processes()
            if time.monotonic() > end:
                raise LightGlueRosError(f"no {what} within {deadline:g} s", fix="see the log above")
            self._executor.spin_once(timeout_sec=0.1)

    def wait_for_matches(self, count: int, deadline: float = DEADLINE) -> None:
        """Receive messages until there are `count` on `matches`."""
        self.wait_until(lambda: len(self.messages) >= count, f"{count} messages on matches", deadline)

    def wait_for_diagnostics(self) -> dict[str, str]:
        """Wait for the next diagnostics and return their values."""
        self.diagnostics = {}
        self.wait_until(lambda: bool(self.diagnostics), "diagnostics")
        return self.diagnostics

    def _check_processes(self) -> None:
        for process in self.processes:
            if process.poll() is not None:
                name = Path(process.args[1]).name
                text = f"the {name} ended with status {process.returncode}"
                raise LightGlueRosError(text, fix="see its message above")

    def _on_matches(self, message: Matches) -> None:
        self.messages.append(message)
        self.arrivals.append(time.monotonic())
        latency = self.get_clock().now() - Time.from_msg(message.header.stamp)
        self.latencies.append(latency.nanoseconds * 1e-9)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.status = message.status[-1]
        self.diagnostics = {entry.key: entry.value for status in message.status for entry in status.values}


@contextmanager
def running_nodes(**nodes: Mapping[str, Any]) -> Iterator[Listener]:
    """Run nodes of ours in processes of their own, isolated from other ROS systems, and listen to them.

    `nodes` are the parameters of each node, by its command (``matcher``, ``viewer`` or ``player``).
    """
    isolate()
    # Without the arguments of the command, where rcl would take a name:=value for a remapping.
    rclpy.init(args=[])
    with ExitStack() as stack:
        stack.callback(rclpy.try_shutdown)
        processes = [stack.enter_context(node_process(*node)) for node in nodes.items()]
        listener = Listener(*processes)
        stack.callback(listener.destroy_node)
        yield listener
