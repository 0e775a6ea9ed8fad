"""Base class of the extractors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightglue_ros.export.models import maps


class Extractor(nn.Module):
    """A network that gives the graphs a score for every pixel, and descriptors at chosen pixels.

    Attributes:
        descriptor_dim: D, width of a descriptor.
        border: pixels along the edges of an image that hold no keypoint.
        subpixel: True if keypoints move to the peaks between the pixels.
        has_probabilities: True if the heatmap holds probabilities, not their logarithms.
        takes_grey: True if images come as [N, 1, H, W], the mean of the colours.
        kept_in_fp32: submodules that an fp16 export computes in fp32.
        int8_layers: layers (first, last + 1) of each `nn.Sequential` that an int8 export computes in 8 bits.
            Each layer is a convolution and ReLU.
        int8_channels: convolutions, or layers with one, that write the same channels, and those that read
            them, where they are in different blocks of `int8_layers`. Between them are only steps that keep
            factors of channels.
        add: sums the outputs of two layers; an int8 export replaces it.
    """

    descriptor_dim: int
    border: int = 0
    subpixel: bool = False
    has_probabilities: bool = True
    takes_grey: bool = False
    kept_in_fp32: tuple[str, ...] = ()
    int8_layers: ClassVar[Mapping[str, tuple[int, int]]] = {}
    int8_channels: ClassVar[Sequence[tuple[tuple[str, ...], tuple[str, ...]]]] = ()
    add: Callable[[Tensor, Tensor], Tensor] = staticmethod(torch.add)

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Any], **options: Any) -> Extractor:
        """Build the extractor from the published weights, or from weights of the same names.

        Raises:
            KeyError: a tensor is missing.
            RuntimeError: a tensor is missing, unknown or of another shape.
        """
        extractor = cls(**options)
        extractor.load_state_dict(cls.own_weights(state_dict), strict=True)
        return extractor.eval()

    @staticmethod
    def own_weights(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
        """Rename and rewrite published weights for this module."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Score every pixel, find the keypoints, and compute the features that `refine` and `describe` take.

        Images are float32 [N, 3, H, W] RGB or [N, 1, H, W], 0 to 1. Scores are float32 [N, H, W], above 0 at
        keypoints. The second result is bool [N, H, W], True at keypoints. Features may have any form.
        """
        raise NotImplementedError

    def refine(self, features: Any, positions: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Move keypoints to the peaks of the heatmap between the pixels, if the export is subpixel.

        The heatmap is the second of the features. Positions are float32 [N, K, 2], (x, y) in whole pixels of
        the canvas; scores are float32 [N, K]. Both results have the same shapes, best first; empty slots
        score 0 and come last.
        """
        if not self.subpixel:
            return positions, scores
        _, heatmap = features
        shifts = maps.peak_shifts(heatmap, positions, is_probability=self.has_probabilities)
        return positions + shifts, scores

    def describe(self, features: Any, positions: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Compute descriptors, unit vectors float32 [N, K, D], at positions float32 [N, K, 2].

        Positions are (x, y) in canvas pixels, and `canvas` is (width, height).
        """
        raise NotImplementedError
