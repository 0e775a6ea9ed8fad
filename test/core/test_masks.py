"""Masks: no keypoint in the black, ever, and all other keypoints as without a mask."""

import re
from functools import partial

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightglue_ros.core import ConfigError, ImageError, MatchPipeline
from lightglue_ros.core.canvas import fitted_size
from lightglue_ros.core.masks import Mask
from lightglue_ros.core.rotation import ROTATIONS, turn, turn_points_back, turned_size

CANVAS = (160, 128)
SIZE = (200, 150)
lengths = st.integers(1, 60)
quick = settings(deadline=None, derandomize=True)


def random_mask(size, share, seed=0):
    """A mask, uint8 [h, w], with this share of black blocks, and with a white pixel at least."""
    width, height = size
    random = np.random.default_rng(seed)
    blocks = random.random((-(-height // 7), -(-width // 9))) >= share
    mask = blocks.repeat(7, axis=0).repeat(9, axis=1)[:height, :width].astype(np.uint8)
    mask[random.integers(height), random.integers(width)] = 255
    return mask


def is_black(mask, keypoints, image_size):
    """Whether keypoints (x, y) are at black pixels of a mask, one by one."""
    scale = np.divide(mask.shape[::-1], image_size)
    places = [tuple(int((c + 0.5) * s) for c, s in zip(point, scale, strict=True)) for point in keypoints]
    return np.array([mask[min(y, len(mask) - 1), min(x, mask.shape[1] - 1)] == 0 for x, y in places], bool)


@quick
@given(
    lengths,
    lengths,
    st.floats(0.2, 5),
    lengths,
    lengths,
    st.sampled_from(ROTATIONS),
    st.integers(0, 2),
    st.data(),
)
def test_a_pixel_of_the_canvas_is_black_if_it_touches_a_black_pixel_of_the_mask(
    width, height, factor, canvas_width, canvas_height, rotation, reach, data
):
    pixels = random_mask(
        (max(1, round(width * factor)), max(1, round(height * factor))), 0.3, data.draw(lengths)
    )
    size = fitted_size(turned_size((width, height), rotation), (canvas_width, canvas_height))
    found = Mask(pixels).on_canvas(size, rotation, reach)
    assert found.shape == size[::-1]
    turned = turn(pixels, rotation)
    edges_x, edges_y = (
        np.arange(count + 1) * length for count, length in zip(size, turned.shape[::-1], strict=True)
    )
    expected = np.ones_like(found)
    for y in range(size[1]):
        for x in range(size[0]):
            top, bottom = edges_y[y] // size[1], -(-edges_y[y + 1] // size[1])
            left, right = edges_x[x] // size[0], -(-edges_x[x + 1] // size[0])
            expected[y, x] = turned[top:bottom, left:right].all()
    grown = cv2.erode(expected.view(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    np.testing.assert_array_equal(found, grown)


@quick
@given(
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.floats(0.05, 3),
    st.sampled_from([np.floor, np.ceil, np.round]),
)
def test_a_mask_of_any_size_has_the_aspect_of_its_image_if_a_rounding_makes_its_size(
    width, height, factor, rounding
):
    size = [max(1, int(rounding(length * factor))) for length in (height, width)]
    Mask(np.broadcast_to(np.uint8(1), size)).require_aspect((width, height))


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.zeros((4, 4), np.uint8), r"is all black.*fix: invert"),
        (np.zeros((0, 4), np.uint8), r"is uint8 \[0, 4\]; allowed: .*not empty"),
        (np.ones((4, 4), np.float32), r"is float32 \[4, 4\]; allowed: uint8, uint16 or bool"),
        (np.dstack([np.ones((4, 4), np.uint8)] * 2), r"is uint8 \[4, 4, 2\]"),
        (np.dstack([np.full((4, 4), it, np.uint8) for it in (1, 1, 2)]), r"has colours; allowed: grey"),
        ("mask.png", "is str; allowed"),
    ],
)
def test_what_is_no_mask_is_named_with_its_place_and_what_is_allowed(model_folder, noise, mask, says):
    pipeline = MatchPipeline(model_folder, "cpu", CANVAS)
    with pytest.raises(ImageError, match=rf"mask 1 {says}"):
        pipeline.extract([noise(8, 8)] * 2, masks=[None, mask])


def test_a_mask_of_another_aspect_and_a_wrong_number_of_masks_are_refused(model_folder, noise):
    pipeline = MatchPipeline(model_folder, "cpu", CANVAS)
    says = re.escape("mask 0 has 100x50 pixels, which is another aspect than that of its image of 90x60")
    with pytest.raises(ImageError, match=says):
        pipeline.match([noise(60, 90)], [(0, 0)], masks=[np.ones((50, 100), bool)])
    with pytest.raises(ConfigError, match=r"1 masks for 2 images; allowed: one for each"):
        pipeline.extract([noise(60, 90)] * 2, masks=[None])


@pytest.fixture(scope="module")
def images(motorcycle):
    """Left and right, 200 x 150."""
    return [cv2.resize(image[:, :667], SIZE, interpolation=cv2.INTER_AREA) for image in motorcycle]


@pytest.fixture(scope="module", params=[False, True], ids=["host", "device"])
def pipeline(request, model_folder, on_device):
    make = on_device if request.param else partial(MatchPipeline, provider="cpu")
    pipeline = make(model_folder, image_size=CANVAS, max_keypoints=200, match_threshold=0.0)
    pipeline.prepare(2, 1, 2)
    return pipeline


@settings(quick, max_examples=15)
@given(
    st.floats(0.05, 0.9), st.integers(0, 99), st.floats(0.3, 4), st.tuples(*[st.sampled_from(ROTATIONS)] * 2)
)
@example(0.5, 1, 1.0, (0, 0))
def test_no_keypoint_is_in_the_black_and_no_refined_match_ends_there(
    pipeline, images, share, seed, factor, rotations
):
    mounted = [turn(image, -rotation % 360) for image, rotation in zip(images, rotations, strict=True)]
    sizes = [image.shape[1::-1] for image in mounted]
    masks = [random_mask([round(length * factor) for length in size], share, seed) for size in sizes]
    features = pipeline.extract(mounted, rotations, masks)
    (pair,) = pipeline.match(mounted, [(0, 1)], rotations, masks)
    for slot, (mask, size) in enumerate(zip(masks, sizes, strict=True)):
        found = features.keypoints[slot][features.mask[slot]]
        assert not is_black(mask, found, size).any()
        assert not is_black(mask, (pair.keypoints0, pair.keypoints1)[slot], size).any()


def test_keypoints_outside_of_the_black_are_as_before_and_others_take_the_places_of_the_masked(
    pipeline, images
):
    half = np.ones(SIZE[::-1], np.uint8)
    half[:, : SIZE[0] // 2] = 0
    before = pipeline.extract(images).copy()
    after = pipeline.extract(images, masks=[half, None])
    assert before.mask.sum(axis=1).tolist() == [200, 200]
    assert after.mask.sum(axis=1).tolist() == [200, 200]
    stay = ~is_black(half, before.keypoints[0], SIZE)
    assert 20 < stay.sum() < 180
    for name in ("keypoints", "scores", "descriptors"):
        kept = getattr(before, name)[0][stay]
        np.testing.assert_array_equal(getattr(after, name)[0][: len(kept)], kept, err_msg=name)
        np.testing.assert_array_equal(getattr(after, name)[1], getattr(before, name)[1], err_msg=name)
    again = pipeline.extract(images)
    for name in ("keypoints", "scores", "descriptors"):
        np.testing.assert_array_equal(getattr(again, name), getattr(before, name), err_msg=name)


def test_a_mask_in_fine_detail_keeps_keypoints_out_of_its_single_black_pixels(pipeline, images):
    mask = np.ones((SIZE[1] * 5, SIZE[0] * 5), np.uint8)
    mask[:: 5 * 4, :: 5 * 3] = 0
    features = pipeline.extract(images[:1], masks=[mask])
    found = features.keypoints[0][features.mask[0]]
    assert len(found) > 50
    assert not is_black(mask, found, SIZE).any()


def test_masks_go_up_to_a_device_only_when_they_change(on_device, model_folder, images):
    pipeline = on_device(model_folder, CANVAS)
    pipeline.warm_up(2, 1)
    uploads = []
    halves = [Mask(np.tri(*SIZE[::-1], k=it, dtype=bool)) for it in (0, 30)]
    for masks in (None, None, halves, halves, halves[::-1], halves[::-1], None, None):
        pipeline.extract(images, masks=masks)
        block = pipeline._runner._tensors._masks
        if not uploads or uploads[-1][0] is not block:
            upload, count = block.upload, [0]
            block.upload = lambda upload=upload, count=count: (upload(), count.__setitem__(0, count[0] + 1))
        uploads.append((block, count[0]))
    # The last four: other masks, the same, none, none. The memory is that of the first masks.
    assert len({id(block) for block, _ in uploads[2:]}) == 1
    assert np.diff([count for _, count in uploads[3:]]).tolist() == [1, 0, 1, 0]


def test_points_at_the_edges_of_an_image_belong_to_its_outermost_pixels():
    mask = Mask(np.array([[1, 0], [0, 1]], np.uint8))
    points = np.array([[-0.5, -0.5], [9.5, -0.5], [-0.5, 5.5], [9.5, 5.5], [4.4, 2.4], [4.6, 2.4]])
    assert mask.allows(points, (10, 6)).tolist() == [True, False, False, True, True, False]
    turned = turn_points_back(points, 90, (6, 10))
    assert Mask(turn(mask.pixels.view(np.uint8), 270)).allows(turned, (6, 10)).tolist() == [
        True,
        False,
        False,
        True,
        True,
        False,
    ]
