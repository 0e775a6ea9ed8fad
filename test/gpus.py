"""Whether this machine has an NVIDIA GPU."""

import ctypes


def has_gpu():
    """Ask the driver, because a build of ONNX Runtime for GPUs may be installed where there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
