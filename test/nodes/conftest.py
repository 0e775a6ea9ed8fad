"""A real matcher in a process of its own, and a robot's cameras in this one, over real middleware."""

import contextlib
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here")

from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rcl_interfaces.msg import Log  # noqa: E402
from rcl_interfaces.srv import (  # noqa: E402
    DescribeParameters,
    GetParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from rclpy.time import Time  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from lightglue_ros.nodes import drawing, qos  # noqa: E402
from lightglue_ros.nodes.conversions import array_to_image  # noqa: E402
from lightglue_ros.nodes.listener import Listener  # noqa: E402
from lightglue_ros.nodes.processes import isolate, node_process  # noqa: E402
from lightglue_ros.rosdata.messages import stamp_in_ns  # noqa: E402

# Between two tries to get an image through; best effort may lose one.
REPEAT_SECONDS = 0.3
STEREO = ("left", "right")
SMALL = {"image_width": 320, "image_height": 224}
SERVICES = {
    ChangeState: "change_state",
    DescribeParameters: "describe_parameters",
    GetParameters: "get_parameters",
    SetParameters: "set_parameters",
    SetParametersAtomically: "set_parameters_atomically",
    GetState: "get_state",
}
# Of a process whose log a test reads.
SAYS = {"stderr": subprocess.PIPE, "text": True}


class Robot(Listener):
    """Cameras that publish what a test gives them, and ears for what the matcher says."""

    def __init__(self, cameras, process, namespace=""):
        super().__init__(process, namespace=namespace)
        self.process = process
        self.cameras = {}
        self.add_cameras({camera: f"{camera}/image_rect" for camera in cameras})
        self._is_answered = False
        self.callers = {kind: self.create_client(kind, f"/matcher/{name}") for kind, name in SERVICES.items()}

    def add_cameras(self, topics, kind=Image, reliability="sensor_data"):
        """Publish the images of each camera on its topic from now on, and on no other."""
        for publisher in self.cameras.values():
            self.destroy_publisher(publisher)
        profile = qos.image_qos(reliability)
        self.cameras = {
            camera: self.create_publisher(kind, topic, profile) for camera, topic in topics.items()
        }

    def hear(self, kind, topic, profile):
        """Subscribe to a topic; returns the list that its messages come to."""
        heard = []
        self.subscription = self.create_subscription(kind, topic, heard.append, profile)
        return heard

    def look(self):
        """Subscribe to the pictures; returns the list that they come to."""
        return self.hear(Image, drawing.TOPIC, qos.picture_qos())

    def match_until_a_viewer_draws(self, images):
        """Match until the matcher knows of the viewer and draws no more; return what it has drawn."""
        before, drawn = None, ""
        while drawn != before:
            self.match(images)
            before, drawn = drawn, self.wait_for_diagnostics()["pictures drawn"]
        return drawn

    def hear_log(self):
        """Listen to the log of all nodes, also to what they said before; see `wait_for_log`."""
        latched = DurabilityPolicy.TRANSIENT_LOCAL
        self.log = self.hear(Log, "/rosout", QoSProfile(depth=1000, durability=latched))

    def wait_for_log(self, pattern):
        """Wait until a line of the log matches a pattern; returns the match."""
        found = lambda: [it for it in (re.search(pattern, line.msg) for line in self.log) if it]  # noqa: E731
        self.wait_until(found, f"line '{pattern}' in the log")
        return found()[-1]

    def memory(self, entry="VmRSS"):
        """Resident memory of the process, or another entry of its status, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{entry}:")[1].split()[0]) / 1024

    def end(self, number=signal.SIGINT):
        """End the process by a signal, without an error; returns what it said."""
        self.process.send_signal(number)
        said = self.process.communicate(timeout=20.0)[1]
        assert self.process.returncode == 0
        assert "Traceback" not in said
        return said

    def wait_until_connected(self):
        """Wait until the matcher hears all cameras and we hear the matcher."""
        self.wait_until(
            lambda: all(self.hearers()) and self.count_publishers("matches") > 0,
            "the matcher's subscriptions",
        )

    def requested(self, topic, node="matcher"):
        """Names of the reliabilities that a node requests of the publishers of a topic."""
        infos = self.get_subscriptions_info_by_topic(topic)
        return [info.qos_profile.reliability.name for info in infos if info.node_name == node]

    def hearers(self):
        """Number of subscriptions to each camera."""
        return [camera.get_subscription_count() for camera in self.cameras.values()]

    def show(self, images):
        """Publish one image (or image message) of each named camera, all with the present stamp."""
        self.last_stamp = self.get_clock().now().to_msg()
        self.show_with_last_stamp(images)

    def show_at(self, seconds, images):
        """Publish one image of each named camera, with a stamp of so many seconds."""
        self.last_stamp = Time(nanoseconds=round(seconds * 1e9)).to_msg()
        self.show_with_last_stamp(images)

    def show_with_last_stamp(self, images):
        """Publish more images of the same moment."""
        for camera, image in images.items():
            if isinstance(image, np.ndarray):
                image = array_to_image(image, Header(frame_id=f"{camera}_optical"))
            image.header.stamp = self.last_stamp
            self.cameras[camera].publish(image)

    def repeat_until(self, act, condition, what):
        """Act again and again until the condition holds."""
        acted = 0.0

        def holds():
            nonlocal acted
            if time.monotonic() - acted > REPEAT_SECONDS:
                act()
                acted = time.monotonic()
            return condition()

        self.wait_until(holds, what, deadline=60.0)

    def show_until(self, images, condition, what):
        """Publish again and again until the condition holds for a message of these images; return that."""
        self.clear()
        start = self.get_clock().now().nanoseconds

        def found():
            messages = filter(condition, self.messages)
            return [message for message in messages if stamp_in_ns(message.header) >= start]

        self.repeat_until(lambda: self.show(images), found, what)
        return found()[0]

    def match(self, images):
        """Publish images until matches of them arrive; return the message."""
        return self.show_until(images, lambda message: True, "matches")

    def match_at(self, seconds, images):
        """Publish images with a stamp of so many seconds until matches of them arrive; return the message."""
        self.clear()
        stamp = Time(nanoseconds=round(seconds * 1e9)).to_msg()
        self.repeat_until(
            lambda: self.show_at(seconds, images),
            lambda: any(message.header.stamp == stamp for message in self.messages),
            f"matches of {seconds}",
        )
        return self.messages[0]

    def call(self, service, **fields):
        """Call a service of the matcher and return its answer."""
        client = self.callers[service]
        self.wait_until(client.service_is_ready, f"the matcher's service {client.srv_name}")
        self._wait_for_an_answer()
        future = client.call_async(service.Request(**fields))
        self.wait_until(future.done, f"answer of {client.srv_name}")
        return future.result()

    def _wait_for_an_answer(self):
        """Ask for the state until an answer comes.

        A node's answer to a client that it has not discovered yet is lost. It discovers clients in the order
        in which they were made, and this is the last one.
        """
        if self._is_answered:
            return
        *_, client = self.callers.values()
        futures = []
        self.repeat_until(
            lambda: futures.append(client.call_async(GetState.Request())),
            lambda: any(future.done() for future in futures),
            f"answer of {client.srv_name}",
        )
        self._is_answered = True

    def set_parameters(self, **values):
        """Set parameters of the running matcher one after the other; returns the results."""
        return self.call(SetParameters, parameters=_messages(values)).results

    def set_parameters_atomically(self, **values):
        """Set parameters of the running matcher, all or none; returns the result."""
        return self.call(SetParametersAtomically, parameters=_messages(values)).result

    def change_state(self, transition):
        """Ask for a transition; returns whether it succeeded and the label of the state after it."""
        has_succeeded = self.call(ChangeState, transition=Transition(id=transition)).success
        return has_succeeded, self.call(GetState).current_state.label


def _messages(values):
    return [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]


@pytest.fixture(scope="session")
def ros():
    isolate()
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def images(motorcycle):
    """The image of each of the two cameras."""
    return dict(zip(STEREO, motorcycle, strict=True))


@pytest.fixture
def make_robot(ros):
    """Makes the cameras and ears of a robot beside a process that runs the matcher."""
    with contextlib.ExitStack() as stack:

        def make(names, process, namespace=""):
            robot = Robot(names, process, namespace)
            stack.callback(robot.destroy_node)
            return robot

        yield make


@contextlib.contextmanager
def running_robot(
    names=STEREO, environment=None, connected=True, params_file=None, remappings=None, **parameters
):
    """Run a matcher with the given parameters, and the cameras of a robot beside it."""
    if names != STEREO and params_file is None:
        topics = [f"{name}/image_rect" for name in names]
        parameters = {"cameras": names, "image_topics": topics, **parameters}
    options = {**SAYS, "env": environment, "remappings": remappings}
    with node_process("matcher", {**SMALL, **parameters}, params_file, **options) as process:
        robot = Robot(names, process)
        try:
            if connected:
                robot.wait_until_connected()
            yield robot
        finally:
            robot.destroy_node()


@pytest.fixture
def robot(ros, model_folder):
    """Starts a robot; see `running_robot`."""
    with contextlib.ExitStack() as stack:
        yield lambda *names, **options: stack.enter_context(running_robot(*names, **options))


@pytest.fixture(scope="module")
def stereo(ros, model_folder):
    """A robot for the tests of a module. They start no other matcher and leave the parameters as they are."""
    with running_robot() as robot:
        yield robot


@pytest.fixture
def failing(ros):
    """Runs a node that cannot start; checks its status and that it says so in one line; returns the line."""

    def run(command, environment=None, params_file=None, **parameters):
        with node_process(command, parameters, params_file, env=environment, **SAYS) as process:
            _, said = process.communicate(timeout=60.0)
        assert process.returncode == 1
        # What is said of the model is no error, and of wrong arguments rcl says something, too.
        no_error = re.compile(r"^$|loading model|loaded in|\[rcl\]")
        lines = [line for line in said.splitlines() if not no_error.search(line)]
        assert len(lines) == 1, said
        return lines[0]

    return run
