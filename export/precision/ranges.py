"""8-bit numbers, and the ranges of values that they are scaled to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

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
    """Record ranges while modules run.

    Args:
        modules: modules to observe, by name.
        select: chooses the tensors to observe on each run of a module.

    Yields:
        The ranges of each module's selected tensors, by the module's name.
    """
    seen: dict[str, list[Range]] = {name: [] for name in modules}

    def watch(name: str) -> Callable[..., None]:
        def look(module: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
            tensors = select(module, inputs, result)
            seen[name] = seen[name] or [Range() for _ in tensors]
            for known, values in zip(seen[name], tensors, strict=True):
                known.see(values)

        return look

    hooks = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def scale_for(steps: float, span: float) -> float:
    """Compute the scale at which a span takes this many steps; never 0."""
    return max(span, 1e-6) / steps


def quantise_weight(weight: Tensor, channel: int) -> tuple[Tensor, Tensor]:
    """Quantise a weight with one scale per output channel.

    Args:
        weight: float32.
        channel: axis of the output channels.

    Returns:
        The weight as int8, and the scales float32 [channels].
    """
    others = [axis for axis in range(weight.dim()) if axis != channel]
    scales = weight.abs().amax(dim=others, keepdim=True) / STEPS
    scales = torch.where(scales > 0, scales, 1.0)
    return (weight / scales).round().to(torch.int8).contiguous(), scales.flatten()
