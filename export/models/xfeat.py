"""XFeat: the extractor of "XFeat: Accelerated Features for Lightweight Image Matching" (CVPR 2024).

Results equal the reference implementation, verlab/accelerated_features (`XFeat.detectAndCompute` on arrays),
for images whose sides are multiples of 32. When the weights are read, batch normalisation is folded into the
convolutions, and some steps become faster convolutions of another shape (see `_reshape_first_layers`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightglue_ros.export.models.extractor import Extractor
from lightglue_ros.export.models.maps import (
    CELL,
    fold_batch_norm,
    highest_nearby,
    pixels_first,
    softmax_of_cells,
    unit,
)
from lightglue_ros.export.operators.bicubic import sample_bicubic
from lightglue_ros.export.operators.pixels import normalise, resample

DETECTION_THRESHOLD = 0.05  # XFeat's default
NMS_SIZE = 5  # pixels, XFeat's default
# Unit vectors for descriptors, and the heatmap.
Features = tuple[Tensor, Tensor]


class XFeat(Extractor):
    """Detector and descriptor of XFeat, section 3 of the paper."""

    descriptor_dim = 64
    takes_grey = True
    # All blocks that lead to descriptors and to the reliability. keypoint_head, which decides where keypoints
    # are, stays in float32, and so does the first layer, whose normalised input has no largest value.
    int8_layers: ClassVar[Mapping[str, tuple[int, int]]] = {
        "block1": (1, 4),
        "block2": (0, 2),
        "block3": (0, 3),
        "block4": (0, 3),
        "block5": (0, 4),
        "block_fusion": (0, 2),
    }
    int8_channels = (
        (("block1.3", "skip1"), ("block2.0",)),
        (("block2.1",), ("block3.0",)),
        (("block3.2", "block4.2", "block5.3"), ("block4.0", "block5.0", "block_fusion.0")),
    )

    def __init__(self) -> None:
        super().__init__()
        self.skip1 = nn.Conv2d(1, 24, 4, stride=4)
        self.block1 = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU()),
            nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(16, 16, (2, 3), stride=(1, 2)), nn.ReLU()),
            _layer(16, 16),
            nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(16, 24, (3, 2), stride=(2, 1)), nn.ReLU()),
        )
        self.block2 = nn.Sequential(_layer(24, 24), _layer(24, 24))
        self.block3 = nn.Sequential(_layer(24, 64, stride=2), _layer(64, 64), _layer(64, 64, size=1))
        self.block4 = nn.Sequential(_layer(64, 64, stride=2), _layer(64, 64), _layer(64, 64))
        self.block5 = nn.Sequential(
            _layer(64, 128, stride=2), _layer(128, 128), _layer(128, 128), _layer(128, 64, size=1)
        )
        self.block_fusion = nn.Sequential(_layer(64, 64), _layer(64, 64), nn.Conv2d(64, 64, 1))
        self.heatmap_head = nn.Sequential(
            _layer(64, 64, size=1), _layer(64, 64, size=1), nn.Conv2d(64, 1, 1), nn.Sigmoid()
        )
        self.keypoint_head = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 64, CELL, stride=CELL), nn.ReLU()),
            _layer(64, 64, size=1),
            _layer(64, 64, size=1),
            nn.Conv2d(64, CELL**2 + 1, 1),
        )

    @staticmethod
    def own_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fold and reshape the published weights, without those of the dense matcher."""
        sparse_only = {key: value for key, value in state_dict.items() if not key.startswith("fine_matcher.")}
        return _reshape_first_layers(_fold_batch_norm(sparse_only))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Features]:
        """Return scores and keypoints [N, H, W] of images [N, 1, H, W], and features.

        H and W are multiples of 32. The features are unit vectors, [N, H/8, W/8, 64], and the heatmap.
        """
        precision = self.skip1.weight.dtype
        grey = normalise(images).to(precision)
        fine = self.block2(self.add(self.block1(grey), self.skip1(grey)))
        eighth = self.block3(fine)
        sixteenth = self.block4(eighth)
        thirty_second = self.block5(sixteenth)
        features = self.block_fusion(eighth + _upsample(sixteenth, 2) + _upsample(thirty_second, 4))

        reliability = self.heatmap_head(features).squeeze(1).float()
        heatmap = softmax_of_cells(self.keypoint_head(grey).float())
        scores = heatmap * _enlarge(reliability, *heatmap.shape[1:])
        return scores, _is_keypoint(heatmap), (unit(pixels_first(features.float())), heatmap)

    def describe(self, features: Features, positions: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Compute descriptors [N, K, 64] at the positions."""
        width, height = canvas
        # The reference puts the corners at pixel centres for positions, and at cell edges for the map.
        x, y = positions.unbind(-1)
        grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)
        return unit(sample_bicubic(features[0], grid))


def _layer(channels_in: int, channels_out: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, size, stride=stride, padding=size // 2)
    return nn.Sequential(convolution, nn.ReLU())


def _fold_batch_norm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiply batch normalisations into the convolutions before them.

    The published names are ``….layer.0`` for a convolution and ``….layer.1`` for its batch normalisation,
    which has no scale and offset. Here the convolution is ``….0``.
    """
    folded = {}
    for key, value in state_dict.items():
        layer, _, rest = key.partition(".layer.")
        if not rest:
            folded[key] = value
        elif rest == "0.weight":
            statistics = (state_dict[f"{layer}.layer.1.running_{it}"] for it in ("mean", "var"))
            folded[f"{layer}.0.weight"], folded[f"{layer}.0.bias"] = fold_batch_norm(value, *statistics)
    return folded


def _reshape_first_layers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rewrite the layers near full resolution as wider layers with strides; results stay the same.

    Four channels fill a quarter of a vector unit. So the first layer computes each 2 x 2 block of its pixels
    as 16 channels of one pixel, and the second layer, of stride 2, reads these. The next layers have eight
    channels: there, two neighbouring pixels become 16 channels of one pixel. The 4 x 4 means of the skip
    connection and the 8 x 8 cells of the keypoint head become strided convolutions as well.
    """
    pixel, pair, block = (1, 1), (1, 2), (2, 2)  # (rows, columns) of pixels that become one
    layers = (1, pixel, block), (2, block, pair), (1, pair, pair), (2, pair, pixel)
    for number, (stride, block_in, block_out) in enumerate(layers):
        weight, bias = (weights.pop(f"block1.{number}.0.{kind}") for kind in ("weight", "bias"))
        own = f"block1.{number}.{number % 2}"  # the second and the fourth layer begin with padding
        weights[f"{own}.weight"] = _in_blocks(weight, stride, block_in, block_out)
        weights[f"{own}.bias"] = bias.repeat_interleave(math.prod(block_out))
    return weights | {
        "skip1.weight": weights.pop("skip1.1.weight").expand(-1, -1, 4, 4) / 16,
        "skip1.bias": weights.pop("skip1.1.bias"),
        "keypoint_head.0.0.weight": weights["keypoint_head.0.0.weight"].view(64, 1, CELL, CELL),
    }


def _in_blocks(weight: Tensor, stride: int, block_in: tuple[int, int], block_out: tuple[int, int]) -> Tensor:
    """Rewrite a 3 x 3 convolution with padding 1 for images whose blocks of pixels are channels of one pixel.

    Blocks are (rows, columns); their pixels follow each other row by row. The weight [out, in, 3, 3] becomes
    [out * pixels, in * pixels, rows, columns]. The padding before the first row and column is the number of
    blocks by which the first tap lies before its own block.
    """
    rows, columns = (_taps(stride, of_in, of_out) for of_in, of_out in zip(block_in, block_out, strict=True))
    by_row = torch.einsum("oiyx,yabc->oixabc", weight, rows)
    blocks = torch.einsum("oixabc,xdef->oadibecf", by_row, columns)
    return blocks.flatten(0, 2).flatten(1, 3)


def _taps(stride: int, block_in: int, block_out: int) -> Tensor:
    """Map each of three taps to blocks: [3, pixel out, pixel in, tap between blocks], 1 or 0."""
    first = -1 // block_in
    last = (stride * (block_out - 1) + 1) // block_in
    taps = torch.zeros(3, block_out, block_in, last - first + 1)
    for tap in range(3):
        for out in range(block_out):
            block, pixel = divmod(stride * out + tap - 1, block_in)
            taps[tap, out, pixel, block - first] = 1
    return taps


def _upsample(features: Tensor, factor: int) -> Tensor:
    return F.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=False)


def _is_keypoint(heatmap: Tensor) -> Tensor:
    """Find the local maxima of the heatmap [N, H, W] above the threshold: bool [N, H, W]."""
    height, width = heatmap.shape[1:]
    strongest = highest_nearby(heatmap.unsqueeze(1), NMS_SIZE // 2).squeeze(1)
    # The reference drops (0, 0), the value of its empty slots.
    is_used = (torch.arange(height).unsqueeze(1) > 0) | (torch.arange(width) > 0)
    return (heatmap == strongest) & (heatmap > DETECTION_THRESHOLD) & is_used


def _enlarge(reliability: Tensor, height: int, width: int) -> Tensor:
    """Interpolate reliability [N, H/8, W/8] at all pixels: [N, H, W]."""
    y, x = (_places(count) for count in (height, width))
    return resample(reliability, y, x)


def _places(pixels: int) -> Tensor:
    """Map pixels to places between cells as the reference does: float32 [pixels].

    The reference maps pixel 0 to the outer edge of the first cell, and the last pixel to the outer edge of
    the last cell (see `XFeat.describe`). It drops keypoints in the last row and column, where its lookup of
    the nearest heatmap pixel falls outside: these get a place where no cell is near.
    """
    pixel = torch.arange(pixels, dtype=torch.float32)
    place = pixel * (pixels // CELL / (pixels - 1)) - 0.5
    return torch.where(pixel < pixels - 1, place, -2.0)
