"""Rigs with cameras that are mounted on their head or on their side."""

import cv2
import numpy as np
import pytest
from pixel_image import PixelImage

from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.core.rotation import turn, turn_points
from lightglue_ros.rig import rotations as finding
from lightglue_ros.rig.frame import FrameSettings, RigFrame
from lightglue_ros.rig.processor import FrameProcessor
from lightglue_ros.rig.rig import Rig

SIZE = (320, 216)
PAIRS = ["a:b", "b:c", "a@-1:c"]
MOUNTED = (0, 180, 90)


@pytest.fixture(scope="module")
def upright(motorcycle):
    left, right = (cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA) for image in motorcycle)
    return [left, right, left]


class Frames:
    def __init__(self, pipeline, rotations, geometry="none"):
        rig = Rig.parse(["a", "b", "c"], PAIRS)
        self.settings = FrameSettings(
            rig, (320, 224), 300, 0.1, Mono16Range(), geometry, rotations=tuple(rotations)
        )
        self.processor = FrameProcessor(pipeline, self.settings)

    def process(self, images, mounted=(0, 0, 0)):
        images = [
            image if image is None else turn(image, -it % 360)
            for image, it in zip(images, mounted, strict=True)
        ]
        images = tuple(None if image is None else PixelImage(image) for image in images)
        missing = frozenset(camera for camera, image in enumerate(images) if image is None)
        frame = RigFrame(images, (0, 0, 0), missing, (0, 0, 0))
        return self.processor.process(frame, self.settings)

    @property
    def rotations(self):
        return self.processor.rotations.rotations


def test_a_rig_with_turned_cameras_has_the_matches_and_inliers_of_an_upright_one(pipeline, upright):
    expected, turned = Frames(pipeline, (), "fundamental"), Frames(pipeline, MOUNTED, "fundamental")
    for _ in range(2):
        results = expected.process(upright), turned.process(upright, MOUNTED)
    for views, one, other in zip(turned.settings.rig.pairs, *(it.pairs for it in results), strict=True):
        assert len(one.matches) > 50
        np.testing.assert_array_equal(other.matches.indices1, one.matches.indices1)
        np.testing.assert_array_equal(other.matches.checked, one.matches.checked)
        found = other.matches.keypoints0, other.matches.keypoints1
        images = other.image0, other.image1
        for points, image, view, name in zip(found, images, views, ("keypoints0", "keypoints1"), strict=True):
            mapped = turn_points(points, MOUNTED[view.camera], (image.width, image.height))
            np.testing.assert_allclose(mapped, getattr(one.matches, name), atol=0.01)
        # RANSAC draws other samples of other coordinates.
        assert np.mean(other.verification.inliers == one.verification.inliers) > 0.9


@pytest.mark.parametrize("given", [(0, None, None), (None, None, None)])
def test_auto_finds_how_the_cameras_are_turned_and_then_costs_nothing(pipeline, upright, given):
    frames = Frames(pipeline, given)
    frames.process(upright, MOUNTED)
    assert frames.rotations == MOUNTED
    assert frames.processor.rotations.found == {1: 180, 2: 90}
    assert not frames.processor.rotations.is_searching
    (first, *_) = frames.process(upright, MOUNTED).pairs
    (expected, *_) = Frames(pipeline, MOUNTED).process(upright, MOUNTED).pairs
    np.testing.assert_array_equal(first.matches.keypoints1, expected.matches.keypoints1)
    frames.processor.rotations.search(None, upright)  # nothing is tried, so no pipeline is needed


def test_the_time_of_the_search_counts_as_inference(pipeline, upright):
    before = pipeline.times
    result = Frames(pipeline, (0, None, None)).process(upright, MOUNTED)
    assert result.inference == pytest.approx((pipeline.times - before).inference)


def test_a_rotation_that_dark_or_missing_images_hide_is_found_later(pipeline, upright, monkeypatch):
    monkeypatch.setattr(finding, "RETRY_FRAMES", 2)
    frames = Frames(pipeline, (0, None, 90))
    frames.process([upright[0], None, upright[2]], MOUNTED)
    frames.process([upright[0], np.zeros_like(upright[1]), upright[2]], MOUNTED)
    for _ in range(2):
        frames.process(upright, MOUNTED)
        assert frames.rotations == (0, 0, 90)
    frames.process(upright, MOUNTED)
    assert frames.rotations == MOUNTED


def test_a_camera_that_was_turned_meanwhile_is_found_again(pipeline, upright, monkeypatch):
    monkeypatch.setattr(finding, "COLLAPSED_FRAMES", 3)
    frames = Frames(pipeline, (0, None, 90))
    for _ in range(3):
        frames.process(upright, MOUNTED)
    now = (0, 270, 90)
    for _ in range(3):
        frames.process(upright, now)
        assert frames.rotations == MOUNTED
    frames.process(upright, now)
    assert frames.rotations == now
