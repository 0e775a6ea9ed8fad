"""Operators that PyTorch lacks, or that its tracer turns into slow or unsupported ONNX operators.

Each file holds one family. An operator has a PyTorch function, a fake that gives the tracer the shape of its
result, a standard ONNX form and, where ONNX Runtime has a faster operator of its own, a fused ONNX form.
"""

from lightglue_ros.export.operators.attention import attend, rotate
from lightglue_ros.export.operators.deformable import deform_conv2d
from lightglue_ros.export.operators.images import to_mean, to_rgb
from lightglue_ros.export.operators.int8 import (
    attend_int8,
    convolve_int8,
    dequantise,
    multiply_int8,
    quantise,
)
from lightglue_ros.export.operators.registration import onnx_forms
from lightglue_ros.export.operators.slots import compact, first_slots, where_true

__all__ = [
    "attend",
    "attend_int8",
    "compact",
    "convolve_int8",
    "deform_conv2d",
    "dequantise",
    "first_slots",
    "multiply_int8",
    "onnx_forms",
    "quantise",
    "rotate",
    "to_mean",
    "to_rgb",
    "where_true",
]
