"""The graphs of the contract as PyTorch modules: what goes in and comes out, and what padding must not do.

Inputs of invalid slots are replaced before anything is computed from them, and outputs of padded slots are
exact zeros, so neither can carry anything into a result.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightglue_ros.export.assembly import Free, Part, TensorSpec
from lightglue_ros.export.models.adaptive import parts
from lightglue_ros.export.models.lightglue import LightGlue
from lightglue_ros.export.operators import compact, to_mean, to_rgb
from lightglue_ros.export.registry import Extractor


class ExtractorGraph(nn.Module):
    """Images to the K best keypoints of each, padded with zeros (`contract.INPUTS["extractor"]`)."""

    def __init__(self, extractor: Extractor, max_keypoints: int) -> None:
        super().__init__()
        self.extractor = extractor
        self.max_keypoints = max_keypoints

    def forward(
        self, images: Tensor, sizes: Tensor, scales: Tensor, valid: Tensor, max_keypoints: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Keypoints [N, K, 2], scores [N, K], mask [N, K] and descriptors [N, K, D] of the contract."""
        height, width = images.shape[1:3]
        sizes, scales = _only_valid(sizes, valid), _only_valid(scales, valid)
        brightness = valid.float() / 255  # 0 in invalid slots, whatever they hold
        colours = to_mean(images) if self.extractor.takes_grey else to_rgb(images)
        scores, features = self.extractor(colours * brightness.view(-1, 1, 1, 1))

        inside = _inside(scores, sizes, self.extractor.border)
        scores, positions = _best_pixels(inside, self.max_keypoints)
        rank = torch.arange(self.max_keypoints)
        chosen = (scores > 0) & (rank < max_keypoints) & valid.unsqueeze(1)
        positions, scores = self.extractor.refine(features, positions, torch.where(chosen, scores, 0.0))
        mask = scores > 0
        descriptors = self.extractor.describe(features, positions, (width, height))

        keypoints = (positions + 0.5) / scales.unsqueeze(1) - 0.5
        return _masked(keypoints, mask), scores, mask, _masked(descriptors, mask)


class CompactMatcher(nn.Module):
    """LightGlue on as many slots as the image with the most keypoints needs; called as `LightGlue` is."""

    def __init__(self, matcher: LightGlue) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(
        self, keypoints: Tensor, keypoint_mask: Tensor, descriptors: Tensor, *others: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Matches [P, K], match scores [P, K] and layers [P], as of all slots."""
        needed = compact(keypoints, keypoint_mask, descriptors)
        matches, scores, layers = self.matcher(*needed, *others)
        left_out = 0, keypoints.shape[1] - needed[0].shape[1]
        return F.pad(matches, left_out, value=-1), F.pad(scores, left_out), layers


class MatcherGraph(nn.Module):
    """Padded features and pairs of images to matches (`contract.INPUTS["matcher"]`)."""

    def __init__(self, matcher: LightGlue | CompactMatcher) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(
        self,
        keypoints: Tensor,
        keypoint_scores: Tensor,
        keypoint_mask: Tensor,
        descriptors: Tensor,
        image_sizes: Tensor,
        pairs: Tensor,
        match_threshold: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Matches [P, K], match scores [P, K] and layers [P] of the contract.

        LightGlue does not look at detector scores; they are an input so that the matcher takes what the
        extractor gives.
        """
        return self.matcher(keypoints, keypoint_mask, descriptors, image_sizes, pairs, match_threshold)


class PipelineGraph(nn.Module):
    """Images and pairs to keypoints and matches in one run (`contract.INPUTS["pipeline"]`)."""

    def __init__(self, extractor: ExtractorGraph, matcher: LightGlue | CompactMatcher) -> None:
        super().__init__()
        self.extractor = extractor
        self.matcher = matcher

    def forward(
        self,
        images: Tensor,
        sizes: Tensor,
        scales: Tensor,
        valid: Tensor,
        pairs: Tensor,
        max_keypoints: Tensor,
        match_threshold: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Keypoints, their scores and mask, matches, match scores and layers of the contract."""
        features = self.extract(images, sizes, scales, valid, max_keypoints)
        keypoints, scores, mask, descriptors, image_sizes = features
        matched = self.matcher(keypoints, mask, descriptors, image_sizes, pairs, match_threshold)
        return keypoints, scores, mask, *matched

    def extract(
        self, images: Tensor, sizes: Tensor, scales: Tensor, valid: Tensor, max_keypoints: Tensor
    ) -> tuple[Tensor, ...]:
        """Keypoints, scores, mask and descriptors of the extractor, and the original images' sizes [N, 2]."""
        image_sizes = _only_valid(sizes, valid) / _only_valid(scales, valid)
        return *self.extractor(images, sizes, scales, valid, max_keypoints), image_sizes


class _Extraction(nn.Module):
    """`PipelineGraph.extract` as a part of a graph."""

    def __init__(self, pipeline: PipelineGraph) -> None:
        super().__init__()
        self.pipeline = pipeline

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.pipeline.extract(*inputs)


def parts_of(graph: MatcherGraph | PipelineGraph, slots: int, divisor: int) -> list[Part]:
    """A graph with an adaptive matcher, in parts.

    Args:
        graph: the whole of it.
        slots: K.
        divisor: width and height of the canvas are multiples of this.
    """
    of_matcher = parts(graph.matcher, slots)
    if isinstance(graph, MatcherGraph):
        return of_matcher
    images = Free("N")
    canvas = images, Free("H", times=divisor), Free("W", times=divisor), Free("C")
    extraction = Part(
        "extract",
        _Extraction(graph),
        {
            "images": TensorSpec(torch.uint8, canvas),
            "sizes": TensorSpec(torch.float32, (images, 2)),
            "scales": TensorSpec(torch.float32, (images, 2)),
            "valid": TensorSpec(torch.bool, (images,)),
            "max_keypoints": TensorSpec(torch.int64, (1,)),
        },
        ["keypoints", "keypoint_scores", "keypoint_mask", "descriptors", "image_sizes"],
    )
    return [extraction, *of_matcher]


def _only_valid(values: Tensor, valid: Tensor) -> Tensor:
    """[N, 2] with (1, 1) in invalid slots."""
    return torch.where(valid.unsqueeze(1), values, 1.0)


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    """[N, K, ...] with zeros in padded slots."""
    return torch.where(mask.unsqueeze(-1), values, 0.0)


def _inside(scores: Tensor, sizes: Tensor, border: int) -> Tensor:
    """Scores [N, H, W] with zeros outside the images (of the sizes given) and in the images' borders."""
    x, y = torch.arange(scores.shape[2]), torch.arange(scores.shape[1])
    columns = (x >= border) & (x < sizes[:, 0:1] - border)
    rows = (y >= border) & (y < sizes[:, 1:2] - border)
    return scores * rows.unsqueeze(2).float() * columns.unsqueeze(1).float()


def _best_pixels(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest scores of each map, best first, and their pixels.

    Args:
        scores: [N, H, W].
        count: K, which may exceed the number of pixels.

    Returns:
        scores [N, K] and positions (x, y) float32 [N, K, 2]; missing pixels score 0 at some position inside.
    """
    width = scores.shape[2]
    padded = F.pad(scores.flatten(1), (0, count))
    best, index = padded.topk(count, dim=1)
    index = torch.where(best > 0, index, 0)
    row = torch.div(index, width, rounding_mode="trunc")
    # The column by hand: a remainder by a symbolic width cannot be exported.
    return best, torch.stack([index - row * width, row], dim=-1).to(scores.dtype)
