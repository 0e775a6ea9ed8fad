"""How many tasks run at a time, and which GPU each of them sees. No test here needs a GPU."""

import contextlib
import os
import sys
import threading
from concurrent.futures import process
from types import SimpleNamespace

import pytest

from lightglue_ros.bags import engines
from lightglue_ros.bags.engines import make_engine
from lightglue_ros.core import ConfigError, providers

DEADLINE = 60  # seconds


@pytest.fixture
def machine(monkeypatch):
    """Makes a machine with GPUs of these names, and a build of ONNX Runtime with CUDA or without."""

    def make(gpus, has_cuda=True):
        monkeypatch.setattr(providers, "is_in_build", lambda provider: has_cuda)
        monkeypatch.setattr(engines, "visible_gpus", lambda: gpus)

    return make


@pytest.fixture
def cluster(monkeypatch):
    """Makes a Ray cluster; the list gets the resources that tasks ask for."""

    def make(**resources):
        asked = []

        def remote(**options):
            asked.append(options)
            return lambda function: None

        ray = SimpleNamespace(
            init=lambda **_: None, shutdown=lambda: None, cluster_resources=lambda: resources, remote=remote
        )
        monkeypatch.setitem(sys.modules, "ray", ray)
        return asked

    return make


@pytest.mark.parametrize(
    ("provider", "has_cuda", "jobs", "workers"),
    [
        ("cuda", True, None, 2),
        ("auto", True, None, 2),
        ("auto", False, None, 1),
        ("cpu", True, None, 1),
        ("cuda", True, 5, 5),
    ],
)
def test_a_gpu_has_one_process_unless_more_are_asked_for(machine, provider, has_cuda, jobs, workers):
    machine(["0", "1"], has_cuda)
    with contextlib.closing(make_engine("processes", jobs, provider)) as engine:
        assert engine.workers == workers


def test_a_gpu_build_without_a_gpu_has_one_process(machine):
    machine([])
    for provider in ("auto", "cuda"):
        with contextlib.closing(make_engine("processes", None, provider)) as engine:
            assert engine.workers == 1


def test_processes_share_the_cores_that_this_process_may_use(machine, monkeypatch):
    machine([])
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(6))
    with contextlib.closing(make_engine("processes", 2, "cpu")) as engine:
        assert engine.num_threads == 3


def test_each_process_sees_one_gpu_of_those_that_this_process_may_use(machine):
    machine(["2", "GPU-5f"])
    with contextlib.closing(make_engine("processes", None, "cuda")) as engine:
        seen = set()
        while len(seen) < 2:  # both processes take tasks
            tasks = [engine.submit(os.getenv, "CUDA_VISIBLE_DEVICES") for _ in range(4)]
            seen |= {task.result(DEADLINE) for task in tasks}
    assert seen == {"2", "GPU-5f"}


@pytest.mark.parametrize(
    ("provider", "gpus", "jobs", "workers", "share"),
    [
        ("cuda", 2, None, 2, 1),
        ("auto", 2, None, 2, 1),
        ("cuda", 2, 3, 3, 1 / 2),
        ("cuda", 2, 1, 1, 1),
        ("auto", 0, None, 8, 0),
        ("cpu", 2, None, 8, 0),
    ],
)
def test_tasks_of_ray_ask_for_a_gpu_where_the_provider_needs_one(
    machine, cluster, provider, gpus, jobs, workers, share
):
    machine([])  # the machine that starts the run needs none
    asked = cluster(CPU=8.0, **({"GPU": float(gpus)} if gpus else {}))
    engine = make_engine("ray", jobs, provider)
    assert engine.workers == workers
    (options,) = asked
    assert options["num_gpus"] == share
    assert options["max_calls"] == 0  # the model stays loaded


def test_a_cluster_without_a_gpu_is_refused_where_the_provider_needs_one(machine, cluster):
    machine([])
    cluster(CPU=8.0)
    with pytest.raises(ConfigError, match="provider 'cuda' needs a GPU, and the Ray cluster has none"):
        make_engine("ray", None, "cuda")


def test_a_closed_engine_has_no_threads_even_if_their_end_takes_long(monkeypatch):
    """Else the interpreter may end in the middle of their end, and write a traceback."""
    watch = process._ExecutorManagerThread.run

    def watch_and_end_slowly(thread):
        watch(thread)
        threading.Event().wait(0.3)

    monkeypatch.setattr(process._ExecutorManagerThread, "run", watch_and_end_slowly)
    before = set(threading.enumerate())
    with contextlib.closing(make_engine("processes", 2, "cpu")) as engine:
        for task in [engine.submit(os.getpid) for _ in range(2)]:
            assert task.result() != os.getpid()
    assert set(threading.enumerate()) <= before
