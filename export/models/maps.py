"""Steps on maps of pixels that several extractors take, written for ONNX Runtime."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CELL = 8  # pixels per side of a cell of SuperPoint's detector, which XFeat took over
INSTANCE_NORM_EPSILON = 1e-5  # PyTorch's default


def has_contrast(images: Tensor) -> Tensor:
    """Which of images [N, 3, H, W] have more than a single colour: bool [N, 1, 1, 1]."""
    differs = images.amax(dim=(2, 3)) > images.amin(dim=(2, 3))
    return differs.any(dim=1)[:, None, None, None]


def softmax_of_cells(logits: Tensor) -> Tensor:
    """float32 [N, 65, H/8, W/8] to [N, H, W]: softmax over a cell's 64 pixels and "none", "none" dropped.

    Written out, because ONNX Runtime is slow at a softmax over channels. The sum is a convolution, because
    its sum over channels adds a single image in another order than several, which moves scores by 2e-7.
    """
    exponentials = (logits - logits.amax(dim=1, keepdim=True)).exp()
    sums = F.conv2d(exponentials, torch.ones(1, CELL**2 + 1, 1, 1))
    return F.pixel_shuffle(exponentials[:, :-1] / sums, CELL).squeeze(1)


def is_local_maximum(scores: Tensor, radius: int) -> Tensor:
    """Where scores [N, 1, H, W] are the highest within a radius, and next to no higher chosen one.

    After a first choice, twice more the highest of what lies outside of the chosen pixels' windows. This is
    the suppression of non-maxima of SuperPoint as SuperGlue and LightGlue run it, and of ALIKED.
    """
    chosen = scores == _highest_nearby(scores, radius)
    for _ in range(2):
        suppressed = _highest_nearby(chosen.float(), radius) > 0
        rest = torch.where(suppressed, 0.0, scores)
        chosen = chosen | ((rest == _highest_nearby(rest, radius)) & ~suppressed)
    return chosen


def _highest_nearby(scores: Tensor, radius: int) -> Tensor:
    """The highest value within a radius in x and y; first along rows, then along columns: that is sooner."""
    window = 2 * radius + 1
    rows = F.max_pool2d(scores, (1, window), stride=1, padding=(0, radius))
    return F.max_pool2d(rows, (window, 1), stride=1, padding=(radius, 0))


def pixels_first(features: Tensor) -> Tensor:
    """[N, C, H, W] to [N, H, W, C], where the channels of a pixel are read at once."""
    return features.permute(0, 2, 3, 1)


def unit(vectors: Tensor) -> Tensor:
    """Vectors [..., D] of length 1."""
    return (vectors / norm(vectors)).to(vectors.dtype)


def normalise(maps: Tensor) -> Tensor:
    """Instance normalisation of [N, C, H, W], without weights.

    Written out, rows before columns, because ONNX Runtime's own adds up a whole map in one float32, and is
    off by 1e-4 of the largest number. What rounding leaves of the mean is taken away after it.
    """
    centred = maps - _mean(maps)
    rest = _mean(centred)
    deviation = (_mean(centred * centred) - rest * rest + INSTANCE_NORM_EPSILON).sqrt()
    return (centred - rest) / deviation


def _mean(maps: Tensor) -> Tensor:
    """[N, C, H, W] to [N, C, 1, 1]."""
    rows = maps.mean(dim=3)
    # Twice, for ONNX Runtime adds up a single row in another order than one of several.
    return torch.cat([rows, rows], dim=1).mean(dim=2)[:, : rows.shape[1], None, None]


def norm(vectors: Tensor) -> Tensor:
    """Lengths float32 [..., 1] of vectors [..., D], never 0."""
    return vectors.float().norm(dim=-1, keepdim=True).clamp_min(1e-12)


def interpolate(features: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Features [N, H, W, C] at x and y [N, M, R] inside, bilinear: [N, M, R, C].

    By gathering pixels, which takes ONNX Runtime a fraction of the time of its GridSample.
    """
    corner_x, corner_y, weights = bilinear_corners(x, y)
    return sum_corners(pixels(features, corner_x, corner_y) * weights.unsqueeze(3).to(features.dtype))


def bilinear_corners(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The four pixels around places [N, M, R]: x, y and weights in bilinear interpolation [N, M, 4 R]."""
    left, top = x.floor(), y.floor()
    to_right, to_bottom = x - left, y - top
    corner_x = torch.cat([left, left + 1], dim=2).repeat(1, 1, 2)
    corner_y = torch.cat([top, top, top + 1, top + 1], dim=2)
    weight_x = torch.cat([1 - to_right, to_right], dim=2).repeat(1, 1, 2)
    weight_y = torch.cat([1 - to_bottom, 1 - to_bottom, to_bottom, to_bottom], dim=2)
    return corner_x, corner_y, weight_x * weight_y


def sum_corners(weighted: Tensor) -> Tensor:
    """[N, M, 4 R, C] in the order of `bilinear_corners` to [N, M, R, C]."""
    return weighted.unflatten(2, (4, -1)).sum(dim=2)


def pixels(features: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Features [N, H, W, C] of pixels x and y [N, M, R] from 0 on, the last beyond the end: [N, M, R, C]."""
    count, height, width = features.shape[:3]
    image = torch.arange(count).view(-1, 1, 1)
    row = image * height + y.clamp(max=height - 1).long()
    index = row * width + x.clamp(max=width - 1).long()
    chosen = features.flatten(0, 2).index_select(0, index.flatten())
    return chosen.unflatten(0, index.shape)
