"""The deformable convolution of ALIKED."""

from __future__ import annotations

from typing import Any

import torch
from onnxscript import opset19
from torch import Tensor
from torch.nn import functional as F

from lightglue_ros.export.operators.registration import onnx_form, operator


@operator(lambda maps, _, weight, bias: maps.new_empty((maps.shape[0], weight.shape[0], *maps.shape[2:])))
def deform_conv2d(features: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve 3 x 3 with stride 1 and zero padding, reading each tap at its offset.

    In ONNX this is DeformConv (opset 19). The PyTorch form goes tap by tap; the self-check compares both.

    Args:
        features: [N, C, H, W].
        offsets: [N, 18, H, W], (y, x) in pixels for each tap, row by row.
        weight: [D, C, 3, 3].
        bias: [D], where the result is [N, D, H, W].
    """
    height, width = features.shape[2:]
    row = torch.arange(height, dtype=torch.float32).view(-1, 1)
    column = torch.arange(width, dtype=torch.float32)
    size = torch.tensor([width, height])
    result = bias.view(1, -1, 1, 1)
    for tap in range(9):
        y = row + (tap // 3 - 1) + offsets[:, 2 * tap]
        x = column + (tap % 3 - 1) + offsets[:, 2 * tap + 1]
        # -1 and 1 are the outer edges of the first and last pixel, so that a single pixel has a grid too.
        grid = (2 * torch.stack([x, y], dim=-1) + 1) / size - 1
        sampled = F.grid_sample(features, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        result = result + F.conv2d(sampled, weight[:, :, tap // 3, tap % 3, None, None])
    return result


@onnx_form("deform_conv2d")
def _(features: Any, offsets: Any, weight: Any, bias: Any) -> Any:
    return opset19.DeformConv(
        features, weight, offsets, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]
    )
