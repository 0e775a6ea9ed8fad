"""A matcher whose results nobody subscribes to: it rests, watches its cameras and wakes up at once."""

from diagnostic_msgs.msg import DiagnosticStatus

from lightglue_ros.msg import Matches, PairMatches
from lightglue_ros.nodes import qos

IDLE = "idle: nobody subscribes to /matches, /matches/image"


def stop_listening(robot):
    robot.destroy_subscription(next(it for it in robot.subscriptions if it.topic_name == "/matches"))


def show_until_status(robot, images, condition, what):
    robot.repeat_until(
        lambda: robot.show(images), lambda: robot.status is not None and condition(robot.status), what
    )


def frames_pass(robot, images, value, more=3):
    """Publish images until a count of the diagnostics has grown; return the diagnostics."""
    before = int(robot.wait_for_diagnostics()[value])
    show_until_status(robot, images, lambda _: int(robot.diagnostics[value]) >= before + more, value)
    return robot.diagnostics


def test_without_a_subscriber_nothing_is_extracted_and_the_cameras_are_still_watched(robot, images):
    stereo = robot(camera_timeout=0.5)
    stereo.hear_log()
    stereo.match(images)
    stop_listening(stereo)
    show_until_status(stereo, images, lambda status: status.message == IDLE, IDLE)
    assert stereo.status.level == DiagnosticStatus.OK
    stereo.wait_for_log(f"^{IDLE}; lazy: false works without subscribers$")
    before = frames_pass(stereo, images, "frames without subscriber")
    after = frames_pass(stereo, images, "frames without subscriber")
    assert after["images extracted"] == before["images extracted"]
    assert after["frames matched"] == before["frames matched"]

    missing = lambda status: "missing: right (no image comes on /right/image_rect" in status.message  # noqa: E731
    show_until_status(stereo, {"left": images["left"]}, missing, "the missing camera")
    assert stereo.status.level == DiagnosticStatus.WARN
    silent = "no image comes on /left/image_rect"
    stereo.wait_until(lambda: silent in stereo.status.message, "the silent cameras")

    assert stereo.set_parameters(lazy=False)[0].successful
    frames_pass(stereo, images, "frames matched")


def test_the_first_result_comes_at_once_and_is_not_matched_with_an_image_from_before_the_pause(robot, images):
    stereo = robot(pairs=["left:right", "left@-1:left"], connected=False)
    stereo.add_cameras({camera: f"{camera}/image_rect" for camera in images}, reliability="reliable")
    stereo.show_until(images, lambda m: m.pairs[1].status == PairMatches.STATUS_OK, "a pair through time")
    stop_listening(stereo)
    show_until_status(stereo, images, lambda status: status.message == IDLE, IDLE)
    frames_pass(stereo, images, "frames without subscriber")

    heard = stereo.hear(Matches, "matches", qos.result_qos())
    stereo.wait_until(lambda: stereo.status.message != IDLE, "a matcher that knows of us")
    stereo.show(images)
    stereo.wait_until(lambda: any(it.header.stamp == stereo.last_stamp for it in heard), "matches at once")
    statuses = [pair.status for pair in heard[0].pairs]
    assert statuses == [PairMatches.STATUS_OK, PairMatches.STATUS_MISSING]
    stereo.repeat_until(
        lambda: stereo.show(images),
        lambda: heard[-1].pairs[1].status == PairMatches.STATUS_OK,
        "a pair through time again",
    )
