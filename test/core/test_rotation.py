"""Images that are turned before extraction: keypoints come back in the pixels of the originals."""

import cv2
import numpy as np
import pytest

from lightglue_ros.core import ConfigError, Features, MatchPipeline
from lightglue_ros.core.best_rotation import match_in_best_rotation
from lightglue_ros.core.rotation import (
    ROTATIONS,
    turn,
    turn_all_back,
    turn_points,
    turn_points_back,
    turned_size,
)

MATCHED = {"indices0", "indices1", "scores", "checked"}


@pytest.fixture
def pipeline(model_folder):
    return MatchPipeline(model_folder, "cpu", image_size=(320, 320))


@pytest.fixture(scope="module")
def images(motorcycle):
    return [cv2.resize(image, (320, 216), interpolation=cv2.INTER_AREA) for image in motorcycle]


def as_mounted(image, rotation):
    """The image of a camera that must be turned by `rotation` to be upright."""
    return turn(image, -rotation % 360)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_a_point_stays_on_its_pixel(rotation):
    image = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    turned = turn(image, rotation)
    assert turned.shape[1::-1] == turned_size((7, 5), rotation)
    points = np.array([(x, y) for y in range(5) for x in range(7)])
    moved = turn_points(points, rotation, (7, 5))
    assert turned[moved[:, 1], moved[:, 0]].tolist() == image[points[:, 1], points[:, 0]].tolist()
    np.testing.assert_array_equal(turn_points_back(moved, rotation, (7, 5)), points)


def test_points_of_turned_images_come_back_and_those_of_empty_slots_are_left_out():
    sizes, points = [(7, 5), (4, 9)], np.array([[[1, 2], [6, 0]], [[3, 8], [0, 5]]])
    turned = [turn_points(*of_image) for of_image in zip(points, (90, 180), sizes, strict=True)]
    slots, turned_sizes = np.array([*turned, np.zeros((2, 2))]), np.array([(5, 7), (4, 9), (1, 1)])
    np.testing.assert_array_equal(turn_all_back(slots, (90, 180), turned_sizes), points)
    np.testing.assert_array_equal(turn_all_back(slots, None, turned_sizes), slots)


def test_a_quarter_turn_is_clockwise():
    assert turn(np.array([[1, 2], [3, 4]], np.uint8), 90).tolist() == [[3, 1], [4, 2]]


@pytest.mark.parametrize("device", [False, True])
def test_turned_images_have_the_refined_matches_of_upright_ones(
    pipeline, model_folder, on_device, images, device
):
    if device:
        pipeline = on_device(model_folder, pipeline.image_size)
    (upright,) = pipeline.match(images, [(0, 1)])
    assert len(upright) > 100
    assert upright.checked.any()
    for rotations in ((90, 180), (270, 0)):
        mounted = list(map(as_mounted, images, rotations))
        (found,) = pipeline.match(mounted, [(0, 1)], rotations)
        for name in MATCHED:
            np.testing.assert_allclose(getattr(found, name), getattr(upright, name), atol=1e-4)
        for name, image, rotation in zip(("keypoints0", "keypoints1"), mounted, rotations, strict=True):
            turned = turn_points(getattr(found, name), rotation, image.shape[1::-1])
            np.testing.assert_allclose(turned, getattr(upright, name), atol=0.01)
        features = pipeline.extract(mounted, rotations)
        assert features.image_sizes.tolist() == [list(image.shape[1::-1]) for image in mounted]
        # Of the past, joined with upright ones.
        past = Features.concatenate([features.of_image(1).copy(), pipeline.extract(images[:1])])
        (found,) = pipeline.match_features(past, [(1, 0)])
        np.testing.assert_array_equal(found.indices0, upright.indices0)


def test_images_that_are_not_turned_are_not_copied(pipeline, images, monkeypatch):
    monkeypatch.setattr(cv2, "rotate", None)
    assert len(pipeline.match(images, [(0, 1)], [0, 0])[0]) > 100
    assert pipeline.extract(images, [0, 0]).rotations is None


@pytest.mark.parametrize("rotations", [[0], [0, 45]])
def test_rotations_that_do_not_fit_are_named(pipeline, images, rotations):
    with pytest.raises(ConfigError, match="0, 90, 180, 270, one for each of 2 images"):
        pipeline.match(images, [(0, 1)], rotations)


@pytest.mark.parametrize("rotation", [90, 180])
def test_the_best_of_four_orientations_is_the_upright_one(pipeline, images, rotation):
    (expected,) = pipeline.match(images, [(0, 1)])
    (found,) = match_in_best_rotation(pipeline, [images[0], as_mounted(images[1], rotation)], [(0, 1)])
    np.testing.assert_array_equal(found.indices1, expected.indices1)
    np.testing.assert_allclose(
        turn_points(found.keypoints1, rotation, turned_size((320, 216), rotation)),
        expected.keypoints1,
        atol=0.01,
    )
