"""The lock that a thread holds while it calls CUDA.

While a thread records a CUDA graph, CUDA refuses most calls of other threads, and the recording fails. So all
calls of CUDA hold `device_lock`: runs, copies, the creation of sessions, and the release of memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress


class DeviceLock:
    """Lock that a thread may take several times, and that finalizers need not wait for.

    Python calls a finalizer in any thread, also in the middle of other work. A finalizer that waited could
    wait forever, because its thread may hold another lock that the holder of this one waits for.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._releases: deque[Callable[[], object]] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._release_all()

    def call_soon(self, release: Callable[[], object]) -> None:
        """Call a function that releases memory, with the lock held, and without waiting for the lock.

        If another thread holds the lock, that thread calls the function when it gives the lock back.
        """
        self._releases.append(release)
        self._release_all()

    def release_soon(self, owner: object) -> None:
        """Release all that an object holds, from its `__del__`; see `call_soon`."""
        # The attributes themselves do not outlive the object: Python 3.13.0 then crashes.
        held = list(vars(owner).values())
        vars(owner).clear()
        self.call_soon(held.clear)

    def _release_all(self) -> None:
        # The queue is looked at again after each release of the lock: a thread that finds the lock taken has
        # put its function there before.
        while self._releases and self._lock.acquire(blocking=False):
            try:
                # Another thread, or a finalizer in this one, may have emptied the queue.
                with suppress(IndexError):
                    self._releases.popleft()()
            finally:
                self._lock.release()


device_lock = DeviceLock()
