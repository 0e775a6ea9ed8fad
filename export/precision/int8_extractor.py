"""int8 for CPUs: 8-bit convolutions in the blocks of an extractor that lead to descriptors.

The layers that decide where keypoints are stay in float32, and so do layers that cost little. Scales are
fixed at export, by running the float32 network on photographs, so that an image's features do not depend on
the rest of the batch. Weights have one scale per output channel, features one per layer; so the ranges of
channels are made more equal first. Weights are rounded one after the other, and later ones make up for the
errors of earlier ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightglue_ros.export.models.extractor import Extractor
from lightglue_ros.export.models.maps import add_channels_last
from lightglue_ros.export.operators.int8 import convolve_int8, dequantise, quantise
from lightglue_ros.export.precision.equalisation import equalise
from lightglue_ros.export.precision.ranges import (
    LEVELS,
    Magnitudes,
    Moments,
    Quantised,
    Range,
    observed,
    quantise_in_turn,
    scale_for,
)

Network = TypeVar("Network", bound=Extractor)


class QuantisedConvolution(Quantised):
    """Convolution and ReLU, uint8 [N, C, H, W] to uint8 [N, D, H', W'] with zero point 0."""

    def __init__(
        self, layer: nn.Sequential, patches: Moments, scale: float, zero_point: int, scale_out: float
    ) -> None:
        convolution = _convolution(layer)
        weight, weight_scales = quantise_in_turn(convolution.weight.detach().flatten(1), patches.sums)
        super().__init__(weight.view_as(convolution.weight), weight_scales, scale, zero_point)
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


def to_int8_extractor(extractor: Network, run: Callable[[Network], object]) -> Network:
    """Copy an extractor with the layers quantised that it names in `int8_layers`.

    `run` runs an extractor on photographs. The values in its layers fix the scales.
    """
    if not extractor.int8_layers:
        return extractor
    quantised = _equalised(extractor, run)
    quantised.add = add_channels_last
    numbers = {name: range(first, last) for name, (first, last) in extractor.int8_layers.items()}
    layers = [f"{name}.{number}" for name, of_block in numbers.items() for number in of_block]
    convolutions = {name: _convolution(quantised.get_submodule(name)) for name in layers}
    with (
        observed(convolutions, lambda _, inputs, result: (inputs[0], result), Range) as ranges,
        observed(convolutions, _patches, Moments) as patches,
    ):
        run(quantised)
    for name, of_block in numbers.items():
        block = quantised.get_submodule(name)
        seen = [(*ranges[f"{name}.{number}"], *patches[f"{name}.{number}"]) for number in of_block]
        first, last = of_block.start, of_block.stop
        replaced = QuantisedConvolutions(list(_quantised(block[first:last], seen)))
        parent, _, own = name.rpartition(".")
        setattr(quantised.get_submodule(parent), own, nn.Sequential(*block[:first], replaced, *block[last:]))
    return quantised


def _equalised(extractor: Network, run: Callable[[Network], object]) -> Network:
    """Copy an extractor with more equal channels between its 8-bit layers."""
    equalised = copy.deepcopy(extractor)
    in_blocks = [
        ((f"{name}.{number}",), (f"{name}.{number + 1}",))
        for name, (first, last) in extractor.int8_layers.items()
        for number in range(first, min(last, len(extractor.get_submodule(name)) - 1))
    ]
    channels = (*in_blocks, *extractor.int8_channels)
    names = {name for both in channels for some in both for name in some}
    layers = {name: _convolution(equalised.get_submodule(name)) for name in names}
    with observed(layers, lambda _, inputs, __: (inputs[0].movedim(1, -1),), Magnitudes) as seen:
        run(equalised)
    for writers, readers in channels:
        magnitudes = torch.stack([seen[name][0].largest for name in readers]).amax(dim=0)
        read = [(layers[name], slice(None)) for name in readers]
        equalise([layers[name] for name in writers], read, magnitudes)
    return equalised


def _convolution(layer: nn.Module) -> nn.Conv2d:
    (convolution,) = (part for part in layer.modules() if isinstance(part, nn.Conv2d))
    return convolution


def _patches(convolution: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Sequence[Tensor]:
    """Return the patches that a convolution's kernels see: [N, H' W', C h w]."""
    (features,) = inputs
    kernel = convolution.kernel_size
    return (F.unfold(features, kernel, padding=convolution.padding, stride=convolution.stride).mT,)


def _quantised(
    layers: Sequence[nn.Sequential], seen: Sequence[tuple[Range, Range, Moments]]
) -> Iterator[QuantisedConvolution]:
    """Quantise consecutive layers, given the ranges of input and output and the patches of each."""
    first, *_ = seen[0]
    scale = scale_for(LEVELS, first.largest - first.least)
    zero_point = min(round(-first.least / scale), LEVELS)
    for layer, (_, result, patches) in zip(layers, seen, strict=True):
        scale_out = scale_for(LEVELS, result.largest)
        yield QuantisedConvolution(layer, patches, scale, zero_point, scale_out)
        scale, zero_point = scale_out, 0


def _padding(layer: nn.Sequential) -> list[int]:
    """Return the zeros around a layer's input: left, right, top, bottom."""
    rows, columns = _convolution(layer).padding
    padding = torch.tensor([columns, columns, rows, rows])
    for part in layer:
        if isinstance(part, nn.ZeroPad2d):
            padding += torch.tensor(part.padding)
    return padding.tolist()
