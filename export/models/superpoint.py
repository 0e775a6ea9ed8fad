"""SuperPoint: the extractor of "SuperPoint: Self-Supervised Interest Point Detection and Description"
(DeTone et al., CVPR workshops 2018).

Equal to the SuperPoint of cvg/LightGlue with its default settings, for images whose sides are multiples of 8.
The conversion to grey is multiplied into the first convolution when the weights are read.

One difference is wanted, as with DISK: an image of a single colour, such as a black one, has no keypoints.
The reference finds some wherever what the network makes of even ground is above the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightglue_ros.export.models.maps import (
    CELL,
    has_contrast,
    interpolate,
    is_local_maximum,
    pixels_first,
    softmax_of_cells,
    unit,
)

DETECTION_THRESHOLD = 0.0005  # cvg/LightGlue's default
NMS_RADIUS = 4  # pixels, its default as well
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue: luma of ITU-R BT.601
WIDTHS = (64, 64, 128, 128)  # channels of the encoder's four levels
HEAD_WIDTH = 256


class SuperPoint(nn.Module):
    """Detector and descriptor of SuperPoint, section 3 of the paper."""

    descriptor_dim = 256
    border = 4  # pixels, cvg/LightGlue's default
    takes_grey = False
    kept_in_fp32 = ()
    int8_layers: ClassVar[Mapping[str, tuple[int, int]]] = {}

    def __init__(self, detection_threshold: float = DETECTION_THRESHOLD) -> None:
        """An extractor without weights.

        Args:
            detection_threshold: keypoints must score above this probability.
        """
        super().__init__()
        self.detection_threshold = detection_threshold
        channels_in = (3, *WIDTHS[:-1])
        self.encoder = nn.ModuleList(
            nn.Sequential(*_layer(before, width), *_layer(width, width))
            for before, width in zip(channels_in, WIDTHS, strict=True)
        )
        self.detector = nn.Sequential(*_layer(WIDTHS[-1], HEAD_WIDTH), nn.Conv2d(HEAD_WIDTH, CELL**2 + 1, 1))
        self.descriptor = nn.Sequential(
            *_layer(WIDTHS[-1], HEAD_WIDTH), nn.Conv2d(HEAD_WIDTH, self.descriptor_dim, 1)
        )

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Tensor], detection_threshold: float = DETECTION_THRESHOLD
    ) -> SuperPoint:
        """The extractor with the published weights (or others of the same names).

        Raises:
            KeyError: a tensor is missing.
            RuntimeError: a tensor has another shape.
        """
        extractor = cls(detection_threshold)
        extractor.load_state_dict(_own_names(state_dict), strict=True)
        return extractor.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoint scores of every pixel, and the map that descriptors are sampled from.

        Args:
            images: float32 [N, 3, H, W] RGB, 0 to 1, H and W multiples of 8; three equal channels are grey.

        Returns:
            scores: float32 [N, H, W], above 0 at keypoints and 0 elsewhere.
            features: float32 [N, H/8, W/8, 256], unit vectors.
        """
        encoded = self.encoder[0](images.to(self.encoder[0][0].weight.dtype))
        for level in self.encoder[1:]:
            encoded = level(F.max_pool2d(encoded, 2))
        heatmap = softmax_of_cells(self.detector(encoded).float()).unsqueeze(1)
        is_keypoint = is_local_maximum(heatmap, NMS_RADIUS) & (heatmap > self.detection_threshold)
        is_keypoint = is_keypoint & has_contrast(images)
        scores = torch.where(is_keypoint, heatmap, 0.0).squeeze(1)
        return scores, unit(pixels_first(self.descriptor(encoded)).float())

    def refine(self, features: Tensor, positions: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [N, K, 2] and scores [N, K] as they are: SuperPoint's keypoints are whole pixels."""
        return positions, scores

    def describe(self, features: Tensor, positions: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Descriptors at the given positions.

        Where pixels lie among the cells is the reference's convention: it divides by 3.5 pixels more than
        there are between the centres of the first and the last cell.

        Args:
            features: float32 [N, H/8, W/8, 256], unit vectors.
            positions: float32 [N, K, 2], (x, y) in canvas pixels.
            canvas: (width, height) of the canvas.

        Returns:
            float32 [N, K, 256], unit vectors.
        """
        width, height = canvas
        rows, columns = features.shape[1:3]
        centre = (CELL - 1) / 2  # of the first cell, pixels
        # Only positions of empty slots lie before it.
        x = ((positions[..., 0:1] - centre) * ((columns - 1) / (width - centre - 1))).clamp_min(0)
        y = ((positions[..., 1:2] - centre) * ((rows - 1) / (height - centre - 1))).clamp_min(0)
        return unit(interpolate(features, x, y).squeeze(2))


def _layer(channels_in: int, channels_out: int) -> tuple[nn.Conv2d, nn.ReLU]:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.ReLU()


def _own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published weights by the names of this module, for RGB instead of grey images."""
    layers = {
        f"encoder.{level}.{2 * index}": f"conv{level + 1}{layer}"
        for level in range(len(WIDTHS))
        for index, layer in enumerate("ab")
    }
    layers |= {
        "detector.0": "convPa",
        "detector.2": "convPb",
        "descriptor.0": "convDa",
        "descriptor.2": "convDb",
    }
    own = {
        f"{name}.{kind}": weights[f"{published}.{kind}"]
        for name, published in layers.items()
        for kind in ("weight", "bias")
    }
    grey = torch.tensor(GREY_WEIGHTS).view(1, 3, 1, 1)
    return own | {"encoder.0.0.weight": own["encoder.0.0.weight"] * grey}
