"""int8 for CPUs: 8-bit convolutions in the blocks of an extractor that lead to descriptors.

The layers that decide where keypoints are stay in float32, and so do layers that cost little. Scales are
fixed at export, by running the float32 network on the scenes of the self-check, so that an image's features
do not depend on the rest of the batch. Weights have one scale per output channel, features one per layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from lightglue_ros.export.models.extractor import Extractor
from lightglue_ros.export.operators.int8 import convolve_int8, dequantise, quantise
from lightglue_ros.export.precision.ranges import LEVELS, Range, observed, quantise_weight, scale_for

Network = TypeVar("Network", bound=Extractor)


class QuantisedConvolution(nn.Module):
    """Convolution and ReLU, uint8 [N, C, H, W] to uint8 [N, D, H', W'] with zero point 0.

    Args:
        convolution: in float32.
        padding: zeros around the input: left, right, top, bottom.
        scale: one step of the input.
        zero_point: zero point of the input.
        scale_out: one step of the output.
    """

    def __init__(
        self,
        convolution: nn.Conv2d,
        padding: Sequence[int],
        scale: Tensor,
        zero_point: Tensor,
        scale_out: Tensor,
    ) -> None:
        super().__init__()
        weight, weight_scales = quantise_weight(convolution.weight.detach(), channel=0)
        bias = convolution.bias.detach() / (scale * weight_scales)
        self.stride, self.padding = list(convolution.stride), list(padding)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scales", weight_scales)
        self.register_buffer("bias", bias.round().to(torch.int32))
        self.register_buffer("scale_out", scale_out)

    def forward(self, values: Tensor) -> Tensor:
        """Convolve and apply ReLU; the result is in steps of `scale_out`."""
        return convolve_int8(
            values,
            self.scale,
            self.zero_point,
            self.weight,
            self.weight_scales,
            self.bias,
            self.scale_out,
            self.stride,
            self.padding,
        )


class QuantisedConvolutions(nn.Module):
    """Consecutive convolutions with ReLU, float32 [N, C, H, W] to float32 [N, D, H', W']."""

    def __init__(self, layers: Sequence[QuantisedConvolution]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Quantise once before all layers, and dequantise after them."""
        first, last = self.layers[0], self.layers[-1]
        return dequantise(self.layers(quantise(features, first.scale, first.zero_point)), last.scale_out)


def to_int8_extractor(extractor: Network, run: Callable[[], object]) -> Network:
    """Copy an extractor with the layers quantised that it names in `int8_layers`.

    Args:
        extractor: in float32.
        run: runs the extractor on the images whose features fix the scales.
    """
    convolutions = {
        f"{name}.{number}": _convolution(extractor.get_submodule(name)[number])
        for name, (first, last) in extractor.int8_layers.items()
        for number in range(first, last)
    }
    with observed(convolutions, lambda _, inputs, result: (inputs[0], result)) as seen, torch.no_grad():
        run()
    quantised = copy.deepcopy(extractor)
    for name, (first, last) in extractor.int8_layers.items():
        block = extractor.get_submodule(name)
        ranges = [seen[f"{name}.{number}"] for number in range(first, last)]
        replaced = QuantisedConvolutions(list(_quantised(block[first:last], ranges)))
        kept = copy.deepcopy(block)
        parent, _, own = name.rpartition(".")
        setattr(quantised.get_submodule(parent), own, nn.Sequential(*kept[:first], replaced, *kept[last:]))
    return quantised


def _convolution(layer: nn.Sequential) -> nn.Conv2d:
    (convolution,) = (part for part in layer if isinstance(part, nn.Conv2d))
    return convolution


def _quantised(
    layers: Sequence[nn.Sequential], ranges: Sequence[Sequence[Range]]
) -> Iterator[QuantisedConvolution]:
    """Quantise consecutive layers, given the ranges of the input and output of each."""
    first, _ = ranges[0]
    scale = torch.tensor(scale_for(LEVELS, first.largest - first.least))
    zero_point = torch.tensor(min(round(-first.least / scale.item()), LEVELS), dtype=torch.uint8)
    for layer, (_, result) in zip(layers, ranges, strict=True):
        scale_out = torch.tensor(scale_for(LEVELS, result.largest))
        yield QuantisedConvolution(_convolution(layer), _padding(layer), scale, zero_point, scale_out)
        scale, zero_point = scale_out, torch.tensor(0, dtype=torch.uint8)


def _padding(layer: nn.Sequential) -> list[int]:
    """Return the zeros around a layer's input: left, right, top, bottom."""
    rows, columns = _convolution(layer).padding
    padding = torch.tensor([columns, columns, rows, rows])
    for part in layer:
        if isinstance(part, nn.ZeroPad2d):
            padding += torch.tensor(part.padding)
    return padding.tolist()
