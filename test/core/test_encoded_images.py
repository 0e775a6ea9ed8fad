import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unusual_files import GIGAPIXEL_PNG, LFS_POINTER, turned, with_segment, without_huffman_tables

from lightglue_ros.core.encoded_images import decode_image, read_header
from lightglue_ros.core.image_files import read_image
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import ImageError, RejectedImageError

RGB = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 15, 3), np.uint8), (610, 370))
GREY = RGB[..., 0]


def encoded(suffix, image, *options):
    image = image[..., ::-1] if image.ndim == 3 else image
    return cv2.imencode(suffix, image, list(options))[1].tobytes()


PNG = encoded(".png", RGB)
JPEG = encoded(".jpg", RGB, cv2.IMWRITE_JPEG_QUALITY, 98)
PROGRESSIVE = encoded(".jpg", RGB, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
# A whole JPEG whose header claims a width that libjpeg does not read.
WIDE_JPEG = encoded(".jpg", GREY[:1]).replace(b"\0\1\2\x62", b"\0\1\xff\xff", 1)
GREY_JPEG = encoded(".jpg", GREY, cv2.IMWRITE_JPEG_QUALITY, 98)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_colour_grey_and_16_bits_are_decoded_as_they_are_stored(suffix):
    images = [RGB] if suffix == ".ppm" else [RGB, GREY]
    for image in images if suffix == ".bmp" else [*images, *(image * np.uint16(257) for image in images)]:
        found = decode_image(encoded(suffix, image))
        assert found.dtype == image.dtype
        np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (JPEG, RGB),
        (GREY_JPEG, GREY),
        (PROGRESSIVE, RGB),
        (without_huffman_tables(JPEG), RGB),
        (JPEG + bytes(4096), RGB),
        (PNG + bytes(10), RGB),
        (cv2.imencode(".png", np.dstack([RGB[..., ::-1], GREY]))[1].tobytes(), RGB),
        *((turned(JPEG, orientation), RGB) for orientation in (3, 6, 8)),
    ],
    ids=["rgb", "grey", "progressive", "no tables", "zeros after it", "zeros after a PNG", "alpha", *"368"],
)
def test_pixels_are_those_that_were_encoded_whatever_exif_and_the_bytes_after_it_say(data, expected):
    found = decode_image(data)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 3


def test_a_thumbnail_is_not_taken_for_the_image_nor_its_end_for_the_end():
    data = with_segment(JPEG, encoded(".jpg", RGB[:8, :8])) + b"\xff\xff"
    assert (read_header(data).width, read_header(data).height) == (610, 370)
    with pytest.raises(RejectedImageError, match="cut off"):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE, GREY_JPEG, without_huffman_tables(JPEG), PNG])
def test_what_is_cut_off_is_rejected(data, share):
    with pytest.raises(RejectedImageError, match=r"cut off|without a size") as caught:
        decode_image(data[: int(share * len(data))])
    assert caught.value.cause in ("broken_jpeg", "broken_png")


@pytest.mark.parametrize(
    ("data", "cause", "says"),
    [
        (b"", "broken_image", "empty image of 0 bytes cannot be decoded"),
        (b"version 1", "broken_image", "image beginning with b'version '"),
        (LFS_POINTER, "broken_image", "a Git LFS pointer, which stands for a file that was not fetched"),
        (b"#ROSBAG V2.0\n" + bytes(9), "broken_image", "a ROS 1 bag; allowed: an image; fix: convert"),
        (JPEG[:2] + JPEG[-2:], "broken_jpeg", "without a size"),
        (b"\xff\xd8" + b"\xff\xe0\0\2" * 10**6, "broken_jpeg", "without a size"),
        (encoded(".tif", RGB)[:1000], "broken_image", "TIFF image of 1000 bytes cannot be decoded"),
        (
            encoded(".tif", GREY.astype(np.float32)),
            "unknown_depth",
            "TIFF image has float32 values",
        ),
        (
            WIDE_JPEG,
            "too_large",
            "jpeg image has 65535x1 pixels, more than libjpeg decodes",
        ),
        (GIGAPIXEL_PNG, "too_large", "20000x60000 pixels, more than OpenCV decodes"),
    ],
    ids=[
        *("nothing", "text", "Git LFS pointer", "ROS 1 bag", "no frame", "endless segments", "half a TIFF"),
        *("float TIFF", "wide JPEG", "gigapixel"),
    ],
)
def test_what_cannot_be_decoded_is_rejected_with_a_cause_in_one_line(data, cause, says, tmp_path):
    with pytest.raises(RejectedImageError) as caught:
        decode_image(data)
    assert caught.value.cause == cause
    assert says in str(caught.value)
    path = tmp_path / "image"
    path.write_bytes(data)
    with pytest.raises(ImageError) as of_file:
        read_image(path)
    assert str(of_file.value) == f"{path} cannot be read as an image: {caught.value}"
    assert "\n" not in str(of_file.value)


@given(st.binary(max_size=64), st.sampled_from([b"", PNG[:16], JPEG[:2], JPEG[:20]]))
def test_any_bytes_have_a_header_or_none_or_are_rejected(data, begin):
    try:
        header = read_header(begin + data)
    except RejectedImageError:
        return
    assert header is None or min(header.width, header.height) > 0


def test_a_file_of_16_bits_is_normalised_as_the_node_does(tmp_path):
    for name, counts in (("a.png", 250), ("b.tif", 4096)):
        deep = 7000 + np.round(GREY / 255.0 * counts).astype(np.uint16)
        cv2.imwrite(str(tmp_path / name), deep)
        np.testing.assert_array_equal(read_image(tmp_path / name), Mono16Range().to_8_bits(deep))
