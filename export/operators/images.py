"""Conversions of image bytes.

They are operators because the tracer can leave the number of channels free only where no shape depends on it.
"""

from __future__ import annotations

from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor

from lightglue_ros.export.operators.registration import onnx_form, operator


@operator(lambda images: images.new_empty((images.shape[0], 3, *images.shape[1:3]), dtype=torch.float32))
def to_rgb(images: Tensor) -> Tensor:
    """Convert images uint8 [N, H, W, C], C = 1 (grey) or 3 (RGB), to float32 [N, 3, H, W], 0 to 255.

    A grey image becomes three equal channels.
    """
    return images.float().permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()


@onnx_form("to_rgb")
def _(images: Any) -> Any:
    return opset18.Expand(_channels_first(images), opset18.Constant(value_ints=[1, 3, 1, 1]))


@operator(lambda images: images.new_empty((images.shape[0], 1, *images.shape[1:3]), dtype=torch.float32))
def to_mean(images: Tensor) -> Tensor:
    """Average the channels of images uint8 [N, H, W, C], C = 1 or 3: float32 [N, 1, H, W], 0 to 255."""
    return images.float().mean(dim=3).unsqueeze(1)


@onnx_form("to_mean")
def _(images: Any) -> Any:
    return opset18.ReduceMean(_channels_first(images), opset18.Constant(value_ints=[1]), keepdims=1)


@onnx_form("to_mean", target="cpu")
@onnx_form("to_mean", target="gpu")
def _(images: Any) -> Any:
    """Add the channels by a product, with the same result to the bit.

    ONNX Runtime's mean of the three values of a pixel has 32 threads on a GPU, and takes 1.4 times as long on
    a CPU.
    """
    pixels, channels = opset18.Cast(images, to=1), images.shape[3]
    last, first = opset18.Constant(value_ints=[3]), opset18.Constant(value_ints=[1])
    if channels == 1:
        return opset18.Unsqueeze(opset18.Squeeze(pixels, last), first)
    count = opset18.Shape(images, start=3)
    ones = opset18.Expand(
        opset18.Constant(value_floats=[1.0]),
        opset18.Concat(count, opset18.Constant(value_ints=[1]), axis=0),
    )
    sums = opset18.Unsqueeze(opset18.Squeeze(opset18.MatMul(pixels, ones), last), first)
    # ONNX Runtime takes ten times as long to divide an axis of length 1.
    return opset18.Div(sums, opset18.Cast(opset18.Squeeze(count), to=1))


def _channels_first(images: Any) -> Any:
    return opset18.Transpose(opset18.Cast(images, to=1), perm=[0, 3, 1, 2])
