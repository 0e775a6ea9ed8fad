"""A thread that works on the newest item only.

Inference takes longer than a camera period on small machines, and an executor callback must not wait for it.
So a callback submits a frame and returns at once. The thread takes the newest frame when it is done with the
last one. A frame that is overtaken before its work began is dropped and counted: nothing queues. Cameras
whose clocks differ make frames of their own, which do not overtake those of the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestOnlyThread(Generic[T]):
    """Runs `work` on the newest submitted item, in a thread of its own.

    Args:
        work: called with one item at a time. Its exceptions go to `on_error`; the thread lives on.
        overtakes: says whether a new item replaces one that waits; by default each does.

    Attributes:
        dropped: number of items that were overtaken by a newer one.
    """

    def __init__(
        self,
        work: Callable[[T], None],
        on_error: Callable[[Exception], None],
        name: str = "inference",
        overtakes: Callable[[T, T], bool] = lambda new, waiting: True,
    ) -> None:
        self.dropped = 0
        self._overtakes = overtakes
        self._work = work
        self._on_error = on_error
        self._waiting: list[T] = []
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: T) -> None:
        """Hand over an item and return at once."""
        with self._changed:
            overtaken = [place for place, old in enumerate(self._waiting) if self._overtakes(item, old)]
            self.dropped += len(overtaken)
            # The item takes the place of the first, so that each has its turn.
            self._waiting.insert(overtaken[0] if overtaken else len(self._waiting), item)
            for place in reversed(overtaken):
                del self._waiting[place + 1]
            self._changed.notify_all()

    def stop(self, interrupt: Callable[[], None] = lambda: None) -> None:
        """End the thread after the item that it is working on.

        `interrupt` ends the work on that item; what `work` raises then is ignored.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        interrupt()
        self._thread.join()

    def _run(self) -> None:
        while (item := self._take()) is not None:
            try:
                self._work(item)
            # A frame that fails must not end the thread: the next one may succeed.
            except Exception as error:
                if not self._stopping:
                    self._on_error(error)
            # Without this the item, and the images in it, would be kept until the next one comes.
            del item

    def _take(self) -> T | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            return None if self._stopping else self._waiting.pop(0)
