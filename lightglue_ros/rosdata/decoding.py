"""Checks image messages at once and decodes them later, in another thread.

`check_message` reads only a message's fields and first bytes, so a subscription's callback can call it. It
returns a `CameraImage`, whose `decode` returns the array; the worker's thread calls `decode`. Both raise
`RejectedImageError`, with a cause that can be counted.

Messages may be rclpy's or those of rosbags: their fields are the same. Encodings are those of
sensor_msgs/image_encodings.hpp. Where cv_bridge is installed, it decodes all others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol

import cv2
import numpy as np

from lightglue_ros.core.encoded_images import decode_image, read_header
from lightglue_ros.core.features import Features
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import RejectedImageError
from lightglue_ros.rosdata.messages import Header

TRANSPORTS = ("raw", "compressed")
# image_transport ends the name of a topic of compressed images so.
COMPRESSED_SUFFIX = "/compressed"


class Image(Protocol):
    """sensor_msgs/Image; its data is any object with the buffer protocol."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedImage(Protocol):
    """sensor_msgs/CompressedImage; its data is any object with the buffer protocol."""

    header: Header
    format: str
    data: Any


@dataclass(frozen=True)
class CameraImage:
    """An image message that was checked and is not decoded yet.

    Attributes:
        width: in pixels, as is the height; of a compressed image as its first bytes say.
        decode: returns uint8 [H, W] grey or [H, W, 3] RGB, which may share memory with the message; or
            features, if they were sent instead of the image. Raises `RejectedImageError` if the image
            turns out to be broken. None if the pixels were dropped.
    """

    header: Header
    width: int
    height: int
    decode: Callable[[Mono16Range], np.ndarray | Features] | None

    def without_pixels(self) -> CameraImage:
        """Return the same image without `decode`, which keeps the whole message in memory."""
        return CameraImage(self.header, self.width, self.height, None)


@dataclass(frozen=True)
class _Encoding:
    """Memory layout of an encoding.

    Attributes:
        channels: values per pixel, all of the same depth.
        conversion: OpenCV's code for the conversion to RGB; None if pixels are grey or RGB already.
        depth: bytes per value.
        divisors: width and height must be multiples of these.
        half_rows: rows of `step` bytes per two rows of pixels; more than 2 if rows of colour follow the
            rows of brightness.
    """

    channels: int
    conversion: int | None = None
    depth: int = 1
    divisors: tuple[int, int] = (1, 1)
    half_rows: int = 2


_UYVY = _Encoding(2, cv2.COLOR_YUV2RGB_UYVY, divisors=(2, 1))
_YUYV = _Encoding(2, cv2.COLOR_YUV2RGB_YUY2, divisors=(2, 1))
# sensor_msgs names a Bayer pattern by its first four pixels, OpenCV by the four that begin in the second row
# and column.
_BAYER = {
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}
# 8UC3 and its like name no colour order; they are taken as BGR, OpenCV's order, as cv_bridge does. 16-bit
# images lose their alpha first.
_ENCODINGS = {
    "mono8": _Encoding(1),
    "8UC1": _Encoding(1),
    "mono16": _Encoding(1, depth=2),
    "16UC1": _Encoding(1, depth=2),
    "rgb8": _Encoding(3),
    "bgr8": _Encoding(3, cv2.COLOR_BGR2RGB),
    "8UC3": _Encoding(3, cv2.COLOR_BGR2RGB),
    "rgba8": _Encoding(4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Encoding(4, cv2.COLOR_BGRA2RGB),
    "8UC4": _Encoding(4, cv2.COLOR_BGRA2RGB),
    "rgb16": _Encoding(3, depth=2),
    "bgr16": _Encoding(3, cv2.COLOR_BGR2RGB, depth=2),
    "16UC3": _Encoding(3, cv2.COLOR_BGR2RGB, depth=2),
    "rgba16": _Encoding(4, depth=2),
    "bgra16": _Encoding(4, cv2.COLOR_BGR2RGB, depth=2),
    "16UC4": _Encoding(4, cv2.COLOR_BGR2RGB, depth=2),
    **{f"{pattern}8": _Encoding(1, conversion) for pattern, conversion in _BAYER.items()},
    **{f"{pattern}16": _Encoding(1, conversion, depth=2) for pattern, conversion in _BAYER.items()},
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": _Encoding(1, cv2.COLOR_YUV2RGB_NV12, divisors=(2, 2), half_rows=3),
    "nv21": _Encoding(1, cv2.COLOR_YUV2RGB_NV21, divisors=(2, 2), half_rows=3),
    "nv24": _Encoding(1, half_rows=6),
}
# Y, U, V and 1 to RGB as in ITU-R BT.601, the standard of OpenCV's conversions of the other YUV encodings:
# brightness from 16 to 235, colours from 16 to 240 around 128.
_YUV_TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]]) * 255 / [219, 224, 224]
_YUV_TO_RGB = np.column_stack([_YUV_TO_RGB, _YUV_TO_RGB @ [-16, -128, -128]])


def check_message(message: Image | CompressedImage, max_pixels: int) -> CameraImage:
    """Check a raw or compressed image message without decoding it; see the functions below."""
    if hasattr(message, "encoding"):
        return check_image(message)
    return check_compressed_image(message, max_pixels)


def check_image(message: Image) -> CameraImage:
    """Check that an image message can be decoded, at the cost of a few comparisons.

    Raises:
        RejectedImageError: the encoding is unknown, the image is empty, or its data does not match its size.
    """
    encoding = _ENCODINGS.get(message.encoding)
    if encoding is None and find_spec("cv_bridge") is None:
        raise RejectedImageError(
            "unknown_encoding",
            f"image has the encoding {message.encoding[:40]!r}",
            allowed=", ".join(_ENCODINGS),
            fix="set the driver to one of these, or install cv_bridge, which knows more",
        )
    _check_size(message, encoding)
    _check_data(message, encoding)
    decode = partial(_decode_by_cv_bridge if encoding is None else _decode_raw, message)
    return CameraImage(message.header, message.width, message.height, decode)


def _describe(message: Image) -> str:
    return f"{message.width}x{message.height} {message.encoding[:40]}"


def _check_size(message: Image, encoding: _Encoding | None) -> None:
    if not message.width or not message.height:
        what, allowed = f"image is empty ({_describe(message)})", "a width and a height of at least 1 pixel"
        raise RejectedImageError("empty_image", what, allowed=allowed)
    across, down = encoding.divisors if encoding else (1, 1)
    if message.width % across or message.height % down:
        what = f"image ({_describe(message)}) shares colours between pixels"
        allowed = f"a width that is a multiple of {across}"
        allowed += f" and a height that is a multiple of {down}" if down > 1 else ""
        raise RejectedImageError("odd_size", what, allowed=allowed)


def _check_data(message: Image, encoding: _Encoding | None) -> None:
    least_step = message.width * (encoding.channels * encoding.depth if encoding else 1)
    if message.step < least_step:
        what = f"image ({_describe(message)}) has a step of {message.step}"
        raise RejectedImageError("bad_step", what, allowed=f"at least {least_step} bytes per row")
    half_rows = encoding.half_rows if encoding else 2
    expected = message.step * (message.height * half_rows // 2)
    found = len(message.data)
    if found != expected:
        cause = "short_data" if found < expected else "long_data"
        what = f"image ({_describe(message)}, step {message.step}) has {found} bytes of data"
        rows = {2: "height", 3: "height x 3 / 2", 6: "height x 3"}[half_rows]
        raise RejectedImageError(cause, what, allowed=f"step x {rows} = {expected} bytes")


def _decode_raw(message: Image, mono16: Mono16Range) -> np.ndarray:
    encoding = _ENCODINGS[message.encoding]
    rows = np.frombuffer(message.data, np.uint8).reshape(-1, message.step)
    if message.encoding == "nv24":
        return _nv24_to_rgb(rows, message.width, message.height)
    image = rows[:, : message.width * encoding.channels * encoding.depth]
    if encoding.depth == 2:
        image = image.view(">u2" if message.is_bigendian else "<u2")
    if encoding.channels > 1:
        image = image.reshape(len(image), message.width, encoding.channels)
    if encoding.depth == 2:
        values = image[..., :3] if encoding.channels == 4 else image
        # Copied only if the machine cannot read the values in place.
        image = mono16.to_8_bits(np.require(values, np.uint16, "A"))
    if encoding.conversion == cv2.COLOR_BGR2RGB:
        return image[..., ::-1]  # converted when it is small, see `shrink`
    return image if encoding.conversion is None else cv2.cvtColor(image, encoding.conversion)


def _nv24_to_rgb(rows: np.ndarray, width: int, height: int) -> np.ndarray:
    """Convert rows of brightness, then rows of U and V of each pixel, which take two rows each."""
    brightness = rows[:height, :width, None]
    colours = rows[height:].reshape(height, -1)[:, : 2 * width].reshape(height, width, 2)
    return cv2.transform(np.concatenate([brightness, colours], 2), _YUV_TO_RGB)


def _decode_by_cv_bridge(message: Image, mono16: Mono16Range) -> np.ndarray:
    try:
        from cv_bridge import CvBridge

        return CvBridge().imgmsg_to_cv2(message, "rgb8")
    # cv_bridge raises its own errors, OpenCV's and Python's.
    except Exception as error:
        raise RejectedImageError(
            "unknown_encoding",
            f"image ({_describe(message)}) cannot be converted by cv_bridge: {error}",
            allowed=f"{', '.join(_ENCODINGS)}, and what cv_bridge converts to rgb8",
        ) from error


def check_compressed_image(message: CompressedImage, max_pixels: int) -> CameraImage:
    """Check the format and size, at most `max_pixels`, in the first bytes of a compressed image message.

    Raises:
        RejectedImageError: the data is neither JPEG nor PNG, its header is broken, or the image is too large.
    """
    data = memoryview(message.data)
    header = read_header(data)
    if header is None:
        raise RejectedImageError(
            "unknown_format",
            f"compressed image (format {message.format[:40]!r}) begins with {bytes(data[:8])!r}",
            allowed="jpeg, png",
            fix="set the format of the camera's image_transport to one of these",
        )
    if header.width * header.height > max_pixels:
        raise RejectedImageError(
            "too_large",
            f"compressed image claims {header.width}x{header.height} pixels",
            allowed=f"at most {max_pixels} in all",
            fix="if the camera has that many pixels, raise the parameter max_image_pixels",
        )
    return CameraImage(
        message.header,
        header.width,
        header.height,
        lambda mono16: mono16.to_8_bits(decode_image(message.data)),
    )
