import resource
import shutil
from functools import partial

import numpy as np
import pytest
from video_reading import read_video

from lightglue_ros.core.files import written_whole
from lightglue_ros.core.video_files import require_video_name, video_file
from lightglue_ros.errors import ConfigError


def write(path, pictures):
    with written_whole({path: partial(video_file, rate=12.5)}) as add:
        for picture in pictures:
            add(picture)


def test_a_video_has_all_pictures_in_the_size_of_the_first_and_in_their_colours(tmp_path):
    red, blue = (np.full((61, 99, 3), colour, np.uint8) for colour in ((200, 20, 20), (20, 20, 200)))
    write(tmp_path / "out.mp4", [red, blue, blue[:30, :50], np.tile(red, (2, 1, 1))])
    rate, frames = read_video(tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert rate == 12.5
    assert [frame.shape for frame in frames] == [(62, 100, 3)] * 4
    for frame, colour in zip(frames, (red, blue, blue, red), strict=True):
        assert np.abs(frame[10, 10].astype(int) - colour[0, 0]).max() < 25
    # A small picture and the edge of a large one that was shrunk.
    assert frames[2][50, 80].max() < 40
    assert frames[3][50, 80].max() < 40


def test_a_full_disk_leaves_no_video_and_is_named(tmp_path, noise, monkeypatch):
    pictures = [noise(120, 160)] * 20
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(ConfigError, match=r"cannot write \S+out.mp4: not all of it could be written"):
            write(tmp_path / "out.mp4", pictures)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
    with pytest.raises(ConfigError, match=r"cannot write \S+out.mp4: No space left on device"):
        write(tmp_path / "out.mp4", pictures)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_mp4_is_an_error_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match=r"out.avi as a video; allowed: a name that ends in .mp4"):
        require_video_name(tmp_path / "out.avi")
