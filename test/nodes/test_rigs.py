"""Rigs of the running matcher: the parameter files, pairs through time, many cameras."""

from pathlib import Path

import numpy as np
import pytest
from ament_index_python.packages import get_package_share_directory

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.image_files import list_images, read_image
from lightglue_ros.msg import PairMatches
from lightglue_ros.nodes.conversions import message_to_matches

CONFIG = Path(get_package_share_directory("lightglue_ros")) / "config"
OK, MISSING = PairMatches.STATUS_OK, PairMatches.STATUS_MISSING


READY = [
    ("matcher", ["left", "right"], [OK]),
    ("stereo_with_time", ["left", "right"], [OK, OK, OK, MISSING]),
    ("surround", ["front", "left", "rear", "right"], [OK, OK, OK, OK]),
    ("mono", ["camera"], [OK, MISSING]),
]


@pytest.mark.parametrize(("name", "cameras", "statuses"), READY)
def test_the_second_frame_of_each_ready_rig(robot, motorcycle, name, cameras, statuses):
    """The pairs with the frame five before have none yet."""
    rig = robot(cameras, params_file=CONFIG / f"{name}.yaml")
    images = {camera: motorcycle[slot % 2] for slot, camera in enumerate(cameras)}
    message = rig.show_until(images, lambda m: [pair.status for pair in m.pairs] == statuses, f"{statuses}")
    assert min(len(pair.scores) for pair in message.pairs if pair.status == OK) > 50


def test_every_parameter_file_is_one_of_these():
    assert {path.stem for path in CONFIG.glob("*.yaml")} == {name for name, *_ in READY}


def test_stereo_with_time_extracts_each_image_once_and_tells_both_stamps(robot, shared_data):
    """A drive; the left camera one image ahead stands in for the right one."""
    drive = [read_image(path) for path in list_images(shared_data / "kitti_seq1" / "image_l")[:8]]
    rig = robot(pairs=["left:right", "left@-1:left", "left@-5:left"])
    start = rig.get_clock().now().nanoseconds * 1e-9
    # One after the other, so that none is dropped.
    messages = [
        rig.match_at(start + 0.1 * moment, {"left": drive[moment], "right": drive[moment + 1]})
        for moment in range(len(drive) - 1)
    ]
    stamps = [message.header.stamp for message in messages]
    for moment, message in enumerate(messages):
        stereo, one_back, five_back = message.pairs
        assert stereo.stamp0 == stereo.stamp1 == stamps[moment]
        for pair, back in ((one_back, 1), (five_back, 5)):
            if moment < back:
                assert pair.status == MISSING
                continue
            assert (pair.stamp0, pair.stamp1) == (stamps[moment - back], stamps[moment])
    before, now = drive[5], drive[6]
    (alone,) = MatchPipeline("xfeat", image_size=(320, 224)).match([before, now], [(0, 1)])
    assert len(alone) > 50
    found = message_to_matches(messages[6].pairs[1])
    np.testing.assert_array_equal(found.indices0, alone.indices0)
    np.testing.assert_array_equal(found.indices1, alone.indices1)
    rig.wait_until(lambda: rig.diagnostics.get("frames matched") == str(len(messages)), "diagnostics of all")
    assert rig.diagnostics["images extracted"] == str(2 * len(messages))


def test_eight_cameras_and_eight_pairs_are_those_of_the_pipeline(robot, motorcycle):
    names = [f"camera{slot}" for slot in range(8)]
    # Both images as they are, mirrored, upside down and turned.
    views = [
        np.ascontiguousarray(image[:480:2, :640:2][::down, ::along])
        for down, along in ((1, 1), (1, -1), (-1, 1), (-1, -1))
        for image in motorcycle
    ]
    images = dict(zip(names, views, strict=True))
    pairs = [(0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 0), (3, 5), (7, 4)]
    named = [f"{names[first]}:{names[second]}" for first, second in pairs]
    rig = robot(names, pairs=named, image_width=320, image_height=240)
    message = rig.match(images)
    assert [f"{pair.camera0}:{pair.camera1}" for pair in message.pairs] == named
    expected = MatchPipeline("xfeat", image_size=(320, 240)).match(views, pairs)
    for pair, one in zip(message.pairs, expected, strict=True):
        found = message_to_matches(pair)
        np.testing.assert_array_equal(found.indices0, one.indices0)
        np.testing.assert_array_equal(found.indices1, one.indices1)
        np.testing.assert_allclose(found.scores, one.scores, atol=1e-4)
    assert len(expected[0]) > 50
