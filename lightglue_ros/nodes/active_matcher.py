"""The matcher at work, from activate to deactivate.

Threads, so that nothing queues and no callback waits:

- The executor's thread takes messages, checks their headers and sorts them into frames. It never decodes and
  never waits for inference, so that the middleware's buffers do not overflow.
- The inference thread matches the newest frame and publishes. Frames that were overtaken meanwhile are
  dropped and counted. So a result is published at most one inference and one camera period after its images
  were taken; later only where frames that came at once wait in turn (see `_overtakes`).
- With the parameter `overlap` the inference thread extracts, and a third thread matches and publishes, so
  that two frames are in work. Results come more often, and each a little later.
- The inference thread lives from configure to cleanup, longer than this object, because the model is loaded
  and warmed up in the thread that runs it: CUDA graphs are kept per thread. Changed settings that need other
  shapes on a GPU are prepared between two frames.

The threads share the inference thread's mailbox, the status, the newest CameraInfo of each camera
and the settings. The executor replaces the settings as a whole, and a frame is matched with one of them.
Pictures and annotations are made by threads of their own (see `lazy_publisher`).

While nobody subscribes to a result, the executor's thread goes on assembling frames, so that the cameras are
watched, but keeps them from the inference thread (parameter `lazy`). The first frame after such a pause
begins a new epoch: pairs through time do not match it with an image from before the pause.

An image that cannot be used is dropped, counted by its cause and named in the log, and the node lives on.
Most such images are recognised by the executor's thread. If only decoding can tell, as with a broken JPEG,
the frame goes on without that camera.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.refinement import Refiner
from lightglue_ros.errors import RejectedImageError
from lightglue_ros.msg import Features as FeaturesMsg
from lightglue_ros.msg import Tracks
from lightglue_ros.nodes.annotations import Annotator
from lightglue_ros.nodes.conversions import result_to_message, tracks_to_message
from lightglue_ros.nodes.drawing import TOPIC as PICTURES_TOPIC
from lightglue_ros.nodes.drawing import Drawer
from lightglue_ros.nodes.features import check_features, features_to_message
from lightglue_ros.nodes.image_formats import ImageFormats
from lightglue_ros.nodes.latest_only_thread import LatestOnlyThread
from lightglue_ros.nodes.losses import Losses
from lightglue_ros.nodes.masks import MaskSubscriptions
from lightglue_ros.nodes.points import PointPublisher
from lightglue_ros.nodes.publishers import MatcherPublishers
from lightglue_ros.nodes.status import MatcherStatus
from lightglue_ros.nodes.subscriptions import CameraInfoSubscriptions, InputSubscriptions
from lightglue_ros.nodes.watch import ClockWatch, InputWatch, LoadWatch, MissingWatch
from lightglue_ros.rig.calibration_watch import CalibrationWatch
from lightglue_ros.rig.extracted_references import ExtractedReferences
from lightglue_ros.rig.frame import FrameResult, RigFrame
from lightglue_ros.rig.frame_assembler import FrameAssembler
from lightglue_ros.rig.missing import why_missing
from lightglue_ros.rig.processor import ExtractedFrame, FrameProcessor
from lightglue_ros.rig.tracks import FrameKeypoints, Tracker
from lightglue_ros.rosdata.camera_info import RigCalibration
from lightglue_ros.rosdata.decoding import CameraImage, check_message
from lightglue_ros.rosdata.messages import stamp_in_ns
from lightglue_ros.rosdata.parameters import MatcherParameters

# A frame whose images are extracted; whether it will be drawn; and the seconds that it took so far.
_HalfDone = tuple[ExtractedFrame[CameraImage], bool, float]


class ActiveMatcher:
    """Subscribes, assembles frames, matches them and publishes; see the head of this module.

    Args:
        inference: executor of the inference thread, in which the pipeline was made.
        tracker: may have given ids before, which are not given again.
        references: extracted by the pipeline.
    """

    def __init__(
        self,
        node: LifecycleNode,
        inference: Executor,
        pipeline: MatchPipeline,
        settings: MatcherParameters,
        publishers: MatcherPublishers,
        tracker: Tracker,
        references: ExtractedReferences,
    ) -> None:
        self._node = node
        self._pipeline = pipeline
        self._settings = settings
        self._publishers = publishers
        self._tracker = tracker
        tracker.forget()
        self._unverified = ""
        self._unheard = ""
        self._is_paused, self._pauses = False, 0
        self._formats = ImageFormats(
            node, pipeline, settings.cameras, lambda: self._processor.rotations.rotations
        )
        self._interrupt: Callable[[], None] = lambda: None
        image_topics = [node.resolve_topic_name(topic) for topic in settings.image_topics]
        calibration = RigCalibration(settings.cameras, image_topics, settings.camera_info_topics)
        self._calibration, self._calibration_watch = calibration, CalibrationWatch()
        self._assembler = FrameAssembler[CameraImage](
            settings.frame.rig, settings.sync_slop, settings.camera_timeout
        )
        self._drawer = self._annotator = self._points = None
        with ExitStack() as closing:
            self._masks = MaskSubscriptions(node, settings)
            closing.callback(self._masks.destroy)
            self._processor = FrameProcessor[CameraImage](
                pipeline, settings.frame, calibration, references, self._masks.masks
            )
            if publishers.pictures is not None:
                self._drawer = Drawer(node, publishers.pictures, settings)
                closing.callback(self._drawer.stop)
            if publishers.annotations:
                self._annotator = Annotator(node, publishers.annotations, settings.drawing_rate)
                closing.callback(self._annotator.stop)
            if publishers.points is not None:
                self._points = PointPublisher(node, publishers.points, calibration, pipeline)
                closing.callback(self._points.stop)
            self._applied = settings.frame
            self._inference = LatestOnlyThread[RigFrame[CameraImage]](
                self._extract,
                lambda error: self._losses.take_frame(error),
                overtakes=self._overtakes,
                then=self._match,
                # On a GPU the pipeline belongs to one thread.
                overlaps=settings.overlap and pipeline.provider == "cpu",
                before=self._apply,
                executor=inference,
            )
            closing.callback(lambda: self._inference.stop(self._interrupt))
            self._camera_infos = CameraInfoSubscriptions(node, calibration, settings.needs_camera_info)
            closing.callback(self._camera_infos.destroy)
            self._inputs = InputSubscriptions(node, settings, self._take)
            closing.callback(self._inputs.destroy)
            self._closing = closing.pop_all()
        self._input_watch = InputWatch(node, self._inputs.topics)
        self._clock_watch, self._load_watch = ClockWatch(node), LoadWatch(node)
        self._missing_watch = MissingWatch(node)
        self._status = MatcherStatus(settings, self._input_watch)
        self._losses = Losses(node, self._status, settings.cameras)
        work = f"matching {', '.join(settings.pairs)}" if settings.publish_matches else "extracting features"
        topics = ", ".join(self._inputs.topics)
        if settings.takes_features and Refiner(settings.refine, pipeline.info.extractor).is_on:
            work += " without refinement, which needs images"
        node.get_logger().info(f"{work}; waiting for {settings.input} on {topics}")
        self._inference.wake()  # settings may have changed since configure

    def close(self, *, cancel: bool = False) -> None:
        """Unsubscribe, finish the frame in work and end the threads that were begun here.

        `cancel` ends the frame in work at once; the pipeline cannot be used again.
        """
        if cancel:
            self._interrupt = self._pipeline.cancel
        self._closing.close()

    def change(self, settings: MatcherParameters) -> None:
        """Match the following frames with other settings, which the pipeline was asked for before."""
        self._settings = settings
        self._assembler.rig = settings.frame.rig
        self._assembler.fixed_slop = settings.sync_slop
        self._assembler.timeout = settings.camera_timeout
        self._inference.wake()
        self._camera_infos.follow(settings.needs_camera_info)
        if not settings.watches_calibration:
            self._calibration_watch = CalibrationWatch()
        if self._drawer is not None:
            self._drawer.style = settings.style
        for lazy in (self._drawer, self._annotator):
            if lazy is not None:
                lazy.rate = settings.drawing_rate

    def report(self, about: dict[str, str]) -> DiagnosticStatus:
        """Make the status for `/diagnostics` and log what is new; called once per second.

        Args:
            about: values about the model, which go first.
        """
        self._formats.log_first_frame(self._status, self._input_watch)
        about = {
            **about,
            **self._formats.canvases(),
            "verification": self._settings.frame.geometry,
            "sync slop (ms)": f"{1e3 * self._assembler.slop:.1f}",
            "spread of stamps in frames (ms)": f"{1e3 * self._assembler.spread:.1f}",
            "images extracted": str(self._processor.extracted),
            "pictures drawn": str(self._drawer.drawn if self._drawer is not None else 0),
        }
        self._inputs.look()
        self._camera_infos.look()
        problems = {
            "incompatible publishers": self._inputs.incompatible,
            "images lost": self._inputs.lost,
            "clock": self._clock_watch.look(),
            "masks": self._masks.look(),
            "calibration": self._calibration_watch.problem(self._settings.calibration_limit),
        }
        if self._pipeline.fallback_warning:
            problems["provider fallback"] = self._pipeline.fallback_warning
        dropped = self._inference.dropped
        self._input_watch.log_silence()
        how = f"a frame takes {self._status.milliseconds()[-1, :2].sum():.0f} ms on {self._pipeline.provider}"
        frames, unwanted = self._assembler.counts.frames, self._status.unwanted
        self._load_watch.log_overload(frames, unwanted, self._status.matched, dropped, how)
        causes = self._causes()
        self._missing_watch.log({self._settings.cameras[camera]: cause for camera, cause in causes.items()})
        self._log_pause()
        return self._status.report(
            about,
            self._assembler,
            dropped,
            causes,
            problems,
            self._unverified,
            self._unheard,
            self._calibration_watch.errors,
        )

    # The executor's thread.

    def _take(self, camera: int, message: Image | CompressedImage | FeaturesMsg) -> None:
        """Check a message, sort it into a frame and hand a complete frame to the inference thread."""
        self._status.count_image(camera)
        self._input_watch.take(camera)
        try:
            if isinstance(message, FeaturesMsg):
                image = check_features(message, self._pipeline.info, self._pipeline.max_keypoints)
            else:
                image = check_message(message, self._settings.max_image_pixels)
        except RejectedImageError as error:
            self._losses.take_image(camera, error)
            return
        self._formats.take(camera, image, message)
        # A stamp of zero: the driver does not set stamps.
        stamp = stamp_in_ns(image.header) or self._node.get_clock().now().nanoseconds
        for frame in self._assembler.add(camera, stamp, image, time.monotonic_ns()):
            self._hand_over(frame)

    def _hand_over(self, frame: RigFrame[CameraImage]) -> None:
        """Give a frame to the inference thread, if somebody wants its results."""
        if self._settings.lazy and self._publishers.unheard:
            self._status.count_unwanted()
            self._is_paused = True
            return
        self._pauses += self._is_paused
        self._is_paused = False
        self._inference.submit(replace(frame, epochs=tuple(it + self._pauses for it in frame.epochs)))

    def _log_pause(self) -> None:
        """Log that the results are not wanted any more, or wanted again."""
        before, self._unheard = self._unheard, self._publishers.unheard if self._settings.lazy else ""
        if self._unheard and not before:
            text = f"idle: nobody subscribes to {self._unheard}; lazy: false works without subscribers"
            self._node.get_logger().info(text)
        elif before and not self._unheard:
            self._node.get_logger().info("no longer idle: the results are wanted")

    def _causes(self) -> dict[int, str]:
        """Return the missing cameras, and why they are missing."""
        assembler = self._assembler
        return why_missing(
            self._settings.cameras,
            assembler.missing(),
            assembler.out_of_sync(),
            assembler.slop,
            self._input_watch.shortest_period,
            self._status.unusable(assembler.timeout),
        )

    def _overtakes(self, new: RigFrame[CameraImage], waiting: RigFrame[CameraImage]) -> bool:
        """Return True if a new frame takes the place of one that waits: it is of the same cameras.

        A middleware that sends lost images again hands over a few frames at once. They wait in turn if the
        last 20 frames took less than 0.9 of the cameras' period (median): the node then catches up.
        """
        seconds = 1e-3 * float(np.median(self._status.milliseconds(20)[:, :2].sum(axis=1)))
        catches_up = 0.0 < seconds < 0.9 * self._input_watch.shortest_period
        return bool(new.present & waiting.present) and not catches_up

    # The inference thread.

    def _apply(self) -> None:
        """Take over settings; no frame may be between extraction and matching if they have changed."""
        settings = self._settings.frame
        if settings is not self._applied:
            self._inference.finish()
        self._processor.apply(settings)
        self._applied = settings

    def _extract(self, frame: RigFrame[CameraImage]) -> _HalfDone:
        """Extract the images of a frame."""
        start = time.perf_counter()
        # Asked once: a subscriber that appears during inference must not get a picture without pixels.
        draws = self._draws()
        extracted = self._processor.extract(frame, self._applied, keep_pixels=draws)
        return extracted, draws, time.perf_counter() - start

    # The inference thread, or a thread of its own if extraction and matching overlap.

    def _match(self, half_done: _HalfDone) -> None:
        """Match a frame and publish the results."""
        extracted, draws, elapsed = half_done
        start, frame = time.perf_counter() - elapsed, extracted.frame
        result = self._processor.match(extracted)
        for camera, error in result.rejected:
            self._losses.take_image(camera, error)
        if result.first_image is None:
            return
        self._unverified = result.unverified
        # First, because ids follow the history, which has this frame even if a publisher fails.
        tracks = self._publish_tracks(frame, result)
        if self._drawer is not None:
            self._drawer.remember(tracks, result, is_watched=draws)
        self._log_rotations()
        self._publish_features(result)
        self._publish_matches(result, draws)
        taken = min(stamp for stamp in frame.stamps if stamp is not None)
        if self._settings.watches_calibration:
            canvas = self._pipeline.image_size
            self._calibration_watch.update(result, taken, self._calibration, canvas)
        age = (self._node.get_clock().now().nanoseconds - taken) * 1e-9
        outside = time.perf_counter() - start - result.inference
        self._status.count_match(result, frame.between, outside, age)

    def _log_rotations(self) -> None:
        """Log the rotations that were found by matching."""
        found = self._processor.rotations.found
        for camera in list(found):  # the inference thread may find another one meanwhile
            name, rotation = self._settings.cameras[camera], found.pop(camera)
            self._node.get_logger().info(
                f"camera {name}: its images are turned by {rotation} degrees clockwise, found by matching"
            )

    def _publish_features(self, result: FrameResult[CameraImage]) -> None:
        info, precision = self._pipeline.info, self._settings.features_precision
        for camera, publisher in enumerate(self._publishers.features):
            image, features = result.images[camera], result.features[camera]
            if image is not None and features is not None and publisher.get_subscription_count() > 0:
                name = self._settings.cameras[camera]
                publisher.publish(features_to_message(features, image.header, name, info, precision))

    def _publish_matches(self, result: FrameResult[CameraImage], draws: bool) -> None:
        if self._publishers.matches is None:
            return
        message = result_to_message(result, self._pipeline.info.model)
        self._publishers.matches.publish(message)
        if draws and self._drawer.is_due():
            self._drawer.draw(message, [(pair.image0, pair.image1) for pair in result.pairs])
        if self._annotator is not None and self._annotator.is_due():
            self._annotator.submit((result.settings.rig, message))
        if self._points is not None and self._points.is_due():
            # Without features, which would have to come down from a GPU while somebody holds them.
            self._points.submit(replace(result, features=[]))

    def _publish_tracks(
        self, frame: RigFrame[CameraImage], result: FrameResult[CameraImage]
    ) -> Tracks | None:
        if self._publishers.tracks is None:
            return None
        keypoints = FrameKeypoints.of_result(frame, result, self._calibration)
        message = tracks_to_message(result, self._tracker.update(keypoints))
        self._publishers.tracks.publish(message)
        return message

    def _draws(self) -> bool:
        """Return True if pictures, and so the pixels of past images, are wanted from this node."""
        if self._drawer is None or not self._drawer.has_subscribers():
            return False
        drawing, hearing = (
            {(it.node_namespace, it.node_name) for it in nodes}
            # rclpy remaps the names that it is given.
            for nodes in (
                self._node.get_publishers_info_by_topic(PICTURES_TOPIC),
                self._node.get_subscriptions_info_by_topic("matches"),
            )
        )
        # A node that draws and hears our matches is a viewer, which draws in place of this one.
        return drawing.isdisjoint(hearing)
