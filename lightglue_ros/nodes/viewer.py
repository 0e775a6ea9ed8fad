"""The viewer node: draws `matches` on the images of the cameras and publishes them as `matches/image`.

Run it on the computer of the person who looks, or next to a matcher that takes features and has no images. A
matcher that has images draws them itself, unless a viewer runs. While somebody subscribes to the pictures,
the viewer keeps the images of each camera until matches of later images arrive, and the last tracks. From the
tracks it knows keypoints without a match, ages and trails.
"""

from __future__ import annotations

from collections import deque

from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from lightglue_ros.errors import ConfigError, RejectedImageError
from lightglue_ros.msg import Matches, Tracks
from lightglue_ros.nodes import qos, ros_parameters
from lightglue_ros.nodes.drawing import TOPIC, Drawer
from lightglue_ros.nodes.lazy_publisher import LOG_PERIOD
from lightglue_ros.nodes.spin import run_node
from lightglue_ros.nodes.subscriptions import InputSubscriptions
from lightglue_ros.rig.references import Reference, StoredImage, parse_references
from lightglue_ros.rosdata.camera_parameters import CameraParameters
from lightglue_ros.rosdata.decoding import CameraImage, check_message

# Largest number of images per camera that wait for their matches: a second at 30 Hz.
HISTORY = 30
LOOK_PERIOD = 1.0  # seconds


class Viewer(Node):
    """Draws matches; see the head of this module.

    Raises:
        ConfigError: a parameter cannot be used.
    """

    def __init__(self) -> None:
        # Attributes come before super().__init__(): rclpy calls destroy_node() even if __init__ raises.
        self._drawer: Drawer | None = None
        super().__init__("viewer")
        ros_parameters.declare(self, CameraParameters, read_only=True)
        self._values = values = ros_parameters.read(self, CameraParameters)
        self._images = {camera: deque[CameraImage](maxlen=HISTORY) for camera in values.cameras}
        self._references = {reference.name: reference for reference in self._find_references()}
        self._oldest = (0, 0)
        overrides = {"qos_overriding_options": qos.overridable()}
        pictures = self.create_publisher(Image, TOPIC, qos.picture_qos(), **overrides)
        self._drawer = Drawer(self, pictures, values)
        inputs = InputSubscriptions(self, values, self._on_image)
        # The steady clock goes on when simulated time stands still.
        self.create_timer(LOOK_PERIOD, inputs.look, clock=Clock(clock_type=ClockType.STEADY_TIME))
        # Before the matches: an executor that finds both takes the tracks of their frame first.
        self.create_subscription(Tracks, "tracks", self._on_tracks, qos.result_qos(), **overrides)
        self.create_subscription(Matches, "matches", self._on_matches, qos.result_qos(), **overrides)

    def destroy_node(self) -> None:
        """End the drawing thread before the node goes."""
        if self._drawer is not None:
            self._drawer.stop()
            self._drawer = None
        super().destroy_node()

    def _find_references(self) -> tuple[Reference, ...]:
        """Find the files of the references; the matcher may have them on another computer."""
        try:
            return parse_references(self._values.references, self._values.cameras)
        except ConfigError as error:
            self.get_logger().warning(f"pictures of references are black here: {error}")
            return ()

    def _on_image(self, camera: int, message: Image | CompressedImage) -> None:
        # Images older than those of the last matches are forgotten, without subscribers all of them.
        is_watched = self._drawer.has_subscribers()
        name = self._values.cameras[camera]
        for images in self._images.values():
            while images and (not is_watched or _order(images[0].header.stamp) < self._oldest):
                images.popleft()
        try:
            self._images[name].append(check_message(message, self._values.max_image_pixels))
        except RejectedImageError as error:
            self.get_logger().warning(f"camera {name}: {error}", throttle_duration_sec=LOG_PERIOD)

    def _on_tracks(self, message: Tracks) -> None:
        self._drawer.remember(message, None, is_watched=self._drawer.has_subscribers())

    def _on_matches(self, message: Matches) -> None:
        sides = [(pair.camera0, pair.stamp0, pair.width0) for pair in message.pairs]
        sides += [(pair.camera1, pair.stamp1, pair.width1) for pair in message.pairs]
        # Stamp of the oldest image in the message; a missing image has no width, a reference no stamp.
        stamps = [_order(stamp) for camera, stamp, width in sides if width and camera in self._images]
        self._oldest = min(stamps, default=(0, 0))
        if self._drawer.is_due():
            find = self._find
            images = [
                (find(p.camera0, p.stamp0, p.frame_id0), find(p.camera1, p.stamp1, p.frame_id1))
                for p in message.pairs
            ]
            self._drawer.draw(message, images)

    def _find(self, camera: str, stamp: Time, frame_id: str) -> CameraImage | StoredImage | None:
        if camera in self._references:
            return self._references[camera].find(frame_id)
        images = self._images.get(camera, deque())
        return next((image for image in reversed(images) if image.header.stamp == stamp), None)


def _order(stamp: Time) -> tuple[int, int]:
    return stamp.sec, stamp.nanosec


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; the exit status is 1 if it could not start."""
    return run_node("viewer", lambda _done: Viewer(), args)
