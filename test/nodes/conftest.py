"""A real matcher in a process of its own, and a robot's cameras in this one, over real middleware."""

import contextlib
import subprocess
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here")

from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from lightglue_ros.nodes import qos  # noqa: E402
from lightglue_ros.nodes.conversions import array_to_image  # noqa: E402
from lightglue_ros.nodes.listener import Listener  # noqa: E402
from lightglue_ros.nodes.processes import isolate, node_process  # noqa: E402

# Between two tries to get an image through; best effort may lose one.
REPEAT_SECONDS = 0.3
SMALL = {"image_width": 320, "image_height": 224}


class Robot(Listener):
    """Cameras that publish what a test gives them, and ears for what the matcher says."""

    def __init__(self, cameras, process, namespace=""):
        super().__init__(process, namespace=namespace)
        self.process = process
        profile = qos.image_qos("sensor_data")
        self.cameras = {
            camera: self.create_publisher(Image, f"{camera}/image_rect", profile) for camera in cameras
        }

    def wait_until_connected(self):
        self.wait_until(
            lambda: (
                all(camera.get_subscription_count() for camera in self.cameras.values())
                and self.count_publishers("matches") > 0
            ),
            "the matcher's subscriptions",
        )

    def show(self, images):
        """Publish one image (or image message) of each named camera, all with the present stamp."""
        self.last_stamp = self.get_clock().now().to_msg()
        self.show_with_last_stamp(images)

    def show_with_last_stamp(self, images):
        """Publish more images of the same moment."""
        for camera, image in images.items():
            if isinstance(image, np.ndarray):
                image = array_to_image(image, Header(frame_id=f"{camera}_optical"))
            image.header.stamp = self.last_stamp
            self.cameras[camera].publish(image)

    def show_until(self, images, condition, what, deadline=30.0):
        """Publish again and again until the condition holds for a message on matches; return that."""
        self.clear()
        shown = 0.0

        def is_there():
            nonlocal shown
            if time.monotonic() - shown > REPEAT_SECONDS:
                self.show(images)
                shown = time.monotonic()
            return any(map(condition, self.messages))

        self.wait_until(is_there, what, deadline)
        return next(message for message in self.messages if condition(message))

    def match(self, images):
        """Publish images until matches of them arrive."""
        return self.show_until(images, lambda message: True, "matches")


@pytest.fixture(scope="session")
def ros():
    isolate()
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def make_robot(ros):
    """Makes the cameras and ears of a robot beside a process that runs the matcher."""
    robots = []

    def make(names, process, namespace=""):
        robots.append(Robot(names, process, namespace))
        return robots[-1]

    yield make
    for robot in robots:
        robot.destroy_node()


@pytest.fixture
def robot(make_robot, model_folder):
    """Starts a matcher with the given parameters and the cameras of a robot beside it."""
    with contextlib.ExitStack() as stack:

        def start(names=("left", "right"), environment=None, connected=True, **parameters):
            options = {"stderr": subprocess.PIPE, "text": True, "env": environment}
            process = stack.enter_context(node_process("matcher", {**SMALL, **parameters}, **options))
            robot = make_robot(names, process)
            if connected:
                robot.wait_until_connected()
            return robot

        yield start


@pytest.fixture
def failing_matcher(ros):
    """Starts a matcher that cannot start; returns its exit status and what it printed."""

    def start(**parameters):
        with node_process("matcher", parameters, stderr=subprocess.PIPE, text=True) as process:
            _, said = process.communicate(timeout=30.0)
        return process.returncode, said

    return start
