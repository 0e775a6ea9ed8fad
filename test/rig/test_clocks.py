"""Assembly of frames of cameras whose clocks differ, jump or are set back."""

import random
from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from streams import HOUR_IN_MS, MS, PERIOD, SECOND, START, assembler, feed, play


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


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_a_clock_that_drifts_and_jumps_costs_the_other_cameras_no_instant_in_ten_minutes(jitter):
    """1 ms a second for ten minutes, with a jump of 37 s after five; stamps jitter by ms."""
    chance = random.Random(0)
    frames = assembler(4, slop=0.0, pairs=["0:1", "1:2", "2:3"])
    named = 0
    for moment in range(6000):
        at = 100 * moment
        ahead = at / 1e3 + (37_000 if moment >= 3000 else 0)
        stamps = [at + chance.uniform(-jitter, jitter) for _ in range(3)] + [at + ahead]
        images = ((at + camera, camera, moment, stamps[camera]) for camera in range(4))
        assert [frame.images[:3] for frame in feed(frames, images)] == [(moment,) * 3]
        named += frames.missing() == [3]
        assert frames.missing() in ([], [3])
    assert frames.missing() == [3]
    assert frames.out_of_sync() == {3: pytest.approx(37.6, abs=0.01)}
    assert named >= 3000
    assert frames.counts.unmatched >= 3000


@settings(max_examples=50, deadline=None)
@given(
    period=st.sampled_from([33, 100, 500]),
    phase=st.floats(0.0, 1.0),
    skew=st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3),
    jitter=st.sampled_from([0.0, 0.2, 1.0]),
    through_time=st.booleans(),
    chance=st.randoms(use_true_random=False),
)
@example(
    period=100, phase=0.545, skew=[-1.0, 0.0, 0.0], jitter=0.0, through_time=False, chance=random.Random(0)
)
def test_a_camera_between_the_instants_of_others_does_not_tear_them_apart(
    period, phase, skew, jitter, through_time, chance
):
    """Its images fit the first or the last of the others, or all, at any phase."""
    frames = assembler(4, slop=0.0, pairs=["0:1", "1:2", "2:3", *(["3@-1:3"] if through_time else [])])
    images = []
    for moment in range(40):
        for camera, offset in enumerate([*skew, period * phase]):
            stamp = period * moment + offset + chance.uniform(-jitter, jitter)
            images.append((stamp + 2 + chance.uniform(0, 1), camera, moment, stamp))
    out = feed(frames, sorted(images))
    together = [frame.images[0] for frame in out if frame.images[0] is not None]
    assert together[5:38] == list(range(together[5], together[5] + 33))
    assert all(len(set(frame.images[:3])) == 1 for frame in out[10:])


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
