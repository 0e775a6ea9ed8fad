"""Rigs of the running matcher: the parameter files, and many cameras."""

from pathlib import Path

import numpy as np
import pytest
from ament_index_python.packages import get_package_share_directory

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.image_files import write_image
from lightglue_ros.msg import PairMatches
from lightglue_ros.rosdata.messages import message_to_matches

CONFIG = Path(get_package_share_directory("lightglue_ros")) / "config"
OK, MISSING = PairMatches.STATUS_OK, PairMatches.STATUS_MISSING


READY = [
    ("matcher", ["left", "right"], [OK]),
    ("stereo_with_time", ["left", "right"], [OK, OK, OK, MISSING]),
    ("visual_inertial", ["left", "right"], [OK, OK, MISSING]),
    ("surround", ["front", "left", "rear", "right"], [OK, OK, OK, OK]),
    ("mono", ["camera"], [OK, MISSING]),
    ("docking", ["front"], [OK]),
]


@pytest.mark.parametrize(("name", "cameras", "statuses"), READY)
def test_the_second_frame_of_each_ready_rig(robot, motorcycle, name, cameras, statuses, tmp_path):
    """The pairs with the frame five before have none yet."""
    write_image(tmp_path / "dock.png", motorcycle[1])
    stored = {"references": [f"dock:{tmp_path / 'dock.png'}"]} if name == "docking" else {}
    rig = robot(cameras, params_file=CONFIG / f"{name}.yaml", **stored)
    images = {camera: motorcycle[slot % 2] for slot, camera in enumerate(cameras)}
    message = rig.show_until(images, lambda m: [pair.status for pair in m.pairs] == statuses, f"{statuses}")
    assert min(len(pair.scores) for pair in message.pairs if pair.status == OK) > 50


def test_every_parameter_file_is_one_of_these():
    assert {path.stem for path in CONFIG.glob("*.yaml")} == {name for name, *_ in READY}


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
