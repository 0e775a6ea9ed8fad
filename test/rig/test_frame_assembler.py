"""Assembly of frames: images are numbers here, because the assembler hands them on as they are."""

from itertools import pairwise, permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightglue_ros.rig.frame_assembler import FrameAssembler
from lightglue_ros.rig.rig import Rig

MS = 1_000_000
SECOND = 1000 * MS
PERIOD = 100 * MS
START = 1_700_000_000_000 * MS
HOUR_IN_MS = 3_600_000


def assembler(cameras=2, slop=0.01, timeout=1.0, pairs=(), absent=()):
    """An assembler of cameras 0, 1, ..., of which each makes a pair with the next unless pairs are given."""
    names = [str(number) for number in range(cameras)]
    chain = [f"{first}:{second}" for first, second in pairwise(names)] or ["0@-1:0"]
    return FrameAssembler(Rig.parse(names, pairs or chain), slop, timeout, absent)


def feed(frames, images):
    """Add (arrival in ms, camera, image, stamp in ms or else that of the arrival); returns the frames."""
    found = []
    for at, camera, image, *taken in images:
        stamp, now = (START + round(time * MS) for time in ((taken or [at])[0], at))
        found += frames.add(camera, stamp, image, now)
    return found


def play(frames, images):
    """Feed (camera, moment, offset in ms) in order; an image is the number of its moment of 100 ms."""
    timed = ((100 * moment + offset, camera, moment) for camera, moment, offset in images)
    return [frame.images for frame in feed(frames, timed)]


def run(frames, images):
    """Feed (time in ms, camera) in order of time; an image is its time."""
    return feed(frames, ((at, camera, at) for at, camera in sorted(images)))


def shots(camera, hertz, seconds, phase=0.0):
    return [(phase + 1e3 * number / hertz, camera) for number in range(round(hertz * seconds))]


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


@pytest.mark.parametrize("order", list(permutations(range(4))))
@pytest.mark.parametrize("pairs", [["0:1", "1:2"], ["0:1", "2:3"], ["0:1", "1:2", "2:3", "2@-1:2"]])
@pytest.mark.parametrize("late", [3.0, 0.7])
def test_two_groups_of_cameras_whose_times_differ_do_not_hold_up_each_other(order, pairs, late):
    """Those of the later time are missing, whoever comes first."""
    frames = assembler(4, slop=0.0, timeout=0.5, pairs=pairs)
    times = (
        (moment, 100 * moment + position, camera)
        for moment in range(60)
        for position, camera in enumerate(order)
    )
    out = feed(
        frames, ((at, camera, moment, at - 1e3 * late * (camera >= 2)) for moment, at, camera in times)
    )
    found = [frame for frame in out if frame.images[0] is not None and frame.images[0] >= 20]
    assert [frame.images for frame in found] == [(moment, moment, None, None) for moment in range(20, 60)]
    assert frames.missing() == [2, 3]
    assert frames.out_of_sync() == {camera: pytest.approx(-late, abs=0.01) for camera in (2, 3)}
    own = [frame.images[2:] for frame in out if frame.images[0] is None]
    assert len(own) == (0 if "2:3" not in pairs else 60)
    assert all(one == other for one, other in own)


CLOCK_CHANGES = st.lists(
    st.tuples(
        st.integers(0, 59),
        st.one_of(
            st.sampled_from([0, 2000, 37_000, -2000, -37_000]),
            st.integers(-1500, 1500),
            st.integers(-40_000, 40_000),
        ),
    ),
    max_size=4,
)


def play_with_a_wrong_clock(frames, period, order, changes, moments=80):
    """Feed cameras that take images together; that of the last camera is ahead by ms from moments on."""
    wrong, ahead, out = max(order), 0, []
    changes = dict(changes)
    for moment in range(moments):
        ahead = changes.get(moment, ahead)
        times = [(period * moment + position, camera) for position, camera in enumerate(order)]
        shot = period * moment
        out += feed(frames, ((at, c, moment, shot + ahead * (c == wrong)) for at, c in times))
    return out


@settings(max_examples=200, deadline=None)
@given(
    period=st.sampled_from([33, 100, 500]),
    order=st.permutations(range(3)),
    changes=CLOCK_CHANGES,
    through_time=st.booleans(),
)
@example(
    period=33, order=[1, 2, 0], changes=[(0, 217)], through_time=True
)  # its images wait until they are 8
def test_a_camera_whose_clock_changes_at_any_moment_costs_the_others_no_instant(
    period, order, changes, through_time
):
    pairs = ["0:1", *(["2@-1:2"] if through_time else [])]
    frames = assembler(3, slop=0.0, pairs=pairs)
    out = play_with_a_wrong_clock(frames, period, order, changes)
    matched = [frame.images[0] for frame in out if frame.images[0] is not None]
    assert matched[:72] == list(range(72))
    assert all(frame.images[0] == frame.images[1] for frame in out)
    assert all(frames.rig.is_served_by({c for c in range(3) if f.images[c] is not None}) for f in out)
    assert all(frame.epochs[:2] == (0, 0) for frame in out)
    assert not {0, 1} & set(frames.missing())
    if through_time:
        own = [frame.images[2] for frame in out if frame.images[2] is not None]
        # Four images are late before a clock that was set back by less than a second is believed.
        assert len(own) >= 72 - 5 * len(changes)


@pytest.mark.parametrize("pairs", [["0:1", "0@-1:0"], ["0:1", "2@-1:2"]])
@pytest.mark.parametrize("ahead", [37.0, 2.0, -2.0, -37.0])
@pytest.mark.parametrize("since", [0, 30])
def test_a_camera_whose_clock_is_wrong_is_named_with_how_far_it_is_ahead(pairs, ahead, since):
    frames = assembler(3, slop=0.0, timeout=0.5, pairs=pairs)
    out = play_with_a_wrong_clock(frames, 100, range(3), [(since, 1e3 * ahead)])
    assert [frame.images[0] for frame in out if frame.images[0] is not None] == list(range(80))
    assert frames.missing() == [2]
    assert frames.out_of_sync() == {2: pytest.approx(ahead, abs=0.01)}
    # The history of a camera that makes frames of its own must not be filled up with missing images.
    assert out[-1].missing == (set() if "2@-1:2" in pairs else {2})


def test_a_clock_that_drifts_and_jumps_costs_the_other_cameras_no_instant_in_ten_minutes():
    """1 ms a second for ten minutes, with a jump of 37 s after five."""
    frames = assembler(4, slop=0.0, pairs=["0:1", "1:2", "2:3"])
    named = 0
    for moment in range(6000):
        at = 100 * moment
        ahead = at / 1e3 + (37_000 if moment >= 3000 else 0)
        images = ((at + camera, camera, moment, at + ahead * (camera == 3)) for camera in range(4))
        assert [frame.images[:3] for frame in feed(frames, images)] == [(moment,) * 3]
        named += frames.missing() == [3]
        assert frames.missing() in ([], [3])
    assert frames.missing() == [3]
    assert frames.out_of_sync() == {3: pytest.approx(37.6, abs=0.01)}
    assert named >= 3000
    assert frames.counts.unmatched >= 3000


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


def test_one_camera_far_ahead_for_one_image_costs_only_that_image():
    frames = assembler()
    assert play(frames, [(0, 0, 0), (1, 0, 0)]) == [(0, 0)]
    assert feed(frames, [(100, 0, "ahead", HOUR_IN_MS)]) == []
    assert play(frames, [(1, 1, 0), (0, 2, 0), (1, 2, 0), (0, 3, 0), (1, 3, 0)]) == [(2, 2), (3, 3)]
    assert frames.counts.resets == 0


def test_a_single_wrong_stamp_makes_no_frame_and_costs_the_pairs_through_time_nothing():
    frames = assembler(pairs=["0:1", "0@-1:0"])
    images = [(100 * moment + camera, camera, moment) for moment in range(20) for camera in range(2)]
    wrong = {(0, 5): HOUR_IN_MS, (0, 11): 37_000}
    out = feed(frames, ((at, c, moment, wrong.get((c, moment), at)) for at, c, moment in images))
    assert [frame.images for frame in out] == [
        (moment,) * 2 for moment in range(20) if (0, moment) not in wrong
    ]
    assert frames.counts.resets == 0


def test_frames_that_wait_when_no_more_images_come_are_not_lost():
    frames = assembler(3, pairs=["0:1"])
    assert play(frames, [(camera, 0, 0) for camera in range(3)]) == [(0, 0, 0)]
    assert play(frames, [(0, 1, 0), (1, 1, 0), (0, 2, 0)]) == []
    assert [frame.images for frame in frames.finish()] == [(1, 1, None)]


def test_a_short_bag_that_loops_is_a_time_set_back_and_begins_a_new_epoch():
    """0.8 s long: no stamp is more than a second older than the newest."""
    frames = assembler()
    moments = ((moment, camera) for moment in range(80) for camera in range(2))
    out = feed(frames, ((moment % 8 * 100, camera, moment) for moment, camera in moments))
    assert len(out) >= 10 * (8 - 4)
    assert frames.counts.resets == 9
    assert all(frame.epochs == (frame.images[0] // 8,) * 2 for frame in out)


def test_a_clock_that_is_set_back_does_not_make_a_silent_camera_hold_up_the_others():
    frames = assembler(timeout=0.25)
    play(frames, [(0, 0, 0), (1, 0, 0), (0, 1, 0)])
    out = feed(frames, ((100 * moment - HOUR_IN_MS, 0, moment, 100 * moment) for moment in range(2, 7)))
    assert [frame.images for frame in out] == [(4, None), (5, None), (6, None)]


STAMPS = st.one_of(
    st.just(0),
    st.integers(-3, 30).map(lambda moment: START + moment * PERIOD),
    st.integers(-5 * SECOND, 5 * SECOND).map(lambda offset: START + offset),
    st.sampled_from([START - 3600 * SECOND, START + 3600 * SECOND, 1, -SECOND]),
)


@settings(max_examples=300, deadline=None)
@given(
    chaos=st.lists(st.tuples(st.integers(0, 2), STAMPS, st.integers(0, 2 * SECOND)), max_size=60),
    slop=st.sampled_from([0.0, 0.01]),
)
def test_whatever_stamps_came_before_cameras_that_are_right_again_are_matched_at_full_rate(chaos, slop):
    frames = assembler(cameras=3, slop=slop, timeout=0.5)
    now = START
    for camera, stamp, elapsed in chaos:
        now += elapsed
        frames.add(camera, stamp, None, now)
        assert all(len(known.waiting) <= 8 for known in frames._cameras)
    first = (now - START) / MS + 1000
    moments = ((moment, camera) for moment in range(40) for camera in range(3))
    out = feed(frames, ((first + 100 * moment + camera / 2, camera, moment) for moment, camera in moments))
    assert [frame.images for frame in out[-20:]] == [(moment,) * 3 for moment in range(20, 40)]


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
