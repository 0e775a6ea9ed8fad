"""Comparison of two runs of a graph on the same images, by other threads or in another batch."""

import platform

import numpy as np

# On x86 the two are the same to the bit. On ARM ONNX Runtime rounds differently in another batch or with
# other threads: features of XFeat differ by up to 1e-7, and scores of matches by up to 7e-4 (`--adaptive`).
ROUNDING = 0.0 if platform.machine() == "x86_64" else 1e-3


def assert_same(found, expected, name=""):
    """Compare two arrays to the bit, and on ARM those of floating point up to rounding."""
    if ROUNDING and np.asarray(expected).dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=0.0, atol=ROUNDING, err_msg=name)
    else:
        np.testing.assert_array_equal(found, expected, err_msg=name)
