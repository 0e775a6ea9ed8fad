"""Counts rejected images by their cause, from any thread."""

from __future__ import annotations

import threading
from collections import Counter


class Rejections:
    """How many images were rejected, by cause."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, cause: str) -> int:
        """Count one, and return how many there are in all."""
        with self._lock:
            self._counts[cause] += 1
            return self._counts.total()

    def by_cause(self) -> dict[str, int]:
        """The counts of the causes there were, by name."""
        with self._lock:
            return dict(sorted(self._counts.items()))
