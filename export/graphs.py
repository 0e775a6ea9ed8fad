"""The graphs of the contract as PyTorch modules.

Images are computed apart from each other, sizes and scales of invalid slots are replaced before anything is
computed from them, and outputs of padded slots are exact zeros. So neither can influence a result.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightglue_ros.core.contract import EXTRACTOR, INPUTS, MATCHER, OUTPUTS, PIPELINE, GraphInfo
from lightglue_ros.export.models.adaptive import AdaptiveLightGlue, matcher_parts
from lightglue_ros.export.models.extractor import Extractor
from lightglue_ros.export.models.lightglue import LightGlue
from lightglue_ros.export.operators.images import to_grey, to_rgb
from lightglue_ros.export.operators.pixels import best_of, kept_by_both, quotient
from lightglue_ros.export.operators.slots import at_least_one, compact, rows_of
from lightglue_ros.export.tracing import Free, Part, TensorSpec


def tensor_specs(info: GraphInfo) -> dict[str, TensorSpec]:
    """Return type and axes of the contract's tensors; a static export has no free axes."""
    images, pairs, channels = info.batch or Free("N"), info.pairs or Free("P"), info.channels or Free("C")
    width, height = info.image_size or (Free("W", info.divisor), Free("H", info.divisor))
    slots = info.max_keypoints
    return {
        "images": TensorSpec(torch.uint8, (images, height, width, channels)),
        "sizes": TensorSpec(torch.float32, (images, 2)),
        "scales": TensorSpec(torch.float32, (images, 2)),
        "valid": TensorSpec(torch.bool, (images,)),
        "masks": TensorSpec(torch.bool, _free_of_others((images, height, width))),
        "image_sizes": TensorSpec(torch.float32, (images, 2)),
        "pairs": TensorSpec(torch.int64, (pairs, 2)),
        "max_keypoints": TensorSpec(torch.int64, (1,)),
        "match_threshold": TensorSpec(torch.float32, (1,)),
        "keypoints": TensorSpec(torch.float32, (images, slots, 2)),
        "keypoint_scores": TensorSpec(torch.float32, (images, slots)),
        "keypoint_mask": TensorSpec(torch.bool, (images, slots)),
        "descriptors": TensorSpec(torch.float32, (images, slots, info.descriptor_dim)),
        "matches": TensorSpec(torch.int32, (pairs, slots)),
        "match_scores": TensorSpec(torch.float32, (pairs, slots)),
        "layers": TensorSpec(torch.int32, (pairs,)),
    }


def _free_of_others(axes: tuple[Free | int, ...]) -> tuple[Free | int, ...]:
    """Name free axes apart from those of other tensors, because they may be 1."""
    return tuple(Free(f"mask_{axis.name}") if isinstance(axis, Free) else axis for axis in axes)


class Graph(nn.Module):
    """Base class of the graphs."""

    name: str  # in `contract.INPUTS` and `contract.OUTPUTS`

    def parts(self, specs: Mapping[str, TensorSpec]) -> list[Part]:
        """Return the parts to trace one by one, by default the whole graph, given `tensor_specs`."""
        inputs = {name: specs[name] for name in INPUTS[self.name]}
        return [Part(self.name, self, inputs, OUTPUTS[self.name])]


class ExtractorGraph(Graph):
    """Images to the K best keypoints of each, padded with zeros."""

    name = EXTRACTOR

    def __init__(self, extractor: Extractor, max_keypoints: int) -> None:
        super().__init__()
        self.extractor = extractor
        self.max_keypoints = max_keypoints

    def forward(
        self,
        images: Tensor,
        sizes: Tensor,
        scales: Tensor,
        valid: Tensor,
        masks: Tensor,
        max_keypoints: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return keypoints [N, K, 2], scores [N, K], mask [N, K] and descriptors [N, K, D]."""
        height, width = images.shape[1:3]
        sizes, scales = _only_valid(sizes, valid), _only_valid(scales, valid)
        colours = to_grey(images) if self.extractor.takes_grey else to_rgb(images)
        scores, is_keypoint, features = self.extractor(colours)

        is_keypoint = is_keypoint & _is_inside(sizes, self.extractor.border, (width, height))
        scores, positions = _best_pixels(kept_by_both(scores, is_keypoint, masks), self.max_keypoints)
        rank = torch.arange(self.max_keypoints)
        chosen = (scores > 0) & (rank < max_keypoints) & valid.unsqueeze(1)
        positions, scores = self.extractor.refine(features, positions, torch.where(chosen, scores, 0.0))
        if self.extractor.subpixel:  # a keypoint of the first or last pixel may have moved out of its image
            positions = torch.minimum(positions.clamp_min(0), (sizes - 1).clamp_min(0).unsqueeze(1))
        mask = scores > 0
        descriptors = self.extractor.describe(features, positions, (width, height))

        keypoints = (positions + 0.5) / scales.unsqueeze(1) - 0.5
        return _masked(keypoints, mask), scores, mask, _masked(descriptors, mask)


class CompactMatcher(nn.Module):
    """LightGlue on as many slots as the image with the most keypoints needs; called like `LightGlue`."""

    def __init__(self, matcher: LightGlue) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(
        self, keypoints: Tensor, keypoint_mask: Tensor, descriptors: Tensor, *others: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return matches [P, K], match scores [P, K] and layers [P] for all K slots."""
        needed = compact(keypoints, keypoint_mask, descriptors)
        matches, scores, layers = self.matcher(*needed, *others)
        left_out = 0, keypoints.shape[1] - needed[0].shape[1]
        return F.pad(matches, left_out, value=-1), F.pad(scores, left_out), layers


class NeverEmptyMatcher(nn.Module):
    """LightGlue for any number of pairs on a GPU, where fused attention fails without pairs."""

    def __init__(self, matcher: LightGlue) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of `LightGlue.forward`, which gets a pair that is dropped if there is none."""
        *features, pairs, match_threshold = inputs
        found = self.matcher(*features, at_least_one(pairs), match_threshold)
        return tuple(rows_of(values, pairs) for values in found)


class MatcherGraph(Graph):
    """Padded features and pairs of images to matches."""

    name = MATCHER

    def __init__(self, matcher: nn.Module) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return matches [P, K], match scores [P, K] and layers [P].

        LightGlue ignores the keypoint scores. They are an input so that the matcher takes all outputs of the
        extractor.
        """
        keypoints, _keypoint_scores, *others = inputs
        return self.matcher(keypoints, *others)

    def parts(self, specs: Mapping[str, TensorSpec]) -> list[Part]:
        """Return the parts of an adaptive matcher, or the whole graph."""
        if not isinstance(self.matcher, AdaptiveLightGlue):
            return super().parts(specs)
        return matcher_parts(self.matcher, specs)


class Extraction(nn.Module):
    """`ExtractorGraph`, and the sizes [N, 2] of the original images, which a matcher takes."""

    def __init__(self, extractor: ExtractorGraph) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(
        self,
        images: Tensor,
        sizes: Tensor,
        scales: Tensor,
        valid: Tensor,
        masks: Tensor,
        max_keypoints: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the extractor's outputs, and the sizes."""
        image_sizes = _only_valid(sizes, valid) / _only_valid(scales, valid)
        return *self.extractor(images, sizes, scales, valid, masks, max_keypoints), image_sizes


class PipelineGraph(Graph):
    """Images and pairs to keypoints and matches in one run."""

    name = PIPELINE

    def __init__(self, extractor: ExtractorGraph, matcher: nn.Module) -> None:
        super().__init__()
        self.extraction = Extraction(extractor)
        self.matcher = matcher

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return keypoints, their scores and mask, matches, match scores and layers."""
        images, sizes, scales, valid, masks, pairs, max_keypoints, match_threshold = inputs
        features = self.extraction(images, sizes, scales, valid, masks, max_keypoints)
        keypoints, scores, mask, descriptors, image_sizes = features
        matched = self.matcher(keypoints, mask, descriptors, image_sizes, pairs, match_threshold)
        return keypoints, scores, mask, *matched

    def parts(self, specs: Mapping[str, TensorSpec]) -> list[Part]:
        """Return the extraction and the parts of an adaptive matcher, or the whole graph."""
        if not isinstance(self.matcher, AdaptiveLightGlue):
            return super().parts(specs)
        inputs = {name: specs[name] for name in INPUTS[EXTRACTOR]}
        outputs = [*OUTPUTS[EXTRACTOR], "image_sizes"]
        extraction = Part("extract", self.extraction, inputs, outputs)
        return [extraction, *matcher_parts(self.matcher, specs)]


def _only_valid(values: Tensor, valid: Tensor) -> Tensor:
    """Replace values [N, 2] by (1, 1) in invalid slots."""
    return torch.where(valid.unsqueeze(1), values, 1.0)


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    """Replace values [N, K, ...] by zeros in padded slots."""
    return torch.where(mask.unsqueeze(-1), values, 0.0)


def _is_inside(sizes: Tensor, border: int, canvas: tuple[int, int]) -> Tensor:
    """Find the pixels inside images of these sizes [N, 2] and outside of their borders: bool [N, H, W]."""
    width, height = canvas
    x, y = torch.arange(width), torch.arange(height)
    columns = (x >= border) & (x < sizes[:, 0:1] - border)
    rows = (y >= border) & (y < sizes[:, 1:2] - border)
    return rows.unsqueeze(2) & columns.unsqueeze(1)


def _best_pixels(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the highest scores of each map [N, H, W], best first, and their pixels.

    Returns scores [N, K] and positions (x, y) float32 [N, K, 2], where K may exceed the number of pixels.
    Empty slots score 0, at some position inside.
    """
    width = scores.shape[2]
    best, index = best_of(scores.flatten(1), count)
    index = torch.where(best > 0, index, 0)
    row = quotient(index, width)
    # The column without a remainder: a remainder by a symbolic width cannot be exported.
    return best, torch.stack([index - row * width, row], dim=-1).to(scores.dtype)
