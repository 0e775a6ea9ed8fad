"""Listens to a matcher in another process and keeps what it hears; for demo, bench and tests."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time

from lightglue_ros.core import LightGlueRosError
from lightglue_ros.msg import Matches
from lightglue_ros.nodes import qos

DEADLINE = 30.0


class Listener(Node):
    """Subscribes to `matches` and `/diagnostics`.

    Args:
        processes: nodes in processes of their own; if one of them ends while we wait, that is an error.
        namespace: that of the matcher.

    Attributes:
        messages: all `Matches`, oldest first.
        arrivals: when each arrived, in seconds of the monotonic clock.
        latencies: seconds from its image stamp to its arrival.
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
        """Put the executor away with the node."""
        self._executor.shutdown()
        super().destroy_node()

    def clear(self) -> None:
        """Forget all messages."""
        self.messages: list[Matches] = []
        self.arrivals: list[float] = []
        self.latencies: list[float] = []

    def listen(self, seconds: float) -> None:
        """Take what comes for so many seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)
            self._check_processes()

    def wait_until(self, condition: Callable[[], bool], what: str, deadline: float = DEADLINE) -> None:
        """Take what comes until the condition holds.

        Raises:
            LightGlueRosError: it does not within `deadline` seconds, or a process ended.
        """
        end = time.monotonic() + deadline
        while not condition():
            self._check_processes()
            if time.monotonic() > end:
                raise LightGlueRosError(f"waited {deadline:g} s in vain for {what}", fix="see the log above")
            self._executor.spin_once(timeout_sec=0.1)

    def wait_for_matches(self, count: int, deadline: float = DEADLINE) -> None:
        """Take what comes until there are so many messages on `matches`."""
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
                raise LightGlueRosError(
                    f"the {name} ended with status {process.returncode}", fix="see its message above"
                )

    def _on_matches(self, message: Matches) -> None:
        self.messages.append(message)
        self.arrivals.append(time.monotonic())
        self.latencies.append(
            (self.get_clock().now() - Time.from_msg(message.header.stamp)).nanoseconds * 1e-9
        )

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.status = message.status[-1]
        self.diagnostics = {entry.key: entry.value for status in message.status for entry in status.values}
