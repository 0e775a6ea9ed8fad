"""Image messages against the definitions of their encodings, written out in NumPy."""

import array
import pickle
import sys
import types

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
    mutate_bytes,
    mutated_image,
)
from sensor_msgs.msg import Image
from unusual_files import turned

from lightglue_ros.core.image_files import read_image
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import RejectedImageError
from lightglue_ros.rosdata.decoding import check_compressed_image, check_image

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (12, 8, 3), np.uint8)
GREY = RGB[..., 0]
GREY16 = RANDOM.integers(0, 65536, (12, 8)).astype(np.uint16)
ALPHA = RANDOM.integers(0, 256, (12, 8, 1), np.uint8)
FULL = Mono16Range("fixed", (0, 65535))
MOST_PIXELS = 10_000


def message(encoding, rows, width, height, padding=0, is_bigendian=0):
    """An image message of bytes [rows, bytes], each row padded."""
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    image = Image(
        height=height, width=width, encoding=encoding, step=rows.shape[1], is_bigendian=is_bigendian
    )
    image.data = array.array("B", rows.tobytes())
    return image


def pixels_message(encoding, pixels, padding=0):
    height, width = pixels.shape[:2]
    return message(encoding, pixels.reshape(height, -1), width, height, padding)


def decode(image, mono16=FULL):
    checked = check_image(image)
    array_ = checked.decode(mono16)
    assert array_.dtype == np.uint8
    assert array_.shape[:2] == (checked.height, checked.width) == (image.height, image.width)
    return array_


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("mono8", GREY, GREY),
        ("8UC1", GREY, GREY),
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgba8", np.concatenate([RGB, ALPHA], 2), RGB),
        ("bgra8", np.concatenate([RGB[..., ::-1], ALPHA], 2), RGB),
    ],
)
def test_eight_bit_encodings_become_grey_or_rgb_with_any_step(encoding, pixels, expected, padding):
    np.testing.assert_array_equal(decode(pixels_message(encoding, pixels, padding)), expected)


@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("padding", [0, 4, 5])
def test_sixteen_bits_of_either_byte_order_and_any_step_are_normalised(encoding, is_bigendian, padding):
    rows = GREY16.astype(">u2" if is_bigendian else "<u2").view(np.uint8)
    image = message(encoding, rows, 8, 12, padding, is_bigendian)
    assert np.abs(decode(image) - GREY16 / 257.0).max() <= 0.5 + 1e-3
    stretched = decode(image, Mono16Range("fixed", (1000, 2000)))
    assert np.abs(stretched - np.clip((GREY16 - 1000.0) / 1000.0, 0, 1) * 255).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_pattern_is_named_by_its_first_four_pixels(pattern, padding):
    colour = {"r": 200, "g": 90, "b": 20}
    cell = np.array([colour[letter] for letter in pattern], np.uint8).reshape(2, 2)
    found = decode(pixels_message(f"bayer_{pattern}8", np.tile(cell, (6, 5)), padding))
    np.testing.assert_array_equal(found, np.broadcast_to([200, 90, 20], (12, 10, 3)))


def yuv_of(rgb):
    """ITU-R BT.601, 8 bits: brightness 16 to 235, colours 16 to 240 around 128."""
    red, green, blue = np.moveaxis(rgb / 255.0, -1, 0)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    u, v = (blue - y) / 1.772, (red - y) / 1.402
    return [np.rint(x).astype(np.uint8) for x in (16 + 219 * y, 128 + 224 * u, 128 + 224 * v)]


# Each colour over two by two pixels, so that sharing loses nothing.
BLOCKS = np.repeat(np.repeat(RGB[:6, :4], 2, 0), 2, 1)
Y, U, V = yuv_of(BLOCKS)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("yuv422", "UYVY"), ("uyvy", "UYVY"), ("yuv422_yuy2", "YUYV"), ("yuyv", "YUYV")],
)
def test_yuv_of_422_is_decoded_by_its_byte_order(encoding, order, padding):
    ys = iter((Y[:, 0::2], Y[:, 1::2]))
    planes = {"U": U[:, ::2], "V": V[:, ::2]}
    rows = np.stack([next(ys) if letter == "Y" else planes[letter] for letter in order], 2).reshape(12, 16)
    found = decode(message(encoding, rows, 8, 12, padding))
    assert np.abs(found.astype(int) - BLOCKS).max() <= 3


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(("encoding", "order"), [("nv12", (U, V)), ("nv21", (V, U))])
def test_yuv_of_420_has_its_colours_after_the_brightness(encoding, order, padding):
    chroma = np.stack([plane[::2, ::2] for plane in order], 2).reshape(6, 8)
    found = decode(message(encoding, np.concatenate([Y, chroma]), 8, 12, padding))
    assert np.abs(found.astype(int) - BLOCKS).max() <= 3


def test_an_encoding_that_is_not_ours_goes_to_cv_bridge_where_there_is_one(monkeypatch):
    class CvBridge:
        def imgmsg_to_cv2(self, image, encoding):
            if image.encoding != "rgb16":
                raise RuntimeError(f"[{image.encoding}] is not a color format")
            assert encoding == "rgb8"
            return np.full((image.height, image.width, 3), 7, np.uint8)

    stand_in = types.ModuleType("cv_bridge")
    stand_in.CvBridge = CvBridge
    stand_in.__spec__ = types.SimpleNamespace(name="cv_bridge")
    monkeypatch.setitem(sys.modules, "cv_bridge", stand_in)
    assert decode(message("rgb16", np.zeros((12, 48), np.uint8), 8, 12)).mean() == 7
    checked = check_image(message("32FC1", np.zeros((12, 32), np.uint8), 8, 12))
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


@pytest.mark.parametrize(("cause", "image", "says"), BAD_RAW, ids=[f"{c} {s}" for c, _, s in BAD_RAW])
def test_bad_images_are_refused_with_cause_and_reason(cause, image, says):
    with pytest.raises(RejectedImageError) as caught:
        check_image(image)
    assert caught.value.cause == cause
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    # Errors cross between the processes of the bag command.
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.cause, copy.what) == (str(caught.value), cause, caught.value.what)


@pytest.mark.parametrize(
    ("cause", "image", "says"), BAD_COMPRESSED, ids=[f"{c} {s}" for c, _, s in BAD_COMPRESSED]
)
def test_bad_compressed_images_are_refused_with_cause_and_reason(cause, image, says):
    with pytest.raises(RejectedImageError) as caught:
        check_compressed_image(image, 4096 * 4096).decode(FULL)
    assert caught.value.cause == cause
    assert says in str(caught.value)


@pytest.mark.parametrize("bomb", [bomb_jpeg(), bomb_png()], ids=["jpeg", "png"])
def test_a_bomb_is_refused_before_it_is_decoded(bomb, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(RejectedImageError, match="max_image_pixels"):
        check_compressed_image(compressed_message(bomb), 4096 * 4096)


def _decoded_or_rejected(check):
    try:
        checked = check()
        found = checked.decode(Mono16Range())
    except RejectedImageError:
        return
    assert found.dtype == np.uint8
    assert found.shape[:2] == (checked.height, checked.width)
    assert found.ndim == 2 or found.shape[2] == 3


@settings(max_examples=1000, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_thousand_mutated_images_are_decoded_or_rejected(random):
    image = mutated_image(random)
    _decoded_or_rejected(lambda: check_image(image))


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from([JPEG, PNG]), st.randoms(use_true_random=False))
def test_a_thousand_mutated_compressed_images_are_decoded_or_rejected(data, random):
    image = compressed_message(mutate_bytes(random, data))
    _decoded_or_rejected(lambda: check_compressed_image(image, MOST_PIXELS))
