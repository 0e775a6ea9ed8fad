"""Runs one node until it is done or the process is told to end.

rclpy's own signal handlers invalidate the context at once, under the feet of a thread that publishes.
So the signals are ours: the main thread waits for them and does nothing else, the executor spins in a
thread of its own, and at the end things are put away in order: executor, node, context.
"""

from __future__ import annotations

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
from lightglue_ros.nodes.processes import profile_environment


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
    """
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    _init(args)
    try:
        node = make_node(done)
        if node is None:
            return 1
        _spin(node, done)
        node.destroy_node()
        return 0
    except (LightGlueRosError, ParameterException, InvalidTopicNameException) as error:
        get_logger(name).error(" ".join(str(error).split()))
        return 1
    finally:
        rclpy.try_shutdown()


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


def _spin_until_refused(executor: SingleThreadedExecutor, node: Node) -> None:
    try:
        executor.spin()
    # Up to Jazzy rclpy raises this out of the executor when a lifecycle manager asks for a transition that
    # the present state does not have.
    except rclpy_implementation.RCLError as error:
        node.get_logger().error(f"refused: {error}")


def _spin(node: Node, done: threading.Event) -> None:
    """Spin until it is done.

    Raises:
        Exception: what a callback raised; without this the process would live on deaf.
    """
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    failures: list[Exception] = []

    def spin() -> None:
        try:
            while not done.is_set():
                _spin_until_refused(executor, node)
        except ExternalShutdownException:
            pass
        except Exception as failure:
            failures.append(failure)
        finally:
            done.set()

    thread = threading.Thread(target=spin, name="executor", daemon=True)
    thread.start()
    done.wait()
    executor.shutdown()
    thread.join()
    if failures:
        raise failures[0]
