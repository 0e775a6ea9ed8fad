"""Refinement of matches by comparing the images, on images whose motion is known."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from lightglue_ros.core.features import PairMatches
from lightglue_ros.core.refinement import GreyImage, Refiner, refine
from lightglue_ros.errors import ConfigError

CANVAS = (320, 240)
# The second image lies this far right of the first and below it, in pixels.
SHIFT = np.array([5.3, -3.8], np.float32)


@pytest.fixture(scope="module")
def images():
    """A textured image, and the same image shifted."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320), np.uint8)
    first = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX)
    return first, cv2.warpAffine(first, np.array([[1, 0, SHIFT[0]], [0, 1, SHIFT[1]]]), (320, 240))


@pytest.fixture
def matches():
    """Right matches to a whole pixel, as XFeat finds them."""
    first = np.random.default_rng(1).integers(30, 200, (100, 2)).astype(np.float32)
    indices = np.arange(100, dtype=np.int32)
    return PairMatches(first, np.rint(first + SHIFT), np.ones(100, np.float32), indices, indices[::-1], 6)


def error(found, factor=1.0):
    expected = (found.keypoints0 + SHIFT + 0.5) * factor - 0.5
    return np.linalg.norm(found.keypoints1 - expected, axis=1)


def test_matches_of_whole_pixels_become_right_to_a_fraction_of_a_pixel(images, matches):
    found = refine(matches, *(GreyImage.of(image, CANVAS) for image in images), CANVAS)
    assert error(matches).min() > 0.3
    assert np.median(error(found)) < 0.05
    assert error(found).max() < 0.15
    assert found.checked.all()
    assert found.keypoints1.dtype == np.float32
    for name in ("keypoints0", "scores", "indices0", "indices1"):
        np.testing.assert_array_equal(getattr(found, name), getattr(matches, name))


def test_matches_of_a_neighbour_three_pixels_off_become_right(images, matches):
    """XFeat's descriptors tell neighbours apart less well than its detector."""
    angles = np.linspace(0, 2 * np.pi, len(matches))
    offsets = 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    off = replace(matches, keypoints1=(matches.keypoints0 + SHIFT + offsets).astype(np.float32))
    found = refine(off, *(GreyImage.of(image, CANVAS) for image in images), CANVAS)
    assert np.mean(error(found) < 0.15) > 0.85
    assert error(found)[found.checked].max() < 0.15


def test_images_of_different_sizes_are_compared_at_the_same_scale_on_the_canvas(images, matches):
    """A colour image of three times the size, of which more is seen than the canvas shows."""
    large = cv2.resize(images[1], None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    coarse = (matches.keypoints1 + 0.5) * 3 - 0.5
    matches = PairMatches(matches.keypoints0, coarse, *list(vars(matches).values())[2:])
    large = GreyImage.of(cv2.cvtColor(large, cv2.COLOR_GRAY2RGB), CANVAS)
    assert large.pixels.shape == (360, 480)
    found = refine(matches, GreyImage.of(images[0], CANVAS), large, CANVAS)
    assert error(matches, 3.0).min() > 0.9
    assert np.median(error(found, 3.0)) < 0.3
    assert found.checked.mean() > 0.95


def test_wrong_matches_stay_within_four_pixels_of_the_canvas_and_fail_the_check(images, matches):
    elsewhere = np.roll(matches.keypoints1, 1, axis=0)
    wrong = PairMatches(matches.keypoints0, elsewhere, *list(vars(matches).values())[2:])
    found = refine(wrong, *(GreyImage.of(image, CANVAS) for image in images), CANVAS)
    assert np.linalg.norm(found.keypoints1 - elsewhere, axis=1).max() <= 4.001
    assert found.checked.mean() < 0.05


def test_refined_matches_stay_inside_of_the_image(images):
    """Points at the left edge, which the second image shows further left, outside of it."""
    first = np.stack([np.zeros(40), np.arange(20, 220, 5)], axis=1).astype(np.float32)
    indices = np.arange(40, dtype=np.int32)
    matches = PairMatches(first, first, np.ones(40, np.float32), indices, indices, 6)
    left = cv2.warpAffine(images[0], np.array([[1, 0, -1.4], [0, 1, 0]]), (320, 240))
    found = refine(matches, *(GreyImage.of(image, CANVAS) for image in (images[0], left)), CANVAS)
    assert found.keypoints1.min() >= 0
    mirrored = [GreyImage.of(image[:, ::-1].copy(), CANVAS) for image in (images[0], left)]
    edge = first + np.array([319, 0], np.float32)
    matches = PairMatches(edge, edge, *list(vars(matches).values())[2:])
    assert refine(matches, *mirrored, CANVAS).keypoints1[:, 0].max() <= 319


def test_matches_on_images_without_texture_stay_as_they_are(matches):
    black = GreyImage.of(np.zeros((240, 320), np.uint8), CANVAS)
    found = refine(matches, black, black, CANVAS)
    np.testing.assert_array_equal(found.keypoints1, matches.keypoints1)
    assert not found.checked.any()


def test_a_pair_without_matches_or_without_an_image_is_no_error(images, matches):
    refiner = Refiner("lucas_kanade", "aliked")
    greys = [refiner.prepare(image, CANVAS) for image in images]
    assert refiner.refine(PairMatches.empty(), *greys, CANVAS).checked.shape == (0,)
    assert refiner.refine(matches, greys[0], None, CANVAS).checked is None


def test_auto_refines_models_whose_keypoints_are_whole_pixels(images, matches):
    assert [Refiner("auto", name).is_on for name in ("xfeat", "aliked", "aliked-t16")] == [True, False, False]
    off = Refiner("none", "xfeat")
    assert off.prepare(images[0], CANVAS) is None
    (found,) = off.refine_images([matches], images, [(0, 1)], CANVAS)
    assert found is matches
    with pytest.raises(ConfigError, match="refine is 'flow'; allowed: auto, none, lucas_kanade"):
        Refiner("flow", "xfeat")


@pytest.mark.parametrize(
    ("image_size", "compared"),
    [
        ((1920, 1080), (960, 540)),  # a whole factor leaves 1.5 pixels per pixel of the canvas
        ((3840, 2160), (960, 540)),
        ((2448, 2048), (1148, 960)),  # none leaves 1.5 to 2
        ((1241, 376), (1241, 376)),
    ],
)
def test_a_large_image_is_shrunk_by_a_whole_factor_if_enough_detail_stays(image_size, compared):
    image = np.zeros(image_size[::-1], np.uint8)
    assert GreyImage.of(image, (640, 480)).pixels.shape[::-1] == compared
