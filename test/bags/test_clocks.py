"""Bags of cameras whose clocks differ."""

import random

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")
from recordings import BEGIN, image_message, write_bag

from lightglue_ros.bags.frame_index import build_frame_index
from lightglue_ros.rosdata.parameters import MatcherParameters

CAMERAS = ("left", "right", "rear")
PERIOD, FRAMES = 500_000_000, 100


@pytest.mark.parametrize("ahead", [37, 2, -2, -37])
@pytest.mark.parametrize("since", [0, 40])
def test_a_camera_whose_clock_is_wrong_is_not_matched_with_another_instant(tmp_path, ahead, since):
    """The bag is long enough for the others to come to its stamps."""

    def record():
        for frame in range(FRAMES):
            time = BEGIN + PERIOD * frame
            for camera in CAMERAS:
                is_wrong = camera == "rear" and frame >= since
                stamp = time + (ahead * 10**9 if is_wrong else 0)
                picture = np.full((16, 16), frame, np.uint8)
                yield f"/{camera}/image_rect", image_message(picture, camera, stamp), time

    bag = write_bag(tmp_path / "bag", "mcap", record())
    settings = MatcherParameters(
        cameras=list(CAMERAS),
        image_topics=[f"{camera}/image_rect" for camera in CAMERAS],
        pairs=["left:right", "right:rear", "rear@-1:rear"],
    )
    index = build_frame_index((bag,), tmp_path, settings)
    stamps = [frame.stamps for _, frame in index.frames]
    together = [(left, right) for left, right, _ in stamps if left is not None]
    assert together == [(BEGIN + PERIOD * frame,) * 2 for frame in range(FRAMES)]
    alone = [rear for left, _, rear in stamps if left is None]
    assert len(alone) >= FRAMES - since - 1
    assert sum(None not in frame for frame in stamps) == since


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("delivery", ["bursts", "out of order"])
def test_images_that_were_recorded_late_or_out_of_order_find_their_partners(tmp_path, storage, delivery):
    luck = random.Random(0)

    def time_of(frame, camera):
        if delivery == "bursts":
            # The network stands still for 10 s, and then gives a camera's images before those of the next.
            return BEGIN + PERIOD * (frame // 20 + 1) * 20 + 1000 * camera + frame
        return BEGIN + PERIOD * frame + luck.randrange(10 * PERIOD)

    def record():
        for frame in range(FRAMES):
            for number, camera in enumerate(CAMERAS):
                picture = np.full((16, 16), frame, np.uint8)
                message = image_message(picture, camera, BEGIN + PERIOD * frame)
                yield time_of(frame, number), f"/{camera}/image_rect", message

    rows = sorted(record(), key=lambda row: row[0])
    bag = write_bag(tmp_path / "bag", storage, [(topic, message, time) for time, topic, message in rows])
    settings = MatcherParameters(
        cameras=list(CAMERAS),
        image_topics=[f"{camera}/image_rect" for camera in CAMERAS],
        pairs=["left:right", "right:rear"],
    )
    index = build_frame_index((bag,), tmp_path, settings)
    assert [frame.stamps for _, frame in index.frames] == [
        (BEGIN + PERIOD * frame,) * 3 for frame in range(FRAMES)
    ]


@pytest.mark.parametrize("ahead", [37, -37])
def test_a_wrong_clock_is_named_as_the_cause(tmp_path, ahead):
    """The bag is too short for a camera to come to the other one's stamps."""
    picture = np.zeros((16, 16), np.uint8)
    rows = [
        (f"/{camera}/image_rect", image_message(picture, camera, time + shift), time)
        for time in range(BEGIN, BEGIN + 20 * PERIOD, PERIOD)
        for camera, shift in (("left", 0), ("right", ahead * 10**9))
    ]
    bag = write_bag(tmp_path / "bag", "mcap", rows)
    found = build_frame_index((bag,), tmp_path, MatcherParameters()).tally.findings()
    causes = {(one.about, one.cause.partition(";")[0]) for one in found if one.kind == "missing"}
    assert causes == {("right", f"its stamps are 37.0 s {'ahead of' if ahead > 0 else 'behind'} left's")}
