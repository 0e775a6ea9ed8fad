"""ALIKED: the extractor of "ALIKED: A Lighter Keypoint and Descriptor Extraction Network via Deformable
Transformation" (Zhao et al., IEEE TIM 2023), in all published sizes.

Results equal the reference implementation, the `ALIKED` of cvg/LightGlue with its default settings, for
images whose sides are multiples of 32. One difference is on purpose: where no pixel scores above the
threshold there are no keypoints. The reference lowers the threshold to the mean score of the batch.

The reference enlarges the four levels of its features to full resolution, 512 bytes per pixel, and samples
descriptors from that map. Here only the scores are computed at every pixel. The first layer of the score head
is linear and runs before the enlargement; descriptors compute only the pixels that they need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightglue_ros.export.models import maps
from lightglue_ros.export.models.extractor import Extractor
from lightglue_ros.export.operators.deformable import deform_conv2d
from lightglue_ros.export.operators.pixels import kept

DETECTION_THRESHOLD = 0.2  # the reference's default
RADIUS = 2  # pixels, for non-maximum suppression, refinement and the border without keypoints
WINDOW = 2 * RADIUS + 1
TEMPERATURE = 0.1  # of the refinement's softmax, section III-B
LEVEL_STRIDES = (1, 2, 8, 32)  # pixels of the canvas per pixel of each level of features
# Prefixes of tensor names in the published files, and here.
REFERENCE_NAMES = {
    "block1.conv1.": "block1.0.",
    "block1.conv2.": "block1.2.",
    **{f"block{number}.downsample.": f"block{number}.shortcut." for number in (2, 3, 4)},
    **{f"conv{number}.": f"levels.{number - 1}." for number in (1, 2, 3, 4)},
    **{f"score_head.{number}.": f"score_head.{number - 1}." for number in (2, 4, 6)},
    "desc_head.offset_conv.0.": "descriptor_head.patch_to_offsets.",
    "desc_head.offset_conv.2.": "descriptor_head.refine_offsets.",
    "desc_head.sf_conv.": "descriptor_head.project.",
    "desc_head.agg_weights": "descriptor_head.aggregate.weight",
}

# Scores of all pixels [N, 1, H, W], and the levels, each [N, H/stride, W/stride, D/4] (see LEVEL_STRIDES).
Features = tuple[Tensor, list[Tensor]]


class Aliked(Extractor):
    """Detector and descriptor of ALIKED, section III of the paper."""

    border = RADIUS
    kept_in_fp32 = ("score_head",)  # sigmoids near 1, many of which are equal in float16

    def __init__(
        self, widths: tuple[int, int, int, int], descriptor_dim: int, samples: int, *, portable: bool = False
    ) -> None:
        """Create an extractor without weights, whose four blocks have these widths.

        The four levels of features together are as wide as a descriptor, which is sampled at `samples`
        places. The portable form avoids ONNX's DeformConv (see `DeformableConvolution`).
        """
        super().__init__()
        self.descriptor_dim = descriptor_dim
        first, second, third, fourth = widths
        self.block1 = nn.Sequential(_convolution(3, first), nn.SELU(), _convolution(first, first), nn.SELU())
        self.block2 = ResidualBlock(first, second, _convolution)
        deformable = partial(DeformableConvolution, portable=portable)
        self.block3 = ResidualBlock(second, third, deformable)
        self.block4 = ResidualBlock(third, fourth, deformable)
        level_dim = descriptor_dim // len(widths)
        self.levels = nn.ModuleList(nn.Linear(width, level_dim, bias=False) for width in widths)
        self.score_inputs = nn.ModuleList(nn.Linear(level_dim, 8, bias=False) for _ in widths)
        self.score_head = nn.Sequential(
            nn.SELU(),
            nn.Conv2d(8, 4, 3, padding=1, bias=False),
            nn.SELU(),
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.SELU(),
            nn.Conv2d(4, 1, 3, padding=1, bias=False),
            nn.Sigmoid(),
        )
        self.descriptor_head = DeformableDescriptorHead(descriptor_dim, samples)

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor], *, portable: bool = False) -> Aliked:
        """Build the extractor, whose sizes follow from the shapes of the published weights."""
        widths = tuple(state_dict[f"conv{level}.weight"].shape[1] for level in range(1, 5))
        samples, descriptor_dim, _ = state_dict["desc_head.agg_weights"].shape
        sizes = {"widths": widths, "descriptor_dim": descriptor_dim, "samples": samples}
        return super().from_state_dict(state_dict, **sizes, portable=portable)

    @staticmethod
    def own_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fold batch normalisation and rename the published weights."""
        return _rename(_fold_batch_norm(state_dict))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Features]:
        """Return scores and keypoints [N, H, W] of images [N, 3, H, W], and features.

        H and W are multiples of 32.
        """
        full = self.block1(images.to(self.block1[0].weight.dtype))
        half = self.block2(F.avg_pool2d(full, 2))
        eighth = self.block3(F.avg_pool2d(half, 4))
        thirty_second = self.block4(F.avg_pool2d(eighth, 4))
        stages = zip(self.levels, (full, half, eighth, thirty_second), strict=True)
        levels = [F.selu(layer(maps.pixels_first(stage))) for layer, stage in stages]

        stages = zip(self.score_inputs, levels, strict=True)
        inputs = [layer(level).permute(0, 3, 1, 2) for layer, level in stages]
        score_input = inputs[0]
        for stride, level_input in zip(LEVEL_STRIDES[1:], inputs[1:], strict=True):
            score_input = score_input + F.interpolate(
                level_input, scale_factor=stride, mode="bilinear", align_corners=True
            )
        score_map = self.score_head(score_input.float())
        is_keypoint = maps.is_local_maximum(score_map, RADIUS) & (score_map > DETECTION_THRESHOLD)
        return score_map.squeeze(1), is_keypoint.squeeze(1), (score_map, levels)

    def refine(self, features: Features, positions: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Move keypoints to the soft maximum of the scores around them (DKD, section III-B).

        As in the reference, keypoints are chosen by the scores of their pixels. The scores that are returned
        are those at the refined positions, which are lower.
        """
        score_map, _ = features
        offsets = torch.arange(WINDOW, dtype=torch.float32) - RADIUS
        offset_x, offset_y = offsets.repeat(WINDOW), offsets.repeat_interleave(WINDOW)
        window = _gather_windows(score_map, positions)
        likelihood = ((window - window.amax(dim=2, keepdim=True)) / TEMPERATURE).softmax(dim=2)
        shift_x = (likelihood * offset_x).sum(dim=2, keepdim=True)
        shift_y = (likelihood * offset_y).sum(dim=2, keepdim=True)

        # Bilinear interpolation of the window at the refined position.
        weights = F.relu(1 - (offset_x - shift_x).abs()) * F.relu(1 - (offset_y - shift_y).abs())
        refined_scores = torch.where(scores > 0, (window * weights).sum(dim=2), 0.0)
        refined = positions + torch.cat([shift_x, shift_y], dim=2)
        best, order = refined_scores.topk(refined_scores.shape[1], dim=1)
        return refined.gather(1, order.unsqueeze(2).expand(-1, -1, 2)), best

    def describe(self, features: Features, positions: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Compute descriptors [N, K, D] at the positions."""
        _, levels = features
        return self.descriptor_head(levels, positions, canvas)


class DeformableConvolution(nn.Module):
    """3 x 3 convolution whose taps are moved by offsets from another convolution (section III-A).

    ONNX has had DeformConv for it since opset 19, but many runtimes lack it. The portable form samples all
    taps at once and multiplies matrices. Offsets are float32 in every precision; DeformConv, which wants one
    type for all inputs, then computes in float32.
    """

    def __init__(self, channels_in: int, channels_out: int, *, portable: bool) -> None:
        super().__init__()
        self.portable = portable
        self.offsets = _convolution(channels_in, 2 * 9)
        self.taps = nn.Linear(9 * channels_in, channels_out)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve [N, channels_in, H, W] to [N, channels_out, H, W]; outside the map are zeros."""
        height, width = features.shape[2:]
        limit = _longer_side(height, width) / 4
        offsets = torch.clamp(self.offsets(features).float(), -limit, limit)
        if not self.portable:
            weight = self.taps.weight.unflatten(1, (3, 3, -1)).permute(0, 3, 1, 2)
            convolved = deform_conv2d(features.float(), offsets, weight.float(), self.taps.bias.float())
            return convolved.to(features.dtype)
        offset_y, offset_x = maps.pixels_first(offsets).unflatten(3, (9, 2)).unbind(4)
        tap = torch.arange(9)
        x = offset_x + (tap % 3 - 1) + torch.arange(width).unsqueeze(1)
        y = offset_y + (tap // 3 - 1) + torch.arange(height).view(-1, 1, 1)
        # A ring of zeros surrounds the map; places farther outside are moved onto it.
        x, y = x.clamp(-1, width) + 1, y.clamp(-1, height) + 1
        ringed = F.pad(maps.pixels_first(features), (0, 0, 1, 1, 1, 1))
        sampled = maps.interpolate(ringed, x.flatten(1, 2), y.flatten(1, 2))
        return self.taps(sampled.flatten(2)).transpose(1, 2).unflatten(2, (height, width))


class ResidualBlock(nn.Module):
    """Two convolutions, and a shortcut through a third convolution."""

    def __init__(
        self, channels_in: int, channels_out: int, convolution: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = convolution(channels_in, channels_out)
        self.conv2 = convolution(channels_out, channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Compute [N, channels_out, H, W] from [N, channels_in, H, W]."""
        return F.selu(self.conv2(F.selu(self.conv1(features))) + self.shortcut(features))


class DeformableDescriptorHead(nn.Module):
    """Descriptors from features sampled around the keypoints at learned offsets (SDDH, section III-C)."""

    def __init__(self, dim: int, samples: int) -> None:
        super().__init__()
        self.patch_to_offsets = nn.Linear(9 * dim, 2 * samples)
        self.refine_offsets = nn.Linear(2 * samples, 2 * samples)
        self.project = nn.Linear(dim, dim, bias=False)
        self.aggregate = nn.Linear(samples * dim, dim, bias=False)

    def forward(self, levels: list[Tensor], positions: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Compute unit vectors [N, K, D] from feature levels at positions [N, K, 2] in canvas pixels."""
        width, height = canvas
        patch = maps.unit(_features_at(levels, *_patch_pixels(positions, canvas), canvas))
        limit = _longer_side(height, width) / 4
        offsets = self.refine_offsets(F.selu(self.patch_to_offsets(patch.flatten(2)))).float()
        offset_x, offset_y = torch.clamp(offsets, -limit, limit).chunk(2, dim=2)

        x, y = positions[..., 0:1] + offset_x, positions[..., 1:2] + offset_y
        sampled = self._sample(levels, x, y, canvas)
        return maps.unit(self.aggregate(F.selu(self.project(sampled)).flatten(2)).float())

    def _sample(self, levels: list[Tensor], x: Tensor, y: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Interpolate unit vectors bilinearly at x and y [N, K, samples]: [N, K, samples, D].

        The vectors of the four pixels are normalised before they are mixed. Outside the canvas are zeros.
        """
        width, height = canvas
        corner_x, corner_y, weights = maps.bilinear_corners(x, y)
        is_inside = (corner_x >= 0) & (corner_x < width) & (corner_y >= 0) & (corner_y < height)
        weights = kept(weights, is_inside)
        corners = _features_at(levels, corner_x, corner_y, canvas)
        return maps.sum_corners(corners * (weights.unsqueeze(3) / maps.norm(corners)).to(corners.dtype))


def _convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def _fold_batch_norm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiply batch normalisations into the blocks' convolutions before them.

    The published names are ``block1.conv1`` for a convolution (``block3.conv1.regular_conv`` if it is
    deformable) and ``block1.bn1`` for its normalisation.
    """
    folded = {}
    for key, value in state_dict.items():
        block, _, rest = key.partition(".conv")
        if not rest or ".offset_conv." in key:
            folded[key] = value
            continue
        kinds = "running_mean", "running_var", "weight", "bias"
        of_norm = (state_dict[f"{block}.bn{rest[0]}.{kind}"] for kind in kinds)
        bias = key.removesuffix("weight") + "bias"
        folded[key], folded[bias] = maps.fold_batch_norm(value, *of_norm)
    return {key: value for key, value in folded.items() if ".bn" not in key}


def _rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and reshape weights of the reference for this module."""
    renamed = {}
    for key, value in weights.items():
        name = key
        for reference, own in REFERENCE_NAMES.items():
            if name.startswith(reference):
                name = own + name.removeprefix(reference)
        renamed[name.replace(".regular_conv.", ".taps.").replace(".offset_conv.", ".offsets.")] = value
    # Here channels follow each other within a tap; in a convolution taps follow each other within a channel.
    for name in [name for name in renamed if name.endswith((".taps.weight", ".patch_to_offsets.weight"))]:
        renamed[name] = renamed[name].permute(0, 2, 3, 1).flatten(1)
    for level, weight in enumerate(renamed.pop("score_head.0.weight").chunk(4, dim=1)):
        renamed[f"score_inputs.{level}.weight"] = weight.flatten(1)
        renamed[f"levels.{level}.weight"] = renamed[f"levels.{level}.weight"].flatten(1)
    head = "descriptor_head"
    return renamed | {
        f"{head}.refine_offsets.weight": renamed[f"{head}.refine_offsets.weight"].flatten(1),
        f"{head}.project.weight": renamed[f"{head}.project.weight"].flatten(1),
        f"{head}.aggregate.weight": renamed[f"{head}.aggregate.weight"].flatten(0, 1).transpose(0, 1),
    }


def _longer_side(height: int, width: int) -> Tensor:
    """Return the longer side as a tensor [1]: a maximum of symbolic sizes cannot be exported."""
    return torch.maximum(torch.ones(1) * height, torch.ones(1) * width)


def _gather_windows(score_map: Tensor, positions: Tensor) -> Tensor:
    """Gather scores [N, K, WINDOW * WINDOW], row by row, around pixels [N, K, 2] (x, y).

    Positions closer than RADIUS to the edge, which only empty slots have, are moved inwards.
    """
    height, width = score_map.shape[2:]
    centre_x = positions[..., 0].clamp(RADIUS, width - 1 - RADIUS).long()
    centre_y = positions[..., 1].clamp(RADIUS, height - 1 - RADIUS).long()
    offsets = torch.arange(WINDOW) - RADIUS
    rows = centre_y.unsqueeze(2) + offsets
    columns = centre_x.unsqueeze(2) + offsets
    index = rows.unsqueeze(3) * width + columns.unsqueeze(2)
    count = positions.shape[1]
    return score_map.flatten(1).gather(1, index.flatten(1)).unflatten(1, (count, WINDOW * WINDOW))


def _patch_pixels(positions: Tensor, canvas: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return x and y [N, K, 9] of the 3 x 3 pixels around positions [N, K, 2].

    As in the reference, patches at the edge are moved inwards and never hold the last row or column.
    """
    width, height = canvas
    tap = torch.arange(9)
    left = (positions[..., 0:1].floor() - 1).clamp(0, width - 4)
    top = (positions[..., 1:2].floor() - 1).clamp(0, height - 4)
    return left + tap % 3, top + tap // 3


def _features_at(levels: list[Tensor], x: Tensor, y: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Compute features [N, K, R, D] at canvas pixels; pixels outside take the features of the edge.

    Columns x and rows y are [N, K, R], whole numbers as float32. The corners of all levels, each float32
    [N, H, W, D/4], lie on the canvas's corners.
    """
    width, height = canvas
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    features = [maps.pixels(levels[0], x, y)]
    for level in levels[1:]:
        rows, columns = level.shape[1:3]
        level_x, level_y = x * ((columns - 1) / (width - 1)), y * ((rows - 1) / (height - 1))
        features.append(maps.interpolate(level, level_x, level_y))
    return torch.cat(features, dim=3)
