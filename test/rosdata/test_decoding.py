"""Image messages against the definitions of their encodings, written out in NumPy."""

import pickle
import sys
import types
from functools import partial

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="no ROS 2 here")

from bad_images import (
    BAD_COMPRESSED,
    BAD_RAW,
    JPEG,
    PNG,
    bomb_jpeg,
    bomb_png,
    compressed_message,
    image_message,
    mutate_bytes,
    mutated_image,
)
from unusual_files import turned

from lightglue_ros.core.image_files import read_image
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import RejectedImageError
from lightglue_ros.rosdata.decoding import check_compressed_image, check_image, check_message

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (12, 8, 3), np.uint8)
BGR, GREY, ALPHA = RGB[..., ::-1], RGB[..., 0], RGB[..., 1]
GREY16 = RANDOM.integers(0, 65536, (12, 8)).astype(np.uint16)
RGB16 = RANDOM.integers(0, 4096, (12, 8, 3)).astype(np.uint16)
# Brighter than all colours, so that a range that counts it is wrong.
ALPHA16 = np.full((12, 8), 65535, np.uint16)
ONE_COLOUR = np.broadcast_to(np.uint8([200, 90, 20]), (12, 8, 3))
# Each colour over two by two pixels, so that sharing loses nothing.
BLOCKS = np.repeat(np.repeat(RGB[:6, :4], 2, 0), 2, 1)
FULL = Mono16Range("fixed", (0, 65535))
MOST_PIXELS = 10_000


def yuv_of(rgb):
    """ITU-R BT.601, 8 bits: brightness 16 to 235, colours 16 to 240 around 128."""
    red, green, blue = np.moveaxis(rgb / 255.0, -1, 0)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    u, v = (blue - y) / 1.772, (red - y) / 1.402
    return [np.rint(x).astype(np.uint8) for x in (16 + 219 * y, 128 + 224 * u, 128 + 224 * v)]


Y, U, V = yuv_of(BLOCKS)


def mosaic(pattern):
    """A Bayer pattern, named by its first four pixels."""
    return np.tile(ONE_COLOUR[0, 0, ["rgb".index(letter) for letter in pattern]].reshape(2, 2), (6, 4))


def yuv422(order):
    ys, colours = iter((Y[:, 0::2], Y[:, 1::2])), {"U": U[:, ::2], "V": V[:, ::2]}
    return np.stack([next(ys) if letter == "Y" else colours[letter] for letter in order], 2)


def nv24(padding):
    """Brightness, then U and V of each pixel; a row of colours takes two rows of the step."""
    y, u, v = yuv_of(RGB)
    colours = np.pad(np.stack([u, v], 2).reshape(12, 16), ((0, 0), (0, 2 * padding)), constant_values=99)
    rows = np.concatenate([np.pad(y, ((0, 0), (0, padding)), constant_values=99), colours.reshape(24, -1)])
    fields = {"width": 8, "height": 12, "step": 8 + padding, "data": rows.tobytes()}
    return image_message(encoding="nv24", **fields)


def yuv420(first, second):
    return np.concatenate([Y, np.stack([first[::2, ::2], second[::2, ::2]], 2).reshape(6, 8)])


def message(encoding, pixels, padding=0, is_bigendian=0):
    """An image message of 8 x 12 pixels whose rows are padded."""
    rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, padding)), constant_values=99)
    fields = {"width": 8, "height": 12, "step": rows.shape[1], "data": rows.tobytes()}
    return image_message(encoding=encoding, is_bigendian=is_bigendian, **fields)


def decode(image, mono16=FULL):
    array = check_image(image).decode(mono16)
    assert array.dtype == np.uint8
    assert array.shape[:2] == (12, 8)
    return array


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected", "tolerance"),
    [
        *((name, GREY, GREY, 0) for name in ("mono8", "8UC1")),
        ("rgb8", RGB, RGB, 0),
        *((name, BGR, RGB, 0) for name in ("bgr8", "8UC3")),
        ("rgba8", np.dstack([RGB, ALPHA]), RGB, 0),
        *((name, np.dstack([BGR, ALPHA]), RGB, 0) for name in ("bgra8", "8UC4")),
        *((f"bayer_{four}8", mosaic(four), ONE_COLOUR, 0) for four in ("rggb", "bggr", "gbrg", "grbg")),
        *((name, yuv422("UYVY"), BLOCKS, 3) for name in ("yuv422", "uyvy")),
        *((name, yuv422("YUYV"), BLOCKS, 3) for name in ("yuv422_yuy2", "yuyv")),
        ("nv12", yuv420(U, V), BLOCKS, 3),
        ("nv21", yuv420(V, U), BLOCKS, 3),
    ],
)
def test_an_encoding_becomes_grey_or_rgb_with_any_step(encoding, pixels, expected, tolerance, padding):
    found = decode(message(encoding, pixels, padding))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("padding", [0, 6])
def test_images_of_8_bits_in_grey_rgb_or_bgr_are_decoded_without_a_copy(padding):
    for encoding, pixels in (("mono8", GREY), ("rgb8", RGB), ("bgr8", BGR)):
        sent = message(encoding, pixels, padding)
        assert np.shares_memory(decode(sent), np.frombuffer(sent.data, np.uint8))


@pytest.mark.parametrize("padding", [0, 3])
def test_nv24_has_a_colour_for_each_pixel(padding):
    found = decode(nv24(padding))
    assert np.abs(found.astype(int) - RGB).max() <= 3


BGR16 = RGB16[..., ::-1]


@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("padding", [0, 4, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        *((name, GREY16, GREY16) for name in ("mono16", "16UC1")),
        ("rgb16", RGB16, RGB16),
        *((name, BGR16, RGB16) for name in ("bgr16", "16UC3")),
        ("rgba16", np.dstack([RGB16, ALPHA16]), RGB16),
        *((name, np.dstack([BGR16, ALPHA16]), RGB16) for name in ("bgra16", "16UC4")),
    ],
)
def test_sixteen_bits_of_either_byte_order_and_any_step_are_normalised(
    encoding, pixels, expected, is_bigendian, padding
):
    values = np.ascontiguousarray(pixels, ">u2" if is_bigendian else "<u2").view(np.uint8)
    image = message(encoding, values, padding, is_bigendian)
    for mono16 in (FULL, Mono16Range("fixed", (1000, 2000)), Mono16Range()):
        np.testing.assert_array_equal(decode(image, mono16), mono16.to_8_bits(expected))


@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_pattern_of_12_bits_gives_the_picture_of_8_bits(pattern, is_bigendian):
    picture = cv2.resize(RGB, (64, 48), interpolation=cv2.INTER_LINEAR)
    mosaic = np.empty((48, 64), np.uint8)
    for place, letter in enumerate(pattern):
        mosaic[place // 2 :: 2, place % 2 :: 2] = picture[
            place // 2 :: 2, place % 2 :: 2, "rgb".index(letter)
        ]
    deep = (mosaic.astype(np.uint16) * 16).astype(">u2" if is_bigendian else "<u2")
    shallow = image_message(encoding=f"bayer_{pattern}8", step=64, data=mosaic.tobytes())
    image = image_message(
        encoding=f"bayer_{pattern}16", step=128, data=deep.tobytes(), is_bigendian=is_bigendian
    )
    found = check_image(image).decode(Mono16Range("fixed", (0, 255 * 16)))
    np.testing.assert_array_equal(found, check_image(shallow).decode(FULL))
    assert np.abs(found.astype(int) - picture).mean() < 8


def test_the_range_of_a_bayer_pattern_counts_all_colours():
    """At this size not every pixel is counted."""
    mosaic = np.full((1024, 1280), 1600, np.uint16)
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = 400, 4000
    fields = {"width": 1280, "height": 1024, "step": 2560, "data": mosaic.astype("<u2").tobytes()}
    found = check_image(image_message(encoding="bayer_rggb16", **fields)).decode(Mono16Range())
    assert found[500, 900].tolist() == [0, 85, 255]


def test_an_encoding_that_is_not_ours_goes_to_cv_bridge_where_there_is_one(monkeypatch):
    class CvBridge:
        def imgmsg_to_cv2(self, image, encoding):
            if image.encoding != "16SC3":
                raise RuntimeError(f"[{image.encoding}] is not a color format")
            assert encoding == "rgb8"
            return np.full((image.height, image.width, 3), 7, np.uint8)

    stand_in = types.ModuleType("cv_bridge")
    stand_in.CvBridge = CvBridge
    stand_in.__spec__ = types.SimpleNamespace(name="cv_bridge")
    monkeypatch.setitem(sys.modules, "cv_bridge", stand_in)
    assert decode(message("16SC3", np.zeros((12, 48), np.uint8))).mean() == 7
    checked = check_image(message("32FC1", np.zeros((12, 32), np.uint8)))
    with pytest.raises(RejectedImageError, match="cannot be converted by cv_bridge") as caught:
        checked.decode(FULL)
    assert caught.value.cause == "unknown_encoding"


def test_a_compressed_image_is_decoded_as_a_file_of_the_same_bytes(tmp_path):
    for data in (JPEG, turned(JPEG, 6), PNG, cv2.imencode(".png", GREY16)[1].tobytes()):
        checked = check_compressed_image(compressed_message(data), MOST_PIXELS)
        (tmp_path / "image").write_bytes(data)
        found = checked.decode(Mono16Range())
        assert found.shape[:2] == (checked.height, checked.width)
        np.testing.assert_array_equal(found, read_image(tmp_path / "image"))


# Bad ones.


def check_and_decode(image):
    """Check a message; decode it only if it is compressed, because a bad raw image is rejected at once."""
    checked = check_message(image, 4096 * 4096)
    if hasattr(image, "format"):
        checked.decode(FULL)


BAD = BAD_RAW + BAD_COMPRESSED


@pytest.mark.parametrize(("cause", "image", "says"), BAD, ids=[f"{cause} {says}" for cause, _, says in BAD])
def test_bad_images_are_refused_with_cause_and_reason(cause, image, says):
    with pytest.raises(RejectedImageError) as caught:
        check_and_decode(image)
    assert caught.value.cause == cause
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    # Errors cross between the processes of the bag command.
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.cause, copy.what) == (str(caught.value), cause, caught.value.what)


@pytest.mark.parametrize("bomb", [bomb_jpeg(), bomb_png()], ids=["jpeg", "png"])
def test_a_bomb_is_refused_before_it_is_decoded(bomb, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(RejectedImageError, match="max_image_pixels"):
        check_compressed_image(compressed_message(bomb), 4096 * 4096)


def _decoded_or_rejected(check, image):
    try:
        checked = check(image)
        found = checked.decode(Mono16Range())
    except RejectedImageError:
        return
    assert found.dtype == np.uint8
    assert found.shape[:2] == (checked.height, checked.width)
    assert found.ndim == 2 or found.shape[2] == 3


@settings(max_examples=1000, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_thousand_mutated_images_are_decoded_or_rejected(random):
    _decoded_or_rejected(check_image, mutated_image(random))


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from([JPEG, PNG]), st.randoms(use_true_random=False))
def test_a_thousand_mutated_compressed_images_are_decoded_or_rejected(data, random):
    image = compressed_message(mutate_bytes(random, data))
    _decoded_or_rejected(partial(check_compressed_image, max_pixels=MOST_PIXELS), image)
