"""DISK: the extractor of "DISK: Learning local features with policy gradient" (NeurIPS 2020).

Results equal kornia's DISK as cvg/LightGlue runs it (`kornia.feature.DISK` with the weights "depth", a window
of 5 pixels and a detection threshold of 0) for images whose sides are multiples of 16.

The reference computes 128 descriptor channels for every pixel, four fifths of its arithmetic, and then reads
them at the keypoints. Its last layer is a convolution. Here this layer computes the heatmap for every pixel,
and descriptors only at keypoints, from the 5 x 5 pixels around each.

One difference is on purpose: an image of one colour, such as a black image, has no keypoints. The reference
finds some along the border, where instance normalisation amplifies the zero padding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightglue_ros.export.models.extractor import Extractor
from lightglue_ros.export.models.maps import unit
from lightglue_ros.export.operators.pixels import has_contrast, kept, normalise

KERNEL = 5  # pixels per side of every convolution
NMS_SIZE = 5  # pixels, kornia's and cvg/LightGlue's default
DETECTION_THRESHOLD = 0.0  # for the heatmap; default of both
BLOCK = 4  # pixels per side of the blocks whose heatmap is computed at once; see `_in_blocks`
# Input of the last layer, and the heatmap.
Features = tuple[Tensor, Tensor]
FULL_RESOLUTION_CHANNELS = 80  # input of the last layer: 64 from the level below, 16 from the first layer


class DISK(Extractor):
    """Detector and descriptor of DISK: a U-Net of four levels (appendix of the paper)."""

    descriptor_dim = 128
    has_probabilities = False
    kept_in_fp32 = ("detector",)  # scores reach 150, where steps of float16 are 1/8

    def __init__(self) -> None:
        super().__init__()
        self.first = _convolution(3, 16)
        self.down = nn.ModuleList([_layer(16, 32), _layer(32, 64), _layer(64, 64), _layer(64, 64)])
        self.up = nn.ModuleList([_layer(128, 64), _layer(128, 64), _layer(96, 64)])
        self.gate = Gate(FULL_RESOLUTION_CHANNELS)
        self.detector = nn.Conv2d(
            FULL_RESOLUTION_CHANNELS, BLOCK**2, KERNEL + BLOCK - 1, stride=BLOCK, padding=KERNEL // 2
        )
        self.descriptor = nn.Linear(FULL_RESOLUTION_CHANNELS * KERNEL**2, self.descriptor_dim)

    @staticmethod
    def own_weights(state_dict: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Rename the published weights to the names of this module."""
        weights = state_dict["extractor"]
        own = {
            "first.weight": weights["unet.path_down.0.1.3.weight"],
            "first.bias": weights["unet.path_down.0.1.3.bias"],
            "gate.slope": weights["unet.path_up.3.conv.1.weight"],
        }
        layers = {f"down.{level}": f"unet.path_down.{level + 1}.1" for level in range(4)}
        layers |= {f"up.{level}": f"unet.path_up.{level}.conv" for level in range(3)}
        for layer, published in layers.items():
            own[f"{layer}.0.slope"] = weights[f"{published}.1.weight"]
            own |= {f"{layer}.1.{kind}": weights[f"{published}.3.{kind}"] for kind in ("weight", "bias")}
        weight, bias = (weights[f"unet.path_up.3.conv.3.{kind}"] for kind in ("weight", "bias"))
        own |= {"descriptor.weight": weight[:-1].flatten(1), "descriptor.bias": bias[:-1]}
        return own | {"detector.weight": _in_blocks(weight[-1]), "detector.bias": bias[-1:].repeat(BLOCK**2)}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Features]:
        """Return scores and keypoints [N, H, W] of images [N, 3, H, W], and features.

        H and W are multiples of 16. The features are the input of the last layer, [N, 80, H, W], and the
        heatmap [N, H, W].
        """
        levels = [self.first(images.to(self.first.weight.dtype))]
        for layer in self.down:
            levels.append(layer(F.avg_pool2d(levels[-1], 2)))
        bottom = levels.pop()
        for layer in self.up:
            bottom = layer(_join(bottom, levels.pop()))
        features = self.gate(_join(bottom, levels.pop()))
        heatmap = F.pixel_shuffle(self.detector(features.float()), BLOCK).squeeze(1)
        is_keypoint = _is_keypoint(heatmap) & has_contrast(images).squeeze(1)
        return heatmap, is_keypoint, (features, heatmap)

    def describe(self, features: Features, positions: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Compute descriptors [N, K, 128] at the nearest pixels."""
        nearest = positions.round() if self.subpixel else positions
        patches = _patches(features[0], nearest.long(), canvas)
        return unit(self.descriptor(patches).float())


class Gate(nn.Module):
    """Instance normalisation, which is float32 in every precision, and PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise and activate maps [N, channels, H, W]."""
        return F.prelu(normalise(maps), self.slope)


def _convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, KERNEL, padding=KERNEL // 2)


def _layer(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(Gate(channels_in), _convolution(channels_in, channels_out))


def _in_blocks(kernel: Tensor) -> Tensor:
    """Rewrite a convolution to one channel [C, k, k]: stride BLOCK, and one channel per pixel of a block.

    On AVX-512, ONNX Runtime always computes 16 channels at once, even if fewer are needed.
    """
    channels, size = kernel.shape[:2]
    blocks = kernel.new_zeros(BLOCK, BLOCK, channels, size + BLOCK - 1, size + BLOCK - 1)
    for row in range(BLOCK):
        for column in range(BLOCK):
            blocks[row, column, :, row : row + size, column : column + size] = kernel
    return blocks.flatten(0, 1)


def _join(below: Tensor, skipped: Tensor) -> Tensor:
    """Concatenate the enlarged map of the level below and the map of the skip connection."""
    enlarged = F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.cat([enlarged, skipped], dim=1)


def _is_keypoint(heatmap: Tensor) -> Tensor:
    """Find the local maxima of the heatmap [N, H, W] above the threshold: bool [N, H, W].

    The reference takes the index of the maximum, which is the first of several equal pixels. So a keypoint is
    above all pixels that come before it in its window, row by row, and not below the pixels after it. Without
    this rule every pixel of an even area would be a keypoint.
    """
    height, width = heatmap.shape[1:]
    reach = NMS_SIZE // 2
    maps = heatmap.unsqueeze(1)
    strongest = F.max_pool2d(maps, NMS_SIZE, stride=1, padding=reach).squeeze(1)
    nothing = -torch.inf
    above = F.pad(maps, (reach, reach, reach, 0), value=nothing)
    above = F.max_pool2d(above, (reach, NMS_SIZE), stride=1)[:, 0, :height]
    left = F.pad(maps, (reach, 0, 0, 0), value=nothing)
    left = F.max_pool2d(left, (1, reach), stride=1)[:, 0, :, :width]
    is_keypoint = (heatmap == strongest) & (heatmap > torch.maximum(above, left))
    return is_keypoint & (heatmap > DETECTION_THRESHOLD)


def _patches(features: Tensor, positions: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Gather the pixels of features [N, C, H, W] that a convolution reads at positions int64 [N, K, 2].

    Returns [N, K, C * KERNEL * KERNEL], 0 outside the canvas (W, H).
    """
    (width, height), (count, channels) = canvas, features.shape[:2]
    reach = torch.arange(KERNEL) - KERNEL // 2
    columns, rows = (positions[:, :, axis, None] + reach for axis in (0, 1))  # [N, K, KERNEL]
    has_column, has_row = (columns >= 0) & (columns < width), (rows >= 0) & (rows < height)
    inside = (has_row.unsqueeze(3) & has_column.unsqueeze(2)).flatten(2)
    index = (rows * width).unsqueeze(3) + columns.unsqueeze(2)
    index = torch.where(inside, index.flatten(2), 0).flatten(1)
    pixels = features.flatten(2).gather(2, index.unsqueeze(1).expand(-1, channels, -1))
    patches = kept(pixels.view(count, channels, -1, KERNEL**2), inside.unsqueeze(1))
    return patches.transpose(1, 2).flatten(2)
