"""What every extractor gives the graphs: a score for every pixel, and descriptors at chosen pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn


class Extractor(nn.Module):
    """Base class of the extractors.

    Attributes:
        descriptor_dim: D, width of a descriptor.
        border: pixels along the edges of an image that hold no keypoint.
        takes_grey: True if images come as [N, 1, H, W], the mean of the colours.
        kept_in_fp32: submodules that an fp16 export computes in fp32.
        int8_layers: layers (first, last + 1) of each `nn.Sequential` that an int8 export computes in 8 bits.
            Each layer is a convolution and ReLU.
    """

    descriptor_dim: int
    border: int = 0
    takes_grey: bool = False
    kept_in_fp32: tuple[str, ...] = ()
    int8_layers: ClassVar[Mapping[str, tuple[int, int]]] = {}

    def forward(self, images: Tensor) -> tuple[Tensor, Any]:
        """Compute keypoint scores of every pixel, and the features that `refine` and `describe` take.

        Args:
            images: float32 [N, 3, H, W] RGB or [N, 1, H, W], 0 to 1.

        Returns:
            scores: float32 [N, H, W], above 0 at keypoints and 0 elsewhere.
            features: in any form.
        """
        raise NotImplementedError

    def refine(self, features: Any, positions: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Move keypoints between the pixels. By default keypoints stay at whole pixels.

        Args:
            features: from `forward`.
            positions: float32 [N, K, 2], (x, y) in whole pixels of the canvas.
            scores: float32 [N, K], 0 in empty slots.

        Returns:
            Positions and scores of the same shapes, best first; empty slots score 0 and come last.
        """
        return positions, scores

    def describe(self, features: Any, positions: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Compute descriptors at the given positions.

        Args:
            features: from `forward`.
            positions: float32 [N, K, 2], (x, y) in canvas pixels.
            canvas: (width, height) of the canvas.

        Returns:
            float32 [N, K, D], unit vectors.
        """
        raise NotImplementedError
