"""The threads that load the model and run it. CUDA graphs are kept per thread."""

import threading
import time
from contextlib import contextmanager

from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.contract import EXTRACTOR
from lightglue_ros.core.session import GraphSession
from lightglue_ros.nodes import qos
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.nodes.matcher import Matcher
from lightglue_ros.rig.processor import FrameProcessor

DEADLINE = 60.0
SUCCESS = TransitionCallbackReturn.SUCCESS


@contextmanager
def matcher_in_this_process(images, **parameters):
    """Yield a matcher, and a function that shows it the images until a condition holds."""
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

    small = {"image_width": 160, "image_height": 128, "lazy": False}
    try:
        matcher.set_parameters([Parameter(name, value=it) for name, it in (small | parameters).items()])
        yield matcher, show_until
    finally:
        executor.shutdown()
        matcher.destroy_node()


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
    with matcher_in_this_process(images) as (matcher, show_until):
        assert matcher.trigger_configure() == SUCCESS
        of_configure = len(calls)
        for _ in range(2):
            before = len(calls)
            assert matcher.trigger_activate() == SUCCESS
            show_until(lambda before=before: len(calls) >= before + 4)
            assert matcher.trigger_deactivate() == SUCCESS
        assert matcher.trigger_cleanup() == SUCCESS
    assert [what for what, _ in calls[:of_configure]] == ["make", "make", "run", "run"]
    assert {name for _, name in calls} == {"inference_0"}
    assert "inference_0" not in [thread.name for thread in threading.enumerate()]


def test_with_overlap_a_frame_is_extracted_while_the_one_before_is_matched(
    ros, model_folder, images, monkeypatch
):
    run, set_image_size = GraphSession.run, MatchPipeline.set_image_size
    extract, match = FrameProcessor.extract, FrameProcessor.match
    extracted, overlapping, in_work, begun, matched = [], [], [], [], []
    overlaps = threading.Event()

    def ran(session, tensors):
        if not is_active:
            return run(session, tensors)
        if session.info.graph == EXTRACTOR:
            extracted.append(tensors["images"].shape[1:3])
            if len(extracted) == 2:
                overlaps.set()
            return run(session, tensors)
        overlapping.append(overlaps.wait(DEADLINE))
        return run(session, tensors)

    # A frame without a pair has no run of the matcher, so the frames are counted here.
    def begin(*arguments, **options):
        begun.append(None)
        return extract(*arguments, **options)

    def end(*arguments):
        result = match(*arguments)
        matched.append(None)
        return result

    def set_size(pipeline, size):
        in_work.append(len(begun) - len(matched))
        set_image_size(pipeline, size)

    monkeypatch.setattr(GraphSession, "run", ran)
    monkeypatch.setattr(MatchPipeline, "set_image_size", set_size)
    monkeypatch.setattr(FrameProcessor, "extract", begin)
    monkeypatch.setattr(FrameProcessor, "match", end)
    is_active = False
    with matcher_in_this_process(images, overlap=True, pairs=["left:right", "left@-1:left"]) as (
        matcher,
        show_until,
    ):
        assert matcher.trigger_configure() == SUCCESS
        assert matcher.trigger_activate() == SUCCESS
        is_active = True
        show_until(lambda: len(overlapping) >= 3)
        matcher.set_parameters([Parameter("image_width", value=192)])
        show_until(lambda: (128, 192) in extracted)
        assert matcher.trigger_deactivate() == SUCCESS
        # Deactivate waits for both halves of a frame.
        assert len(begun) == len(matched)
        assert matcher.trigger_cleanup() == SUCCESS
    assert all(overlapping)
    # No frame was between its halves when the canvas changed.
    assert in_work[-1] == 0


def test_a_node_that_goes_while_active_frees_its_model_in_the_thread_that_ran_it(
    ros, model_folder, images, monkeypatch
):
    close, closed_in = MatchPipeline.close, []

    def closes(pipeline):
        closed_in.append(threading.current_thread().name)
        close(pipeline)

    monkeypatch.setattr(MatchPipeline, "close", closes)
    with matcher_in_this_process(images) as (matcher, _):
        assert matcher.trigger_configure() == SUCCESS
        assert matcher.trigger_activate() == SUCCESS
    assert closed_in == ["inference_0"]
    assert "inference_0" not in [thread.name for thread in threading.enumerate()]
