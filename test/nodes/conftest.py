"""A real matcher in a process of its own, and a robot's cameras in this one, over real middleware."""

import contextlib
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here")

from builtin_interfaces.msg import Time  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rcl_interfaces.srv import SetParameters, SetParametersAtomically  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
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

    def resident(self):
        """Resident memory of the process, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

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

    def show_at(self, seconds, images):
        """Publish one image of each named camera, with a stamp of so many seconds."""
        nanoseconds = round(seconds * 1e9)
        self.last_stamp = Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        self.show_with_last_stamp(images)

    def show_with_last_stamp(self, images):
        """Publish more images of the same moment."""
        for camera, image in images.items():
            if isinstance(image, np.ndarray):
                image = array_to_image(image, Header(frame_id=f"{camera}_optical"))
            image.header.stamp = self.last_stamp
            self.cameras[camera].publish(image)

    def repeat_until(self, act, condition, what, deadline=60.0):
        """Act again and again until the condition holds."""
        acted = 0.0

        def holds():
            nonlocal acted
            if time.monotonic() - acted > REPEAT_SECONDS:
                act()
                acted = time.monotonic()
            return condition()

        self.wait_until(holds, what, deadline)

    def show_until(self, images, condition, what, deadline=60.0):
        """Publish again and again until the condition holds for a message on matches; return that."""
        self.clear()
        self.repeat_until(
            lambda: self.show(images), lambda: any(map(condition, self.messages)), what, deadline
        )
        return next(message for message in self.messages if condition(message))

    def call(self, service_type, name, request):
        """Call a service of the matcher and return its answer."""
        client = self.create_client(service_type, f"/matcher/{name}")
        self.wait_until(client.service_is_ready, f"the matcher's service {name}")
        future = client.call_async(request)
        self.wait_until(future.done, f"the answer to {name}")
        self.destroy_client(client)
        return future.result()

    def set_parameters(self, **values):
        """Set parameters of the running matcher one after the other; returns the results."""
        return self.call(
            SetParameters, "set_parameters", SetParameters.Request(parameters=_messages(values))
        ).results

    def set_parameters_atomically(self, **values):
        """Set parameters of the running matcher, all or none; returns the result."""
        request = SetParametersAtomically.Request(parameters=_messages(values))
        return self.call(SetParametersAtomically, "set_parameters_atomically", request).result

    def change_state(self, transition):
        """Ask for a transition; returns whether it succeeded and the label of the state after it."""
        request = ChangeState.Request()
        request.transition.id = transition
        has_succeeded = self.call(ChangeState, "change_state", request).success
        return has_succeeded, self.call(GetState, "get_state", GetState.Request()).current_state.label

    def match(self, images):
        """Publish images until matches of them arrive."""
        return self.show_until(images, lambda message: True, "matches")


def _messages(values):
    return [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]


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

        def start(names=("left", "right"), environment=None, connected=True, params_file=None, **parameters):
            options = {"stderr": subprocess.PIPE, "text": True, "env": environment}
            started = node_process("matcher", {**SMALL, **parameters}, params_file, **options)
            process = stack.enter_context(started)
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
            _, said = process.communicate(timeout=60.0)
        return process.returncode, said

    return start
