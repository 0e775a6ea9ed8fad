import queue
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from lightglue_ros.nodes.latest_only_thread import LatestOnlyThread

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
    thread = LatestOnlyThread(gate, on_error=lambda error: None)
    thread.submit(1)
    assert gate.begun.acquire(timeout=DEADLINE)
    for item in (2, 3, 4):
        thread.submit(item)
    gate.go.release(2)
    assert gate.begun.acquire(timeout=DEADLINE)
    thread.stop()
    assert gate.done == [1, 4]
    assert thread.dropped == 2


def test_items_that_do_not_overtake_each_other_wait_in_turn():
    gate = Gate()
    thread = LatestOnlyThread(gate, on_error=lambda error: None, overtakes=lambda new, old: new[0] == old[0])
    thread.submit("a1")
    assert gate.begun.acquire(timeout=DEADLINE)
    for item in ("b1", "a2", "b2", "a3", "b3", "a4"):
        thread.submit(item)
    gate.go.release(3)
    for _ in range(2):
        assert gate.begun.acquire(timeout=DEADLINE)
    thread.stop()
    assert gate.done == ["a1", "b3", "a4"]
    assert thread.dropped == 4


def test_at_most_eight_items_wait_and_the_oldest_goes_first():
    gate = Gate()
    thread = LatestOnlyThread(gate, on_error=lambda error: None, overtakes=lambda new, old: False)
    thread.submit(0)
    assert gate.begun.acquire(timeout=DEADLINE)
    for item in range(1, 12):
        thread.submit(item)
    gate.go.release(9)
    for _ in range(8):
        assert gate.begun.acquire(timeout=DEADLINE)
    thread.stop()
    assert gate.done == [0, *range(4, 12)]
    assert thread.dropped == 3


def test_an_error_is_reported_and_the_next_item_is_worked_on():
    gate = Gate()
    errors = []
    thread = LatestOnlyThread(gate, on_error=errors.append)
    gate.go.release(2)
    thread.submit("broken")
    assert gate.begun.acquire(timeout=DEADLINE)
    thread.submit("whole")
    assert gate.begun.acquire(timeout=DEADLINE)
    thread.stop()
    assert [str(error) for error in errors] == ["broken"]
    assert gate.done == ["whole"]


def test_a_second_half_runs_next_to_the_first_half_of_the_next_item_and_stop_waits_for_both():
    first, second = Gate(), Gate()
    errors = []

    def begin(item):
        first(item)
        return item

    thread = LatestOnlyThread(begin, errors.append, then=second, overlaps=True)
    first.go.release(3)
    thread.submit("a")
    assert first.begun.acquire(timeout=DEADLINE)
    assert second.begun.acquire(timeout=DEADLINE)
    thread.submit("b")
    assert first.begun.acquire(timeout=DEADLINE)  # while the other one is in its second half
    thread.submit("c")
    thread.submit("d")  # overtakes c, since b waits for its second half
    assert not first.begun.acquire(blocking=False)
    second.go.release(3)
    assert first.begun.acquire(timeout=DEADLINE)
    thread.stop()
    assert first.done == second.done == ["a", "b", "d"]
    assert not errors
    assert thread.dropped == 1


@pytest.mark.parametrize("overlaps", [False, True])
def test_an_error_of_the_second_half_is_reported_and_the_next_item_is_worked_on(overlaps):
    errors = []
    is_done = threading.Event()

    def then(item):
        if item == "broken":
            raise ValueError(item)
        is_done.set()

    thread = LatestOnlyThread(
        str, errors.append, overtakes=lambda new, old: False, then=then, overlaps=overlaps
    )
    for item in ("broken", "whole"):
        thread.submit(item)
    assert is_done.wait(DEADLINE)
    thread.stop()
    assert [str(error) for error in errors] == ["broken"]


@pytest.mark.parametrize("overlaps", [False, True])
def test_an_error_of_on_error_loses_one_item_and_no_other(overlaps):
    done = queue.Queue()

    def then(item):
        done.put(item)
        if item == "broken":
            raise ValueError(item)

    def on_error(error):
        raise RuntimeError("the log is gone")

    thread = LatestOnlyThread(str, on_error, overtakes=lambda new, old: False, then=then, overlaps=overlaps)
    for item in ("broken", "whole", "last"):
        thread.submit(item)
        assert done.get(timeout=DEADLINE) == item
    thread.stop()


def test_an_item_is_let_go_before_the_next_one_comes_and_stop_ends_an_idle_thread():
    gate = Gate()
    thread = LatestOnlyThread(lambda item: gate(None), on_error=lambda error: None, name="of this test")
    gate.go.release()
    item = threading.Event()  # anything that can be referred to weakly
    gone = threading.Event()
    weakref.finalize(item, gone.set)
    thread.submit(item)
    del item
    assert gone.wait(DEADLINE)
    thread.stop()
    assert not any(thread.name.startswith("of this test") for thread in threading.enumerate())


def test_work_is_prepared_in_its_thread_before_the_newest_item_is_taken():
    prepared = Gate()
    done = []
    with ThreadPoolExecutor(1) as executor:
        worker = executor.submit(threading.get_ident).result()
        thread = LatestOnlyThread(
            lambda item: done.append((item, threading.get_ident())),
            on_error=lambda error: None,
            before=lambda: prepared(threading.get_ident()),
            executor=executor,
        )
        thread.wake()
        assert prepared.begun.acquire(timeout=DEADLINE)
        for item in (1, 2):
            thread.submit(item)
        prepared.go.release(2)
        assert prepared.begun.acquire(timeout=DEADLINE)
        executor.submit(lambda: None).result()
        thread.stop()
        assert executor.submit(threading.get_ident).result() == worker  # stop leaves the thread alone
    assert done == [(2, worker)]
    assert prepared.done == [worker, worker]
    assert thread.dropped == 1


def test_an_item_whose_preparation_failed_is_lost_and_the_next_one_is_worked_on():
    prepared, gate = Gate(), Gate()
    errors = []
    items = ["broken", "whole"]
    with ThreadPoolExecutor(1) as executor:
        thread = LatestOnlyThread(
            gate, on_error=errors.append, before=lambda: prepared(items.pop(0)), executor=executor
        )
        thread.submit(1)
        assert prepared.begun.acquire(timeout=DEADLINE)
        thread.submit(2)  # overtakes the first
        prepared.go.release(2)
        executor.submit(lambda: None).result()
        thread.submit(3)
        gate.go.release()
        assert gate.begun.acquire(timeout=DEADLINE)
        thread.stop()
    assert gate.done == [3]
    assert [str(error) for error in errors] == ["broken"]
