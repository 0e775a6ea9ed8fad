"""SuperPoint: the extractor of "SuperPoint: Self-Supervised Interest Point Detection and Description"
(DeTone et al., CVPR workshops 2018).

Results equal the SuperPoint of cvg/LightGlue with its default settings for images whose sides are multiples
of 8. The conversion to grey is multiplied into the first convolution when the weights are read.

One difference is on purpose, as with DISK: an image of one colour, such as a black image, has no keypoints.
The reference finds some where the network's response to an even area is above the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightglue_ros.export.models import maps
from lightglue_ros.export.models.extractor import Extractor
from lightglue_ros.export.models.maps import CELL, unit
from lightglue_ros.export.operators.pixels import has_contrast

DETECTION_THRESHOLD = 0.0005  # cvg/LightGlue's default
NMS_RADIUS = 4  # pixels, cvg/LightGlue's default
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue: luma of ITU-R BT.601
WIDTHS = (64, 64, 128, 128)  # channels of the encoder's four levels
HEAD_WIDTH = 256
# Unit vectors for descriptors, and the heatmap.
Features = tuple[Tensor, Tensor]


class SuperPoint(Extractor):
    """Detector and descriptor of SuperPoint, section 3 of the paper."""

    descriptor_dim = 256
    border = 4  # pixels, cvg/LightGlue's default

    def __init__(self, detection_threshold: float = DETECTION_THRESHOLD) -> None:
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

    @staticmethod
    def own_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the published weights to the names of this module, and make the first layer take RGB."""
        layers = {
            f"encoder.{level}.{2 * index}": f"{level + 1}{layer}"
            for level in range(len(WIDTHS))
            for index, layer in enumerate("ab")
        }
        layers |= {"detector.0": "Pa", "detector.2": "Pb", "descriptor.0": "Da", "descriptor.2": "Db"}
        own = {
            f"{name}.{kind}": state_dict[f"conv{published}.{kind}"]
            for name, published in layers.items()
            for kind in ("weight", "bias")
        }
        grey = torch.tensor(GREY_WEIGHTS).view(1, 3, 1, 1)
        return own | {"encoder.0.0.weight": own["encoder.0.0.weight"] * grey}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Features]:
        """Return scores and keypoints [N, H, W] of images [N, 3, H, W], and features.

        H and W are multiples of 8. The features are unit vectors, [N, H/8, W/8, 256], and the heatmap.
        """
        encoded = self.encoder[0](images.to(self.encoder[0][0].weight.dtype))
        for level in self.encoder[1:]:
            encoded = level(F.max_pool2d(encoded, 2))
        heatmap = maps.softmax_of_cells(self.detector(encoded).float()).unsqueeze(1)
        is_keypoint = maps.is_local_maximum(heatmap, NMS_RADIUS) & (heatmap > self.detection_threshold)
        is_keypoint = is_keypoint & has_contrast(images)
        features = unit(maps.pixels_first(self.descriptor(encoded)).float())
        heatmap = heatmap.squeeze(1)
        return heatmap, is_keypoint.squeeze(1), (features, heatmap)

    def describe(self, features: Features, positions: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Compute descriptors [N, K, 256] at the positions.

        The mapping of pixels to cells is the reference's. It divides by 3.5 pixels more than the distance
        between the centres of the first and the last cell.
        """
        (width, height), (features, _) = canvas, features
        rows, columns = features.shape[1:3]
        centre = (CELL - 1) / 2  # of the first cell, in pixels
        # Only empty slots have positions before the centre of the first cell.
        x = ((positions[..., 0:1] - centre) * ((columns - 1) / (width - centre - 1))).clamp_min(0)
        y = ((positions[..., 1:2] - centre) * ((rows - 1) / (height - centre - 1))).clamp_min(0)
        return unit(maps.interpolate(features, x, y).squeeze(2))


def _layer(channels_in: int, channels_out: int) -> tuple[nn.Conv2d, nn.ReLU]:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.ReLU()
