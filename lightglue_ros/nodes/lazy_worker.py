"""What is made for somebody who looks: in a thread of its own, at a limited rate, while one subscribes.

Neither an executor's callback nor inference waits for it: `is_wanted` compares a time and asks for the number
of subscribers. What is overtaken is not made.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher

from lightglue_ros.nodes.worker import NewestWorker

LOG_PERIOD = 5.0

T = TypeVar("T")


class WatchedWorker(Generic[T]):
    """Makes something of the newest item that was offered; what, its children say in `_work`.

    Args:
        node: for its log.
        publishers: that somebody may subscribe to.
        rate: at most so many items a second; 0 is none.
        name: of the thread, and what it does.

    Attributes:
        rate: may be set at any time.
    """

    def __init__(self, node: Node, publishers: Sequence[Publisher], rate: float, name: str) -> None:
        self.rate = rate
        self._node = node
        self._publishers = publishers
        self._name = name
        self._last = -np.inf
        self._worker: NewestWorker[T] = NewestWorker(self._work, self._on_error, name)

    def is_wanted(self) -> bool:
        """Whether it is time for another one and somebody looks."""
        is_time = self.rate > 0.0 and time.monotonic() - self._last >= 1.0 / self.rate
        return is_time and any(publisher.get_subscription_count() > 0 for publisher in self._publishers)

    def offer(self, item: T) -> None:
        """Hand over an item and return at once."""
        self._last = time.monotonic()
        self._worker.offer(item)

    def stop(self) -> None:
        """End the thread after the item that it is working on."""
        self._worker.stop()

    def _work(self, item: T) -> None:
        raise NotImplementedError

    def _on_error(self, error: Exception) -> None:
        self._node.get_logger().error(
            f"{self._name} failed: {type(error).__name__}: {error}", throttle_duration_sec=LOG_PERIOD
        )
