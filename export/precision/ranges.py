"""8-bit numbers, and the ranges of values that they are scaled to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

LEVELS = 255  # steps between the smallest and the largest 8-bit number
STEPS = 127  # steps from 0 to the largest signed 8-bit number
MIDDLE = 128  # zero point for values that are as large below 0 as above
DAMPING = 0.1  # of the mean moment, added to each input's: few images must not decide about a weight
# Share of a tensor's values that a range holds on each side. The rarest are clipped, and all others then have
# finer steps.
KEPT = 0.9995
SAMPLES = 50_000  # values of a tensor that are looked at
SAMPLES_OF_CHANNELS = 8_000  # positions of a tensor whose channels are looked at


class Range:
    """Range of the values seen, without the rarest; includes 0."""

    def __init__(self) -> None:
        self.least = self.largest = 0.0

    def see(self, values: Tensor) -> None:
        """Extend the range by the values of a tensor."""
        sample = values.flatten()[:: _odd_step(values.numel(), SAMPLES)]
        self.least = min(self.least, -float(_reached_by_most(-sample)))
        self.largest = max(self.largest, float(_reached_by_most(sample)))

    @property
    def magnitude(self) -> float:
        """Largest absolute value."""
        return max(self.largest, -self.least)


class WholeRange(Range):
    """Range of all values seen; includes 0."""

    def see(self, values: Tensor) -> None:
        """Extend the range by all values of a tensor."""
        self.least = min(self.least, float(values.min()))
        self.largest = max(self.largest, float(values.max()))


class Magnitudes:
    """Largest absolute value of each channel, without the rarest: float32 [C]."""

    def __init__(self) -> None:
        self.largest = torch.zeros(())

    def see(self, values: Tensor) -> None:
        """Extend the magnitudes by the values of a tensor [..., C]."""
        by_channel = values.abs().flatten(0, -2)
        sample = by_channel[:: _odd_step(len(by_channel), SAMPLES_OF_CHANNELS)]
        self.largest = torch.maximum(self.largest, _reached_by_most(sample))


class Moments:
    """Sums of the products of each two of C inputs: float64 [C, C]."""

    def __init__(self) -> None:
        self.sums = torch.zeros((), dtype=torch.float64)

    def see(self, inputs: Tensor) -> None:
        """Add the products of a tensor [..., C]."""
        rows = inputs.flatten(0, -2)
        sample = rows[:: _odd_step(len(rows), SAMPLES_OF_CHANNELS)]
        self.sums = self.sums + (sample.t() @ sample).double()


def _odd_step(count: int, wanted: int) -> int:
    """Return a step that takes about as many of `count` as wanted; odd, as sizes of images are even."""
    return max(1, count // wanted) | 1


def _reached_by_most(values: Tensor) -> Tensor:
    """Return the value [...] that a share KEPT of values [N, ...] does not exceed."""
    return values.kthvalue(math.ceil(KEPT * len(values)), dim=0).values


# Chooses the tensors to observe from a module, its inputs and its output.
Select = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Sequence[Tensor]]


class Statistic(Protocol):
    """Statistic of tensors."""

    def see(self, values: Tensor) -> None:
        """Take in the values of a tensor."""


Seen = TypeVar("Seen", bound=Statistic)


@contextmanager
def observed(
    modules: Mapping[str, nn.Module], select: Select, statistic: Callable[[], Seen]
) -> Iterator[dict[str, list[Seen]]]:
    """Record a statistic of each module's selected tensors, by the module's name, while modules run."""
    seen: dict[str, list[Seen]] = {name: [] for name in modules}

    def look(name: str, module: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        tensors = select(module, inputs, result)
        seen[name] = seen[name] or [statistic() for _ in tensors]
        for known, values in zip(seen[name], tensors, strict=True):
            known.see(values)

    hooks = [module.register_forward_hook(partial(look, name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def scale_for(steps: float, span: float) -> float:
    """Compute the scale at which a span takes this many steps; never 0."""
    return max(span, 1e-6) / steps


def quantise_weight(weight: Tensor, channel: int) -> tuple[Tensor, Tensor]:
    """Quantise a weight to int8, with one scale for each index of the axis `channel`: float32 [channels]."""
    others = [axis for axis in range(weight.dim()) if axis != channel]
    scales = weight.abs().amax(dim=others, keepdim=True) / STEPS
    scales = torch.where(scales > 0, scales, 1.0)
    return (weight / scales).round().to(torch.int8).contiguous(), scales.flatten()


def quantise_in_turn(weight: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight [out, in] to int8, with one scale per output: float32 [out].

    Inputs are rounded one after the other. The weights of later inputs make up for each error as far as they
    can, given the `Moments` of the inputs (Frantar et al., "GPTQ", ICLR 2023).
    """
    scales = weight.abs().amax(dim=1) / STEPS
    scales = torch.where(scales > 0, scales, 1.0)
    moments = moments / moments.diagonal().mean().clamp(min=1e-12)
    damped = moments + DAMPING * torch.eye(len(moments), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    corrections = torch.linalg.cholesky(inverse, upper=True)
    steps = weight.double() / scales.unsqueeze(1)
    for column, row in enumerate(corrections):
        rounded = steps[:, column].round().clamp(-STEPS, STEPS)
        error = (steps[:, column] - rounded) / row[column]
        steps[:, column:] -= error.outer(row[column:])
        steps[:, column] = rounded
    return steps.to(torch.int8), scales


class Quantised(nn.Module):
    """A layer with int8 weights and one scale per output channel.

    One step of its quantised inputs is `scale`, and `zero_point` is the 8-bit number that stands for 0.
    """

    bias: Tensor

    def __init__(self, weight: Tensor, weight_scales: Tensor, scale: float, zero_point: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero_point", torch.tensor(zero_point, dtype=torch.uint8))
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scales", weight_scales)

    @property
    def product(self) -> tuple[Tensor, ...]:
        """Inputs of `multiply_int8` and `convolve_int8` that follow the values."""
        return self.scale, self.zero_point, self.weight, self.weight_scales, self.bias
