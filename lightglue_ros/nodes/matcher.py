"""The matcher node: images of N cameras in, `matches` out.

Two threads, so that nothing queues and nobody waits:

- the executor's thread takes messages, checks their headers and sorts them into frames. It never
  decodes and never waits for inference, so the middleware's buffers do not overflow.
- the worker's thread decodes, runs the graphs and publishes. It always takes the newest frame; frames
  that were overtaken meanwhile are dropped and counted.

They share the worker's one-item mailbox, counters that one side only writes, the count of rejected images
(under a lock), and two thresholds of the pipeline, each replaced as a whole. An image that cannot be used is
dropped, counted by its cause and named in the log, and the node lives on: most are recognised by the
executor's thread; where only decoding tells, as of a broken JPEG, the frame goes on without that camera.

The node is managed (lifecycle): configure loads and warms up the model, activate subscribes. With
`autostart` it does both by itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import CompressedImage, Image

from lightglue_ros.core import LightGlueRosError, MatchPipeline, ModelError
from lightglue_ros.core.frames import FrameAssembler, RigFrame
from lightglue_ros.core.rig import Rig
from lightglue_ros.msg import Matches
from lightglue_ros.nodes import parameters, qos
from lightglue_ros.nodes.conversions import matches_to_message, stamp_in_ns
from lightglue_ros.nodes.decoding import CameraImage, RejectedImageError, check_compressed_image, check_image
from lightglue_ros.nodes.rejections import Rejections
from lightglue_ros.nodes.run import run_node
from lightglue_ros.nodes.worker import NewestWorker

LOG_PERIOD = 5.0
DIAGNOSTICS_PERIOD = 1.0
# Frames over which the diagnostics take their medians.
TIMED_FRAMES = 100


class Matcher(LifecycleNode):
    """Matches the keypoints of a rig's cameras; see the head of this module.

    Raises:
        ConfigError: a parameter given at start-up has the wrong type or is out of range.
    """

    def __init__(self) -> None:
        # First, for rclpy destroys a node whose making failed, too.
        self._pipeline: MatchPipeline | None = None
        self._worker: NewestWorker[RigFrame[CameraImage]] | None = None
        self._image_subscriptions: list[Subscription] = []
        self._publisher: LifecyclePublisher | None = None
        self._diagnostics: Publisher | None = None
        self._diagnostics_timer: Timer | None = None
        self._rejections = Rejections()
        self._incompatible: set[Subscription] = set()
        self._times: deque[tuple[float, float]] = deque(maxlen=TIMED_FRAMES)
        super().__init__("matcher")
        parameters.declare(self)
        self.add_on_set_parameters_callback(self._on_parameters)

    # Lifecycle.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, load and warm up the model."""
        result = self._try(self._configure)
        return super().on_configure(state) if result == TransitionCallbackReturn.SUCCESS else result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        result = self._try(self._activate)
        if result == TransitionCallbackReturn.SUCCESS:
            return super().on_activate(state)
        self._stop()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and finish the frame in work."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything."""
        self._stop()
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Put everything away, so that the node can be configured again."""
        self._stop()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """End the worker before the node goes."""
        self._stop()
        super().destroy_node()

    def _try(self, step: Callable[[], None]) -> TransitionCallbackReturn:
        """Do a step of a transition; rclpy swallows what its callback raises, so say here what went wrong."""
        try:
            step()
        except LightGlueRosError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.get_logger().error(f"{type(error).__name__}: {error}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        values = parameters.read(self)
        rig = Rig.parse(values.cameras, values.pairs)
        start = time.monotonic()
        pipeline = MatchPipeline(
            values.model,
            values.provider,
            (values.image_width, values.image_height),
            max_keypoints=values.max_keypoints or None,
            match_threshold=values.match_threshold,
            num_threads=values.num_threads,
            allow_fallback=values.allow_fallback,
        )
        if not pipeline.can_extract_alone:
            raise ModelError(
                f"model '{values.model}' is a pipeline.onnx, the node runs extractor.onnx and matcher.onnx",
                fix=f"lightglue_ros export {pipeline.info.model} --split",
            )
        pipeline.warm_up(len(rig.cameras), len(rig.pairs))
        self._values, self._rig, self._pipeline = values, rig, pipeline
        self._normalisation = values.normalisation
        self._assembler = self._new_assembler()
        self._publisher = self.create_lifecycle_publisher(
            Matches, "matches", qos.result_qos(), qos_overriding_options=qos.overridable()
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._diagnostics_timer = self.create_timer(DIAGNOSTICS_PERIOD, self._publish_diagnostics)
        self._log_model(time.monotonic() - start)

    def _log_model(self, seconds: float) -> None:
        pipeline = self._pipeline
        width, height = pipeline.image_size
        asked = (self._values.image_width, self._values.image_height)
        rounded = f" (rounded up from {asked[0]}x{asked[1]})" if (width, height) != asked else ""
        self.get_logger().info(
            f"model {pipeline.info.model} on {pipeline.provider}, images {width}x{height}{rounded}, "
            f"at most {pipeline.max_keypoints} keypoints; loaded in {seconds:.1f} s"
        )

    def _activate(self) -> None:
        self._worker = NewestWorker(self._match, self._on_match_error)
        self._assembler = self._new_assembler()
        for camera, topic in enumerate(self._values.image_topics):
            self._image_subscriptions.append(self._subscribe(camera, topic))
        topics = ", ".join(subscription.topic_name for subscription in self._image_subscriptions)
        self.get_logger().info(f"matching {', '.join(self._values.pairs)}; waiting for images on {topics}")

    def _subscribe(self, camera: int, topic: str) -> Subscription:
        is_compressed = self._values.image_transport == "compressed"
        if is_compressed:
            # Resolved first, so that remapping the images' topic is enough.
            topic = f"{self.resolve_topic_name(topic)}/compressed"
        return self.create_subscription(
            CompressedImage if is_compressed else Image,
            topic,
            partial(self._on_image, camera),
            qos.image_qos(self._values.image_qos),
            qos_overriding_options=qos.overridable(),
            event_callbacks=qos.on_incompatible(partial(self._on_incompatible_qos, camera)),
        )

    def _stop(self) -> None:
        self._incompatible.clear()
        for subscription in self._image_subscriptions:
            self.destroy_subscription(subscription)
        self._image_subscriptions = []
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _release(self) -> None:
        self._pipeline = None
        if self._diagnostics_timer is not None:
            self.destroy_timer(self._diagnostics_timer)
        if self._diagnostics is not None:
            self.destroy_publisher(self._diagnostics)
        if self._publisher is not None:
            self.destroy_lifecycle_publisher(self._publisher)
        self._diagnostics_timer = self._diagnostics = self._publisher = None

    def _new_assembler(self) -> FrameAssembler[CameraImage]:
        # The thresholds may have been changed since they were read at configure.
        slop, timeout = (self.get_parameter(name).value for name in ("sync_slop", "camera_timeout"))
        return FrameAssembler(len(self._rig.cameras), slop, timeout)

    # The executor's thread.

    def _on_image(self, camera: int, message: Image | CompressedImage) -> None:
        try:
            image = self._check(message)
        except RejectedImageError as error:
            self._reject(camera, error)
            return
        now = self.get_clock().now().nanoseconds
        frame = self._assembler.add(camera, stamp_in_ns(image.header), image, now)
        if frame is None:
            return
        if any(image is None for image in frame.images):
            self.get_logger().warning(self._missing_text(now), throttle_duration_sec=LOG_PERIOD)
        self._worker.offer(frame)

    def _check(self, message: Image | CompressedImage) -> CameraImage:
        if isinstance(message, Image):
            return check_image(message)
        return check_compressed_image(message, self._values.max_image_pixels)

    def _reject(self, camera: int, error: RejectedImageError) -> None:
        """Count and name an image that cannot be used; both threads do."""
        count = self._rejections.add(error.cause)
        self.get_logger().warning(
            f"camera {self._values.cameras[camera]}: {error}; dropped ({error.cause}; {count} images so far)",
            throttle_duration_sec=LOG_PERIOD,
        )

    def _on_incompatible_qos(self, camera: int) -> None:
        subscription = self._image_subscriptions[camera]
        self._incompatible.add(subscription)
        name = self._values.cameras[camera]
        text = qos.incompatible_text(self, subscription, self._values.image_qos)
        self.get_logger().warning(f"camera {name}: {text or 'a publisher with another QoS came and went'}")

    def _incompatible_text(self) -> str:
        texts = (qos.incompatible_text(self, one, self._values.image_qos) for one in self._incompatible)
        return "; ".join(filter(None, texts))

    def _missing_text(self, now: int) -> str:
        names = ", ".join(self._values.cameras[camera] for camera in self._assembler.missing(now))
        timeout, slop = self._assembler.timeout, self._assembler.slop
        return f"missing: {names} (no image for {timeout:g} s within sync_slop = {slop:g} s of the others')"

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        """Take all changes or none."""
        new = {change.name: change.value for change in changes if change.name in parameters.SPECS}
        pipeline = self._pipeline
        if pipeline is None:
            return SetParametersResult(successful=True)
        slots = pipeline.info.max_keypoints
        if new.get("max_keypoints", 0) > slots:
            reason = (
                f"max_keypoints is {new['max_keypoints']}; allowed: 0 to {slots}, the slots of this model"
            )
            return SetParametersResult(successful=False, reason=reason)
        if "max_keypoints" in new:
            pipeline.max_keypoints = new["max_keypoints"] or slots
        if "match_threshold" in new:
            pipeline.match_threshold = new["match_threshold"]
        self._assembler.slop = new.get("sync_slop", self._assembler.slop)
        self._assembler.timeout = new.get("camera_timeout", self._assembler.timeout)
        return SetParametersResult(successful=True)

    def _publish_diagnostics(self) -> None:
        now = self.get_clock().now()
        message = DiagnosticArray()
        message.header.stamp = now.to_msg()
        message.status = [self._status(now.nanoseconds)]
        self._diagnostics.publish(message)

    def _status(self, now: int) -> DiagnosticStatus:
        status = DiagnosticStatus(name=f"{self.get_name()}: matching", hardware_id=self._pipeline.provider)
        incompatible = self._incompatible_text()
        if incompatible:
            status.level, status.message = DiagnosticStatus.WARN, incompatible
        elif self._assembler.missing(now):
            status.level, status.message = DiagnosticStatus.WARN, self._missing_text(now)
        elif not self._assembler.counts.frames:
            topics = ", ".join(self._values.image_topics)
            status.level, status.message = DiagnosticStatus.WARN, f"no frame yet of {topics}"
        else:
            status.level, status.message = DiagnosticStatus.OK, "ok"
        counts = self._assembler.counts
        rejected = self._rejections.by_cause()
        # A list at once, for the worker goes on adding.
        inference, other = np.median(list(self._times) or [(0.0, 0.0)], axis=0) * 1e3
        values = {
            "model": self._pipeline.info.model,
            "provider": self._pipeline.provider,
            "images received": counts.received,
            "images rejected": sum(rejected.values()),
            "incompatible QoS": incompatible or "none",
            **{f"images rejected: {cause}": count for cause, count in rejected.items()},
            "images without partner": counts.unmatched,
            "images too late": counts.late,
            "time set back": counts.resets,
            "frames": counts.frames,
            "frames dropped": self._worker.dropped if self._worker else 0,
            "inference p50 (ms)": f"{inference:.2f}",
            "outside inference p50 (ms)": f"{other:.2f}",
        }
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        return status

    # The worker's thread.

    def _match(self, frame: RigFrame[CameraImage]) -> None:
        start = time.perf_counter()
        frame, images = self._decode(frame)
        if all(image is None for image in images):
            return
        pairs = self._pipeline.match(images, self._rig.pairs)
        message = matches_to_message(self._rig, frame, pairs, self._pipeline.info.model)
        self._publisher.publish(message)
        inference = self._pipeline.times.inference
        self._times.append((inference, time.perf_counter() - start - inference))

    def _decode(self, frame: RigFrame[CameraImage]) -> tuple[RigFrame[CameraImage], list[np.ndarray | None]]:
        """Decode a frame's images; one that turns out to be broken leaves its slot empty, as if missing."""
        arrays = [self._decode_image(camera, image) for camera, image in enumerate(frame.images)]
        kept = (
            image if array is not None else None for image, array in zip(frame.images, arrays, strict=True)
        )
        return replace(frame, images=tuple(kept)), arrays

    def _decode_image(self, camera: int, image: CameraImage | None) -> np.ndarray | None:
        if image is None:
            return None
        try:
            return image.decode(self._normalisation)
        except RejectedImageError as error:
            self._reject(camera, error)
            return None

    def _on_match_error(self, error: Exception) -> None:
        self.get_logger().error(
            f"a frame was lost: {type(error).__name__}: {error}", throttle_duration_sec=LOG_PERIOD
        )


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; the exit status is 1 if it could not start."""
    return run_node("matcher", _started_matcher, args)


def _started_matcher(_done: threading.Event) -> Matcher | None:
    node = Matcher()
    if node.get_parameter("autostart").value:
        for transition in (node.trigger_configure, node.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                return None
    return node
