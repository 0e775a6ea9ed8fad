"""The lock that a thread holds while it calls CUDA, over sessions and memory of the CPU here."""

import ctypes
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from lightglue_ros.core import MatchPipeline, device_memory, pipeline, providers
from lightglue_ros.core.device import DeviceRunner
from lightglue_ros.core.device_lock import DeviceLock, device_lock
from lightglue_ros.core.device_memory import Block
from lightglue_ros.core.providers import Problem

DEADLINE = 30.0
SIZE = (160, 128)
LAYOUT = {"images": (np.uint8, "N"), "scales": (np.float32, "N")}


class Calls(list):
    """Names of calls, in their order; those without the lock say so."""

    def note(self, name):
        self.append(name if device_lock._lock._is_owned() else f"{name} without the lock")


class Watched:
    """Notes the calls and the release of an object of ONNX Runtime."""

    def __init__(self, watched, calls):
        self._watched, self._calls = watched, calls

    def __getattr__(self, name):
        if name != "data_ptr":  # which ONNX Runtime knows without CUDA
            self._calls.note(name)
        return getattr(self._watched, name)

    def __del__(self):
        self._calls.note("release")


class Session(Watched):
    """Session on a GPU that notes its calls."""

    def __init__(self, calls, path, options, providers, **_):
        calls.note("open")
        self.names = [name for name, _ in providers[:-1]]
        super().__init__(onnxruntime.InferenceSession.real(path, options), calls)

    def get_providers(self):
        return self.names


@pytest.fixture
def calls(monkeypatch):
    """Calls of a GPU's sessions and memory."""
    calls, real, value = Calls(), onnxruntime.InferenceSession, onnxruntime.OrtValue.ortvalue_from_numpy

    def open_session(path, options, providers, **arguments):
        is_on_cpu = providers == [providers_of_cpu]
        return (real if is_on_cpu else partial(Session, calls))(path, options, providers, **arguments)

    def allocate(array, device):
        calls.note("allocate")
        return Watched(value(array, device), calls)

    providers_of_cpu = providers.ORT_NAMES["cpu"]
    open_session.real = real
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", allocate)
    monkeypatch.setattr(providers, "default_provider", lambda: "cuda")
    monkeypatch.setattr(providers, "find_problem", lambda *_: None)
    monkeypatch.setattr(pipeline, "DeviceRunner", partial(DeviceRunner, device="cpu"))
    return calls


@pytest.fixture
def cuda(monkeypatch):
    """Puts functions in the place of CUDA's libraries."""

    def make(**functions):
        library = SimpleNamespace(**functions)
        replaced = SimpleNamespace(**{**vars(ctypes), "CDLL": lambda name: library})
        monkeypatch.setattr(device_memory, "ctypes", replaced)

    return make


@contextmanager
def held_by_another_thread():
    """Hold the lock in another thread, such as one that records a CUDA graph."""
    is_held, may_end = threading.Event(), threading.Event()

    def hold():
        with device_lock:
            is_held.set()
            assert may_end.wait(DEADLINE)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        assert is_held.wait(DEADLINE)
        try:
            yield
        finally:
            may_end.set()
        held.result(DEADLINE)


def test_each_call_of_a_gpu_holds_the_lock_from_the_first_session_to_the_last_release(
    calls, model_folder, motorcycle
):
    gpu = MatchPipeline(model_folder, "cuda", SIZE)
    gpu.warm_up(cameras=2, pairs=1)
    assert gpu.provider == "cuda"
    gpu.match(motorcycle, [(0, 1)])
    gpu.match_threshold = 0.2  # a setting that goes up
    calls_before = len(calls)
    gpu.match(motorcycle, [(0, 1)])
    extract = ["update_inplace", "run_with_iobinding"]
    assert calls[calls_before:] == [*extract, *extract, "numpy"]
    kept = gpu.extract(motorcycle).copy()
    assert kept.num_images == 2
    gpu.warm_up(cameras=3, pairs=1)  # memory of another shape
    assert calls.count("release") > 0
    gpu.close()
    del gpu, kept
    gc.collect()
    assert set(calls) == {
        *("open", "run", "io_binding", "run_with_iobinding"),
        *("allocate", "update_inplace", "numpy", "release"),
    }
    assert calls.count("release") == calls.count("open") + calls.count("allocate")


def test_the_graph_on_a_gpu_holds_the_lock_where_the_other_graph_runs_on_the_cpu(
    calls, monkeypatch, model_folder, motorcycle
):
    def find_problem(provider, path, info):
        return Problem("too little memory", "") if info.graph == "matcher" else None

    monkeypatch.setattr(providers, "find_problem", find_problem)
    mixed = MatchPipeline(model_folder, "auto", SIZE)
    assert mixed.provider == "cuda (extractor), cpu (matcher)"
    mixed.match(motorcycle, [(0, 1)])
    mixed.close()
    assert calls == ["open", "run", "run", "release"]


def test_a_session_that_fails_on_a_gpu_is_released_with_the_lock_held(calls, monkeypatch, model_folder):
    def run(*_):
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(Session, "run", run, raising=False)
    assert MatchPipeline(model_folder, "auto", SIZE).provider == "cpu"
    assert calls == ["open", "release"] * 2


def test_what_is_dropped_while_another_thread_holds_the_lock_is_released_when_that_thread_ends(
    calls, model_folder
):
    """Without waiting: the thread that collects garbage may hold what the other thread waits for."""
    block = Block(LAYOUT, {"N": 10}, "cpu")
    gpu = MatchPipeline(model_folder, "cuda", SIZE)
    with held_by_another_thread():
        del block, gpu
        gc.collect()
        assert "release" not in calls
    assert calls.count("release") == calls.count("open") + calls.count("allocate")
    assert not [name for name in calls if "without" in name]


def test_memory_that_the_gpu_copies_from_is_unlocked_with_the_lock_held_and_stays_while_somebody_reads_it(
    calls, cuda
):
    addresses = []

    def register(address, *_):
        calls.note("register")
        addresses.append(address.value)
        return 0

    def unregister(address):
        calls.note("unregister")
        assert addresses == [address.value]

    cuda(cuMemHostRegister_v2=register, cuMemHostUnregister=unregister)
    block = Block(LAYOUT, {"N": 10}, "cpu")
    block.pin()
    images = block.host["images"]
    images[:] = 7
    with held_by_another_thread():
        del block
    assert calls == ["allocate", "register", "unregister", "release"]
    assert images.tolist() == [7] * 10


def test_a_copy_within_a_gpu_holds_the_lock(calls, cuda):
    def copy(*_):
        calls.note("copy")
        return 0

    cuda(cudaMemcpyAsync=copy)
    device_memory.copy_on.__wrapped__("cuda")(0, 0, 8)
    assert calls == ["copy"]


def test_what_the_holder_of_the_lock_drops_is_released_at_once():
    lock, released = DeviceLock(), []
    with lock, lock:
        lock.call_soon(lambda: lock.call_soon(partial(released.append, "within")))
        lock.call_soon(partial(released.append, "after"))
        assert released == ["within", "after"]


def test_nothing_stays_of_what_threads_drop_at_the_same_time():
    lock, released, begin = DeviceLock(), [], threading.Barrier(4, timeout=DEADLINE)

    def drop():
        begin.wait()
        for number in range(1000):
            with lock:
                lock.call_soon(partial(released.append, number))
            lock.call_soon(partial(released.append, number))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(drop) for _ in range(4)]:
            done.result(DEADLINE)
    assert len(released) == 4 * 2 * 1000
