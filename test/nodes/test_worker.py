import threading
import weakref

from lightglue_ros.nodes.worker import NewestWorker

DEADLINE = 10.0


class Gate:
    """Work that waits until it is let go, and tells when it has begun."""

    def __init__(self):
        self.done = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, item):
        self.begun.release()
        assert self.go.acquire(timeout=DEADLINE)
        if item == "broken":
            raise ValueError(item)
        self.done.append(item)


def test_only_the_newest_waits_and_the_overtaken_are_counted():
    gate = Gate()
    worker = NewestWorker(gate, on_error=lambda error: None)
    worker.offer(1)
    assert gate.begun.acquire(timeout=DEADLINE)
    for item in (2, 3, 4):
        worker.offer(item)
    gate.go.release(2)
    assert gate.begun.acquire(timeout=DEADLINE)
    worker.stop()
    assert gate.done == [1, 4]
    assert worker.dropped == 2


def test_an_error_is_reported_and_the_next_item_is_worked_on():
    gate = Gate()
    errors = []
    worker = NewestWorker(gate, on_error=errors.append)
    gate.go.release(2)
    worker.offer("broken")
    assert gate.begun.acquire(timeout=DEADLINE)
    worker.offer("whole")
    assert gate.begun.acquire(timeout=DEADLINE)
    worker.stop()
    assert [str(error) for error in errors] == ["broken"]
    assert gate.done == ["whole"]


def test_an_item_is_let_go_before_the_next_one_comes():
    gate = Gate()
    worker = NewestWorker(lambda item: gate(None), on_error=lambda error: None)
    gate.go.release()
    item = threading.Event()  # anything that can be referred to weakly
    gone = threading.Event()
    weakref.finalize(item, gone.set)
    worker.offer(item)
    del item
    assert gone.wait(DEADLINE)
    worker.stop()


def test_stop_ends_an_idle_worker():
    worker = NewestWorker(lambda item: None, on_error=lambda error: None)
    worker.stop()
    assert "inference" not in [thread.name for thread in threading.enumerate()]
