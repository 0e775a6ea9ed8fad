"""Steps that PyTorch has no operator for, or traces into another one than wanted, and their ONNX form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18, opset19
from torch import Tensor
from torch.nn import functional as F


@torch.library.custom_op("lightglue_ros::to_rgb", mutates_args=())
def to_rgb(images: Tensor) -> Tensor:
    """Images uint8 [N, H, W, C], C = 1 (grey) or 3 (RGB), to float32 [N, 3, H, W], 0 to 255.

    Grey becomes three equal channels. An operator of its own, because a tracer can leave C free only where
    nothing depends on it.
    """
    return images.float().permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()


@to_rgb.register_fake
def _(images: Tensor) -> Tensor:
    count, height, width, _ = images.shape
    return images.new_empty((count, 3, height, width), dtype=torch.float32)


def _onnx_to_rgb(images: Any) -> Any:
    channels_first = opset18.Transpose(opset18.Cast(images, to=1), perm=[0, 3, 1, 2])
    return opset18.Expand(channels_first, opset18.Constant(value_ints=[1, 3, 1, 1]))


@torch.library.custom_op("lightglue_ros::deform_conv2d", mutates_args=())
def deform_conv2d(features: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3 x 3 convolution of stride 1, padded with zeros, that reads each tap where the offsets say.

    ONNX's DeformConv (opset 19). Here it is computed tap by tap, to check what ONNX Runtime makes of it.

    Args:
        features: [N, C, H, W].
        offsets: [N, 18, H, W], (y, x) in pixels for each tap, row by row.
        weight: [D, C, 3, 3].
        bias: [D].

    Returns:
        [N, D, H, W].
    """
    height, width = features.shape[2:]
    row = torch.arange(height, dtype=torch.float32).view(-1, 1)
    column = torch.arange(width, dtype=torch.float32)
    scale = torch.tensor([2 / (width - 1), 2 / (height - 1)])
    result = bias.view(1, -1, 1, 1)
    for tap in range(9):
        y = row + (tap // 3 - 1) + offsets[:, 2 * tap]
        x = column + (tap % 3 - 1) + offsets[:, 2 * tap + 1]
        grid = torch.stack([x, y], dim=-1) * scale - 1
        sampled = F.grid_sample(features, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        result = result + F.conv2d(sampled, weight[:, :, tap // 3, tap % 3, None, None])
    return result


@deform_conv2d.register_fake
def _(features: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return features.new_empty((features.shape[0], weight.shape[0], *features.shape[2:]))


def _onnx_deform_conv2d(features: Any, offsets: Any, weight: Any, bias: Any) -> Any:
    return opset19.DeformConv(
        features, weight, offsets, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]
    )


# What `torch.onnx.export` takes as custom_translation_table.
ONNX_FORMS: dict[Callable, Callable] = {
    torch.ops.lightglue_ros.to_rgb.default: _onnx_to_rgb,
    torch.ops.lightglue_ros.deform_conv2d.default: _onnx_deform_conv2d,
}
