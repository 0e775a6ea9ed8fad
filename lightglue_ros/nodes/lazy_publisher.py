"""Optional results, such as pictures: made in a thread of their own, and only if somebody subscribes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher

from lightglue_ros.nodes.latest_only_thread import LatestOnlyThread

LOG_PERIOD = 5.0

T = TypeVar("T")


class LazyPublisher(Generic[T]):
    """Base class of publishers that work on the newest item, at a limited rate, and only with subscribers.

    Neither an executor's callback nor inference waits for it: `is_due` compares a time and asks for the
    number of subscribers, `submit` returns at once.

    Attributes:
        rate: largest number of items per second; 0 is none. It may be set at any time.
    """

    def __init__(self, node: Node, publishers: Sequence[Publisher], rate: float, name: str) -> None:
        self.rate = rate
        self._node = node
        self._publishers = publishers
        self._name = name
        self._last = -np.inf
        self._thread = LatestOnlyThread[T](self._publish, self._on_error, name)

    def has_subscribers(self) -> bool:
        """Return True if somebody subscribes to one of the results."""
        return any(publisher.get_subscription_count() > 0 for publisher in self._publishers)

    def is_due(self) -> bool:
        """Return True if it is time for the next item and somebody subscribes."""
        is_time = self.rate > 0.0 and time.monotonic() - self._last >= 1.0 / self.rate
        return is_time and self.has_subscribers()

    def submit(self, item: T) -> None:
        """Hand over an item and return at once."""
        self._last = time.monotonic()
        self._thread.submit(item)

    def stop(self) -> None:
        """End the thread after the item that it is working on."""
        self._thread.stop()

    def _publish(self, item: T) -> None:
        """Make the results of an item and publish them."""
        raise NotImplementedError

    def _on_error(self, error: Exception) -> None:
        text = f"{self._name} failed: {type(error).__name__}: {error}"
        self._node.get_logger().error(text, throttle_duration_sec=LOG_PERIOD)
