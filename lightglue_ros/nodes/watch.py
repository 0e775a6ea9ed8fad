"""Watches over the matcher's inputs: names problems in the log, and returns them for `/diagnostics`.

Everything here is called in the executor's thread: `take` by the callbacks of subscriptions, the rest once
per second. All times are of the steady clock, which goes on when simulated time stands still.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Mapping, Sequence

from rclpy.node import Node

# Seconds after which a camera that sends nothing, or simulated time that stands still, is named.
SILENT_SECONDS = 5.0
# Number of a camera's last messages that its period is measured over.
ARRIVALS = 16
# Seconds after which a text that is still true is logged again.
REPEAT_SECONDS = 60.0
# Seconds over which the rate of matching is compared with the cameras' rate, and the share of dropped frames
# above which both are logged: a single frame may be dropped by chance.
LOAD_SECONDS = 10.0
LOAD_SHARE = 0.1


class Throttle:
    """Lets a text about a subject through when it is new, and again after `REPEAT_SECONDS`."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def is_due(self, subject: str) -> bool:
        """Return True, and remember the time, if nothing was logged about a subject for `REPEAT_SECONDS`."""
        now = time.monotonic()
        if now - self._said.get(subject, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        self._said[subject] = now
        return True

    def forget(self, subject: str) -> bool:
        """Let the next text about a subject through at once; return True if there was one."""
        return self._said.pop(subject, None) is not None


class InputWatch:
    """Notices cameras that send nothing.

    Args:
        topics: full name of each camera's topic.
    """

    def __init__(self, node: Node, topics: Sequence[str]) -> None:
        self._node = node
        self._topics = topics
        self._began = time.monotonic()
        self._arrivals: list[deque[float]] = [deque(maxlen=ARRIVALS) for _ in topics]
        self._throttle = Throttle()

    def take(self, camera: int) -> None:
        """Note that a message of a camera came."""
        self._arrivals[camera].append(time.monotonic())

    def period(self, camera: int) -> float:
        """Return the mean time between a camera's last messages in seconds; 0 before there are two."""
        arrivals = self._arrivals[camera]
        return (arrivals[-1] - arrivals[0]) / (len(arrivals) - 1) if len(arrivals) > 1 else 0.0

    @property
    def shortest_period(self) -> float:
        """Period of the fastest camera in seconds; 0 before one is known."""
        return min(filter(None, map(self.period, range(len(self._topics)))), default=0.0)

    @property
    def newest(self) -> float:
        """Time at which the newest message of any camera came; the beginning before there is one."""
        return max(map(self._last, range(len(self._topics))))

    def is_silent(self, camera: int, seconds: float, at: float) -> bool:
        """Return True if, at the time `at`, a camera had been silent for `seconds` and for two periods."""
        return at - self._last(camera) > max(seconds, 2 * self.period(camera))

    def _last(self, camera: int) -> float:
        arrivals = self._arrivals[camera]
        return arrivals[-1] if arrivals else self._began

    def log_silence(self) -> None:
        """Log the topics on which nothing comes, with the numbers of publishers and the domain."""
        now = time.monotonic()
        silent = [
            camera for camera in range(len(self._topics)) if self.is_silent(camera, SILENT_SECONDS, now)
        ]
        back = [
            topic
            for camera, topic in enumerate(self._topics)
            if camera not in silent and self._throttle.forget(topic)
        ]
        if back:
            self._node.get_logger().info(f"received again: {', '.join(back)}")
        due = [camera for camera in silent if self._throttle.is_due(self._topics[camera])]
        if not due:
            return
        # All are named in one line, because they have one cause: a cable, a driver, the domain.
        are_all = len(silent) == len(self._topics) > 1
        seconds = now - max(map(self._last, due))
        topics, domain = self.describe(silent if are_all else due), self._node.context.get_domain_id()
        text = f"nothing received for {seconds:.0f} s on {topics}; ROS_DOMAIN_ID is {domain}"
        self._node.get_logger().warning(f"all cameras are silent: {text}" if are_all else text)

    def describe(self, cameras: Sequence[int] | None = None) -> str:
        """Name the topics of cameras, or of all, and how many publishers each has."""
        topics = self._topics if cameras is None else [self._topics[camera] for camera in cameras]
        return ", ".join(f"{topic} ({count_publishers(self._node, topic)})" for topic in topics)


class MissingWatch:
    """Logs the cameras that are missing, and those that are back."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._before: dict[str, str] = {}
        self._throttle = Throttle()

    def log(self, causes: Mapping[str, str]) -> None:
        """Log why cameras are missing, by their names: at once if it is new, and from time to time."""
        # Without its numbers, which differ from second to second, a cause stays the same.
        kinds = {name: re.sub(r"[0-9.]+", "", cause) for name, cause in causes.items()}
        for name, kind in kinds.items():
            if kind != self._before.get(name):
                self._throttle.forget(name)
        back, self._before = self._before.keys() - kinds.keys(), kinds
        if back:
            self._node.get_logger().info(f"back: {', '.join(sorted(back))}")
        due = [f"{name} ({cause})" for name, cause in causes.items() if self._throttle.is_due(name)]
        if due:
            self._node.get_logger().warning(f"missing: {'; '.join(due)}")


class LoadWatch:
    """Notices that the model is slower than the cameras."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._since = time.monotonic()
        self._before = (0, 0, 0)
        self._last = (0, 0)
        self._throttle = Throttle()

    def log_overload(self, frames: int, unwanted: int, matched: int, dropped: int, how: str) -> None:
        """Log the rate of the last `LOAD_SECONDS` if frames were dropped.

        Seconds in which the cameras pause or nobody subscribes belong to no rate: the time begins anew.

        Args:
            frames: number of assembled frames so far; `unwanted` (nobody subscribed), `matched` and
                `dropped` likewise.
            how: what a frame takes, and on what.
        """
        counts = (frames, matched, dropped)
        is_pause = frames == self._last[0] or unwanted != self._last[1]
        self._last = (frames, unwanted)
        if is_pause:
            self._since, self._before = time.monotonic(), counts
        seconds = time.monotonic() - self._since
        if seconds < LOAD_SECONDS:
            return
        came, done, lost = (now - before for now, before in zip(counts, self._before, strict=True))
        self._since, self._before = time.monotonic(), counts
        if lost > LOAD_SHARE * came and self._throttle.is_due("load"):
            self._node.get_logger().info(
                f"the cameras send {came / seconds:.1f} frames per second, {done / seconds:.1f} are matched: "
                f"{how}, and the others are dropped; a smaller image_width and image_height or a lower "
                "max_keypoints makes it faster"
            )


class ClockWatch:
    """Notices that simulated time does not run."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._time = -1
        self._since = time.monotonic()
        self._throttle = Throttle()

    def look(self) -> str:
        """Return what is wrong with the clock, and log it; empty if nothing is wrong."""
        now, steady = self._node.get_clock().now().nanoseconds, time.monotonic()
        is_simulated = self._node.get_parameter("use_sim_time").value
        if now != self._time or not is_simulated:
            self._time, self._since = now, steady
        seconds = steady - self._since
        if seconds < SILENT_SECONDS:
            if seconds == 0.0:
                self._throttle.forget("clock")
            return ""
        problem = f"the time on /clock has stood still for {seconds:.0f} s"
        if now == 0:
            problem = f"nothing has come on /clock for {seconds:.0f} s"
        topic = self._node.resolve_topic_name("/clock")
        text = (
            f"use_sim_time is true and {problem} ({count_publishers(self._node, topic)}); "
            "fix: ros2 bag play --clock, or start the simulation, or use_sim_time:=false"
        )
        if self._throttle.is_due("clock"):
            self._node.get_logger().warning(text)
        return text


def count_publishers(node: Node, topic: str) -> str:
    """Return in words how many publishers a topic has. Give its full name: rclpy does not remap it here."""
    count = node.count_publishers(topic)
    return f"{count} publisher{'' if count == 1 else 's'}"
