"""Channels of more equal ranges, because the 8-bit values of a layer share one scale.

The layers that write a channel divide it by a factor, and the layers that read it multiply by this factor.
The network's results stay the same if all steps between keep factors, as ReLU, sums and interpolation do.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Factors are this power of a channel's magnitude. With 1 all channels have the same range, but a reader's
# weights, which share a scale as well, become less equal. XFeat's extractor alone keeps 0.88 of its matches
# on KITTI with 1, and 0.90 with 0.5.
POWER = 0.5
LEAST = 1e-3  # magnitude that counts for a smaller one, as a share of the largest
Layer = nn.Linear | nn.Conv2d


def equalise(writers: Iterable[Layer], readers: Iterable[tuple[Layer, slice]], magnitudes: Tensor) -> None:
    """Make channels more equal in place, given their magnitudes [C].

    Args:
        writers: layers whose outputs are the channels, or are added to them.
        readers: layers whose inputs they are, each with their place among its inputs.
    """
    factors = (magnitudes / magnitudes.max().clamp(min=1e-12)).clamp(min=LEAST) ** POWER
    with torch.no_grad():
        for layer in writers:
            layer.weight.div_(factors.view(-1, *(1,) * (layer.weight.dim() - 1)))
            layer.bias.div_(factors)
        for layer, channels in readers:
            layer.weight[:, channels].mul_(factors.view(-1, *(1,) * (layer.weight.dim() - 2)))
