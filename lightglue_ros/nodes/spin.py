"""Runs one node until it is done or the process is told to end.

rclpy's own signal handlers invalidate the context at once, under the feet of a thread that publishes.
So the signals are ours: the main thread waits for them and does nothing else. The node is made, and its
executor spins, in a thread of its own. At the end things are put away in order: executor, node,
context. Some work cannot be interrupted (ONNX Runtime loading a large model); a process that is told to end
in the midst of it ends without putting things away.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable

import rclpy
from rclpy.exceptions import InvalidTopicNameException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from lightglue_ros.core import ConfigError, LightGlueRosError
from lightglue_ros.nodes.fastdds import profile_environment

# How often the main thread wakes: Python runs a signal's handler only then, and a signal that comes just
# before the wait begins, or to another thread, does not wake it.
SIGNAL_SECONDS = 0.1
# How long putting things away may take; a node is to end within two seconds.
END_SECONDS = 1.5


def run_node(name: str, make_node: Callable[[threading.Event], Node | None], args: list[str] | None) -> int:
    """Make a node and spin it until it is done, or SIGINT or SIGTERM comes.

    Args:
        name: the node's name, for errors before there is a node.
        make_node: gets an event that the node may set when it is done; returns None, or raises, if the
            node cannot start. What it raises is logged here.
        args: command line, with ROS arguments.

    Returns:
        Exit status: 1 if the node could not be made, else 0.

    Raises:
        ConfigError: ROS 2 does not take the arguments.
        Exception: what a callback raised; without this the process would live on deaf.
    """
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    _init(args)
    runner = _Runner(name, make_node, done)
    try:
        runner.start()
        while not done.wait(SIGNAL_SECONDS):
            pass
        last_resort = threading.Timer(END_SECONDS, lambda: os._exit(runner.status))
        last_resort.daemon = True
        last_resort.start()
        runner.end()
    finally:
        rclpy.try_shutdown()
    last_resort.cancel()
    return runner.status


class _Runner:
    """Makes a node and spins it in a thread."""

    def __init__(
        self, name: str, make_node: Callable[[threading.Event], Node | None], done: threading.Event
    ) -> None:
        self.status = 0
        self._name = name
        self._make_node = make_node
        self._done = done
        self._node: Node | None = None
        self._executor = SingleThreadedExecutor()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="executor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        if self._node is not None:
            self._node.destroy_node()
            # A lifecycle node's state machine goes with its last reference, and with that the middleware's
            # participant and its 32 MiB of shared memory, which would be left behind.
            self._node = None
            gc.collect()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._node = self._make_node(self._done)
            if self._node is None:
                self.status = 1
            else:
                self._spin(self._node)
        except ExternalShutdownException:
            pass
        except (LightGlueRosError, ParameterException, InvalidTopicNameException) as error:
            get_logger(self._name).error(" ".join(str(error).split()))
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
                self._executor.spin()
            # Up to Jazzy rclpy raises this out of the executor when a lifecycle manager asks for a transition
            # that the present state does not have.
            except rclpy_implementation.RCLError as error:
                node.get_logger().error(f"refused: {error}")


def _init(args: list[str] | None) -> None:
    # The launch file sets it for all nodes that it starts; this is for nodes that are run alone.
    os.environ.update(profile_environment())
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    # rclpy raises what its C++ part has, without a common base.
    except Exception as error:
        raise ConfigError(
            f"ROS 2 does not take the arguments {args}: {error}",
            allowed="--ros-args with -p name:=value, -r from:=to, --params-file FILE",
        ) from error
