"""The states of the running matcher, and how it ends in each of them."""

import os
import re
import shutil
import signal
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from lightglue_ros.msg import PairMatches
from lightglue_ros.nodes.processes import node_process

DEADLINE = 60  # seconds


def wait_for_line(process, text, ask=lambda: None):
    """Read what the process says until a line has the text. A request may be lost: `ask` repeats it."""
    is_said = threading.Event()

    def ask_until_it_is_said():
        for _ in range(DEADLINE):
            ask()
            if is_said.wait(1.0):
                return
        process.kill()  # ends the reading

    asking = threading.Thread(target=ask_until_it_is_said)
    asking.start()
    try:
        assert any(text in line for line in process.stderr), f"no '{text}'"
    finally:
        is_said.set()
        asking.join()


def seconds_of_processor(process):
    """Time that a process has spent (proc(5): utime and stime, in ticks)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def segments(process):
    """Segments of Fast DDS in /dev/shm that the process has mapped. Ports are shared."""
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    return set(re.findall(r"/dev/shm/(fast(?:dds|rtps)_[0-9a-f]{16})\s", maps))


def threads(process):
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


@pytest.fixture
def managed(robot):
    """Starts a matcher that leaves its transitions to the test."""
    return lambda **parameters: robot(connected=False, autostart=False, **parameters)


def assert_ends_without_error(stereo, number=signal.SIGINT):
    assert "ERROR" not in stereo.end(number)


def test_a_lifecycle_manager_may_start_stop_and_start_it_again(managed, images):
    stereo = managed()
    for _ in range(2):
        assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (True, "inactive")
        for _ in range(2):
            assert stereo.change_state(Transition.TRANSITION_ACTIVATE) == (True, "active")
            stereo.wait_until_connected()
            assert len(stereo.match(images).pairs[0].scores) > 100
            assert stereo.change_state(Transition.TRANSITION_DEACTIVATE) == (True, "inactive")
            stereo.wait_until(lambda: not any(stereo.hearers()), "the end of the subscriptions")
        assert stereo.change_state(Transition.TRANSITION_CLEANUP) == (True, "unconfigured")
    assert_ends_without_error(stereo)


def test_unconfigured_it_takes_any_parameter_and_a_configure_that_failed_can_be_tried_again(
    managed, model_folder, images, tmp_path
):
    late = tmp_path / "late"
    stereo = managed(model=str(late))
    results = stereo.set_parameters(cameras=["front", "rear"], pairs=["rear:front"], provider="gpu")
    assert [result.successful for result in results] == [True, True, False]
    assert "auto, cpu, cuda" in results[2].reason
    assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (False, "unconfigured")
    shutil.copytree(model_folder, late)
    assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (True, "inactive")
    assert stereo.change_state(Transition.TRANSITION_ACTIVATE) == (True, "active")
    stereo.wait_until_connected()
    (pair,) = stereo.match(images).pairs
    assert (pair.camera0, pair.camera1, pair.status) == ("rear", "front", PairMatches.STATUS_OK)


def test_image_qos_that_was_changed_while_unconfigured_is_that_of_the_next_subscriptions(managed):
    stereo = managed(image_qos="sensor_data")
    for reliability, following in (("BEST_EFFORT", "reliable"), ("RELIABLE", "auto")):
        assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (True, "inactive")
        assert stereo.change_state(Transition.TRANSITION_ACTIVATE) == (True, "active")
        stereo.wait_until(
            lambda expected=reliability: stereo.requested("left/image_rect") == [expected], reliability
        )
        assert stereo.change_state(Transition.TRANSITION_DEACTIVATE) == (True, "inactive")
        assert stereo.change_state(Transition.TRANSITION_CLEANUP) == (True, "unconfigured")
        assert stereo.set_parameters(image_qos=following)[0].successful
        stereo.wait_until(lambda: not stereo.requested("left/image_rect"), "the end of the subscriptions")


def test_cleanup_frees_the_sessions_and_a_signal_ends_it_inactive(managed, images):
    """Each of the two sessions has 8 threads of its own, because the thread that calls it works, too."""
    stereo = managed(num_threads=9)
    for _ in range(2):
        assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (True, "inactive")
        assert stereo.change_state(Transition.TRANSITION_ACTIVATE) == (True, "active")
        stereo.wait_until_connected()
        assert len(stereo.match(images).pairs[0].scores) > 100
        assert stereo.change_state(Transition.TRANSITION_DEACTIVATE) == (True, "inactive")
        stereo.wait_until(lambda: not any(stereo.hearers()), "the end of the subscriptions")
        loaded = threads(stereo.process)
        assert stereo.change_state(Transition.TRANSITION_CLEANUP) == (True, "unconfigured")
        # Fewer by more than one session has; the middleware may have started some meanwhile.
        stereo.wait_until(
            lambda loaded=loaded: threads(stereo.process) < loaded - 8, "the end of the sessions' threads"
        )
    assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (True, "inactive")
    assert_ends_without_error(stereo, signal.SIGTERM)


def test_an_unforeseen_error_of_a_transition_is_logged_and_leads_to_unconfigured(managed):
    """As the design of managed nodes has it: by way of ErrorProcessing, which puts everything away."""
    stereo = managed(**{"qos_overrides./right/image_rect.subscription.history": "nonsense"})
    for _ in range(2):
        assert stereo.change_state(Transition.TRANSITION_CONFIGURE) == (True, "inactive")
        assert stereo.change_state(Transition.TRANSITION_ACTIVATE) == (False, "unconfigured")
        stereo.wait_until(
            lambda: not stereo.count_subscribers("left/image_rect"), "the end of the subscriptions"
        )
    stereo.process.send_signal(signal.SIGINT)
    assert stereo.process.wait(20.0) == 0
    assert "Unexpected QoS override" in stereo.process.stderr.read()


def test_a_signal_ends_it_during_inference(robot, images):
    """Inference on images of this size takes some tenths of a second."""
    large = {camera: cv2.resize(image, (1280, 960)) for camera, image in images.items()}
    stereo = robot(image_width=1280, image_height=960)
    stereo.match(large)
    spent = seconds_of_processor(stereo.process)
    stereo.show(large)
    stereo.wait_until(
        lambda: seconds_of_processor(stereo.process) > spent + 0.1, "inference on the next frame"
    )
    assert_ends_without_error(stereo)


@contextmanager
def ended_by(number, parameters=None, **options):
    """Run a matcher, and send it a signal at the end: it ends without an error and leaves no shared memory.

    Each segment takes 33.5 MiB of /dev/shm until somebody removes it.
    """
    # The node also maps those of others that send it something, such as the nodes of earlier tests.
    of_others = {segment.name for segment in Path("/dev/shm").iterdir()}
    with node_process("matcher", parameters or {}, stderr=subprocess.PIPE, text=True, **options) as process:
        yield process
        made = segments(process) - of_others
        # The profile takes effect: the segment of Fast DDS itself has 0.5 MiB.
        assert max((Path("/dev/shm") / name).stat().st_size for name in made) > 32 * 2**20
        process.send_signal(number)
        assert "ERROR" not in process.communicate(timeout=20.0)[1]
    assert process.returncode == 0
    assert not [left for name in made for left in Path("/dev/shm").glob(f"{name}*")]


@pytest.fixture
def loads_without_end(tmp_path, model_folder):
    """Environment of a matcher whose model loads without end, which nothing can interrupt."""
    (tmp_path / "onnxruntime.py").write_text("import threading\nthreading.Event().wait()")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])}


def test_a_signal_ends_it_active_and_no_shared_memory_stays_behind(ros, model_folder):
    with ended_by(signal.SIGTERM) as process:
        wait_for_line(process, "waiting for images")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_it_loads_a_model_and_no_shared_memory_stays_behind(
    ros, loads_without_end, number
):
    with ended_by(number, env=loads_without_end) as process:
        wait_for_line(process, "loading model")


def test_a_signal_ends_it_while_a_lifecycle_manager_waits_for_the_model(ros, loads_without_end):
    manager = rclpy.create_node("manager")
    client = manager.create_client(ChangeState, "/matcher/change_state")
    with ended_by(signal.SIGINT, {"autostart": False}, env=loads_without_end) as process:
        assert client.wait_for_service(30.0)
        configure = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        wait_for_line(process, "loading model", ask=lambda: client.call_async(configure))
    manager.destroy_node()
