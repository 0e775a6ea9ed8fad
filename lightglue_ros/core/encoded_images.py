"""Decodes encoded images: the bytes of image files and of compressed image messages.

OpenCV does the decoding. This module adds what OpenCV leaves open:

- The size of a PNG or JPEG is read from its header first, because a few hundred bytes can claim gigabytes.
- A PNG or JPEG that was cut off is rejected. OpenCV decodes half a JPEG and fills the other half with grey.
- Pixels are those of the data as stored: 16 bits stay 16 bits, and Exif orientation is ignored, as COLMAP
  and hloc do. So keypoints are in their coordinates.

JPEG: ITU-T T.81, annex B. PNG: W3C, Portable Network Graphics, chunks IHDR and IEND.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lightglue_ros.core.files import mistaken_file
from lightglue_ros.errors import RejectedImageError

_PNG_BEGIN = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_JPEG_BEGIN = b"\xff\xd8"
# The last bytes of an image. Other bytes may follow: cameras pad JPEGs with zeros.
_END = {"png": b"IEND\xaeB`\x82", "jpeg": b"\xff\xd9"}
# Most pixels across and down that libjpeg reads and writes, a little less than the 65,535 of the format.
LONGEST_JPEG_SIDE = 65500
# First bytes of other formats, to name them in errors.
_OTHER_FORMATS = {b"II*\0": "TIFF", b"MM\0*": "TIFF", b"BM": "BMP", b"RIFF": "WebP", b"GIF8": "GIF"}
# Start-of-frame markers of all codings. DHT, JPG and DAC have numbers in the same range.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# Cameras write about ten segments before the frame; the limit bounds the work that a hostile file can cause.
_MOST_SEGMENTS = 200


@dataclass(frozen=True)
class ImageHeader:
    """Claims of the first bytes of a PNG or JPEG.

    Attributes:
        format: ``png`` or ``jpeg``.
        offset: position in the data, in bytes; any thumbnail lies before it.
    """

    format: str
    width: int
    height: int
    offset: int


def read_header(data: bytes | memoryview) -> ImageHeader | None:
    """Read format and size of a PNG or JPEG; return None for data of any other format.

    Raises:
        RejectedImageError: the header is broken or cut off.
    """
    begin = bytes(data[: len(_PNG_BEGIN)])
    if begin == _PNG_BEGIN:
        place = len(_PNG_BEGIN)
        header = ImageHeader("png", _number(data, place, 4), _number(data, place + 4, 4), place)
    elif begin.startswith(_JPEG_BEGIN):
        header = _jpeg_header(data)
    else:
        return None
    if not (header.width and header.height):
        what = f"{header.format} image without a size in its header"
        raise RejectedImageError(f"broken_{header.format}", what, allowed="a whole file")
    return header


def _jpeg_header(data: bytes | memoryview) -> ImageHeader:
    """Go from segment to segment until the one that begins the frame; the size is 0 if there is none."""
    position = len(_JPEG_BEGIN)
    for _ in range(_MOST_SEGMENTS):
        # Before each marker there may be any number of fill bytes, which count as segments here.
        if position + 9 > len(data) or data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _START_OF_FRAME:
            height, width = _number(data, position + 5, 2), _number(data, position + 7, 2)
            return ImageHeader("jpeg", width, height, position)
        elif marker in (_START_OF_SCAN, _END_OF_IMAGE):
            break
        else:
            position += 2 + _number(data, position + 2, 2)
    return ImageHeader("jpeg", 0, 0, position)


def _number(data: bytes | memoryview, begin: int, count: int) -> int:
    return int.from_bytes(data[begin : begin + count], "big") if begin + count <= len(data) else 0


def decode_image(data: bytes | memoryview) -> np.ndarray:
    """Decode an image of any format that OpenCV reads.

    Args:
        data: all bytes of the image. Other bytes may follow a PNG or JPEG.

    Returns:
        uint8 or uint16, [H, W] grey or [H, W, 3] RGB, pixels as stored. An alpha channel is dropped.

    Raises:
        RejectedImageError: the image is broken, cut off, too large for OpenCV, or has values of another type.
    """
    data = bytes(data)
    header = read_header(data)
    name = f"{header.format} image" if header else _name_of(data)
    cause = f"broken_{header.format if header else 'image'}"
    if mistaken := mistaken_file(data):
        found, fix = mistaken
        raise RejectedImageError(cause, f"it is {found}", allowed="an image", fix=fix)
    if header and data.rfind(_END[header.format], header.offset) < 0:
        what = f"{name} of {len(data)} bytes is cut off: its end is missing"
        raise RejectedImageError(cause, what, allowed="a whole file")
    if header and header.format == "jpeg" and max(header.width, header.height) > LONGEST_JPEG_SIDE:
        raise RejectedImageError(
            "too_large",
            f"{name} has {header.width}x{header.height} pixels, more than libjpeg decodes",
            allowed=f"at most {LONGEST_JPEG_SIDE} across and down",
            fix="save it as PNG",
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            size = f"{header.width}x{header.height} pixels" if header else "too many pixels"
            raise RejectedImageError(
                "too_large",
                f"{name} has {size}, more than OpenCV decodes",
                allowed="2^30 pixels in all, at most 2^20 across and down",
                fix="shrink it, or raise the limit with the environment variable OPENCV_IO_MAX_IMAGE_PIXELS",
            ) from error
        image = None
    if image is None or (header and image.shape[:2] != (header.height, header.width)):
        what = f"{name} of {len(data)} bytes cannot be decoded"
        raise RejectedImageError(cause, what, allowed="a whole file of a format that OpenCV reads")
    if image.dtype not in (np.uint8, np.uint16):
        raise RejectedImageError(
            "unknown_depth",
            f"{name} has {image.dtype} values",
            allowed="8 or 16 bits per channel, unsigned",
            fix="scale the values and save them as a PNG of 16 bits",
        )
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGB)


def _name_of(data: bytes) -> str:
    """Name data that is neither a PNG nor a JPEG by its first bytes."""
    for begin, name in _OTHER_FORMATS.items():
        if data.startswith(begin):
            return f"{name} image"
    return f"image beginning with {data[:8]!r}" if data else "empty image"
