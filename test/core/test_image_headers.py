import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightglue_ros.core import ImageError
from lightglue_ros.core.image_headers import ImageHeader, read_header

IMAGE = np.random.default_rng(0).integers(0, 256, (37, 61, 3), np.uint8)
PNG = cv2.imencode(".png", IMAGE)[1].tobytes()
JPEG = cv2.imencode(".jpg", IMAGE)[1].tobytes()
PROGRESSIVE = cv2.imencode(".jpg", IMAGE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()


@pytest.mark.parametrize(
    ("data", "form"),
    [(PNG, "png"), (JPEG, "jpeg"), (PROGRESSIVE, "jpeg")],
    ids=["png", "jpeg", "progressive"],
)
def test_it_reads_the_size_that_the_encoder_wrote(data, form):
    assert read_header(data) == ImageHeader(form, 61, 37)


def test_a_thumbnail_inside_a_segment_is_not_taken_for_the_image():
    thumbnail = cv2.imencode(".jpg", IMAGE[:8, :8])[1].tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert read_header(JPEG[:2] + segment + b"\xff\xff" + JPEG[2:]) == ImageHeader("jpeg", 61, 37)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"GIF89a",
        PNG[:20],
        JPEG[:30],
        JPEG[:2] + JPEG[-2:],
        b"\xff\xd8" + b"\xff\xe0\0\2" * 10**6,
    ],
    ids=["nothing", "a byte", "gif", "short png", "short jpeg", "no frame", "endless segments"],
)
def test_what_has_no_size_is_refused(data):
    with pytest.raises(ImageError):
        read_header(data)


@given(st.binary(max_size=64), st.sampled_from([b"", PNG[:16], JPEG[:2], JPEG[:20]]))
def test_any_bytes_are_read_or_refused(data, begin):
    try:
        header = read_header(begin + data)
    except ImageError:
        return
    assert header.width > 0
    assert header.height > 0
