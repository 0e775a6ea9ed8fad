"""Reads the size of a PNG or JPEG from its first bytes, before anything is decoded.

A few hundred bytes can claim an image of gigabytes, and the decoder believes them. So the size is read
here and judged first. JPEG: ITU-T T.81, annex B; PNG: W3C, Portable Network Graphics, chunk IHDR.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightglue_ros.errors import ImageError

_PNG_BEGIN = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_JPEG_BEGIN = b"\xff\xd8"
# Start of frame, of whatever coding; among them are DHT, JPG and DAC, which are none.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# Cameras write some ten segments before the frame; this bounds the work that a hostile file can ask for.
_MOST_SEGMENTS = 200


@dataclass(frozen=True)
class ImageHeader:
    """What the first bytes of an encoded image claim.

    Attributes:
        format: ``png`` or ``jpeg``.
        width: in pixels.
        height: in pixels.
    """

    format: str
    width: int
    height: int


def encoded_format(data: bytes | memoryview) -> str | None:
    """Say by its first bytes whether data is ``png`` or ``jpeg``; None if it is neither."""
    begin = bytes(data[: len(_PNG_BEGIN)])
    if begin == _PNG_BEGIN:
        return "png"
    return "jpeg" if begin.startswith(_JPEG_BEGIN) else None


def read_header(data: bytes | memoryview) -> ImageHeader:
    """Read format and size of an encoded image.

    Raises:
        ImageError: the data is neither PNG nor JPEG, or ends, or is broken, before its size.
    """
    form = encoded_format(data)
    if form is None:
        raise ImageError(f"data beginning with {bytes(data[:8])!r} is no image", allowed="PNG, JPEG")
    size = _png_size(data) if form == "png" else _jpeg_size(data)
    if size is None or not all(size):
        raise ImageError(f"{form} image without a size in its header", allowed="a whole file")
    return ImageHeader(form, *size)


def _png_size(data: bytes | memoryview) -> tuple[int, int] | None:
    begin = len(_PNG_BEGIN)
    if len(data) < begin + 8:
        return None
    return _number(data, begin, 4), _number(data, begin + 4, 4)


def _jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """Go from segment to segment until the one that begins the frame."""
    position = len(_JPEG_BEGIN)
    for _ in range(_MOST_SEGMENTS):
        # Before each marker there may be any number of fill bytes, which count as segments here.
        if position + 9 > len(data) or data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _START_OF_FRAME:
            return _number(data, position + 7, 2), _number(data, position + 5, 2)
        elif marker in (_START_OF_SCAN, _END_OF_IMAGE):
            return None
        else:
            position += 2 + _number(data, position + 2, 2)
    return None


def _number(data: bytes | memoryview, begin: int, count: int) -> int:
    return int.from_bytes(data[begin : begin + count], "big")
