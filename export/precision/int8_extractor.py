"""int8 for CPUs: 8-bit convolutions in the blocks of an extractor that lead to descriptors.

The layers that decide where keypoints are stay in float32, and so do layers that cost little. Scales are
fixed at export, by running the float32 network on the scenes of the self-check, so that an image's features
do not depend on the rest of the batch. Weights have one scale per output channel, features one per layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor, nn

from lightglue_ros.export.models.extractor import Extractor
from lightglue_ros.export.operators.int8 import convolve_int8, dequantise, quantise
from lightglue_ros.export.precision.ranges import LEVELS, Quantised, Range, observed, scale_for

Network = TypeVar("Network", bound=Extractor)


class QuantisedConvolution(Quantised):
    """Convolution and ReLU, uint8 [N, C, H, W] to uint8 [N, D, H', W'] with zero point 0."""

    def __init__(self, layer: nn.Sequential, scale: float, zero_point: int, scale_out: float) -> None:
        convolution = _convolution(layer)
        super().__init__(convolution.weight, 0, scale, zero_point)
        bias = convolution.bias.detach() / (self.scale * self.weight_scales)
        self.stride, self.padding = list(convolution.stride), _padding(layer)
        self.register_buffer("bias", bias.round().to(torch.int32))
        self.register_buffer("scale_out", torch.tensor(scale_out))

    def forward(self, values: Tensor) -> Tensor:
        """Convolve and apply ReLU; the result is in steps of `scale_out`."""
        return convolve_int8(values, *self.product, self.scale_out, self.stride, self.padding)


class QuantisedConvolutions(nn.Module):
    """Consecutive convolutions with ReLU, float32 [N, C, H, W] to float32 [N, D, H', W']."""

    def __init__(self, layers: Sequence[QuantisedConvolution]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Quantise once before all layers, and dequantise after them."""
        first, last = self.layers[0], self.layers[-1]
        return dequantise(self.layers(quantise(features, first.scale, first.zero_point)), last.scale_out)


def ranges_of(extractor: Extractor) -> AbstractContextManager[dict[str, list[Range]]]:
    """Observe inputs and outputs of the convolutions that `to_int8_extractor` quantises."""
    convolutions = {
        f"{name}.{number}": _convolution(extractor.get_submodule(name)[number])
        for name, (first, last) in extractor.int8_layers.items()
        for number in range(first, last)
    }
    return observed(convolutions, lambda _, inputs, result: (inputs[0], result))


def to_int8_extractor(extractor: Network, seen: Mapping[str, list[Range]]) -> Network:
    """Copy an extractor with the layers quantised that it names in `int8_layers`, given their ranges."""
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
    scale = scale_for(LEVELS, first.largest - first.least)
    zero_point = min(round(-first.least / scale), LEVELS)
    for layer, (_, result) in zip(layers, ranges, strict=True):
        scale_out = scale_for(LEVELS, result.largest)
        yield QuantisedConvolution(layer, scale, zero_point, scale_out)
        scale, zero_point = scale_out, 0


def _padding(layer: nn.Sequential) -> list[int]:
    """Return the zeros around a layer's input: left, right, top, bottom."""
    rows, columns = _convolution(layer).padding
    padding = torch.tensor([columns, columns, rows, rows])
    for part in layer:
        if isinstance(part, nn.ZeroPad2d):
            padding += torch.tensor(part.padding)
    return padding.tolist()
