"""Treats numbers below 1e-38 as zero, in the calling thread only and for the duration of a block.

ONNX Runtime's softmax returns 4e-39 for values far below the largest, padded slots included. x86 processors
compute 100 times slower with such denormal numbers. ONNX Runtime has a session option for this
(`session.set_denormal_as_zero`), which sets its own threads. But the option also sets the thread that makes
the first session of the process, for good: NumPy warns of it, and whether a worker thread inherits it depends
on the thread that started it. So the option sets ONNX Runtime's threads, and this module sets the calling
thread during the call.

Other processors, such as a Jetson's, do not slow down. With C libraries other than glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, section 10.2.3: bits 15 and 6.
_FLUSH_TO_ZERO_AND_DENORMALS_ARE_ZERO = 0x8040


class _Environment(ctypes.Structure):
    """glibc's fenv_t on x86-64: seven words of the x87 unit, then MXCSR."""

    _fields_ = (("x87", ctypes.c_uint32 * 7), ("mxcsr", ctypes.c_uint32))


_IS_KNOWN = platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"
_LIBM = ctypes.CDLL("libm.so.6") if _IS_KNOWN else None


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treat denormal numbers as zero in this thread until the end of the block."""
    with restored_floating_point():
        if _LIBM is not None:
            environment = _Environment()
            _LIBM.fegetenv(ctypes.byref(environment))
            environment.mxcsr |= _FLUSH_TO_ZERO_AND_DENORMALS_ARE_ZERO
            _LIBM.fesetenv(ctypes.byref(environment))
        yield


@contextmanager
def restored_floating_point() -> Iterator[None]:
    """Restore this thread's floating-point environment at the end of the block."""
    if _LIBM is None:
        yield
        return
    before = _Environment()
    _LIBM.fegetenv(ctypes.byref(before))
    try:
        yield
    finally:
        _LIBM.fesetenv(ctypes.byref(before))
