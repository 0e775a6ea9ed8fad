"""Runs one node until it is done or the process receives SIGINT or SIGTERM.

rclpy's own signal handlers invalidate the context at once, while another thread may be publishing. So this
module handles the signals: the main thread only waits for them. Another thread makes the node and spins its
executor. At the end executor, node and context are shut down in this order. Other threads may then still be
in work that nothing can interrupt, such as ONNX Runtime loading a large model. The process ends without them.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rclpy
from rclpy.exceptions import InvalidTopicNameException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from lightglue_ros.errors import ConfigError, LightGlueRosError
from lightglue_ros.nodes.fastdds import profile_environment

# Period at which the main thread wakes. Python runs a signal's handler only when it wakes, and a signal that
# comes just before the wait begins, or to another thread, does not wake it.
SIGNAL_SECONDS = 0.1
# Limits for the callback that the signal met, and for freeing what the node holds. A process that ends
# without freeing leaves 33.5 MiB of shared memory behind. `ros2 launch` kills after 10 s.
WORK_SECONDS = 3.0
FREE_SECONDS = 5.0

MakeNode = Callable[[threading.Event], Node | None]


def run_node(name: str, make_node: MakeNode, args: list[str] | None) -> int:
    """Make a node and spin it until it is done or a SIGINT or SIGTERM comes.

    Args:
        make_node: receives an event that the node may set when it is done. It returns None or raises an
            error, which is logged here under `name`, if the node cannot start.

    Returns:
        Exit status: 1 if the node could not be made, else 0.

    Raises:
        ConfigError: ROS 2 does not accept the arguments.
        Exception: an error of a callback, after which the node would receive nothing more.
    """
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    _init(args)
    runner = _Runner(name, make_node, done)
    runner.start()
    while not done.wait(SIGNAL_SECONDS):
        pass
    with _limited(WORK_SECONDS, runner):
        runner.finish_work()
    with _limited(FREE_SECONDS, runner):
        runner.free()
    # Python's own exit waits for a thread that loads a model.
    if threading.active_count() > 1:
        os._exit(runner.status)
    return runner.status


@contextmanager
def _limited(seconds: float, runner: _Runner) -> Iterator[None]:
    """End the process if a part of its shutdown takes longer."""
    last_resort = threading.Timer(seconds, lambda: os._exit(runner.status))
    last_resort.daemon = True
    last_resort.start()
    try:
        yield
    finally:
        last_resort.cancel()
        last_resort.join()


class _Runner(threading.Thread):
    """Makes a node and spins it."""

    def __init__(self, name: str, make_node: MakeNode, done: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.status = 0
        self._make_node = make_node
        self._done = done
        self._node: Node | None = None
        self._executor = SingleThreadedExecutor()
        self._failure: Exception | None = None

    def finish_work(self) -> None:
        # A task wakes the thread, which sees that it is done. rclpy's shutdown() does not wait for a callback
        # in work and takes away what it needs ('NoneType' object has no attribute 'trigger').
        self._executor.create_task(lambda: None)
        self.join()

    def free(self) -> None:
        self._executor.shutdown()
        if self._node is not None:
            self._node.destroy_node()
            # A lifecycle node's state machine holds the middleware's participant and its 32 MiB of shared
            # memory. They are freed with the last reference, and would be left behind without it. The
            # executor, too, refers to the node of its last callback.
            self._node = self._executor = None
            gc.collect()
        rclpy.try_shutdown()
        if self._failure is not None:
            raise self._failure

    def run(self) -> None:
        try:
            self._node = self._make_node(self._done)
            if self._node is None:
                self.status = 1
            else:
                self._spin(self._node)
        except ExternalShutdownException:
            pass
        except (LightGlueRosError, ParameterException, InvalidTopicNameException) as error:
            get_logger(self.name).error(" ".join(str(error).split()))
            self.status = 1
        except Exception as failure:
            self._failure = failure
            self.status = 1
        finally:
            self._done.set()

    def _spin(self, node: Node) -> None:
        self._executor.add_node(node)
        while not self._done.is_set():
            try:
                self._executor.spin_once()
            # Up to Jazzy the executor raises this when a lifecycle manager asks for a transition that the
            # present state does not have.
            except rclpy_implementation.RCLError as error:
                node.get_logger().error(f"refused: {error}")


def _init(args: list[str] | None) -> None:
    os.environ.update(profile_environment())
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    # The exceptions of rclpy's C++ part have no common base class.
    except Exception as error:
        raise ConfigError(
            f"ROS 2 does not accept the arguments {args}: {error}",
            allowed="--ros-args with -p name:=value, -r from:=to, --params-file FILE",
        ) from error
