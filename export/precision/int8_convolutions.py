"""int8 for CPUs: the convolutions of an extractor that lead to descriptors, with all numbers of 8 bits.

Where keypoints are, what decides that stays in float32, and so do layers that cost little. Scales are fixed
when the model is exported, by running it in float32 on the scenes that every export is checked on: those of
weights for each output channel, those of what goes between two layers for all of it. So an image's features
do not depend on what else is in the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from lightglue_ros.export.operators import convolve_int8, dequantise, quantise
from lightglue_ros.export.precision.int8 import LEVELS, STEPS
from lightglue_ros.export.registry import Extractor

Network = TypeVar("Network", bound=Extractor)


class QuantisedConvolution(nn.Module):
    """A convolution and ReLU, uint8 [N, C, H, W] to uint8 [N, D, H', W'], where 0 is 0.

    Args:
        convolution: in float32.
        padding: zeros beside what comes in: left, right, top, bottom.
        scale: of a step of what comes in.
        zero_point: the number of 8 bits that is 0 there.
        scale_out: of a step of what goes out.
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
        weight = convolution.weight.detach()
        weight_scales = weight.abs().amax(dim=(1, 2, 3)) / STEPS
        weight_scales = torch.where(weight_scales > 0, weight_scales, 1.0)
        self.stride, self.padding = list(convolution.stride), list(padding)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)
        self.register_buffer("weight", (weight / weight_scales.view(-1, 1, 1, 1)).round().to(torch.int8))
        self.register_buffer("weight_scales", weight_scales)
        bias = convolution.bias.detach() / (scale * weight_scales)
        self.register_buffer("bias", bias.round().to(torch.int32))
        self.register_buffer("scale_out", scale_out)

    def forward(self, values: Tensor) -> Tensor:
        """What ReLU of the convolution leaves, in steps of `scale_out`."""
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
    """Convolutions with ReLU one after the other, float32 [N, C, H, W] to float32 [N, D, H', W']."""

    def __init__(self, layers: Sequence[QuantisedConvolution]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Quantised once before all layers, and back after them."""
        first, last = self.layers[0], self.layers[-1]
        return dequantise(self.layers(quantise(features, first.scale, first.zero_point)), last.scale_out)


def to_int8_extractor(extractor: Network, run: Callable[[], object]) -> Network:
    """A copy of an extractor in which the layers that it names in `int8_layers` are quantised.

    Args:
        extractor: in float32.
        run: runs it on the images that its layers are quantised for.
    """
    convolutions = {
        name: [_convolution(layer) for layer in extractor.get_submodule(name)[first:last]]
        for name, (first, last) in extractor.int8_layers.items()
    }
    with _observed([layer for layers in convolutions.values() for layer in layers]) as seen, torch.no_grad():
        run()
    quantised = copy.deepcopy(extractor)
    for name, layers in convolutions.items():
        first, last = extractor.int8_layers[name]
        block = extractor.get_submodule(name)
        replaced = QuantisedConvolutions(
            list(_quantised(block[first:last], [seen[layer] for layer in layers]))
        )
        parent, _, own = name.rpartition(".")
        setattr(
            quantised.get_submodule(parent),
            own,
            nn.Sequential(*copy.deepcopy(block[:first]), replaced, *copy.deepcopy(block[last:])),
        )
    return quantised


class _Range:
    """The least and the largest number that goes into a convolution, and the largest that comes out."""

    def __init__(self) -> None:
        self.least = self.largest = self.largest_out = 0.0

    def see(self, values: Tensor, result: Tensor) -> None:
        self.least = min(self.least, float(values.min()))
        self.largest = max(self.largest, float(values.max()))
        self.largest_out = max(self.largest_out, float(result.max()))


@contextmanager
def _observed(convolutions: Sequence[nn.Conv2d]) -> Iterator[dict[nn.Conv2d, _Range]]:
    """Note what goes into convolutions and comes out."""
    seen = {convolution: _Range() for convolution in convolutions}
    hooks = [
        convolution.register_forward_hook(lambda _, inputs, result, of_it=of_it: of_it.see(inputs[0], result))
        for convolution, of_it in seen.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _convolution(layer: nn.Sequential) -> nn.Conv2d:
    (convolution,) = (part for part in layer if isinstance(part, nn.Conv2d))
    return convolution


def _quantised(layers: Sequence[nn.Sequential], ranges: Sequence[_Range]) -> Iterator[QuantisedConvolution]:
    least, largest = min(ranges[0].least, 0.0), ranges[0].largest
    scale = torch.tensor(max(largest - least, 1e-6) / LEVELS)
    zero_point = torch.tensor(min(round(-least / scale.item()), LEVELS), dtype=torch.uint8)
    for layer, seen in zip(layers, ranges, strict=True):
        scale_out = torch.tensor(max(seen.largest_out, 1e-6) / LEVELS)
        yield QuantisedConvolution(_convolution(layer), _padding(layer), scale, zero_point, scale_out)
        scale, zero_point = scale_out, torch.tensor(0, dtype=torch.uint8)


def _padding(layer: nn.Sequential) -> list[int]:
    """Zeros beside what comes into a layer: left, right, top, bottom."""
    rows, columns = _convolution(layer).padding
    padding = torch.tensor([columns, columns, rows, rows])
    for part in layer:
        if isinstance(part, nn.ZeroPad2d):
            padding += torch.tensor(part.padding)
    return padding.tolist()
