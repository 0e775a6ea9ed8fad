"""The matcher node: images of N cameras in, `matches` out.

With `publish_features` it publishes features as well, and without `publish_matches` nothing but these: that
is an extractor, at the computer of a camera. The matcher elsewhere takes them in place of images
(`input: features`); what is said of images here then holds for features.

Two threads, so that nothing queues and nobody waits:

- the executor's thread takes messages, checks their headers and sorts them into frames. It never
  decodes and never waits for inference, so the middleware's buffers do not overflow.
- the worker's thread decodes, runs the graphs, verifies the matches and publishes. It always takes the newest
  frame; frames that were overtaken meanwhile are dropped and counted. So a result is published at most one
  inference and one camera period after its images were taken.

They share the worker's one-item mailbox, counters and CameraInfo that one side only writes, the count of
rejected images (under a lock), and the settings, which the executor replaces as a whole and a frame takes
along. An image that cannot be used is dropped, counted by its cause and named in the log,
and the node lives on: most are recognised by the executor's thread; where only decoding tells, as of a broken
JPEG, the frame goes on without that camera. Pictures of the matches are drawn by a third thread (see
`drawing`).

The node is managed (lifecycle): configure loads and warms up the model, activate subscribes, cleanup frees
the model. With `autostart` it does the first two by itself, and the process ends with status 1 if it cannot.
A transition that fails for a reason that the user can mend leaves the state as it was (FAILURE); any other
error goes through ErrorProcessing, which puts everything away, to Unconfigured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import CompressedImage, Image

from lightglue_ros.core import Features, LightGlueRosError, MatchPipeline
from lightglue_ros.errors import RejectedImageError
from lightglue_ros.msg import Features as FeaturesMsg
from lightglue_ros.msg import Matches
from lightglue_ros.nodes import annotations, drawing, image_input, qos, ros_parameters
from lightglue_ros.nodes.camera_infos import CameraInfoSubscriptions, make_verifier
from lightglue_ros.nodes.conversions import matches_to_message
from lightglue_ros.nodes.features import check_features, features_to_message
from lightglue_ros.nodes.spin import run_node
from lightglue_ros.nodes.status import MatcherStatus
from lightglue_ros.nodes.worker import NewestWorker
from lightglue_ros.rig.frames import FrameAssembler, RigFrame
from lightglue_ros.rig.history import RigMatcher, RigPair
from lightglue_ros.rig.rejections import Rejections
from lightglue_ros.rig.verifier import RigVerifier
from lightglue_ros.rosdata.decoding import CameraImage, decode_frame
from lightglue_ros.rosdata.messages import stamp_in_ns
from lightglue_ros.rosdata.parameters import (
    SPECS,
    MatcherParameters,
    MatcherSettings,
    check_changeable,
    check_each,
)

LOG_PERIOD = 5.0
DIAGNOSTICS_PERIOD = 1.0


@dataclass(frozen=True)
class _Extracted:
    """A frame whose images are extracted.

    Attributes:
        frame: with the messages.
        settings: to match it with.
        canvas_size: (width, height) in pixels, that it was extracted on.
        labels: the camera's message of each image, None where there is none that can be used.
        features: of each image, None where there is none.
        inference: seconds inside ONNX Runtime so far.
        outside: seconds outside of it so far.
    """

    frame: RigFrame[CameraImage]
    settings: MatcherSettings
    canvas_size: tuple[int, int]
    labels: list[CameraImage | None]
    features: list[Features | None]
    inference: float
    outside: float


class Matcher(LifecycleNode):
    """Matches the keypoints of a rig's cameras; see the head of this module.

    Raises:
        ConfigError: a parameter given at start-up has the wrong type or is out of range.
    """

    def __init__(self) -> None:
        # First, for rclpy destroys a node whose making failed, too.
        self._pipeline: MatchPipeline | None = None
        self._worker: NewestWorker[RigFrame[CameraImage]] | None = None
        self._input_subscriptions: list[Subscription] = []
        self._publisher: LifecyclePublisher | None = None
        self._picture_publisher: LifecyclePublisher | None = None
        self._features_publishers: list[LifecyclePublisher] = []
        self._annotation_publishers: dict[str, LifecyclePublisher] = {}
        self._drawer: drawing.Drawer | None = None
        self._annotator: annotations.Annotator | None = None
        self._diagnostics: Publisher | None = None
        self._diagnostics_timer: Timer | None = None
        self._incompatible: set[Subscription] = set()
        self._verifier: RigVerifier | None = None
        self._camera_infos: CameraInfoSubscriptions | None = None
        super().__init__("matcher")
        ros_parameters.declare(self, MatcherParameters)
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
        """End the frame in work at once, and the threads, before the node goes."""
        if self._worker is not None:
            self._worker.stop(self._pipeline.cancel)
            self._worker = None
        self._stop_drawing()
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
        settings = MatcherSettings.of(ros_parameters.read(self, MatcherParameters))
        self.get_logger().info(f"loading model {settings.values.model}")
        start = time.monotonic()
        pipeline = settings.load()
        self._pipeline, self._settings = pipeline, settings
        self._extracts_with = self._matches_with = settings
        self._start_anew()
        self._create_publishers()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Also when simulated time stands still.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_timer = self.create_timer(
            DIAGNOSTICS_PERIOD, self._publish_diagnostics, clock=clock
        )
        self._log_model(time.monotonic() - start)

    def _create_publishers(self) -> None:
        values = self._settings.values
        overridable = {"qos_overriding_options": qos.overridable()}
        if values.publish_matches:
            self._publisher = self.create_lifecycle_publisher(
                Matches, "matches", qos.result_qos(), **overridable
            )
        if values.publish_matches and not values.takes_features:
            self._picture_publisher = self.create_lifecycle_publisher(
                Image, drawing.TOPIC, qos.picture_qos(), **overridable
            )
        if values.publish_matches and values.publish_annotations:
            self._annotation_publishers = {
                camera: self.create_lifecycle_publisher(
                    annotations.message_type(), topic, qos.picture_qos(), **overridable
                )
                for camera, topic in zip(values.cameras, values.annotation_topics, strict=True)
            }
        if values.publish_features:
            self._features_publishers = [
                self.create_lifecycle_publisher(FeaturesMsg, topic, qos.result_qos(), **overridable)
                for topic in values.features_topics
            ]

    def _start_anew(self) -> None:
        """Forget all images and counts."""
        values, rig = self._settings.values, self._settings.rig
        self._assembler: FrameAssembler[CameraImage] = FrameAssembler(
            rig, values.sync_slop, values.camera_timeout
        )
        self._rig_matcher: RigMatcher[CameraImage] = RigMatcher(self._pipeline, rig)
        self._epoch = 0
        self._missing: frozenset[int] = frozenset()
        self._rejections = Rejections()
        self._status = MatcherStatus(values.cameras, values.input_topics, self._results)

    @property
    def _results(self) -> str:
        """What is made of the images."""
        return "matches" if self._settings.values.publish_matches else "features"

    def _log_model(self, seconds: float) -> None:
        pipeline = self._pipeline
        width, height = pipeline.image_size
        asked = self._settings.image_size
        rounded = f" (rounded up from {asked[0]}x{asked[1]})" if (width, height) != asked else ""
        self.get_logger().info(
            f"model {pipeline.info.model} on {pipeline.provider}, images {width}x{height}{rounded}, "
            f"at most {pipeline.max_keypoints} keypoints; loaded in {seconds:.1f} s"
        )

    def _activate(self) -> None:
        self._start_anew()
        self._verifier = make_verifier(self, self._settings.values)
        self._camera_infos = CameraInfoSubscriptions(self, self._verifier)
        self._camera_infos.subscribe(self._settings.geometry)
        values = self._settings.values
        self._worker = NewestWorker(self._extract, self._on_match_error)
        if self._picture_publisher is not None:
            self._drawer = drawing.Drawer(
                self, self._picture_publisher, values.drawing_rate, self._settings.mono16
            )
        if self._annotation_publishers:
            self._annotator = annotations.Annotator(self, self._annotation_publishers, values.drawing_rate)
        for camera, topic in enumerate(values.input_topics):
            self._input_subscriptions.append(self._subscribe(camera, topic))
        topics = ", ".join(subscription.topic_name for subscription in self._input_subscriptions)
        work = f"matching {', '.join(values.pairs)}" if values.publish_matches else "extracting features"
        self.get_logger().info(f"{work}; waiting for {values.input} on {topics}")

    def _subscribe(self, camera: int, topic: str) -> Subscription:
        values = self._settings.values
        callback = partial(self._on_input, camera)
        on_incompatible = partial(self._on_incompatible_qos, camera)
        if not values.takes_features:
            return image_input.subscribe(self, values, topic, callback, on_incompatible)
        return self.create_subscription(
            FeaturesMsg,
            topic,
            callback,
            qos.image_qos(values.image_qos),
            qos_overriding_options=qos.overridable(),
            event_callbacks=qos.on_incompatible(on_incompatible),
        )

    def _stop(self) -> None:
        self._incompatible.clear()
        for subscription in self._input_subscriptions:
            self.destroy_subscription(subscription)
        self._input_subscriptions = []
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        if self._camera_infos is not None:
            self._camera_infos.stop()
            self._camera_infos = None
        self._stop_drawing()

    def _stop_drawing(self) -> None:
        for worker in (self._drawer, self._annotator):
            if worker is not None:
                worker.stop()
        self._drawer = self._annotator = None

    def _release(self) -> None:
        self._pipeline = self._rig_matcher = None
        if self._diagnostics_timer is not None:
            self.destroy_timer(self._diagnostics_timer)
        if self._diagnostics is not None:
            self.destroy_publisher(self._diagnostics)
        of_cameras = (*self._features_publishers, *self._annotation_publishers.values())
        for publisher in (self._publisher, self._picture_publisher, *of_cameras):
            if publisher is not None:
                self.destroy_lifecycle_publisher(publisher)
        self._diagnostics_timer = self._diagnostics = self._publisher = self._picture_publisher = None
        self._features_publishers, self._annotation_publishers = [], {}

    # The executor's thread.

    def _on_input(self, camera: int, message: Image | CompressedImage | FeaturesMsg) -> None:
        self._status.image(camera)
        try:
            image = self._check(message)
        except RejectedImageError as error:
            self._reject(camera, error)
            return
        now = self.get_clock().now().nanoseconds
        frame = self._assembler.add(camera, stamp_in_ns(image.header), image, now)
        if frame is not None:
            self._tell_missing(frame.missing)
            self._worker.offer(frame)

    def _check(self, message: Image | CompressedImage | FeaturesMsg) -> CameraImage:
        if isinstance(message, FeaturesMsg):
            return check_features(message, self._pipeline.info, self._pipeline.max_keypoints)
        return image_input.check(message, self._settings.values)

    def _reject(self, camera: int, error: RejectedImageError) -> None:
        """Count and name an image that cannot be used; both threads do."""
        count = self._rejections.add(error.cause)
        self.get_logger().warning(
            f"camera {self._names([camera])}: {error}; dropped ({error.cause}; {count} images so far)",
            throttle_duration_sec=LOG_PERIOD,
        )

    def _on_incompatible_qos(self, camera: int) -> None:
        subscription = self._input_subscriptions[camera]
        self._incompatible.add(subscription)
        text = qos.incompatible_text(self, subscription, self._settings.values.image_qos)
        text = text or "a publisher with another QoS came and went"
        self.get_logger().warning(f"camera {self._names([camera])}: {text}")

    def _incompatible_text(self) -> str:
        image_qos = self._settings.values.image_qos
        texts = (qos.incompatible_text(self, one, image_qos) for one in self._incompatible)
        return "; ".join(filter(None, texts))

    def _tell_missing(self, missing: frozenset[int]) -> None:
        """Say which cameras are missing, and which are back."""
        back, self._missing = self._missing - missing, missing
        if missing:
            why = f"for {self._assembler.timeout:g} s within {self._assembler.slop:.3g} s of the others'"
            self.get_logger().warning(
                f"missing: {self._names(missing)} (no image {why})",
                throttle_duration_sec=LOG_PERIOD,
            )
        if back:
            self.get_logger().info(f"back: {self._names(back)}", throttle_duration_sec=LOG_PERIOD)

    def _names(self, cameras: Iterable[int]) -> str:
        return ", ".join(self._settings.values.cameras[camera] for camera in sorted(cameras))

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        """Take all changes or none."""
        ours = {change.name: change.value for change in changes if change.name in SPECS}
        try:
            # A new subscription declares its qos_overrides, in the midst of our own change.
            if ours:
                self._change(ours)
        except LightGlueRosError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _change(self, changes: Mapping[str, Any]) -> None:
        if self._pipeline is None:
            check_each(changes)
            return
        check_changeable(self._settings.values, changes)
        settings = MatcherSettings.of(ros_parameters.read(self, MatcherParameters, changes))
        settings.check(self._pipeline)
        self._settings = settings
        self._assembler.rig = settings.rig
        self._assembler.fixed_slop = settings.values.sync_slop
        self._assembler.timeout = settings.values.camera_timeout
        if self._camera_infos is not None:
            self._camera_infos.subscribe(settings.geometry)
        for worker in (self._drawer, self._annotator):
            if worker is not None:
                worker.rate = settings.values.drawing_rate

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [self._report()]
        self._diagnostics.publish(message)

    def _report(self) -> DiagnosticStatus:
        about = {"model": self._pipeline.info.model, "provider": self._pipeline.provider}
        if self._worker is None:
            status = DiagnosticStatus(level=DiagnosticStatus.OK, message="inactive")
            status.values = [KeyValue(key=key, value=value) for key, value in about.items()]
        else:
            status = self._status.report(
                {
                    **about,
                    "verification": self._settings.geometry,
                    "sync slop (ms)": f"{1e3 * self._assembler.slop:.1f}",
                    "images extracted": str(self._rig_matcher.extracted),
                    "pictures drawn": str(self._drawer.drawn if self._drawer is not None else 0),
                },
                self._assembler.counts,
                self._worker.dropped,
                self._rejections.by_cause(),
                self._assembler.missing(),
                self._assembler.timeout,
                self._incompatible_text(),
                self._verifier.problem,
            )
        status.name, status.hardware_id = f"{self.get_name()}: {self._results}", self._pipeline.provider
        return status

    # The worker's thread.

    def _extract(self, frame: RigFrame[CameraImage]) -> None:
        start = time.perf_counter()
        settings = self._settings
        self._extract_with(settings)
        images, labels = decode_frame(frame.images, settings.mono16, self._reject)
        if all(label is None for label in labels):
            return
        before = self._pipeline.times.extract
        features = self._rig_matcher.extract(images)
        inference = self._pipeline.times.extract - before
        self._publish_features(labels, features)
        extracted = _Extracted(
            frame,
            settings,
            self._pipeline.image_size,
            labels,
            features,
            inference,
            time.perf_counter() - start - inference,
        )
        self._match(extracted)

    def _match(self, extracted: _Extracted) -> None:
        start = time.perf_counter()
        frame, settings = extracted.frame, extracted.settings
        self._match_with(settings)
        if frame.epoch != self._epoch:
            self._rig_matcher.forget()
            self._epoch = frame.epoch
        header = next(label.header for label in extracted.labels if label is not None)
        labels = self._as_kept(extracted.labels)
        before = self._pipeline.times.match
        pairs = self._rig_matcher.match_features(extracted.features, labels, frame.between)
        inference = self._pipeline.times.match - before
        if self._publisher is not None:
            pairs = self._verifier.verify(pairs, settings.rig, settings.geometry, extracted.canvas_size)
            self._publish(matches_to_message(settings.rig, header, pairs, self._pipeline.info.model), pairs)
        outside = extracted.outside + time.perf_counter() - start - inference
        taken = min(stamp for stamp in frame.stamps if stamp is not None)
        age = (self.get_clock().now().nanoseconds - taken) * 1e-9
        self._status.matched(extracted.inference + inference, outside, age)

    def _publish_features(
        self, labels: Sequence[CameraImage | None], features: Sequence[Features | None]
    ) -> None:
        values = self._settings.values
        for camera, publisher in enumerate(self._features_publishers):
            if features[camera] is not None and publisher.get_subscription_count() > 0:
                message = features_to_message(
                    features[camera],
                    labels[camera].header,
                    values.cameras[camera],
                    self._pipeline.info,
                    values.features_precision,
                )
                publisher.publish(message)

    def _publish(self, message: Matches, pairs: Sequence[RigPair[CameraImage]]) -> None:
        self._publisher.publish(message)
        if self._drawer is not None and self._drawer.is_wanted() and not self._has_viewer():
            self._drawer.offer((message, [(pair.label0, pair.label1) for pair in pairs]))
        if self._annotator is not None and self._annotator.is_wanted():
            self._annotator.offer((self._matches_with.rig, message))

    def _has_viewer(self) -> bool:
        """Whether another node draws."""
        return self.count_publishers(self._picture_publisher.topic_name) > 1

    def _extract_with(self, settings: MatcherSettings) -> None:
        """Take over settings that have changed since the last frame."""
        if settings is not self._extracts_with:
            if settings.image_size != self._extracts_with.image_size:
                self._pipeline.set_image_size(settings.image_size)
            self._pipeline.max_keypoints = settings.max_keypoints or self._pipeline.info.max_keypoints
            self._extracts_with = settings

    def _match_with(self, settings: MatcherSettings) -> None:
        """The same for matching."""
        if settings is not self._matches_with:
            self._pipeline.match_threshold = settings.values.match_threshold
            self._rig_matcher.set_rig(settings.rig)
            self._matches_with = settings

    def _as_kept(self, labels: Sequence[CameraImage | None]) -> list[CameraImage | None]:
        """What to keep of images with their features: whole messages only for pictures of past images."""
        is_watched = (
            self._drawer is not None
            and self._picture_publisher.get_subscription_count() > 0
            and not self._has_viewer()
        )
        return [label if label is None or is_watched else label.without_pixels() for label in labels]

    def _on_match_error(self, error: Exception) -> None:
        self._status.failed(error)
        self.get_logger().error(
            f"a frame was lost: {type(error).__name__}: {error}", throttle_duration_sec=LOG_PERIOD
        )


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; the exit status is 1 if it could not start."""
    return run_node("matcher", _started_matcher, args)


def _started_matcher(done: threading.Event) -> Matcher | None:
    node = Matcher()
    if node.get_parameter("autostart").value:
        for transition in (node.trigger_configure, node.trigger_activate):
            if not done.is_set() and transition() != TransitionCallbackReturn.SUCCESS:
                return None
    return node
