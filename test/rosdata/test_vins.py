"""Features for VINS-Fusion, made of tracks."""

from types import SimpleNamespace

import numpy as np
import pytest

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.vins import CHANNELS, VinsFrontEnd


def image(camera, tracks, seconds=1.0, has_rays=True):
    """Tracks of a camera, {id: (age, x, y)}, as in the message; rays are a hundredth of the pixels."""
    points = np.array([row[1:] for row in tracks.values()], np.float32).ravel()
    stamp = SimpleNamespace(sec=int(seconds), nanosec=round(seconds % 1 * 1e9))
    return SimpleNamespace(
        camera=camera,
        header=SimpleNamespace(stamp=stamp, frame_id=camera),
        ids=list(tracks),
        ages=[row[0] for row in tracks.values()],
        keypoints=points,
        rays=points / 100 if has_rays else points[:0],
    )


def message(*images):
    return SimpleNamespace(cameras=images)


def rows_of(features):
    """Each feature by its channels' names, with its ray."""
    assert features.channels.dtype == np.float32
    assert len(features.channels) == len(CHANNELS) == 9
    assert not features.channels[6:].any()
    columns = zip(*features.channels[:6].tolist(), *features.rays.T.tolist(), strict=True)
    return [dict(zip((*CHANNELS[:6], "x", "y"), column, strict=True)) for column in columns]


def numbers_of(features):
    return [int(row["id"]) for row in rows_of(features)]


def test_tracks_in_their_second_frame_become_features_with_pixels_rays_and_speeds():
    front_end = VinsFrontEnd(["left", "right"])
    new = {7: (1, 10, 20), 8: (1, 30, 40)}
    assert numbers_of(front_end.take(message(image("left", new), image("right", {7: (1, 5, 20)})))) == []
    left = {9: (1, 0, 0), 7: (2, 11, 22), 8: (2, 30, 40)}
    right = {7: (2, 4, 20), 5: (3, 1, 1)}
    features = front_end.take(message(image("left", left, 1.5), image("right", right, 1.5)))
    assert features.header.frame_id == "left"
    expected = [
        {"id": 0, "camera": 0, "u": 11, "v": 22, "vx": 0.02, "vy": 0.04, "x": 0.11, "y": 0.22},
        {"id": 1, "camera": 0, "u": 30, "v": 40, "vx": 0.0, "vy": 0.0, "x": 0.3, "y": 0.4},
        {"id": 0, "camera": 1, "u": 4, "v": 20, "vx": -0.02, "vy": 0.0, "x": 0.04, "y": 0.2},
    ]
    assert [pytest.approx(row, abs=1e-6) for row in expected] == rows_of(features)


def test_a_track_that_was_lost_in_a_frame_comes_back_as_a_new_feature():
    front_end = VinsFrontEnd(["left"])
    frames = [{1: (2, 0, 0), 2: (2, 1, 1)}, {2: (3, 1, 1)}, {1: (4, 0, 0), 2: (4, 1, 1)}]
    found = [numbers_of(front_end.take(message(image("left", frame)))) for frame in frames]
    assert found == [[0, 1], [1], [2, 1]]


def test_a_frame_without_the_first_camera_is_left_out_and_its_tracks_go_on_after_it():
    front_end = VinsFrontEnd(["left", "right"])
    both = message(image("left", {1: (2, 0, 0)}), image("right", {1: (2, 1, 1)}))
    assert numbers_of(front_end.take(both)) == [0, 0]
    assert front_end.take(message(image("right", {1: (3, 1, 1)}))) is None
    assert numbers_of(front_end.take(message(image("left", {1: (4, 0, 0)})))) == [0]


def test_numbers_stay_exact_in_float32_and_begin_again_without_one_that_is_in_use():
    front_end = VinsFrontEnd(["left"], first_number=2**24 - 1)
    tracks = {2**40 + row: (2, row, row) for row in range(2)}
    assert numbers_of(front_end.take(message(image("left", tracks)))) == [2**24 - 1, 0]
    front_end._next -= 1
    tracks[5] = (2, 5, 5)
    assert numbers_of(front_end.take(message(image("left", tracks)))) == [2**24 - 1, 0, 1]


def test_tracks_without_rays_and_cameras_that_cannot_be_are_named_in_one_line():
    with pytest.raises(ConfigError, match="tracks of camera left have no rays"):
        VinsFrontEnd(["left"]).take(message(image("left", {1: (2, 3, 4)}, has_rays=False)))
    for cameras in ([], ["left", "left"], ["left", "right", "rear"]):
        with pytest.raises(ConfigError, match="parameter cameras is"):
            VinsFrontEnd(cameras)
