"""Assembly of frames of cameras whose clocks agree; `test_clocks` has the others."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import MS, SECOND, START, assembler, feed, play, run, shots

from lightglue_ros.rig.frame_assembler import FrameAssembler
from lightglue_ros.rig.rig import Rig


def test_one_glitch_in_a_slow_cameras_stamps_does_not_throttle_the_fast_one():
    frames = FrameAssembler(Rig.parse("ab", ["a@-1:a", "a:b"]), slop=0.0, timeout=1.0)
    images = [*shots(0, 30, 4), *shots(1, 10, 4), (2001.0, 1)]
    stamps = [frame.stamps[0] for frame in run(frames, images) if frame.stamps[0] is not None]
    assert sum(2.1 < (stamp - stamps[0]) / 1e9 < 3.6 for stamp in stamps) >= 44
    assert frames.counts.unmatched <= 7  # six while the periods are not known yet, and the glitch


# Options of the assembler, (camera, moment, offset in ms) of each image, the frames, and counts afterwards.
SEQUENCES = {
    "images within the slop become a frame, images beyond it do not": (
        {},
        [(0, 0, 0), (1, 0, 9), (0, 1, 0), (1, 1, 10), (0, 2, 0), (1, 2, 11)],
        [(0, 0), (1, 1)],
        {},
    ),
    "the slop bounds the spread of three cameras": (
        {"cameras": 3},
        [(0, 0, 0), (2, 0, 12), (1, 0, 6), (0, 1, 0), (2, 1, 10), (1, 1, 5)],
        [(0, 0, None), (1, 1, 1)],
        {},
    ),
    "one lost image does not pair the next ones off by one": (
        {},
        [(0, 0, 0), (1, 0, 1), (0, 1, 0), (0, 2, 0), (1, 2, 1), (0, 3, 0), (1, 3, 1)],
        [(0, 0), (2, 2), (3, 3)],
        {"unmatched": 1},
    ),
    **{
        f"all complete moments of {cameras} cameras become frames": (
            {"cameras": cameras},
            [(camera, moment, camera) for moment in range(30) for camera in range(cameras)],
            [(moment,) * cameras for moment in range(30)],
            {"received": 30 * cameras, "frames": 30},
        )
        for cameras in (1, 4, 8)
    },
    # Moments 1 and 2 wait for the camera; from 3 on it is missing; at 6 it is back, after the other camera's
    # image, so that the next frame is the first to wait for it.
    "a silent camera holds nobody up after its timeout": (
        {"timeout": 0.25},
        [(0, 0, 0), (1, 0, 0), *((0, n, 0) for n in range(1, 7)), (1, 6, 1), (0, 7, 0), (1, 7, 1)],
        [(0, 0), (3, None), (4, None), (5, None), (6, None), (7, 7)],
        {"missing": []},
    ),
    "cameras slower than the timeout, and pauses of all, are not missing": (
        {"timeout": 0.25},
        [(camera, moment, camera) for moment in (0, 5, 10, 50, 51) for camera in (0, 1)],
        [(0, 0), (5, 5), (10, 10), (50, 50), (51, 51)],
        {"missing": []},
    ),
    "a live camera whose stamps never fit is missing and holds up nobody": (
        {"cameras": 3, "timeout": 0.25},
        [(camera, moment, 50 * (camera == 2)) for moment in range(10) for camera in range(3)],
        [(moment, moment, None) for moment in range(10)],
        {"missing": [2]},
    ),
    "a camera that never came is missing after the timeout": (
        {"timeout": 0.25},
        [(0, moment, 0) for moment in range(5)],
        [(3, None), (4, None)],
        {"missing": [1]},
    ),
    "time set back starts anew": (
        {},
        [(0, 100, 0), (1, 100, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)],
        [(100, 100), (0, 0), (1, 1)],
        {"resets": 1},
    ),
    "late and repeated images are dropped": (
        {},
        [(0, 2, 0), (1, 2, 0), (0, 2, 0), (0, 1, 0), (1, 1, 0)],
        [(2, 2)],
        {"late": 3},
    ),
    "all cameras far ahead go on there": (
        {},
        [(0, 0, 0), (1, 0, 0), (0, 36_000, 0), (1, 36_000, 1)],
        [(0, 0), (36_000, 36_000)],
        {"resets": 0},
    ),
    "memory is bounded when partners never come": (
        {"timeout": 1e6},
        [(0, moment, 0) for moment in range(1000)],
        [],
        {"unmatched": 992},
    ),
}


@pytest.mark.parametrize("promise", SEQUENCES)
def test_a_sequence_of_images_gives_its_frames(promise):
    options, images, expected, counts = SEQUENCES[promise]
    frames = assembler(**options)
    assert play(frames, images) == expected
    found = {**vars(frames.counts), "missing": frames.missing()}
    assert found | counts == found


@settings(deadline=None)
@given(
    lost=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 19)), max_size=15),
    jitter=st.lists(st.integers(0, 10), min_size=60, max_size=60),
    swaps=st.lists(st.integers(0, 58), max_size=20),
)
def test_frames_never_mix_moments_and_every_image_is_accounted_for(lost, jitter, swaps):
    images = [(camera, moment, jitter[3 * moment + camera]) for moment in range(20) for camera in range(3)]
    for position in swaps:
        images[position], images[position + 1] = images[position + 1], images[position]
    images = [image for image in images if image[:2] not in set(lost)]
    frames = assembler(cameras=3, timeout=1000.0)
    out = play(frames, images)
    moments = [set(frame) - {None} for frame in out]
    assert all(len(moment) == 1 for moment in moments)
    assert moments == sorted(moments, key=min)
    used = sum(image is not None for frame in out for image in frame)
    waiting = sum(len(camera.waiting) for camera in frames._cameras)
    counts = frames.counts
    assert counts.received == len(images)
    assert counts.received == used + counts.unmatched + counts.late + waiting


def test_a_camera_is_not_missing_because_of_late_images_of_the_others():
    frames = assembler(timeout=0.25, pairs=["0:1", "0@-1:0"])
    late = [(at, camera, 0, 0) for at in range(100, 2000, 100) for camera in range(2)]
    feed(frames, [(0, 0, 0), (0, 1, 0), *late])
    assert [frame.images for frame in feed(frames, [(2000, 0, 1, 100), (2001, 1, 1, 100)])] == [(1, 1)]


def test_nobody_waits_for_a_camera_that_is_known_not_to_come():
    frames = assembler(timeout=0.25, absent=[1])
    assert play(frames, [(0, 100, 0), (0, 101, 0)]) == [(100, None), (101, None)]
    # Time is set back.
    assert play(frames, [(0, moment, 0) for moment in range(10)])[-1] == (9, None)
    assert frames.counts.frames == frames.counts.received
    assert frames.missing() == [1]


@pytest.mark.parametrize(("hertz", "slop"), [(10, 0.045), (30, 0.015), (200, 0.00225), (1, 0.1)])
def test_the_automatic_slop_is_below_half_a_period_of_the_measured_rate(hertz, slop):
    frames = assembler(slop=0.0)
    assert frames.slop == 0.01
    run(frames, shots(0, hertz, 20 / hertz) + shots(1, hertz, 20 / hertz))
    assert frames.slop == pytest.approx(slop, rel=0.01)


def test_the_automatic_slop_is_that_of_the_fastest_camera_and_lost_images_do_not_move_it():
    frames = assembler(slop=0.0)
    run(frames, shots(0, 30, 2)[::3] + shots(0, 30, 2)[1::3] + shots(1, 5, 2))
    assert frames.slop == pytest.approx(0.45 / 30, rel=0.01)


def test_cameras_at_30_15_and_10_hz_give_every_pair_at_every_common_moment():
    frames = assembler(3, slop=0.0, pairs=["0:1", "1:2", "0:2"])
    out = run(frames, shots(0, 30, 4) + shots(1, 15, 4, 2.0) + shots(2, 10, 4, 1.0))[-90:]
    present = [tuple(image is not None for image in frame.images) for frame in out]
    span = (out[-1].stamps[0] - out[0].stamps[0]) / SECOND
    rates = [sum(slots[i] and slots[j] for slots in present) / span for i, j in ((0, 1), (1, 2), (0, 2))]
    assert rates == pytest.approx([15, 5, 10], rel=0.1)
    assert all(sum(slots) >= 2 for slots in present)
    assert all(not frame.missing for frame in out)
    assert all(max(s) - min(s) <= 2 * MS for s in ([x for x in f.stamps if x is not None] for f in out))


def test_a_slow_camera_whose_images_take_longer_is_still_matched():
    """Its image of a moment comes 50 ms after the fast camera's."""
    frames = assembler(slop=0.0)
    shots_of_both = shots(0, 30, 3) + shots(1, 10, 3)
    out = feed(frames, sorted((at + 50.0 * camera, camera, at, at) for at, camera in shots_of_both))
    assert sum(None not in frame.images for frame in out) >= 28


def test_a_pair_through_time_of_the_fast_camera_comes_at_its_own_rate():
    frames = assembler(slop=0.0, pairs=["0:1", "0@-1:0"])
    out = run(frames, shots(0, 30, 3) + shots(1, 10, 3))
    assert len(out) >= 80
    assert sum(frame.images[1] is not None for frame in out) >= 28


def test_the_spread_of_the_stamps_is_the_largest_of_the_last_frames():
    frames = assembler()
    assert frames.spread == 0
    play(frames, [(0, 0, 0), (1, 0, 7), (0, 1, 0), (1, 1, 2)])
    assert frames.spread == pytest.approx(0.007)


@pytest.mark.parametrize("phase", [14.0, 16.6, 20.0])
def test_free_running_cameras_with_stamps_in_a_ring_do_not_stall(phase):
    """No moment has all three within the slop, yet each fits one of the others."""
    frames = assembler(3, slop=0.0, timeout=0.5, pairs=["0:1", "1:2", "2:0"])
    out = run(frames, shots(0, 30, 4) + shots(1, 30, 4, 5.0) + shots(2, 30, 4, phase))
    late = [frame for frame in out if max(at or 0 for at in frame.images) > 1500]
    assert len(late) >= 0.9 * 30 * 2.5


def test_frames_that_wait_when_no_more_images_come_are_not_lost():
    frames = assembler(3, pairs=["0:1"])
    assert play(frames, [(camera, 0, 0) for camera in range(3)]) == [(0, 0, 0)]
    assert play(frames, [(0, 1, 0), (1, 1, 0), (0, 2, 0)]) == []
    assert [frame.images for frame in frames.finish()] == [(1, 1, None)]


@settings(max_examples=100, deadline=None)
@given(
    periods=st.lists(st.sampled_from([33, 50, 66, 100, 200]), min_size=3, max_size=3),
    phases=st.lists(st.integers(0, 99), min_size=3, max_size=3),
    lost=st.sets(st.integers(0, 200), max_size=20),
    slop=st.sampled_from([0.0, 0.005, 0.05]),
)
def test_cameras_of_any_rates_and_phases_never_stall_for_longer_than_the_timeout(periods, phases, lost, slop):
    """A frame at least every timeout, be it one whose pairs are missing."""
    frames = assembler(cameras=3, slop=slop, timeout=0.5)
    images = [
        (phase + number * period, camera)
        for camera, (period, phase) in enumerate(zip(periods, phases, strict=True))
        for number in range(6000 // period)
    ]
    kept = [image for number, image in enumerate(sorted(images)) if number not in lost]
    out = run(frames, kept)
    times = [max(stamp for stamp in frame.stamps if stamp is not None) for frame in out]
    longest = max(b - a for a, b in pairwise([START, *times, START + 6 * SECOND]))
    assert longest <= (0.5 + 2 * 0.2 + 0.2) * SECOND
    for frame in out:
        present = [stamp for stamp in frame.stamps if stamp is not None]
        assert max(present) - min(present) <= 0.1 * SECOND
