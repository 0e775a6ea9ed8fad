"""Images that cannot be used and frames that failed: counted for `/diagnostics`, and logged."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from rclpy.node import Node

from lightglue_ros.errors import RejectedImageError
from lightglue_ros.nodes.lazy_publisher import LOG_PERIOD
from lightglue_ros.nodes.status import MatcherStatus


class Losses:
    """Counts and logs what is lost; from any thread."""

    def __init__(self, node: Node, status: MatcherStatus, cameras: Sequence[str]) -> None:
        self._node, self._status, self._cameras = node, status, cameras
        self._known: set[str] = set()

    def take_image(self, camera: int, error: RejectedImageError) -> None:
        """Take an image that cannot be used."""
        count = self._status.count_rejection(camera, error)
        self._node.get_logger().warning(
            f"camera {self._cameras[camera]}: {error}; dropped ({error.cause}; {count} images so far)",
            throttle_duration_sec=LOG_PERIOD,
        )

    def take_frame(self, error: Exception) -> None:
        """Take a frame that failed; its traceback is logged once for each kind of error."""
        self._status.count_failure(error)
        text = f"a frame was lost: {type(error).__name__}: {error}"
        where = "".join(traceback.format_tb(error.__traceback__))
        if where not in self._known:
            self._known.add(where)
            self._node.get_logger().error(f"{text}\n{where}")
        else:
            self._node.get_logger().error(text, throttle_duration_sec=LOG_PERIOD)
