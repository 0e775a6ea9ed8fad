"""Conversions of image bytes.

They are operators because the tracer can leave the number of channels free only where no shape depends on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import opset18
from torch import Tensor

from lightglue_ros.export.operators.registration import matmul_integer_to_float, onnx_form, operator

SCALE = 1 / 255
PIXELS = 16  # next to each other, that a CPU averages at once
_FLOAT, _INT8 = 1, 3  # ONNX's numbers of types


@operator(lambda images: images.new_empty((images.shape[0], 3, *images.shape[1:3]), dtype=torch.float32))
def to_rgb(images: Tensor) -> Tensor:
    """Convert images uint8 [N, H, W, C], C = 1 (grey) or 3 (RGB), to float32 [N, 3, H, W], 0 to 1.

    A grey image becomes three equal channels.
    """
    return (images.float() * SCALE).permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()


@onnx_form("to_rgb")
def _(images: Any) -> Any:
    channels_first = opset18.Transpose(_scaled(opset18.Cast(images, to=_FLOAT)), perm=[0, 3, 1, 2])
    return opset18.Expand(channels_first, opset18.Constant(value_ints=[1, 3, 1, 1]))


@operator(lambda images: images.new_empty((images.shape[0], 1, *images.shape[1:3]), dtype=torch.float32))
def to_grey(images: Tensor) -> Tensor:
    """Average the channels of images uint8 [N, H, W, C], C = 1 or 3: float32 [N, 1, H, W], 0 to 1.

    W is a multiple of 16. One channel gives the same bits as three equal channels.
    """
    return images.float().mean(dim=3).unsqueeze(1) * SCALE


@onnx_form("to_grey")
def _(images: Any) -> Any:
    channels_first = opset18.Transpose(opset18.Cast(images, to=_FLOAT), perm=[0, 3, 1, 2])
    return _scaled(opset18.ReduceMean(channels_first, opset18.Constant(value_ints=[1]), keepdims=1))


@onnx_form("to_grey", target="cpu")
def _(images: Any) -> Any:
    """Add the channels of 16 pixels at once, by one product of 8-bit numbers. Grey counts three times.

    A VGA image takes 0.13 ms, and 0.72 ms as floats. Kernels of 8 bits are fast for signed weights only.
    """
    channels = opset18.Shape(images, start=3)
    one, three = opset18.Constant(value_ints=[1]), opset18.Constant(value_ints=[3])
    pixels, all_others = opset18.Constant(value_ints=[PIXELS]), opset18.Constant(value_ints=[-1])
    identity = opset18.Constant(value=onnx.numpy_helper.from_array(np.eye(PIXELS, dtype=np.int64)[:, None]))
    by_channel = opset18.Expand(identity, opset18.Concat(one, channels, one, axis=0))
    weights = opset18.Cast(opset18.Mul(by_channel, opset18.Div(three, channels)), to=_INT8)
    product = matmul_integer_to_float(
        opset18.Reshape(images, opset18.Concat(all_others, opset18.Mul(channels, pixels), axis=0)),
        opset18.Reshape(weights, opset18.Concat(all_others, pixels, axis=0)),
        opset18.Constant(value_float=SCALE / 3),
        opset18.Constant(value_float=1.0),
    )
    shape = opset18.Concat(opset18.Shape(images, end=1), one, opset18.Shape(images, start=1, end=3), axis=0)
    return opset18.Reshape(product, shape)


@onnx_form("to_grey", target="gpu")
def _(images: Any) -> Any:
    """Add the channels by a product: ONNX Runtime's mean of three values has 32 threads on a GPU."""
    pixels, channels = opset18.Cast(images, to=_FLOAT), images.shape[3]
    last, first = opset18.Constant(value_ints=[3]), opset18.Constant(value_ints=[1])
    if channels == 1:
        return _scaled(opset18.Unsqueeze(opset18.Squeeze(pixels, last), first))
    count = opset18.Shape(images, start=3)
    ones = opset18.Expand(
        opset18.Constant(value_floats=[1.0]),
        opset18.Concat(count, opset18.Constant(value_ints=[1]), axis=0),
    )
    sums = opset18.Unsqueeze(opset18.Squeeze(opset18.MatMul(pixels, ones), last), first)
    # ONNX Runtime takes ten times as long to divide an axis of length 1.
    return _scaled(opset18.Div(sums, opset18.Cast(opset18.Squeeze(count), to=_FLOAT)))


def _scaled(values: Any) -> Any:
    return opset18.Mul(values, opset18.Constant(value_float=SCALE))
