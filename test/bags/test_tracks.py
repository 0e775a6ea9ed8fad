"""Tracks in a matched bag; test_resume.py has runs that are interrupted and chunks in any order."""

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")
from recordings import BEGIN, CAMERAS, TEXT, camera_info, decoded, stereo, write_bag


@pytest.fixture(scope="module")
def bag(motorcycle, tmp_path_factory):
    def messages():
        yield "/left/camera_info", camera_info("left"), BEGIN
        # Something else under our name.
        yield "/tracks", TEXT("old"), BEGIN
        yield from stereo(motorcycle, frames=20)

    return write_bag(tmp_path_factory.mktemp("tracks") / "bag", "mcap", messages())


def test_tracks_of_a_bag_agree_with_its_matches_and_have_rays_where_cameras_are_calibrated(
    bag, match_here, tmp_path
):
    # Refined matches end next to the keypoints.
    arguments = ("--storage", "sqlite3", "-p", "refine:=none")
    status, out, _ = match_here(bag, "-o", tmp_path / "out", *arguments)
    assert status == 0
    assert "its own /tracks is left out" in out
    matches, tracks = (decoded(tmp_path / "out", topic) for topic in ("/matches", "/tracks"))
    assert len(matches) == len(tracks) == 20
    joined = 0
    before = None
    for matched, message in zip(matches, tracks, strict=True):
        assert str(message.header) == str(matched.header)
        assert [camera.camera for camera in message.cameras] == list(CAMERAS)
        left, right = message.cameras
        stereo_pair, through_time = matched.pairs
        assert (len(left.ids), len(right.ids)) == (stereo_pair.num_keypoints0, stereo_pair.num_keypoints1)
        assert str(left.header.stamp) == str(stereo_pair.stamp0)
        assert right.header.frame_id == "right_optical"
        keypoints = left.keypoints.reshape(-1, 2)
        np.testing.assert_array_equal(keypoints[stereo_pair.indices0].ravel(), stereo_pair.keypoints0)
        np.testing.assert_array_equal(left.ids[stereo_pair.indices0], right.ids[stereo_pair.indices1])
        np.testing.assert_allclose(left.rays.reshape(-1, 2), (keypoints - [60, 42]) / 150, atol=1e-6)
        assert len(right.rays) == 0
        if before is not None:
            # A keypoint of the left camera that was matched through time has its id, but where stereo
            # matches gave it an older one.
            ids, past = left.ids[through_time.indices1], before.ids[through_time.indices0]
            assert (ids <= past).all()
            joined += np.count_nonzero(ids == past)
            assert (left.ages[through_time.indices1] > 1).all()
        before = left
    assert joined > 100


def test_a_bag_has_no_tracks_unless_they_are_asked_for(bag, match_here, tmp_path):
    arguments = ("-p", "publish_tracks:=false", "--matches-only")
    assert match_here(bag, "-o", tmp_path / "out", *arguments)[0] == 0
    with pytest.raises(ValueError, match="not enough values"):
        decoded(tmp_path / "out", "/tracks")
    assert len(decoded(tmp_path / "out", "/matches")) == 20
