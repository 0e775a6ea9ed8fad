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
    size = torch.tensor([width, height])
    result = bias.view(1, -1, 1, 1)
    for tap in range(9):
        y = row + (tap // 3 - 1) + offsets[:, 2 * tap]
        x = column + (tap % 3 - 1) + offsets[:, 2 * tap + 1]
        # From -1 at the outer edge of the first pixel to 1 at that of the last, which a single one has, too.
        grid = (2 * torch.stack([x, y], dim=-1) + 1) / size - 1
        sampled = F.grid_sample(features, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        result = result + F.conv2d(sampled, weight[:, :, tap // 3, tap % 3, None, None])
    return result


@deform_conv2d.register_fake
def _(features: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return features.new_empty((features.shape[0], weight.shape[0], *features.shape[2:]))


def _onnx_deform_conv2d(features: Any, offsets: Any, weight: Any, bias: Any) -> Any:
    return opset19.DeformConv(
        features, weight, offsets, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]
    )


@torch.library.custom_op("lightglue_ros::compact", mutates_args=())
def compact(keypoints: Tensor, mask: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leave out the slots that are padded in all images; true slots come first.

    An operator of its own, because how many slots are left depends on what is in the mask.

    Args:
        keypoints: [N, K, 2].
        mask: bool [N, K].
        descriptors: [N, K, D].

    Returns:
        The same with as many slots as the image with the most keypoints has, at least 1.
    """
    most = max(1, int(mask.sum(dim=1).amax())) if len(mask) else 1
    return keypoints[:, :most].clone(), mask[:, :most].clone(), descriptors[:, :most].clone()


@compact.register_fake
def _(keypoints: Tensor, mask: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    most = torch.library.get_ctx().new_dynamic_size(min=2)  # the tracer treats a single slot as special
    return tuple(
        tensor.new_empty((tensor.shape[0], most, *tensor.shape[2:]))
        for tensor in (keypoints, mask, descriptors)
    )


def _onnx_compact(keypoints: Any, mask: Any, descriptors: Any) -> Any:
    zero, one = opset18.Constant(value_ints=[0]), opset18.Constant(value_ints=[1])
    counts = opset18.ReduceSum(opset18.Cast(mask, to=7), one, keepdims=0)
    most = opset18.ReduceMax(opset18.Concat(counts, one, axis=0), zero)
    return tuple(opset18.Slice(tensor, zero, most, one) for tensor in (keypoints, mask, descriptors))


# What `torch.onnx.export` takes as custom_translation_table.
ONNX_FORMS: dict[Callable, Callable] = {
    torch.ops.lightglue_ros.to_rgb.default: _onnx_to_rgb,
    torch.ops.lightglue_ros.deform_conv2d.default: _onnx_deform_conv2d,
    torch.ops.lightglue_ros.compact.default: _onnx_compact,
}
