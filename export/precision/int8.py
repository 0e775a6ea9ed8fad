"""int8 for CPUs: the transformer's linear layers and attention with both factors of each product of 8 bits.

Scales of the inputs are fixed when the model is exported, by running it in float32 on the scenes that every
export is checked on. Scales taken while running would look at the whole batch, and a pair's result would
depend on its neighbours. Weights have a scale for each output channel.

What stays in float32: softmax, layer norm and GELU, which are no products; the projection of descriptors, one
small product whose error all layers would carry; and the heads (assignment, matchability, confidence), whose
thresholds decide.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightglue_ros.export.models.lightglue import Attention, Expansion, LightGlue, LightGlueConfig
from lightglue_ros.export.operators import attend_int8, multiply_int8, quantise

Matcher = TypeVar("Matcher", bound=LightGlue)
LEVELS = 255  # between the least and the largest number of 8 bits
STEPS = 127  # from 0 to the largest number of 8 bits with a sign
MIDDLE = 128  # the zero point where numbers of both signs are as large
AFTER_GELU = ".shrink"  # what goes in there is hardly ever negative
WITH_MASK_CHANNELS = (".query", ".key", ".query_key")


class _Product(nn.Module):
    """Products with int8 weights of what is quantised with one scale and zero point.

    Args:
        weight: float32 [in, out].
        bias: float32 [out].
        scale: of a step of what comes in.
        zero_point: the number of 8 bits that is 0.
    """

    def __init__(self, weight: Tensor, bias: Tensor, scale: float, zero_point: int) -> None:
        super().__init__()
        weight_scales = weight.abs().amax(dim=0) / STEPS
        weight_scales = torch.where(weight_scales > 0, weight_scales, 1.0)
        self.out_features = weight.shape[1]
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero_point", torch.tensor(zero_point, dtype=torch.uint8))
        self.register_buffer("weight", (weight / weight_scales).round().to(torch.int8).contiguous())
        self.register_buffer("weight_scales", weight_scales)
        self.register_buffer("bias", bias.clone())

    def multiply(self, quantised: Tensor) -> Tensor:
        """uint8 [R, in] to float32 [R, out]."""
        return multiply_int8(
            quantised, self.scale, self.zero_point, self.weight, self.weight_scales, self.bias
        )


class QuantisedLinear(_Product):
    """A linear layer with int8 weights on inputs between two numbers, in as many steps as there are."""

    def __init__(self, layer: nn.Linear, least: float, largest: float) -> None:
        scale = max(largest - least, 1e-6) / LEVELS
        zero_point = min(max(round(-least / scale), 0), LEVELS)
        super().__init__(layer.weight.detach().t(), layer.bias.detach(), scale, zero_point)

    def forward(self, values: Tensor) -> Tensor:
        """Values float32 [R, in] to float32 [R, out]."""
        return self.multiply(quantise(values, self.scale, self.zero_point))


class QuantisedExpansion(_Product):
    """`Expansion` with int8 weights. Tokens are quantised as attention's linear layers do it, once for all.

    Messages have a scale of their own; in what multiplies them it is brought to that of the tokens.
    """

    def __init__(self, expansion: Expansion, largest_token: float, largest_message: float) -> None:
        token, message = (max(it, 1e-6) / MIDDLE for it in (largest_token, largest_message))
        for_tokens, for_messages = expansion.linear.weight.detach().t().chunk(2)
        weight = torch.cat([for_tokens, for_messages * (message / token)])
        super().__init__(weight, expansion.linear.bias.detach(), token, MIDDLE)
        self.register_buffer("message_scale", torch.tensor(message))

    def forward(self, tokens: Tensor, messages: Tensor) -> Tensor:
        """Both [S, K, width] to [S, K, 2 * width]."""
        parts = [
            quantise(part.flatten(0, 1), scale, self.zero_point)
            for part, scale in ((tokens, self.scale), (messages, self.message_scale))
        ]
        return self.multiply(torch.cat(parts, dim=1)).view(*tokens.shape[:2], self.out_features)


class QuantisedAttention(nn.Module):
    """`Attention` with queries, keys, probabilities and values of 8 bits.

    Steps of 1/255 lose the probabilities of a query that looks at hundreds of keys. So values are taken from
    the middle of their image's, which is added to the messages again: what rounding loses counts as spread
    over all keys then.
    """

    def __init__(
        self, config: LightGlueConfig, largest_query: float, largest_key: float, largest_value: float
    ) -> None:
        super().__init__()
        self.config = config
        for name, largest in (("query", largest_query), ("key", largest_key), ("value", largest_value)):
            self.register_buffer(f"{name}_scale", torch.tensor(max(largest, 1e-6) / STEPS))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Messages [S, K, width] for query, key and value [S, K, width] and mask bool [S, K]."""
        scales = self.query_scale, self.key_scale, self.value_scale
        middle = _middle(value, mask)
        heads, channels = self.config.heads, self.config.head_dim
        return attend_int8(query, key, value - middle, mask, *scales, heads, channels) + middle


def _middle(values: Tensor, mask: Tensor) -> Tensor:
    """The mean [S, 1, C] of the values [S, K, C] where the mask [S, K] is true; 0 where it never is."""
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return (mask / count).unsqueeze(1) @ values


def to_int8(matcher: Matcher, scenes: Sequence[tuple[Tensor, ...]]) -> Matcher:
    """A copy of a matcher with quantised linear layers and attention.

    Args:
        matcher: in float32.
        scenes: inputs of its forward step; what its layers see on them is what is quantised for.
    """
    modules = dict(matcher.layers.named_modules())
    expansions = tuple(name for name, module in modules.items() if isinstance(module, Expansion))
    seen = {
        name: _Range()
        for name, module in modules.items()
        if _is_quantised(module) and not name.startswith(tuple(f"{it}." for it in expansions))
    }
    with _observed(matcher, seen), torch.inference_mode():
        for inputs in scenes:
            LightGlue.forward(matcher, *inputs)
    quantised = copy.deepcopy(matcher)
    for name, ranges in seen.items():
        parent, _, own = name.rpartition(".")
        setattr(quantised.layers.get_submodule(parent), own, _quantised(matcher, name, ranges))
    return quantised


class _Range:
    """The least and the largest number seen of each input of a module."""

    def __init__(self) -> None:
        self.least: dict[int, float] = {}
        self.largest: dict[int, float] = {}

    def see(self, inputs: Sequence[Tensor]) -> None:
        for number, values in enumerate(inputs):
            self.least[number] = min(self.least.get(number, 0.0), float(values.min()))
            self.largest[number] = max(self.largest.get(number, 0.0), float(values.max()))

    def magnitude(self, number: int) -> float:
        return max(self.largest[number], -self.least[number])


def _is_quantised(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Attention | Expansion)


def _quantised(matcher: LightGlue, name: str, seen: _Range) -> nn.Module:
    """The quantised form of a module of the layers."""
    module, config = matcher.layers.get_submodule(name), matcher.config
    if isinstance(module, Expansion):
        return QuantisedExpansion(module, seen.magnitude(0), seen.magnitude(1))
    if isinstance(module, Attention):
        return QuantisedAttention(config, *(seen.magnitude(number) for number in range(3)))
    if name.endswith(WITH_MASK_CHANNELS):
        module = _without_mask_channels(module, config)
    if name.endswith(AFTER_GELU):
        return QuantisedLinear(module, seen.least[0], seen.largest[0])
    return QuantisedLinear(module, -seen.magnitude(0), seen.magnitude(0) * STEPS / MIDDLE)


def _without_mask_channels(layer: nn.Linear, config: LightGlueConfig) -> nn.Linear:
    shorter = nn.Linear(config.width, config.width)
    with torch.no_grad():
        for kind in ("weight", "bias"):
            by_head = getattr(layer, kind).unflatten(0, (config.heads, config.head_dim + 1))
            getattr(shorter, kind).copy_(by_head[:, :-1].flatten(0, 1))
    return shorter


@contextmanager
def _observed(matcher: LightGlue, seen: Mapping[str, _Range]) -> Iterator[None]:
    """Note what goes into the modules of the layers that are to be quantised."""

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if isinstance(module, Attention):
                query, key, value, mask = inputs
                heads = (matcher.config.heads, matcher.config.head_dim + 1)
                query, key = (part.unflatten(2, heads)[..., :-1] for part in (query, key))
                inputs = query, key, (value - _middle(value, mask))[mask]
            seen[name].see(inputs)

        return module.register_forward_pre_hook(look)

    hooks = [watch(name, matcher.layers.get_submodule(name)) for name in seen]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
