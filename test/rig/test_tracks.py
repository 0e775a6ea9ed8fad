"""Tracks made of matches, which need no model."""

import copy
import pickle
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightglue_ros.core import PairMatches
from lightglue_ros.rig.rig import Rig
from lightglue_ros.rig.tracks import FrameKeypoints, Tracker
from lightglue_ros.rig.verification import Intrinsics

CAMERAS = ("left", "right", "rear")
PAIRS = (
    "left:right",
    "right:rear",
    "rear:left",
    "left@-1:left",
    "right:right@-1",
    "left@-3:left",
    "rear@-2:rear",
    "left@-1:right",
)


def matched(*pairs, scores=None, ends=None):
    """Matches of keypoints by their indices; the ends are those of refined matches."""
    indices = np.array(pairs, np.int32).reshape(-1, 2)
    scores = np.full(len(indices), 0.5, np.float32) if scores is None else np.array(scores, np.float32)
    ends = np.zeros((2, len(indices), 2), np.float32) if ends is None else np.array(ends, np.float32)
    return PairMatches(*ends, scores, indices[:, 0], indices[:, 1], 1)


def seen(rig, counts, matches, points=None, **options):
    """A frame with so many keypoints in each camera; None is a missing image."""
    keypoints = [None if count is None else np.zeros((count, 2), np.float32) for count in counts]
    if points is not None:
        keypoints = [np.array(one, np.float32).reshape(-1, 2) for one in points]
    scores = [None if count is None else np.ones(count, np.float32) for count in counts]
    nobody = [None] * len(counts)
    return FrameKeypoints(rig, keypoints, scores, matches, **{"intrinsics": nobody, **options})


def ids_of(tracks):
    return [None if one is None else one.ids.tolist() for one in tracks]


@st.composite
def drives(draw):
    """Frames with any matches that a processor could find, images that are missing, and time set back."""
    cameras = CAMERAS[: draw(st.integers(1, 3))]
    usable = [pair for pair in PAIRS if {name.split("@")[0] for name in pair.split(":")} <= set(cameras)]
    chosen = [draw(st.lists(st.sampled_from(usable), min_size=1, unique=True)) for _ in range(2)]
    rigs = [Rig.parse(cameras, pairs) for pairs in chosen]
    past, epochs, frames = [deque(maxlen=3) for _ in cameras], [0] * len(cameras), []
    for number in range(draw(st.integers(1, 8))):
        # The pairs may change while the node runs.
        rig = rigs[number >= 5]
        past = [deque(one, rig.frames_back(camera)) for camera, one in enumerate(past)]
        counts = [draw(st.none() | st.integers(0, 6)) for _ in cameras]
        for camera in range(len(cameras)):
            if draw(st.integers(0, 9)) == 9:
                epochs[camera] += 1
                past[camera].clear()
        matches = []
        for views in rig.pairs:
            sizes = [
                counts[it.camera]
                if not it.back
                else past[it.camera][-it.back]
                if it.back <= len(past[it.camera])
                else None
                for it in views
            ]
            most = min(size or 0 for size in sizes)
            ends = [draw(st.permutations(range(size or 0)))[:most] for size in sizes]
            pairs = list(zip(*ends, strict=True))[: draw(st.integers(0, most))]
            scores = [draw(st.sampled_from([0.2, 0.5, 0.9])) for _ in pairs]
            matches.append(matched(*pairs, scores=scores))
        absent = [camera for camera, count in enumerate(counts) if count is None]
        between = [camera for camera in absent if draw(st.booleans())]
        frames.append(seen(rig, counts, matches, between=between, epochs=tuple(epochs)))
        for camera, count in enumerate(counts):
            if camera not in between:
                past[camera].append(count)
    return frames


@settings(max_examples=150, deadline=None)
@given(drives())
def test_an_id_stands_once_in_an_image_and_is_never_given_to_another_track(frames):
    tracker, newest, begins = Tracker(), 0, {}
    for number, frame in enumerate(frames):
        tracks = tracker.update(frame)
        fresh = set()
        for keypoints, of_camera in zip(frame.keypoints, tracks, strict=True):
            assert (of_camera is None) == (keypoints is None)
            if of_camera is not None:
                ids = of_camera.ids.tolist()
                assert len(set(ids)) == len(ids) == len(keypoints)
                for one, age in zip(ids, of_camera.ages.tolist(), strict=True):
                    assert begins.setdefault(one, number) == number - age + 1
                fresh |= {one for one in ids if begins[one] == number}
        # New ids are those that follow, without a gap.
        assert fresh == set(range(newest + 1, newest + 1 + len(fresh)))
        newest += len(fresh)


@settings(max_examples=100, deadline=None)
@given(drives())
def test_a_keypoint_takes_over_an_id_only_from_a_match_and_gives_its_own_up_only_for_an_older_one(frames):
    tracker, past = Tracker(), [deque(maxlen=3) for _ in frames[0].keypoints]
    epochs = frames[0].epochs
    for frame in frames:
        found = ids_of(tracker.update(frame))
        for camera, (before, epoch) in enumerate(zip(epochs, frame.epochs, strict=True)):
            if epoch != before:
                past[camera].clear()
        epochs = frame.epochs
        views = [[*reversed(past[camera])] for camera in range(len(found))]
        ids = lambda view, views=views, found=found: (  # noqa: E731
            views[view.camera][view.back - 1] if view.back else found[view.camera]
        )
        offered, used = {}, [set(one or ()) for one in found]
        for pair, matches in zip(frame.rig.pairs, frame.matches, strict=True):
            for indices in zip(matches.indices0.tolist(), matches.indices1.tolist(), strict=True):
                (now, index), (then, other) = sorted(
                    zip(pair, indices, strict=True), key=lambda it: it[0].back
                )
                offered.setdefault((now.camera, index), set()).add(ids(then)[other])
                if not then.back:
                    offered.setdefault((then.camera, other), set()).add(ids(now)[index])
        newest = max((one for it in past for image in it for one in image or ()), default=0)
        for camera, of_camera in enumerate(found):
            for index, one in enumerate(of_camera or ()):
                candidates = offered.get((camera, index), set())
                if one <= newest:
                    assert one in candidates
                # An older one that it did not get is at another keypoint of this image, or of a camera in
                # which the same point has another id.
                older = {it for it in candidates if it < one}
                assert all(any(it in ids for ids in used) for it in older)
        for camera, of_camera in enumerate(found):
            if camera not in frame.between:
                past[camera].append(of_camera)


@settings(max_examples=50, deadline=None)
@given(drives(), st.data())
def test_frames_that_were_stored_in_between_give_the_same_tracks(frames, data):
    whole, parts = Tracker(), Tracker()
    for frame in frames:
        if data.draw(st.booleans()):
            parts = pickle.loads(pickle.dumps(parts))
        before = copy.deepcopy(frame)
        for one, other in zip(
            whole.update(frame), parts.update(pickle.loads(pickle.dumps(frame))), strict=True
        ):
            assert (one is None) == (other is None)
            if one is not None:
                for name, values in vars(one).items():
                    np.testing.assert_array_equal(values, getattr(other, name), strict=True)
        for keypoints, same in zip(before.keypoints, frame.keypoints, strict=True):
            np.testing.assert_array_equal(keypoints, same)


@pytest.fixture
def stereo():
    return Rig.parse(["left", "right"], ["left:right", "left@-1:left", "right@-1:right", "left@-3:left"])


def run(rig, *frames):
    """Tracks of the last of some frames: (numbers of keypoints, matches of each pair)."""
    tracker = Tracker()
    for counts, *matches in frames:
        matches = [matched() if it is None else it for it in matches]
        tracks = tracker.update(seen(rig, counts, matches))
    return tracks


def test_matched_keypoints_have_one_id_through_time_and_across_cameras(stereo):
    first = run(stereo, ((2, 2), matched((1, 0)), None, None, None))
    assert ids_of(first) == [[1, 2], [2, 3]]
    left, right = run(
        stereo,
        ((2, 2), matched((1, 0)), None, None, None),
        ((2, 2), None, matched((1, 0)), matched((0, 1), (1, 0)), None),
    )
    assert (left.ids.tolist(), right.ids.tolist()) == ([2, 4], [3, 2])
    assert (left.ages.tolist(), right.ages.tolist()) == ([2, 1], [2, 2])
    assert (left.ids.dtype, left.ages.dtype) == (np.uint64, np.uint32)


def test_the_older_track_wins_if_two_meet_across_cameras(stereo):
    frames = [
        ((0, 1), None, None, None, None),
        ((1, 1), None, None, matched((0, 0)), None),
        ((1, 1), matched((0, 0)), matched((0, 0)), matched((0, 0)), None),
    ]
    assert ids_of(run(stereo, *frames[:2])) == [[2], [1]]
    assert ids_of(run(stereo, *frames)) == [[1], [1]]


def test_a_pair_further_back_gives_a_lost_track_its_id_back_with_its_age(stereo):
    left, _ = run(
        stereo,
        ((2, None), None, None, None, None),
        ((1, None), None, matched((0, 0)), None, None),
        ((0, None), None, None, None, None),
        ((2, None), None, None, None, matched((1, 1))),
    )
    assert left.ids.tolist() == [3, 2]
    assert left.ages.tolist() == [1, 4]


def test_of_two_keypoints_that_claim_a_track_the_one_from_the_newer_image_gets_it(stereo):
    left, _ = run(
        stereo,
        ((1, None), None, None, None, None),
        ((1, None), None, matched((0, 0)), None, None),
        ((1, None), None, matched((0, 0)), None, None),
        ((2, None), None, matched((0, 1), scores=[0.2]), None, matched((0, 0), scores=[0.9])),
    )
    assert left.ids.tolist() == [2, 1]


def test_ids_begin_anew_after_time_was_set_back(stereo):
    tracker = Tracker()
    nothing = [matched()] * 4
    tracker.update(seen(stereo, (1, 1), [matched((0, 0)), *nothing[1:]], epochs=(0, 0)))
    assert ids_of(tracker.update(seen(stereo, (1, 1), nothing, epochs=(1, 1)))) == [[2], [3]]
    tracker.forget()
    assert ids_of(tracker.update(seen(stereo, (1, 1), nothing, epochs=(1, 1)))) == [[4], [5]]


def test_a_track_goes_on_from_its_own_position_by_the_step_of_a_refined_match(stereo):
    """Keypoints are whole pixels; refined matches begin at a keypoint and end next to another one."""
    tracker = Tracker()
    moves = [((10.0, 20.0), (12.25, 20.5)), ((12.0, 20.0), (14.5, 20.75))]
    tracker.update(seen(stereo, (1, 0), [matched()] * 4, [[10, 20], []]))
    for start, end in moves:
        matches = [matched(), matched((0, 0), ends=[[start], [end]]), matched(), matched()]
        left, _ = tracker.update(seen(stereo, (1, 0), matches, [[round(end[0]), round(end[1])], []]))
    assert left.keypoints.tolist() == [[14.75, 21.25]]
    # Across cameras, too: the right keypoint follows the left one of the same instant.
    across = matched((0, 0), ends=[[(16.0, 21.0)], [(6.5, 21.25)]])
    along = matched((0, 0), ends=[[(14.0, 21.0)], [(16.25, 21.0)]])
    left, right = tracker.update(
        seen(stereo, (1, 1), [across, along, matched(), matched()], [[16, 21], [6, 21]])
    )
    assert left.keypoints.tolist() == [[17.0, 21.25]]
    assert right.keypoints.tolist() == [[7.5, 21.5]]


def test_rays_are_those_of_the_intrinsics_and_empty_without(stereo):
    camera = Intrinsics(np.array([[100.0, 0, 50], [0, 200.0, 30], [0, 0, 1]]))
    frame = seen(stereo, (1, 1), [matched()] * 4, [[150, 30], [0, 0]], intrinsics=[camera, None])
    left, right = Tracker().update(frame)
    np.testing.assert_allclose(left.rays, [[1.0, 0.0]])
    assert (left.rays.dtype, right.rays.shape) == (np.float32, (0, 2))
    distorted = Intrinsics(camera.matrix, np.array([0.1, 0, 0, 0]))
    left, _ = Tracker().update(seen(stereo, (0, None), [matched()] * 4, intrinsics=[distorted, None]))
    assert left.rays.shape == (0, 2)
