import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightglue_ros.core import ConfigError, ImageError
from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.rotation import turn
from lightglue_ros.core.shrinking import shrink


def noise(height, width, channels=None, seed=0):
    shape = (height, width) if channels is None else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("image_size", "size"),
    [((741, 500), (640, 432)), ((150, 100), (150, 100)), *(((640 * k, 480 * k), (640, 480)) for k in (2, 3))],
)
def test_pixels_are_those_of_area_interpolation_with_the_aspect_kept_and_the_rest_is_zero(
    image_size, size, channels
):
    image = noise(*image_size[::-1], channels)
    batch = Canvas((640, 480), channels, 32).place([image])
    assert batch.image_sizes.tolist() == [list(image_size)]
    assert batch.sizes.tolist() == [list(size)]
    np.testing.assert_allclose(batch.scales, [np.divide(size, image_size)], rtol=1e-6)
    expected = np.zeros((480, 640, channels), np.uint8)
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    expected[: size[1], : size[0]] = shrunk.reshape(*size[::-1], channels)
    np.testing.assert_array_equal(batch.images[0], expected)


@pytest.mark.parametrize(
    ("image_size", "size"),
    [
        *(((64 * k, 48 * k), (64, 48)) for k in range(2, 9)),
        ((960, 540), (640, 360)),
        ((967, 541), (401, 224)),
    ],
)
def test_every_way_to_shrink_gives_the_pixels_of_area_interpolation_within_a_grey_level(image_size, size):
    """Colours, a grey copy of them and a grey image; rows of the target lie apart, as on a wider canvas."""
    colours = noise(*image_size[::-1], 3)
    grey = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)
    cases = [
        (colours, False, colours),
        (colours, True, grey),
        (grey, False, grey),
        (grey[..., None], False, grey),
    ]
    for image, as_grey, source in cases:
        expected = cv2.resize(source, size, interpolation=cv2.INTER_AREA).astype(int)
        channels = () if as_grey else image.shape[2:]
        canvas = np.zeros((size[1] + 8, size[0] + 8, *channels), np.uint8)
        shrink(image, size, canvas[: size[1], : size[0]], as_grey=as_grey)
        for found in (canvas[: size[1], : size[0]], shrink(image, size, as_grey=as_grey)):
            assert np.abs(found.reshape(expected.shape) - expected).max() <= 1
        assert not canvas[size[1] :].any()
        assert not canvas[:, size[0] :].any()


@pytest.mark.parametrize("size", [(640, 480), (320, 240), (300, 225)])
def test_a_view_of_bgr_is_shrunk_to_the_pixels_of_rgb(size):
    rgb = noise(480, 640, 3)
    view = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)[..., ::-1]
    for as_grey in (False, True):
        expected = shrink(rgb, size, as_grey=as_grey)
        np.testing.assert_array_equal(shrink(view, size, as_grey=as_grey), expected)
    np.testing.assert_array_equal(
        Canvas(size, 3, 32).place([view]).images, Canvas(size, 3, 32).place([rgb]).images
    )
    np.testing.assert_array_equal(turn(view, 90), turn(rgb, 90))


@pytest.mark.parametrize("canvas_size", [(800, 480), (640, 480), (512, 512), (416, 416), (224, 224)])
@pytest.mark.parametrize("image_size", [(1920, 1080), (1226, 370), (1231, 821)])
def test_what_is_shrunk_in_two_steps_stays_where_the_scale_says(image_size, canvas_size):
    """The centre of a soft spot, found in the image and on the canvas, to a fiftieth of a canvas pixel."""
    columns, rows = np.meshgrid(np.arange(image_size[0]), np.arange(image_size[1]))
    for share in (0.11, 0.5, 0.87):
        x, y = (share * length + 0.3 for length in image_size)
        spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 12.0**2))
        image = np.round(255 * spot).astype(np.uint8)
        batch = Canvas(canvas_size, 1, 32).place([image])
        scale = batch.scales[0].astype(float)
        found = (centre(batch.images[0, ..., 0]) + 0.5) / scale - 0.5
        np.testing.assert_array_less(np.abs(found - centre(image)) * scale, 0.02)


def centre(image):
    """Where the brightness of an image has its centre: x, y."""
    rows, columns = np.indices(image.shape)
    return np.array([(columns * image).sum(), (rows * image).sum()]) / image.sum()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_image_is_averaged_over_what_a_pixel_covers(channels):
    """A checkerboard of pixels becomes grey, up to the one in nine that 3 x 3 of them have too many."""
    image = np.indices((1080, 1920)).sum(axis=0) % 2 * np.uint8(255)
    for size in ((800, 480), (640, 480), (416, 416)):
        batch = Canvas(size, channels, 32).place([np.dstack([image] * 3).astype(np.uint8)])
        width, height = batch.sizes[0].astype(int)
        covered = batch.images[0, :height, :width].astype(int)
        assert np.abs(covered - 127.5).max() <= 255 / 18 + 1


def test_the_size_is_rounded_up_to_the_divisor_and_not_empty():
    assert Canvas((641, 470), 3, 32).size == (672, 480)
    assert Canvas((640, 480), 3, 32).size == (640, 480)
    with pytest.raises(ConfigError, match="image size 0x480"):
        Canvas((0, 480), 3, 32)


def test_grey_and_rgb_go_to_either_kind_of_canvas_which_is_that_of_the_images_unless_given():
    grey, rgb = noise(64, 64), noise(64, 64, 3)
    canvas = Canvas((64, 64), None, 32)
    for images, channels in (([grey, None], 1), ([grey, rgb], 3), ([None, grey], 1), ([None, None], 1)):
        assert canvas.place(images).images.shape == (2, 64, 64, channels)
    on_rgb = Canvas((64, 64), 3, 32).place([grey, rgb]).images.copy()
    on_grey = Canvas((64, 64), 1, 32).place([grey, rgb]).images
    np.testing.assert_array_equal(on_rgb[0], np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(on_rgb[1], rgb)
    np.testing.assert_array_equal(on_grey[0, ..., 0], grey)
    np.testing.assert_array_equal(on_grey[1, ..., 0], cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))


@settings(max_examples=50, deadline=None)
@given(
    sizes,
    st.sampled_from([(160, 96), (96, 160), (33, 300)]),
    st.sampled_from([8, 16, 32]),
    st.integers(0, 128),
)
@example((201, 140), (100, 100), 4, 0)  # shrunk to 100.5 x 70, rounded to the divisor below
@example((241, 40), (128, 96), 32, 32)
def test_the_part_of_a_canvas_that_an_image_needs_holds_its_pixels_and_the_margin_and_no_more(
    image_size, canvas_size, divisor, margin
):
    image = noise(*image_size[::-1], 3)
    canvas = Canvas(canvas_size, 3, divisor, margin)
    placement = canvas.placement(image_size)
    whole, part = canvas.place([image]), canvas.place([image], placement.canvas_size)
    for field in ("sizes", "scales", "valid", "image_sizes"):
        np.testing.assert_array_equal(getattr(part, field), getattr(whole, field))
    assert placement.size == tuple(part.sizes[0].astype(int))
    width, height = placement.canvas_size
    np.testing.assert_array_equal(part.images, whole.images[:, :height, :width])
    assert not whole.images[:, height:].any()
    assert not whole.images[:, :, width:].any()
    for length, needed, most in zip((width, height), placement.size, canvas.size, strict=True):
        assert length % divisor == 0
        assert length == most or 0 <= length - (needed + margin) < divisor
    assert placement.used == pytest.approx(np.prod(placement.size) / (width * height))


def test_images_are_grouped_by_the_part_of_the_canvas_that_they_need():
    images = [noise(376, 1241), noise(480, 640, 3), None, noise(370, 1226, 3), noise(10, 10)]
    canvas = Canvas((640, 480), None, 32, margin=32)
    assert canvas.group(images) == {(640, 256): [0, 3], (640, 480): [1], (64, 64): [4]}
    assert Canvas((640, 480), None, 32).group(images) == {(640, 480): [0, 1, 3, 4]}
    with pytest.raises(ImageError, match="image 1 is float64"):
        canvas.group([images[0], images[0].astype(float)])


@pytest.mark.parametrize(
    "image",
    [
        *(noise(10, 10).astype(kind) for kind in (np.float32, np.uint16)),
        *(np.zeros(shape, np.uint8) for shape in ((10, 10, 4), (0, 5), (2, 2, 2, 3))),
        [[1, 2], [3, 4]],
    ],
)
def test_other_arrays_are_refused_with_their_type_and_shape(image):
    with pytest.raises(ImageError, match=r"image 1 is .*; allowed: a NumPy array, uint8"):
        Canvas((64, 64), 3, 32).place([None, image])
