"""Cameras whose clocks differ from each other's."""

import itertools
from functools import partial

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from lightglue_ros.msg import PairMatches

OK, MISSING = PairMatches.STATUS_OK, PairMatches.STATUS_MISSING
# Two seconds are no multiple of the period, so that no stamp of one clock is one of the other.
BEGIN, PERIOD = 1_600_000_000, 0.3
TINY = {"image_width": 64, "image_height": 64, "max_keypoints": 64}


def statuses_at(rig, seconds):
    """Statuses of the pairs in the messages of a moment."""
    found = [message for message in rig.messages if abs(_seconds(message) - seconds) < 1e-3]
    return [[pair.status for pair in message.pairs] for message in found]


def _seconds(message):
    return message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec


@pytest.mark.parametrize("ahead", [37.0, 2.0, -2.0, -37.0])
def test_a_camera_whose_clock_jumps_costs_the_others_no_instant_and_matches_its_own_images(
    robot, images, ahead
):
    rig = robot(["left", "right", "rear"], pairs=["left:right", "rear@-1:rear"], **TINY)

    def times(moment):
        seconds = BEGIN + PERIOD * moment
        return seconds, seconds + (ahead if moment >= 4 else 0.0)

    def show(moment):
        seconds, rear = times(moment)
        rig.show_at(seconds, images)
        rig.show_at(rear, {"rear": images["left"]})

    def is_matched(moment):
        return any(status == OK for status, _ in statuses_at(rig, times(moment)[0]))

    def are_both_matched(moment):
        found = [statuses_at(rig, seconds) for seconds in times(moment)]
        return found == [[[OK, MISSING]], [[MISSING, OK]]]

    for moment in range(12):
        what = f"pair of moment {moment}"
        rig.repeat_until(partial(show, moment), partial(is_matched, moment), f"stereo {what}")
        if 5 < moment < 11:
            rig.wait_until(partial(are_both_matched, moment), f"past {what}")
    # The first frame of a camera has no past; nor has the first one after its time was set back.
    without_matches = [it for it in rig.messages if all(pair.status == MISSING for pair in it.pairs)]
    assert len(without_matches) <= (ahead < 0)

    later = itertools.count(12)
    rig.repeat_until(
        lambda: show(next(later)),
        lambda: rig.status is not None and "missing: rear (" in rig.status.message,
        "diagnostics that name the camera",
    )
    assert rig.status.level == DiagnosticStatus.WARN
    assert float(rig.diagnostics["camera rear out of sync (s)"]) == pytest.approx(ahead, abs=1.0)
