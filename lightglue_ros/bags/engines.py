"""Where tasks are done: in this process, in processes of this machine, or on a Ray cluster.

Each engine has room for so many tasks at once, `start`s them and lets the caller `wait` for one to be done.
What a task became goes back to the caller, which alone writes files: a task whose process died is done again,
and nothing is written twice.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from lightglue_ros.bags.plan import Plan
from lightglue_ros.bags.work import Chunk, Task, Worker
from lightglue_ros.errors import ConfigError, LightGlueRosError

ENGINES = ("processes", "ray")


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        result: None where there is an error or the worker died.
        error: that the task raised, for the user.
        worker_died: the task may be done again.
    """

    result: Plan | Chunk | None = None
    error: LightGlueRosError | OSError | None = None
    worker_died: bool = False


class Engine(Protocol):
    """Does tasks.

    Attributes:
        room: how many more tasks it takes now.
        num_threads: of the CPU provider in each task, 0 is one per core.
    """

    room: int
    num_threads: int

    def start(self, task: Task) -> None:
        """Begin a task."""

    def wait(self) -> tuple[Task, Outcome]:
        """Wait until one of the tasks that were started is done."""

    def close(self) -> None:
        """End what is running."""


def make_engine(name: str, jobs: int | None) -> Engine:
    """Make an engine.

    Args:
        name: ``processes`` or ``ray``.
        jobs: tasks at once; None is one here, and as many as there are cores with Ray.

    Raises:
        ConfigError: there is no such engine, or Ray is not installed or cannot be reached.
    """
    if name not in ENGINES:
        raise ConfigError(f"engine '{name}' is unknown", allowed=", ".join(ENGINES))
    if name == "ray":
        return RayCluster(jobs)
    return InProcess() if jobs is None or jobs == 1 else Processes(jobs)


def attempt(worker: Worker, task: Task) -> Outcome:
    """Do a task; an error for the user is an outcome, too."""
    try:
        return Outcome(worker.do(task))
    except (LightGlueRosError, OSError) as error:
        return Outcome(error=error)


class InProcess:
    """Does one task at a time, in this process and when it is waited for."""

    num_threads = 0

    def __init__(self) -> None:
        self._worker = Worker()
        self._task: Task | None = None

    @property
    def room(self) -> int:
        """One while no task waits."""
        return int(self._task is None)

    def start(self, task: Task) -> None:
        """Keep the task until it is waited for."""
        self._task = task

    def wait(self) -> tuple[Task, Outcome]:
        """Do the task."""
        task, self._task = self._task, None
        return task, attempt(self._worker, task)

    def close(self) -> None:
        """There is nothing to end."""


@dataclass
class _Process:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    task: Task | None = None


class Processes:
    """Does tasks in processes of their own, which end when this one does, however it ends.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self.num_threads = max(1, (os.cpu_count() or 1) // count)
        # A fork would share ONNX Runtime's threads with this process.
        self._context = multiprocessing.get_context("spawn")
        self._processes = [self._begin() for _ in range(count)]

    @property
    def room(self) -> int:
        """How many processes have no task."""
        return sum(one.task is None for one in self._processes)

    def start(self, task: Task) -> None:
        """Hand a task to a process that has none."""
        idle = next(one for one in self._processes if one.task is None)
        idle.task = task
        # One that has died is found out by waiting for it.
        with suppress(OSError):
            idle.connection.send(task)

    def wait(self) -> tuple[Task, Outcome]:
        """Wait for the first process that answers or dies; a dead one is replaced."""
        busy = {one.connection: one for one in self._processes if one.task is not None}
        one = busy[wait(list(busy))[0]]
        task, one.task = one.task, None
        try:
            return task, one.connection.recv()
        except (EOFError, OSError):
            self._end(one)
            self._processes[self._processes.index(one)] = self._begin()
            return task, Outcome(worker_died=True)

    def close(self) -> None:
        """End all processes."""
        for one in self._processes:
            self._end(one)
        self._processes = []

    def _begin(self) -> _Process:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        # Only the process itself holds its end, so that ours notices when it is gone.
        theirs.close()
        return _Process(process, ours)

    def _end(self, one: _Process) -> None:
        one.connection.close()
        one.process.kill()
        one.process.join()


def _serve(connection: Connection) -> None:
    """Do tasks as they come, until the process that sends them is gone."""
    import signal

    # Control-C goes to all processes of a terminal; the one that is asked ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker()
    try:
        while True:
            connection.send(attempt(worker, connection.recv()))
    except (EOFError, OSError):
        return


class RayCluster:
    """Does tasks on the Ray cluster that RAY_ADDRESS names or that runs here, else on a new local one.

    Every machine has this package and sees the bags, the output and the model under the same paths.

    Args:
        jobs: tasks at once; None is one for each core of the cluster.

    Raises:
        ConfigError: Ray is not installed or cannot be reached.
    """

    num_threads = 1

    def __init__(self, jobs: int | None) -> None:
        try:
            import ray
        except ImportError as missing:
            raise ConfigError(
                f"--engine ray needs the Python package ray ({missing})", fix="pip install 'ray>=2.9'"
            ) from missing
        self._ray = ray
        self._is_ours = not ray.is_initialized()
        try:
            ray.init(ignore_reinit_error=True, logging_level="error", log_to_driver=False)
        # Its errors have no common base.
        except Exception as error:
            raise ConfigError(f"Ray cannot be reached: {error}", fix="check RAY_ADDRESS") from error
        self._slots = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
        # A task whose worker dies comes back to us, as from the other engines.
        do_here = ray.remote(num_cpus=self.num_threads, max_retries=0)(_do_here)
        self._do: Callable[[Task], Any] = do_here.remote
        self._tasks: dict[Any, Task] = {}

    @property
    def room(self) -> int:
        """How many tasks can be started beside those that are running."""
        return self._slots - len(self._tasks)

    def start(self, task: Task) -> None:
        """Hand a task to Ray."""
        self._tasks[self._do(task)] = task

    def wait(self) -> tuple[Task, Outcome]:
        """Wait for the first task."""
        (ready, *_), _ = self._ray.wait(list(self._tasks), num_returns=1)
        task = self._tasks.pop(ready)
        try:
            return task, self._ray.get(ready)
        except self._ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except self._ray.exceptions.RayError:
            return task, Outcome(worker_died=True)

    def close(self) -> None:
        """End the tasks, and a cluster that began with them."""
        for running in self._tasks:
            self._ray.cancel(running, force=True)
        self._tasks = {}
        if self._is_ours:
            self._ray.shutdown()


_WORKER: Worker | None = None


def _do_here(task: Task) -> Outcome:
    """Do a task in a process of Ray's, which serves several tasks one after the other."""
    global _WORKER
    _WORKER = _WORKER or Worker()
    return attempt(_WORKER, task)
