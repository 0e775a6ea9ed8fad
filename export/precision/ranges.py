"""8-bit numbers, and the ranges of values that they are scaled to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

LEVELS = 255  # steps between the smallest and the largest 8-bit number
STEPS = 127  # steps from 0 to the largest signed 8-bit number
MIDDLE = 128  # zero point for values that are as large below 0 as above


class Range:
    """Smallest and largest value seen; includes 0."""

    def __init__(self) -> None:
        self.least = self.largest = 0.0

    def see(self, values: Tensor) -> None:
        """Extend the range by all values of a tensor."""
        self.least = min(self.least, float(values.min()))
        self.largest = max(self.largest, float(values.max()))

    @property
    def magnitude(self) -> float:
        """Largest absolute value."""
        return max(self.largest, -self.least)


# Chooses the tensors to observe from a module, its inputs and its output.
Select = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Sequence[Tensor]]


@contextmanager
def observed(modules: Mapping[str, nn.Module], select: Select) -> Iterator[dict[str, list[Range]]]:
    """Record the ranges of each module's selected tensors, by the module's name, while modules run."""
    seen: dict[str, list[Range]] = {name: [] for name in modules}

    def look(name: str, module: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        tensors = select(module, inputs, result)
        seen[name] = seen[name] or [Range() for _ in tensors]
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


class Quantised(nn.Module):
    """A layer with int8 weights, one scale per output channel, which are on the axis `channel` of the weight.

    One step of its quantised inputs is `scale`, and `zero_point` is the 8-bit number that stands for 0.
    """

    bias: Tensor

    def __init__(self, weight: Tensor, channel: int, scale: float, zero_point: int) -> None:
        super().__init__()
        weight, weight_scales = quantise_weight(weight.detach(), channel)
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero_point", torch.tensor(zero_point, dtype=torch.uint8))
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scales", weight_scales)

    @property
    def product(self) -> tuple[Tensor, ...]:
        """Inputs of `multiply_int8` and `convolve_int8` that follow the values."""
        return self.scale, self.zero_point, self.weight, self.weight_scales, self.bias
