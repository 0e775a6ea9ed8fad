"""Runs functions in other processes: of this machine, or of a Ray cluster.

`Engine.submit` returns a future, as executors of `concurrent.futures` do. Each thread of an engine waits for
one process, so a process that dies takes only its own task with it, and the task is tried again.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import signal
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from lightglue_ros.core import providers
from lightglue_ros.core.row_threads import usable_cores
from lightglue_ros.errors import ConfigError, LightGlueRosError

ENGINES = ("processes", "ray")
# A process may die by chance, or because the task is too large for the machine.
MOST_TRIES = 3
_VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"  # CUDA reads it when it starts in a process


class UnexpectedError(LightGlueRosError):
    """An error of an unexpected kind.

    Args:
        error: the error, while it is handled.

    Attributes:
        traceback: where it was raised, in words.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"unexpected {type(error).__name__}: {error}", fix="report it, with the traceback in the log"
        )
        self.traceback = "".join(traceback.format_exception(error))


def make_engine(name: str, jobs: int | None, provider: str) -> Engine:
    """Make an engine of `jobs` tasks at a time.

    None is one process, or one task per core of the cluster. Where the provider uses GPUs, None is one for
    each GPU: a process has a CUDA context of its own, 300 to 500 MB of the GPU's memory next to the
    model, and the processes of a GPU take turns. More run only if `jobs` asks for them.

    Raises:
        ConfigError: the name is unknown, Ray is not installed or cannot be reached, or the provider needs a
            GPU and the cluster has none.
    """
    if name not in ENGINES:
        raise ConfigError(f"engine '{name}' is unknown", allowed=", ".join(ENGINES))
    if name == "ray":
        return RayEngine(jobs, provider)
    gpus = visible_gpus() if _may_use_gpus(provider) else []
    return ProcessEngine(jobs or max(1, len(gpus)), gpus)


def _may_use_gpus(provider: str) -> bool:
    """Return True if a provider runs on NVIDIA GPUs; `auto` does where the build of ONNX Runtime can."""
    return provider in ("cuda", "tensorrt") or (provider == "auto" and providers.is_in_build("cuda"))


def visible_gpus() -> list[str]:
    """List the NVIDIA GPUs that this process may use, by their names in CUDA_VISIBLE_DEVICES."""
    count = ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return []
    except (OSError, AttributeError):  # no driver, or a library that is none
        return []
    chosen = os.environ.get(_VISIBLE_GPUS)
    names = chosen.split(",") if chosen else map(str, range(count.value))
    return list(names)[: count.value]


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; all its errors can be sent between processes and have a text for the user."""
    try:
        return function(*arguments)
    except (LightGlueRosError, OSError, CancelledError):
        raise
    except Exception as error:
        raise UnexpectedError(error) from None


class Engine(ABC):
    """Runs tasks in other processes.

    Attributes:
        workers: tasks at a time.
        num_threads: threads of the CPU provider in each process; 0 is one for each core.
    """

    def __init__(self, workers: int, num_threads: int) -> None:
        self.workers = workers
        self.num_threads = num_threads
        self._is_closed = False
        self._threads = ThreadPoolExecutor(workers)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Run a function of a module; the future has its result or its error, see `call`."""
        try:
            return self._threads.submit(self._run, function, *arguments)
        except RuntimeError:  # after close
            raise CancelledError from None

    def close(self) -> None:
        """End all processes; the tasks that are running are lost."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        waiting = threading.Thread(target=self._threads.shutdown)
        waiting.start()
        self._kill()
        while waiting.is_alive():
            waiting.join(0.1)
            self._kill()  # a process may have been starting

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        for _ in range(MOST_TRIES):
            if self._is_closed:
                raise CancelledError
            with suppress(BrokenExecutor):
                return self._call(function, *arguments)
        raise ConfigError(
            f"{MOST_TRIES} processes died one after the other at the same task",
            allowed="a machine with enough memory for each process",
            fix="fewer --jobs",
        )

    @abstractmethod
    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run `call` in another process; raises BrokenExecutor if that process dies."""

    @abstractmethod
    def _kill(self) -> None:
        """Kill what is running."""


class ProcessEngine(Engine):
    """Runs tasks in processes of this machine, which share the cores and end with this process.

    Args:
        workers: number of processes.
        gpus: GPUs that the processes share, by their names in CUDA_VISIBLE_DEVICES; each process sees one.
    """

    def __init__(self, workers: int, gpus: Sequence[str] = ()) -> None:
        super().__init__(workers, max(1, usable_cores() // workers) if workers > 1 else 0)
        self._of_thread = threading.local()
        self._gpus = itertools.cycle(gpus or [None])
        self._processes: list[ProcessPoolExecutor] = []

    def close(self) -> None:
        """End all processes, and wait until the threads that watch them have ended.

        Python's own end of such a thread may meet that of the interpreter, which then writes a traceback.
        """
        super().close()
        for process in self._processes:
            process.shutdown()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            if not hasattr(self._of_thread, "gpu"):
                self._of_thread.gpu, self._of_thread.process = next(self._gpus), None
            if self._of_thread.process is None:
                # A fork would share ONNX Runtime's threads with this process.
                context = multiprocessing.get_context("spawn")
                begin = _begin_process, (self._of_thread.gpu,)
                self._of_thread.process = ProcessPoolExecutor(1, context, *begin)
                self._processes.append(self._of_thread.process)
                # The process inherits this thread's mask: Ctrl-C is for its parent alone.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            return self._of_thread.process.submit(call, function, *arguments).result()
        except BrokenExecutor:
            self._of_thread.process = None
            raise

    def _kill(self) -> None:
        # The command has no other children.
        for process in multiprocessing.active_children():
            process.kill()


def _begin_process(gpu: str | None) -> None:
    """Let this process see one GPU, and end when its parent is gone, even if that is killed."""
    if gpu is not None:
        os.environ[_VISIBLE_GPUS] = gpu

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class RayEngine(Engine):
    """Runs tasks on the Ray cluster of RAY_ADDRESS or of this machine, else on a new local one.

    Every machine has this package, and bags, output and model under the same paths.
    """

    def __init__(self, jobs: int | None, provider: str) -> None:
        try:
            import ray
        except ImportError as missing:
            raise ConfigError(
                f"--engine ray needs the Python package ray ({missing})", fix="pip install 'ray>=2.9'"
            ) from missing
        self._ray = ray
        try:
            ray.init(logging_level="error", log_to_driver=False)
        # Ray's errors have no common base class.
        except Exception as error:
            raise ConfigError(f"Ray cannot be reached: {error}", fix="check RAY_ADDRESS") from error
        has = ray.cluster_resources()
        gpus = int(has.get("GPU", 0)) if _may_use_gpus(provider) else 0
        if provider in ("cuda", "tensorrt") and not gpus:
            ray.shutdown()
            raise ConfigError(
                f"provider '{provider}' needs a GPU, and the Ray cluster has none",
                fix="start Ray with --num-gpus on the machines that have one, or set provider to cpu",
            )
        super().__init__(jobs or gpus or max(1, int(has.get("CPU", 1))), num_threads=1)
        # Ray hides all GPUs from a task that asks for none, and gives it parts of one or whole ones.
        share = 1 / -(-self.workers // gpus) if gpus else 0
        # By default the process of a task with a GPU ends after it, and the next task would load the model.
        self._remote_call = ray.remote(num_cpus=1, num_gpus=share, max_retries=0, max_calls=0)(call)
        self._running: set[Any] = set()

    def close(self) -> None:
        """End all tasks, and a cluster that began with them."""
        super().close()
        self._ray.shutdown()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        task = self._remote_call.remote(function, *arguments)
        self._running.add(task)
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise BrokenExecutor from error
        finally:
            self._running.discard(task)

    def _kill(self) -> None:
        for task in list(self._running):
            self._ray.cancel(task, force=True)
