"""Steps that several extractors share, written for ONNX Runtime."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightglue_ros.export.operators.pixels import (
    EPSILON,
    SHORTEST,
    softmax_of_channels,
    sum_corners,
    unit_vectors,
)

MOST_SHIFT = 0.49  # pixels; less than half a pixel, so that rounding gives back the keypoint's pixel
CELL = 8  # pixels per side of a cell of the detectors of SuperPoint and XFeat


def fold_batch_norm(
    weight: Tensor, mean: Tensor, variance: Tensor, scale: Tensor | float = 1.0, offset: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Multiply a batch normalisation (all [D]) into the weight [D, C, h, w] of a convolution without bias.

    Returns the weight and the bias [D] of the convolution.
    """
    divisor = (variance + EPSILON).sqrt() / scale
    return weight / divisor[:, None, None, None], offset - mean / divisor


def softmax_of_cells(logits: Tensor) -> Tensor:
    """Compute the softmax over a cell's 64 pixels and "none": float32 [N, 65, H/8, W/8] to [N, H, W]."""
    return F.pixel_shuffle(softmax_of_channels(logits, *logits.shape[2:])[:, :-1], CELL).squeeze(1)


def is_local_maximum(scores: Tensor, radius: int) -> Tensor:
    """Suppress non-maxima of scores [N, 1, H, W] as SuperGlue, LightGlue and ALIKED do it.

    Pixels that are the highest within the radius are chosen first. Then, twice, the highest of the pixels
    outside the windows of all chosen pixels are added.
    """
    chosen = scores == highest_nearby(scores, radius)
    for _ in range(2):
        suppressed = highest_nearby(chosen.float(), radius) > 0
        rest = torch.where(suppressed, 0.0, scores)
        chosen = chosen | ((rest == highest_nearby(rest, radius)) & ~suppressed)
    return chosen


def highest_nearby(scores: Tensor, radius: int) -> Tensor:
    """Compute the maximum within a radius; rows before columns is faster than one square window."""
    window = 2 * radius + 1
    rows = F.max_pool2d(scores, (1, window), stride=1, padding=(0, radius))
    return F.max_pool2d(rows, (window, 1), stride=1, padding=(radius, 0))


def peak_shifts(heatmap: Tensor, positions: Tensor, *, is_probability: bool) -> Tensor:
    """Find the peaks of a heatmap [N, H, W] between the pixels: shifts [N, K, 2] from positions [N, K, 2].

    A parabola goes through each local maximum and its two neighbours, along x and along y. It goes through
    the logarithms of probabilities, which are the detector's logits. A maximum at the edge of the map stays.
    """
    height, width = heatmap.shape[1:]
    x, y = positions[..., 0:1], positions[..., 1:2]
    beside = torch.tensor([-1.0, 0.0, 1.0])
    rows = pixels(heatmap.unsqueeze(3), (x + beside).clamp_min(0), y.expand(-1, -1, 3)).squeeze(3)
    columns = pixels(heatmap.unsqueeze(3), x.expand(-1, -1, 3), (y + beside).clamp_min(0)).squeeze(3)
    values = torch.stack([rows, columns], dim=2)
    if is_probability:
        values = values.clamp_min(1e-12).log()
    before, centre, after = values.unbind(3)
    curvature = before - 2 * centre + after
    shifts = (before - after) / torch.where(curvature < 0, 2 * curvature, 1.0)
    last = torch.tensor([width - 1, height - 1], dtype=torch.float32)
    has_neighbours = (positions > 0) & (positions < last) & (curvature < 0)
    return torch.where(has_neighbours, shifts.clamp(-MOST_SHIFT, MOST_SHIFT), 0.0)


def pixels_first(features: Tensor) -> Tensor:
    """Permute [N, C, H, W] to [N, H, W, C], where the channels of a pixel are read at once."""
    return features.permute(0, 2, 3, 1)


def add_channels_last(maps: Tensor, others: Tensor) -> Tensor:
    """Add maps [N, C, H, W] as 8-bit convolutions have them, with the channels of a pixel next to each other.

    ONNX Runtime would transpose float32 maps twice around the sum. Rows without an axis for channels keep it
    from that, which takes 0.36 ms less for XFeat and a VGA image.
    """
    rows, other_rows = (pixels_first(it).flatten(2) for it in (maps, others))
    return (rows + other_rows).unflatten(2, (-1, maps.shape[1])).permute(0, 3, 1, 2)


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors along the last dimension to length 1, in float32 whatever the type."""
    return unit_vectors(vectors.float()).to(vectors.dtype)


def norm(vectors: Tensor) -> Tensor:
    """Compute the lengths of vectors along the last dimension, which is kept: float32, never 0."""
    return vectors.float().norm(dim=-1, keepdim=True).clamp_min(SHORTEST)


def interpolate(features: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Interpolate features [N, H, W, C] bilinearly at x and y [N, M, R] inside the map: [N, M, R, C].

    Gathering pixels takes ONNX Runtime a fraction of the time of its GridSample.
    """
    corner_x, corner_y, weights = bilinear_corners(x, y)
    return sum_corners(pixels(features, corner_x, corner_y) * weights.unsqueeze(3).to(features.dtype))


def bilinear_corners(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the four pixels around places [N, M, R]: x, y and weight of each pixel, [N, M, 4 R]."""
    left, top = x.floor(), y.floor()
    to_right, to_bottom = x - left, y - top
    corner_x = torch.cat([left, left + 1], dim=2).repeat(1, 1, 2)
    corner_y = torch.cat([top, top, top + 1, top + 1], dim=2)
    weight_x = torch.cat([1 - to_right, to_right], dim=2).repeat(1, 1, 2)
    weight_y = torch.cat([1 - to_bottom, 1 - to_bottom, to_bottom, to_bottom], dim=2)
    return corner_x, corner_y, weight_x * weight_y


def pixels(features: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Gather features [N, H, W, C] at pixels x and y [N, M, R]: [N, M, R, C].

    A coordinate beyond the last pixel reads the last pixel.
    """
    count, height, width = features.shape[:3]
    image = torch.arange(count).view(-1, 1, 1)
    row = image * height + y.clamp(max=height - 1).long()
    index = row * width + x.clamp(max=width - 1).long()
    chosen = features.flatten(0, 2).index_select(0, index.flatten())
    return chosen.unflatten(0, index.shape)
