"""A thread that works on the newest item only.

Inference takes longer than a camera period on small machines, and an executor callback must not wait for it.
So a callback submits a frame and returns at once. The thread takes the newest frame when it is done with the
last one. A frame that is overtaken before its work began is dropped and counted: nothing queues. Cameras
whose clocks differ make frames of their own, which do not overtake those of the others. A node that is faster
than its cameras lets frames wait that come at once; at most `MOST_WAITING` do.

The work may have two halves in two threads. Then the second half of a frame runs next to the first half of
the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")

MOST_WAITING = 8  # as many as there can be cameras whose clocks differ


class LatestOnlyThread(Generic[T]):
    """Runs `work` on the newest submitted item, in a thread of its own or in that of an executor.

    Args:
        work: called with one item at a time. Its exceptions go to `on_error`; the thread lives on.
        then: second half of the work, called with what `work` returns. An item waits for it until the one
            before is done.
        overlaps: `then` runs in a thread of its own, while `work` begins the next item.
        name: name of the thread.
        overtakes: says whether a new item replaces one that waits; by default each does.
        before: called in the thread before it takes an item, and after `wake`; items that come meanwhile
            overtake each other. Its exceptions go to `on_error`, and the item is lost.
        executor: has one thread, and is not shut down by `stop`; None is an executor of its own.

    Attributes:
        dropped: number of items that were overtaken by a newer one.
    """

    def __init__(
        self,
        work: Callable[[T], Any],
        on_error: Callable[[Exception], None],
        name: str = "inference",
        overtakes: Callable[[T, T], bool] = lambda new, waiting: True,
        *,
        then: Callable[[Any], None] = lambda half_done: None,
        overlaps: bool = False,
        before: Callable[[], None] = lambda: None,
        executor: Executor | None = None,
    ) -> None:
        self.dropped = 0
        self._overtakes = overtakes
        self._work, self._then = work, then
        self._second = ThreadPoolExecutor(1, f"{name}, second half") if overlaps else None
        self._in_second: Future[None] | None = None
        self._on_error = on_error
        self._before = before
        self._waiting: list[T] = []
        self._stopping = False
        self._changing = threading.Lock()
        self._own = ThreadPoolExecutor(1, name) if executor is None else None
        self._executor: Executor = executor or self._own

    def submit(self, item: T) -> None:
        """Hand over an item and return at once."""
        with self._changing:
            if self._stopping:
                return
            overtaken = [place for place, old in enumerate(self._waiting) if self._overtakes(item, old)]
            self.dropped += len(overtaken)
            # The item takes the place of the first, so that each has its turn.
            self._waiting.insert(overtaken[0] if overtaken else len(self._waiting), item)
            for place in reversed(overtaken):
                del self._waiting[place + 1]
            if len(self._waiting) > MOST_WAITING:
                del self._waiting[0]
                self.dropped += 1
        if not overtaken:
            self.wake()

    def wake(self) -> None:
        """Call `before` as soon as the thread is free, and return at once."""
        self._executor.submit(self._run)

    def finish(self) -> None:
        """Wait in the thread until `then` has ended."""
        if self._in_second is not None:
            wait([self._in_second])

    def stop(self, interrupt: Callable[[], None] = lambda: None) -> None:
        """Wait until the work on the present item has ended; no other item is worked on.

        `interrupt` ends the work on that item; what `work` raises then is ignored.
        """
        with self._changing:
            self._stopping = True
            self._waiting.clear()
        interrupt()
        # The executor calls one after the other.
        self._executor.submit(lambda: None).result()
        for own in (self._second, self._own):
            if own is not None:
                own.shutdown()

    def _run(self) -> None:
        """Work on an item, if there is one."""
        try:
            if self._stopping:
                return
            try:
                self._before()
            finally:
                # Also after an error: an item that stayed would be overtaken by all later ones, none of which
                # would wake the thread.
                with self._changing:
                    item = self._waiting.pop(0) if self._waiting else None
            if item is not None and not self._stopping:
                self._go_on(self._work(item))
        # A frame that fails must not end the thread: the next one may succeed.
        except Exception as error:
            if not self._stopping:
                self._on_error(error)

    def _go_on(self, half_done: Any) -> None:
        """Do the second half of the work."""
        if self._second is None:
            self._then(half_done)
            return
        self.finish()
        self._in_second = self._second.submit(self._run_then, half_done)

    def _run_then(self, half_done: Any) -> None:
        try:
            self._then(half_done)
        except Exception as error:
            if not self._stopping:
                self._on_error(error)
