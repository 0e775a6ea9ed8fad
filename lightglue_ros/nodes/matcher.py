"""The matcher node: images of N cameras in, `matches` out.

With `publish_features` it publishes features as well; without `publish_matches` only these, as an extractor
on the computer of a camera. A matcher elsewhere takes features in place of images (`input: features`).

The node is managed (lifecycle). Configure loads and warms up the model in the thread that runs it, and makes
the publishers, activate subscribes (see `active_matcher` for what happens then), deactivate unsubscribes,
cleanup frees the model and ends the thread.
With `autostart` the node configures and activates itself, and the process ends with status 1 if it cannot. A
transition that fails for a reason that the user can fix leaves the state as it was (FAILURE). Any other error
goes through ErrorProcessing, which puts everything away, to Unconfigured.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import wraps
from typing import Any, TypeVar

import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.contract import for_gpus, other_export
from lightglue_ros.errors import ConfigError, LightGlueRosError
from lightglue_ros.nodes import ros_parameters
from lightglue_ros.nodes.active_matcher import ActiveMatcher
from lightglue_ros.nodes.publishers import MatcherPublishers
from lightglue_ros.nodes.spin import run_node
from lightglue_ros.rig.extracted_references import ExtractedReferences
from lightglue_ros.rig.tracks import Tracker
from lightglue_ros.rosdata.parameters import SPECS, MatcherParameters, check_changeable

DIAGNOSTICS_PERIOD = 1.0
# Period at which a wait for the inference thread looks whether the process is to end.
WAIT_SECONDS = 0.1


class _UnfinishedError(Exception):
    """The process is to end before the inference thread has done its work."""


Result = TypeVar("Result")
Transition = Callable[["Matcher", LifecycleState], TransitionCallbackReturn]


def logs_errors(transition: Transition) -> Transition:
    """Let the callback of a transition log its errors, because rclpy swallows them."""

    @wraps(transition)
    def try_it(node: Matcher, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except LightGlueRosError as error:
            node.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except _UnfinishedError:
            return TransitionCallbackReturn.FAILURE
        except Exception:
            node.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR

    return try_it


class Matcher(LifecycleNode):
    """Matches the keypoints of a rig's cameras; see the head of this module.

    Args:
        done: set when the process is to end. Then configure waits no longer for the model.

    Raises:
        ConfigError: a parameter given at start-up has the wrong type or is out of range.
    """

    def __init__(self, done: threading.Event | None = None) -> None:
        # Attributes come before super().__init__(): rclpy calls destroy_node() even if __init__ raises.
        self._done = done or threading.Event()
        self._settings: MatcherParameters | None = None
        self._pipeline: MatchPipeline | None = None
        self._active: ActiveMatcher | None = None
        self._inference_work: Future[Any]
        self._references = ExtractedReferences()
        # Lives as long as the node, so that no id is used again.
        self._tracker = Tracker()
        self._closing = ExitStack()
        super().__init__("matcher")
        ros_parameters.declare(self, MatcherParameters)
        self.add_on_set_parameters_callback(self._on_parameters)

    @logs_errors
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, load and warm up the model."""
        self._settings = ros_parameters.read(self, MatcherParameters)
        self.get_logger().info(f"loading model {self._settings.model}")
        start = time.monotonic()
        with ExitStack() as closing:
            self._inference = ThreadPoolExecutor(1, "inference")
            closing.callback(self._end_inference)
            pipeline = self._pipeline = self._infer(self._settings.load)
            self._references = ExtractedReferences()
            self._infer(self._references.extract, pipeline, self._settings.frame)
            self._results = MatcherPublishers(self, self._settings)
            closing.callback(self._results.destroy)
            self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
            closing.callback(self.destroy_publisher, self._diagnostics)
            # The steady clock goes on when simulated time stands still.
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            timer = self.create_timer(DIAGNOSTICS_PERIOD, self._publish_diagnostics, clock=steady)
            closing.callback(self.destroy_timer, timer)
            self._closing = closing.pop_all()
        stored = self._settings.frame.rig.references
        if stored:
            named = ", ".join(f"{it.name} ({len(it.images)})" for it in stored)
            self.get_logger().info(f"images of references extracted: {named}")
        canvas = _canvas_text(pipeline, self._settings.frame.image_size)
        self.get_logger().info(
            f"model {pipeline.info.model} on {pipeline.provider}, {canvas}, at most {pipeline.max_keypoints} "
            f"keypoints; loaded in {time.monotonic() - start:.1f} s"
        )
        if pipeline.fallback_warning:
            self.get_logger().warning(pipeline.fallback_warning)
        elif pipeline.fallback_reason:
            self.get_logger().info(pipeline.fallback_reason)
        if pipeline.provider == "cuda" and pipeline.info.target == "cpu":
            advice = other_export(self._settings.model, pipeline.info, for_gpus(pipeline.info))
            self.get_logger().info(f"the model was exported for CPUs; on a GPU this is faster: {advice}")
        return super().on_configure(state)

    @logs_errors
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        self._active = ActiveMatcher(
            self,
            self._inference,
            self._pipeline,
            self._settings,
            self._results,
            self._tracker,
            self._references,
        )
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and finish the frame in work."""
        self._deactivate()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything."""
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Put everything away, so that the node can be configured again."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """End the frame in work at once, free the model and end the threads, before the node goes."""
        self._deactivate(cancel=True)
        self._closing.close()
        super().destroy_node()

    def _deactivate(self, cancel: bool = False) -> None:
        if self._active is not None:
            self._active.close(cancel=cancel)
            self._active = None

    def _release(self) -> None:
        self._deactivate()
        self._closing.close()

    def _infer(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Do work in the inference thread; raise `_UnfinishedError` if the process is to end before.

        Nothing can interrupt ONNX Runtime while it loads a model. As long as a callback waits, the node and
        its shared memory cannot be freed. So `work` must not refer to the node.
        """
        self._inference_work = self._inference.submit(work, *arguments)
        while not wait([self._inference_work], WAIT_SECONDS).done:
            if self._done.is_set():
                raise _UnfinishedError
        return self._inference_work.result()

    def _end_inference(self) -> None:
        """Free the model in its thread and end the thread; do not wait for a model that is still loading."""
        is_idle = self._inference_work.done()
        if is_idle:
            self._inference.submit(self._free_pipeline).result()
        self._inference.shutdown(wait=is_idle)

    def _free_pipeline(self) -> None:
        """Free the model, and what lies in its memory."""
        # An earlier active matcher and its callbacks refer to each other, so it holds the pipeline until
        # garbage is collected.
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = None
        self._references = ExtractedReferences()

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set all parameters or none, for the services as well; whole numbers are taken for doubles."""
        try:
            return super().set_parameters_atomically(ros_parameters.checked(parameter_list))
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        """Take all changes or none."""
        # A subscription declares its qos_overrides.* parameters, which calls this during a change of ours.
        ours = {it.name: ros_parameters.plain(it.value) for it in changes if it.name in SPECS}
        try:
            if ours:
                self._change(ours)
        except LightGlueRosError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _change(self, changes: Mapping[str, Any]) -> None:
        if self._pipeline is None:
            return
        check_changeable(self._settings, changes)
        settings = ros_parameters.read(self, MatcherParameters, changes)
        settings.check_model(self._pipeline)
        if settings.frame.image_size != self._settings.frame.image_size:
            self.get_logger().info(_canvas_text(self._pipeline, settings.frame.image_size))
        self._settings = settings
        if self._active is not None:
            self._active.change(settings)

    def _publish_diagnostics(self) -> None:
        about = {
            "model": self._pipeline.info.model,
            "provider": self._pipeline.provider,
            "provider fallback": self._pipeline.fallback_reason or "none",
        }
        if self._active is None:
            status = DiagnosticStatus(level=DiagnosticStatus.OK, message="inactive")
            status.values = [KeyValue(key=key, value=value) for key, value in about.items()]
        else:
            status = self._active.report(about)
        # Full names, because two rigs in two namespaces have nodes and cameras of the same names.
        status.name = f"{self.get_fully_qualified_name()}: {self._settings.results}"
        namespace = self.get_namespace().strip("/")
        status.hardware_id = ", ".join(f"{namespace}/{it}".strip("/") for it in self._settings.cameras)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _canvas_text(pipeline: MatchPipeline, asked: tuple[int, int]) -> str:
    width, height = pipeline.rounded(asked)
    rounded = f" (rounded up from {asked[0]}x{asked[1]})" if (width, height) != asked else ""
    return f"canvas {width}x{height}{rounded}"


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; the exit status is 1 if it could not start."""
    # More threads of OpenCV gain no time here, next to those of ONNX Runtime, and wait for each other: 1.6 ms
    # of processor time for an image of 1080p.
    cv2.setNumThreads(1)
    return run_node("matcher", _started_matcher, args)


def _started_matcher(done: threading.Event) -> Matcher | None:
    node = Matcher(done)
    if node.get_parameter("autostart").value:
        for transition in (node.trigger_configure, node.trigger_activate):
            if not done.is_set() and transition() != TransitionCallbackReturn.SUCCESS:
                # A signal that comes during the transition is no failure.
                return node if done.is_set() else None
    return node
