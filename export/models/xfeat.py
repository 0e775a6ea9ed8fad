"""XFeat: the extractor of "XFeat: Accelerated Features for Lightweight Image Matching" (CVPR 2024).

Equal to the reference implementation, verlab/accelerated_features (`XFeat.detectAndCompute` on arrays),
for images whose sides are multiples of 32. When the weights are read, batch normalisation is folded into
the convolutions, and some steps become convolutions of another shape that compute the same sooner: see
`_reshape_first_layers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightglue_ros.export.models.maps import CELL, normalise, softmax_of_cells

DETECTION_THRESHOLD = 0.05  # XFeat's default
NMS_SIZE = 5  # pixels, XFeat's default
BATCH_NORM_EPSILON = 1e-5


class XFeat(nn.Module):
    """Detector and descriptor of XFeat, section 3 of the paper."""

    descriptor_dim = 64
    border = 0
    takes_grey = True
    kept_in_fp32 = ()
    # All that leads to descriptors, and to a factor of the scores; where keypoints are is for keypoint_head
    # to say. The first layer looks at normalised images, which have no largest number.
    int8_layers: ClassVar[Mapping[str, tuple[int, int]]] = {
        "block1": (1, 4),
        "block2": (0, 2),
        "block3": (0, 3),
        "block4": (0, 3),
        "block5": (0, 4),
        "block_fusion": (0, 2),
    }

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

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> XFeat:
        """The extractor with the published weights (or others of the same names).

        Raises:
            KeyError: a tensor is missing.
            RuntimeError: a tensor is missing, unknown or of another shape.
        """
        extractor = cls()
        sparse_only = {key: value for key, value in state_dict.items() if not key.startswith("fine_matcher.")}
        extractor.load_state_dict(_reshape_first_layers(_fold_batch_norm(sparse_only)), strict=True)
        return extractor.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoint scores of every pixel, and the map that descriptors are sampled from.

        Args:
            images: float32 [N, 1, H, W], the mean of the colours, 0 to 1, H and W multiples of 32.

        Returns:
            scores: float32 [N, H, W], above 0 at keypoints and 0 elsewhere.
            features: float32 [N, 64, H/8, W/8], unit vectors.
        """
        precision = self.skip1.weight.dtype
        grey = normalise(images).to(precision)
        fine = self.block2(self.block1(grey) + self.skip1(grey))
        eighth = self.block3(fine)
        sixteenth = self.block4(eighth)
        thirty_second = self.block5(sixteenth)
        features = self.block_fusion(eighth + _upsample(sixteenth, 2) + _upsample(thirty_second, 4))

        reliability = self.heatmap_head(features).squeeze(1).float()
        heatmap = softmax_of_cells(self.keypoint_head(grey).float())
        return _keypoint_scores(heatmap, reliability), _unit(features.float(), dim=1)

    def refine(self, features: Tensor, positions: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [N, K, 2] and scores [N, K] as they are: XFeat's keypoints are whole pixels."""
        return positions, scores

    def describe(self, features: Tensor, positions: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Descriptors at the given positions.

        Args:
            features: float32 [N, 64, H/8, W/8].
            positions: float32 [N, K, 2], (x, y) in canvas pixels.
            canvas: (width, height) of the canvas.

        Returns:
            float32 [N, K, 64], unit vectors.
        """
        width, height = canvas
        # Corners at pixel centres for the positions, at cell edges for the map: the reference's convention.
        x, y = positions.unbind(-1)
        grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)
        sampled = F.grid_sample(features, grid.unsqueeze(2), mode="bicubic", align_corners=False)
        return _unit(sampled.squeeze(3).transpose(1, 2), dim=2)


def _layer(channels_in: int, channels_out: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, size, stride=stride, padding=size // 2)
    return nn.Sequential(convolution, nn.ReLU())


def _fold_batch_norm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of convolutions with the batch normalisation that follows them multiplied in.

    In the published files a layer's convolution is named ``….layer.0`` and its batch normalisation (without
    scale and offset) ``….layer.1``; here the convolution alone is ``….0``.
    """
    folded = {}
    for key, value in state_dict.items():
        layer, _, rest = key.partition(".layer.")
        if not rest:
            folded[key] = value
        elif rest == "0.weight":
            deviation = (state_dict[f"{layer}.layer.1.running_var"] + BATCH_NORM_EPSILON).sqrt()
            folded[f"{layer}.0.weight"] = value / deviation[:, None, None, None]
            folded[f"{layer}.0.bias"] = -state_dict[f"{layer}.layer.1.running_mean"] / deviation
    return folded


def _reshape_first_layers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same network with the layers near full resolution written as wider strided ones.

    Four channels at full resolution fill a quarter of a vector unit and four times the memory. So the first
    layer gives each 2 x 2 block of its pixels as 16 channels of one pixel, which the second layer, of stride
    2, reads. The next layers have eight channels at half resolution: there two pixels side by side are 16
    channels of one. The means of 4 x 4 pixels that the skip connection scales, and the 8 x 8 pixels that the
    keypoint head takes as 64 channels, are strided convolutions as well.
    """
    names = [f"block1.{layer}.0" for layer in range(4)]
    layers = [weights.pop(f"{name}.weight") for name in names]
    biases = [weights.pop(f"{name}.bias") for name in names]
    pixel, pair, block = (1, 1), (1, 2), (2, 2)  # (rows, columns) of pixels that are one
    return weights | {
        "block1.0.0.weight": _in_blocks(layers[0], 1, pixel, block),
        "block1.0.0.bias": biases[0].repeat_interleave(4),
        "block1.1.1.weight": _in_blocks(layers[1], 2, block, pair),
        "block1.1.1.bias": biases[1].repeat_interleave(2),
        "block1.2.0.weight": _in_blocks(layers[2], 1, pair, pair),
        "block1.2.0.bias": biases[2].repeat_interleave(2),
        "block1.3.1.weight": _in_blocks(layers[3], 2, pair, pixel),
        "block1.3.1.bias": biases[3],
        "skip1.weight": weights.pop("skip1.1.weight").expand(-1, -1, 4, 4) / 16,
        "skip1.bias": weights.pop("skip1.1.bias"),
        "keypoint_head.0.0.weight": weights["keypoint_head.0.0.weight"].view(64, 1, CELL, CELL),
    }


def _in_blocks(weight: Tensor, stride: int, block_in: tuple[int, int], block_out: tuple[int, int]) -> Tensor:
    """A convolution with a padding of 1 between images whose blocks of pixels are channels of one pixel.

    Args:
        weight: [out, in, 3, 3] of the convolution between pixels.
        stride: of it.
        block_in: rows and columns of a block of what comes in; pixels follow each other row by row.
        block_out: the same of what goes out.

    Returns:
        [out * pixels, in * pixels, rows, columns], to be padded with as many zeros before the first row and
        column as their first taps lie before the block of the same place.
    """
    rows, columns = (_taps(stride, of_in, of_out) for of_in, of_out in zip(block_in, block_out, strict=True))
    by_row = torch.einsum("oiyx,yabc->oixabc", weight, rows)
    blocks = torch.einsum("oixabc,xdef->oadibecf", by_row, columns)
    return blocks.flatten(0, 2).flatten(1, 3)


def _taps(stride: int, block_in: int, block_out: int) -> Tensor:
    """Where the three taps of a convolution fall, [3, pixel out, pixel in, tap between blocks], 1 or 0."""
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


def _unit(vectors: Tensor, dim: int) -> Tensor:
    return vectors / vectors.norm(dim=dim, keepdim=True).clamp_min(1e-12)


def _keypoint_scores(heatmap: Tensor, reliability: Tensor) -> Tensor:
    """Heatmap [N, H, W] times reliability [N, H/8, W/8] at the heatmap's local maxima, 0 elsewhere."""
    height, width = heatmap.shape[1:]
    strongest = F.max_pool2d(heatmap.unsqueeze(1), NMS_SIZE, stride=1, padding=NMS_SIZE // 2).squeeze(1)
    is_keypoint = (heatmap == strongest) & (heatmap > DETECTION_THRESHOLD)
    # The reference drops (0, 0), which it pads with.
    is_keypoint = is_keypoint & (torch.arange(height).unsqueeze(1) + torch.arange(width) > 0)
    rows = _bilinear_weights(height, reliability.shape[1])
    columns = _bilinear_weights(width, reliability.shape[2])
    dense_reliability = rows @ reliability @ columns.transpose(0, 1)
    return heatmap * dense_reliability * is_keypoint.float()


def _bilinear_weights(pixels: int, cells: int) -> Tensor:
    """[pixels, cells] with the weights of bilinear sampling, 0 outside, as the reference maps pixels.

    It maps pixel 0 to the outer edge of the first cell and the last pixel to that of the last cell (see
    `XFeat.describe`), and drops keypoints in the last row and column, because its nearest-pixel lookup of the
    heatmap rounds to a place outside there: that row of weights is 0.
    """
    pixel = torch.arange(pixels, dtype=torch.float32).unsqueeze(1)
    position = pixel * (cells / (pixels - 1)) - 0.5
    weights = F.relu(1 - (position - torch.arange(cells, dtype=torch.float32)).abs())
    return weights * (pixel < pixels - 1).float()
