"""The thread that loads the model and runs it. CUDA graphs are kept per thread."""

import threading
import time

from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.core.session import GraphSession
from lightglue_ros.nodes import qos
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.nodes.matcher import Matcher

DEADLINE = 60.0


def test_the_model_is_loaded_warmed_up_and_run_in_one_thread_also_after_a_second_activation(
    ros, model_folder, images, monkeypatch
):
    calls = []
    make, run = GraphSession.__init__, GraphSession.run

    def made(session, *arguments, **options):
        calls.append(("make", threading.current_thread().name))
        make(session, *arguments, **options)

    def ran(session, tensors):
        calls.append(("run", threading.current_thread().name))
        return run(session, tensors)

    monkeypatch.setattr(GraphSession, "__init__", made)
    monkeypatch.setattr(GraphSession, "run", ran)
    matcher = Matcher()
    executor = SingleThreadedExecutor()
    executor.add_node(matcher)
    publishers = {
        camera: matcher.create_publisher(Image, f"{camera}/image_rect", qos.image_qos("reliable"))
        for camera in images
    }

    def show_until(condition):
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end
            stamp = matcher.get_clock().now().to_msg()
            for camera, image in images.items():
                header = Header(stamp=stamp, frame_id=camera)
                publishers[camera].publish(array_to_image(image, header))
            executor.spin_once(0.1)

    try:
        parameters = {"image_width": 160, "image_height": 128, "lazy": False}
        matcher.set_parameters([Parameter(name, value=value) for name, value in parameters.items()])
        assert matcher.trigger_configure() == TransitionCallbackReturn.SUCCESS
        of_configure = len(calls)
        for _ in range(2):
            before = len(calls)
            assert matcher.trigger_activate() == TransitionCallbackReturn.SUCCESS
            show_until(lambda before=before: len(calls) >= before + 4)
            assert matcher.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert matcher.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    finally:
        executor.shutdown()
        matcher.destroy_node()
    assert [what for what, _ in calls[:of_configure]] == ["make", "make", "run", "run"]
    assert {name for _, name in calls} == {"inference_0"}
    assert "inference_0" not in [thread.name for thread in threading.enumerate()]
