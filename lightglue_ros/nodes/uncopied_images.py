"""Receives image messages without copying their pixels to Python.

rclpy copies the pixels of a message from C into bytes, and from there into an array.array. For 1920 x 1080
rgb8 the copies take 1.0 ms of processor time, of 2.3 ms for taking the message, and the inference threads
wait for Python meanwhile. Here the array lies on the pixels of the C message, which are freed with the array.

This works with any middleware, because rclpy converts a message after the middleware has filled it.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections import deque
from functools import cache
from typing import Any

import numpy as np
from rclpy.type_support import check_for_type_support
from sensor_msgs.msg import Image

# The structures below are those of these distributions. With others, messages are copied as rclpy does it.
KNOWN_DISTRIBUTIONS = ("humble", "iron", "jazzy", "kilted")
# Largest number of images that wait to be freed: those of two frames of four cameras.
MOST_UNUSED = 8


class _Sequence(ctypes.Structure):
    """rosidl_runtime_c's sequence of bytes; its string has the same fields."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("capacity", ctypes.c_size_t))


class _CImage(ctypes.Structure):
    """sensor_msgs/Image in C."""

    _fields_ = (
        ("sec", ctypes.c_int32),
        ("nanosec", ctypes.c_uint32),
        ("frame_id", _Sequence),
        ("height", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("encoding", _Sequence),
        ("is_bigendian", ctypes.c_uint8),
        ("step", ctypes.c_uint32),
        ("data", _Sequence),
    )


# Makes a Python message of a C message at an address.
_Convert = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p)
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_capsule_of = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


@cache
def uncopied(kind: type) -> type:
    """Return the type to subscribe to in place of a type of messages.

    For Image it is one whose messages are like those of Image, but their `data` is an array uint8 [n]. Other
    types stay as they are.
    """
    if kind is not Image or os.environ.get("ROS_DISTRO") not in KNOWN_DISTRIBUTIONS:
        return kind
    check_for_type_support(Image)  # loads the conversion
    convert = _Convert(_pointer_of(Image._CONVERT_TO_PY, None))
    free = ctypes.CDLL("librosidl_runtime_c.so").rosidl_runtime_c__uint8__Sequence__fini

    unused: deque[_Sequence] = deque()

    @_Convert
    def convert_without_copy(address: int) -> Any:
        data = _CImage.from_address(address).data
        taken = _Sequence.from_buffer_copy(data)
        pixels = (ctypes.c_uint8 * taken.size).from_address(taken.data or 0)
        weakref.finalize(pixels, unused.append, taken).atexit = False
        for _ in range(min(len(unused), max(1, len(unused) - MOST_UNUSED))):
            free(ctypes.byref(unused.popleft()))
        # The C message, which rclpy frees after the conversion, has no pixels any more.
        data.data, data.size, data.capacity = None, 0, 0
        message = convert(address)
        message._data = np.frombuffer(pixels, np.uint8)  # setting `data` would copy it
        return message

    members = {
        "_CONVERT_TO_PY": _capsule_of(ctypes.cast(convert_without_copy, ctypes.c_void_p), None, None),
        # rclpy calls it, and does not hold it.
        "_convert": convert_without_copy,
    }
    metaclass = type("Metaclass_Image", (type(Image),), members)
    return metaclass("Image", (Image,), {"__slots__": ()})
