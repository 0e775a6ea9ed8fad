"""Videos of matched bags."""

import numpy as np
import pytest
from video_reading import read_video

pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")
from recordings import decoded, decoded_matches, pictures, stereo, write_bag

from lightglue_ros.core.draw import Style
from lightglue_ros.rosdata.drawing import RecentKeypoints, draw_message

FRAMES = 12


def difference(one, other):
    return np.abs(one.astype(int) - other).mean()


def test_a_video_shows_all_pairs_of_each_frame_as_the_node_draws_them(motorcycle, match_here, tmp_path):
    bag = write_bag(tmp_path / "drive", "mcap", stereo(motorcycle, frames=FRAMES))
    output, video = tmp_path / "matched", tmp_path / "matches.mp4"
    arguments = (bag, "-o", output, "--matches-only", "--video", video, "-p", "publish_tracks:=true")
    assert match_here(*arguments, "-p", "drawing_colour:=age")[0] == 0
    rate, frames = read_video(video)
    assert rate == pytest.approx(20.0)
    messages = decoded_matches(output)
    assert len(frames) == len(messages) == FRAMES
    tracks, recent = decoded(output, "/tracks"), RecentKeypoints()
    drawn = []
    for number in range(FRAMES):
        recent.add_tracks(tracks[number])
        if number not in (0, 1, FRAMES - 1):
            continue
        present, past = pictures(motorcycle, number), pictures(motorcycle, max(number - 1, 0))
        images = [tuple(present), (past[0] if number else np.zeros_like(past[0]), present[0])]
        drawn.append((number, draw_message(messages[number], images, Style("age"), recent.frames)))
    for number, picture in drawn:
        assert frames[number].shape == picture.shape
        # What the codec loses is less than the difference from other frames.
        assert difference(frames[number], picture) < 0.6 * difference(frames[6], picture)

    # A bag that is matched already: only the video is made.
    video.unlink()
    status, _, said = match_here(*arguments, "-p", "drawing_lines:=0")
    assert status == 0
    assert f"{output} is done already" in said
    assert len(read_video(video)[1]) == FRAMES


def test_several_bags_have_a_video_each_and_a_camera_that_begins_later_is_black_until_then(
    motorcycle, match_here, tmp_path
):
    for name in ("one", "two"):
        messages = list(stereo(motorcycle, frames=FRAMES))
        write_bag(tmp_path / name, "mcap", [it for n, it in enumerate(messages) if n > 15 or "left" in it[0]])
    output = ("-o", tmp_path / "matched", "--video", tmp_path / "videos", "-p", "camera_timeout:=0.1")
    assert match_here(tmp_path / "one", tmp_path / "two", *output)[0] == 0
    for name in ("one", "two"):
        _, frames = read_video(tmp_path / "videos" / f"{name}.mp4")
        assert len({frame.shape for frame in frames}) == 1
        assert frames[0][40:80, 130:].max() < 40
        assert frames[-1][40:80, 130:].max() > 100
