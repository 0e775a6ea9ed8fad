"""Causes of missing cameras, each named with its fix."""

from itertools import pairwise

import pytest

from lightglue_ros.rig.frame_assembler import FrameAssembler
from lightglue_ros.rig.missing import why_missing
from lightglue_ros.rig.rig import Rig

PERIOD = 0.1
CAMERAS = ("left", "right", "rear")


def causes_of(behaviour, cameras=CAMERAS, slop=0.0, seconds=6.0):
    """Let cameras send at 10 Hz, one of them as `behaviour` says; returns the causes of the missing ones.

    `behaviour` gives the stamp of an image of the last camera from the time at which it is taken, in seconds.
    """
    rig = Rig.parse(cameras, [f"{first}:{second}" for first, second in pairwise(cameras)])
    assembler = FrameAssembler(rig, slop, 1.0)
    for moment in range(round(seconds / PERIOD)):
        now = moment * PERIOD
        for camera in range(len(cameras)):
            stamp = behaviour(now) if camera == len(cameras) - 1 else now
            if stamp is not None:
                assembler.add(camera, round((1e6 + stamp) * 1e9), None, round((now + 0.003 * camera) * 1e9))
    clocks = assembler.out_of_sync()
    return why_missing(cameras, assembler.missing(), clocks, assembler.slop, PERIOD, {})


@pytest.mark.parametrize(
    ("ahead", "said"), [(37.0, "its stamps are 37.0 s ahead of"), (-2.0, "its stamps are 2.0 s behind")]
)
@pytest.mark.parametrize(("cameras", "theirs"), [(CAMERAS, "the others'"), (("left", "rear"), "left's")])
def test_a_clock_that_is_off_is_named_with_by_how_much_and_the_slop_is_not_blamed(
    ahead, said, cameras, theirs
):
    causes = causes_of(lambda now: now + ahead, cameras)
    assert list(causes) == [len(cameras) - 1]
    (cause,) = causes.values()
    assert f"{said} {theirs}; fix: the clock" in cause
    assert "sync_slop" not in cause


def test_the_slop_is_blamed_if_one_of_up_to_a_period_would_bring_the_images_together():
    (cause,) = causes_of(lambda now: now + 0.04, slop=0.01).values()
    assert (
        "not within sync_slop, 0.01 s, of the others'; fix: a common trigger, or a sync_slop of up to"
        in cause
    )
    assert "(0.1 s)" in cause
    assert not causes_of(lambda now: now + 0.04, slop=0.05)


def test_stamps_that_stand_are_named():
    (cause,) = causes_of(lambda now: min(now, 1.0)).values()
    assert "its stamps do not increase" in cause


def test_a_camera_of_which_nothing_usable_comes_has_that_cause():
    assert why_missing(CAMERAS, [2], {2: 37.0}, 0.04, PERIOD, {2: "no image comes"}) == {2: "no image comes"}
