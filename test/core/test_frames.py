"""Assembly of frames: images are integers here, for the assembler hands them on as they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightglue_ros.core.frames import FrameAssembler

MS = 1_000_000
PERIOD = 100 * MS
START = 1_700_000_000_000 * MS


def assembler(cameras=2, slop=0.01, timeout=1.0):
    return FrameAssembler(cameras, slop=slop, timeout=timeout)


def play(frames, stamps_of_cameras):
    """Feed (camera, moment, offset) in order; an image is the number of its moment."""
    out = []
    for camera, moment, offset in stamps_of_cameras:
        stamp = START + moment * PERIOD + offset * MS
        frame = frames.add(camera, stamp, moment, now=stamp)
        if frame is not None:
            out.append(frame.images)
    return out


def test_images_within_the_slop_become_a_frame():
    frames = assembler()
    assert play(frames, [(0, 0, 0), (1, 0, 9), (0, 1, 0), (1, 1, 10)]) == [(0, 0), (1, 1)]


def test_images_beyond_the_slop_do_not():
    frames = assembler()
    assert play(frames, [(0, 0, 0), (1, 0, 11)]) == []


def test_slop_bounds_the_spread_of_three_cameras():
    frames = assembler(cameras=3)
    assert play(frames, [(0, 0, 0), (2, 0, 12), (1, 0, 6)]) == []
    assert play(frames, [(0, 1, 0), (2, 1, 10), (1, 1, 5)]) == [(1, 1, 1)]


def test_one_lost_image_does_not_pair_the_next_ones_off_by_one():
    frames = assembler()
    order = [(0, 0, 0), (1, 0, 1), (0, 1, 0), (0, 2, 0), (1, 2, 1), (0, 3, 0), (1, 3, 1)]
    assert play(frames, order) == [(0, 0), (2, 2), (3, 3)]
    assert frames.counts.unmatched == 1


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
    assert all(len(set(frame)) == 1 for frame in out)
    assert out == sorted(out)
    waiting = sum(len(queue) for queue in frames._waiting)
    counts = frames.counts
    assert counts.received == len(images)
    assert counts.received == 3 * len(out) + counts.unmatched + counts.late + waiting


def test_complete_moments_in_order_all_become_frames():
    frames = assembler(cameras=4)
    images = [(camera, moment, camera) for moment in range(30) for camera in range(4)]
    assert len(play(frames, images)) == 30


def test_a_silent_camera_holds_nobody_up_after_its_timeout():
    frames = assembler(timeout=0.25)
    alone = [(0, moment, 0) for moment in range(1, 6)]
    out = play(frames, [(0, 0, 0), (1, 0, 0), *alone, (0, 6, 0), (1, 6, 1), (0, 7, 0), (1, 7, 1)])
    # Moments 1 to 3 wait for the camera; from 4 on it is missing; at 6 it is back, after the other camera's
    # image, so that the next frame is the first to wait for it.
    assert out == [(0, 0), (4, None), (5, None), (6, None), (7, 7)]


def test_cameras_slower_than_the_timeout_and_pauses_of_all_are_not_missing():
    frames = assembler(timeout=0.25)
    order = [(camera, moment, camera) for moment in (0, 5, 10, 50, 51) for camera in (0, 1)]
    assert play(frames, order) == [(0, 0), (5, 5), (10, 10), (50, 50), (51, 51)]


def test_a_live_camera_whose_stamps_never_fit_is_missing_and_the_others_go_on():
    frames = assembler(cameras=3, timeout=0.25)
    order = [(camera, moment, 50 * (camera == 2)) for moment in range(10) for camera in range(3)]
    assert play(frames, order) == [(moment, moment, None) for moment in range(3, 10)]
    assert frames.missing(START + 9 * PERIOD) == [2]


def test_a_camera_that_never_came_is_missing_after_the_timeout():
    frames = assembler(timeout=0.25)
    out = play(frames, [(0, moment, 0) for moment in range(5)])
    assert out == [(3, None), (4, None)]
    assert frames.missing(START + 5 * PERIOD) == [1]


def test_time_set_back_starts_anew():
    frames = assembler()
    play(frames, [(0, 100, 0), (1, 100, 0)])
    assert play(frames, [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)]) == [(0, 0), (1, 1)]
    assert frames.counts.resets == 1


def test_late_and_repeated_images_are_dropped_and_counted():
    frames = assembler()
    assert play(frames, [(0, 2, 0), (1, 2, 0), (0, 2, 0), (0, 1, 0), (1, 1, 0)]) == [(2, 2)]
    assert frames.counts.late == 3


def test_images_without_a_stamp_count_as_taken_on_arrival():
    frames = assembler()
    for moment in range(3):
        now = START + moment * PERIOD
        assert frames.add(0, 0, moment, now=now) is None
        assert frames.add(1, 0, moment, now=now + 5 * MS).images == (moment, moment)


def test_memory_is_bounded_when_partners_never_come():
    frames = assembler(timeout=1e6)
    play(frames, [(0, moment, 0) for moment in range(1000)])
    assert len(frames._waiting[0]) <= 8
    assert frames.counts.unmatched == 1000 - len(frames._waiting[0])


@pytest.mark.parametrize("cameras", [1, 8])
def test_any_number_of_cameras(cameras):
    frames = assembler(cameras=cameras)
    out = play(frames, [(camera, 0, 0) for camera in range(cameras)])
    assert out == [(0,) * cameras]
