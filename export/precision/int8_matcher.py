"""int8 for CPUs: 8-bit products in the transformer's linear layers and attention.

The scales of inputs are fixed at export, by running the float32 network on photographs. Scales computed at
run time would depend on the whole batch, and so would a pair's result. Weights have one scale per output
channel, inputs one per layer; so the ranges of channels are made more equal first.

In float32 stay: softmax, layer norm and GELU, which are no products; the projection of descriptors, a small
product whose error all layers would carry; and the heads (assignment, matchability, confidence), whose
thresholds decide about matches. With one head, as XFeat has, so do queries, keys and their logits: these
reach thousands, and in 8 bits every third match was lost or another one. So does the layer after GELU there:
it is so narrow that 8 bits gain less than 2% of the matcher's time, and cost 2% of the matches.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from lightglue_ros.export.models.lightglue import LightGlue
from lightglue_ros.export.models.transformer import Attention, Expansion, LightGlueConfig, with_mask_logits
from lightglue_ros.export.operators.int8 import (
    attend_int8,
    attend_with_exact_logits,
    multiply_int8,
    quantise,
)
from lightglue_ros.export.operators.slots import compact
from lightglue_ros.export.precision.equalisation import equalise
from lightglue_ros.export.precision.ranges import (
    LEVELS,
    MIDDLE,
    STEPS,
    Magnitudes,
    Quantised,
    Range,
    WholeRange,
    observed,
    quantise_weight,
    scale_for,
)

Matcher = TypeVar("Matcher", bound=LightGlue)
AFTER_GELU = ".shrink"  # its input is hardly ever negative
WITH_MASK_CHANNELS = (".query", ".key", ".query_key")


class QuantisedLinear(Quantised):
    """Linear layer with int8 weights, for inputs from `least` to `largest`."""

    def __init__(self, layer: nn.Linear, least: float, largest: float) -> None:
        scale = scale_for(LEVELS, largest - least)
        zero_point = min(max(round(-least / scale), 0), LEVELS)
        super().__init__(*quantise_weight(layer.weight.detach().t(), 1), scale, zero_point)
        self.out_features = layer.out_features
        self.register_buffer("bias", layer.bias.detach().clone())

    def forward(self, values: Tensor) -> Tensor:
        """Multiply values float32 [R, in] to float32 [R, out]."""
        return multiply_int8(quantise(values, self.scale, self.zero_point), *self.product)


class QuantisedExpansion(Quantised):
    """`Expansion` with int8 weights.

    Tokens are quantised with the same scale as in attention's linear layers. Messages have a scale of their
    own, and the weights that multiply them are adapted to the scale of the tokens.
    """

    def __init__(self, expansion: Expansion, largest_token: float, largest_message: float) -> None:
        token, message = scale_for(MIDDLE, largest_token), scale_for(MIDDLE, largest_message)
        for_tokens, for_messages = expansion.linear.weight.detach().t().chunk(2)
        weight = torch.cat([for_tokens, for_messages * (message / token)])
        super().__init__(*quantise_weight(weight, 1), token, MIDDLE)
        self.register_buffer("bias", expansion.linear.bias.detach().clone())
        self.register_buffer("message_scale", torch.tensor(message))

    def forward(self, tokens: Tensor, messages: Tensor) -> Tensor:
        """Expand tokens and messages, both [S, K, width], to [S, K, 2 * width]."""
        parts = [
            quantise(part.flatten(0, 1), scale, self.zero_point)
            for part, scale in ((tokens, self.scale), (messages, self.message_scale))
        ]
        return multiply_int8(torch.cat(parts, dim=1), *self.product).view(*tokens.shape[:2], len(self.bias))


class QuantisedAttention(nn.Module):
    """`Attention` with 8-bit queries, keys, probabilities and values.

    Steps of 1/255 round the probabilities of a query to 0 if it attends to hundreds of keys. So the mean of
    the image's values is subtracted from the values and added to the messages again: lost probability then
    counts as spread over all keys.
    """

    def __init__(
        self, config: LightGlueConfig, largest_query: float, largest_key: float, largest_value: float
    ) -> None:
        super().__init__()
        self.config = config
        for name, largest in (("query", largest_query), ("key", largest_key), ("value", largest_value)):
            self.register_buffer(f"{name}_scale", torch.tensor(scale_for(STEPS, largest)))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Compute messages [S, K, width] from query, key and value [S, K, width] and mask bool [S, K]."""
        scales = self.query_scale, self.key_scale, self.value_scale
        mean = _masked_mean(value, mask)
        heads, channels = self.config.heads, self.config.head_dim
        return attend_int8(query, key, value - mean, mask, scales, heads, channels) + mean


class AttentionOfOneHead(nn.Module):
    """`Attention` with float32 queries and keys, and 8-bit probabilities and values."""

    def __init__(self, config: LightGlueConfig, largest_value: float) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("value_scale", torch.tensor(scale_for(STEPS, largest_value)))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Compute messages as `Attention` does."""
        key = with_mask_logits(key, mask, self.config.heads, self.config.head_dim)
        return attend_with_exact_logits(query, key, value, self.value_scale)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average values [S, K, C] where the mask [S, K] is true: [S, 1, C]; 0 where it never is."""
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return (mask / count).unsqueeze(1) @ values


def to_int8(matcher: Matcher, scenes: Sequence[tuple[Tensor, ...]]) -> Matcher:
    """Copy a matcher with quantised linear layers and attention.

    The scenes are inputs of `LightGlue.forward`; the values in the layers on these scenes fix the scales.
    """
    # Empty slots would count as values.
    scenes = [(*compact(*inputs[:3]), *inputs[3:]) for inputs in scenes]
    quantised = _equalised(matcher, scenes)
    modules = dict(quantised.layers.named_modules())
    expansions = tuple(f"{name}." for name, module in modules.items() if isinstance(module, Expansion))
    has_one_head = matcher.config.heads == 1
    replaced = {
        name: module
        for name, module in modules.items()
        if isinstance(module, nn.Linear | Attention | Expansion)
        and not name.startswith(expansions)
        and not (has_one_head and name.endswith((*WITH_MASK_CHANNELS, AFTER_GELU)))
    }

    def select(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Sequence[Tensor]:
        if not isinstance(module, Attention):
            return inputs
        query, key, value, mask = inputs
        if has_one_head:
            return (value[mask],)
        heads = matcher.config.heads, matcher.config.head_dim + 1
        query, key = (part.unflatten(2, heads)[..., :-1] for part in (query, key))
        return query, key, (value - _masked_mean(value, mask))[mask]

    attentions = {name: module for name, module in replaced.items() if isinstance(module, Attention)}
    others = {name: module for name, module in replaced.items() if name not in attentions}
    # The largest queries and keys decide about matches. Without their rarest values, ALIKED keeps 0.93 of its
    # matches on KITTI, and 0.94 with them.
    of_attention = Range if has_one_head else WholeRange
    with observed(others, select, Range) as seen, observed(attentions, select, of_attention) as in_attention:
        _run(quantised, scenes)
    seen = seen | in_attention
    for name, module in replaced.items():
        parent, _, own = name.rpartition(".")
        layer = _quantised(module, name, seen[name], matcher.config)
        setattr(quantised.layers.get_submodule(parent), own, layer)
    return quantised


def _run(matcher: LightGlue, scenes: Sequence[tuple[Tensor, ...]]) -> None:
    with torch.inference_mode():
        for inputs in scenes:
            LightGlue.forward(matcher, *inputs)


def _equalised(matcher: Matcher, scenes: Sequence[tuple[Tensor, ...]]) -> Matcher:
    """Copy a matcher with more equal channels of values, and of tokens if they are not the descriptors."""
    equalised, width = copy.deepcopy(matcher), matcher.config.width
    tokens, messages = slice(width), slice(width, None)
    blocks = [block for layer in equalised.layers for block in layer.children()]
    expansions = {str(number): block.feed_forward.expand.linear for number, block in enumerate(blocks)}
    with observed(expansions, lambda _, inputs, __: inputs, Magnitudes) as seen:
        _run(equalised, scenes)
    largest = torch.stack([of_inputs.largest for (of_inputs,) in seen.values()])
    for block, magnitudes in zip(blocks, largest[:, messages], strict=True):
        equalise([block.value], [(block.feed_forward.expand.linear, messages)], magnitudes)
    if matcher.config.has_projection:
        linears = [module for module in equalised.modules() if isinstance(module, nn.Linear)]
        # Among them are the heads.
        readers = [*expansions.values(), *(layer for layer in linears if layer.in_features == width)]
        writers = [equalised.input, *(block.feed_forward.shrink for block in blocks)]
        equalise(writers, [(layer, tokens) for layer in readers], largest[:, tokens].amax(dim=0))
    return equalised


def _quantised(module: nn.Module, name: str, seen: Sequence[Range], config: LightGlueConfig) -> nn.Module:
    """Build the quantised form of a module from the ranges of its inputs."""
    if isinstance(module, Expansion):
        return QuantisedExpansion(module, *(it.magnitude for it in seen))
    if isinstance(module, Attention):
        if config.heads == 1:
            return AttentionOfOneHead(config, *(it.magnitude for it in seen))
        return QuantisedAttention(config, *(it.magnitude for it in seen))
    if name.endswith(WITH_MASK_CHANNELS):
        module = _without_mask_channels(module, config)
    (inputs,) = seen
    if name.endswith(AFTER_GELU):
        return QuantisedLinear(module, inputs.least, inputs.largest)
    return QuantisedLinear(module, -inputs.magnitude, inputs.magnitude * STEPS / MIDDLE)


def _without_mask_channels(layer: nn.Linear, config: LightGlueConfig) -> nn.Linear:
    shorter = nn.Linear(config.width, config.width)
    with torch.no_grad():
        for kind in ("weight", "bias"):
            by_head = getattr(layer, kind).unflatten(0, (config.heads, config.head_dim + 1))
            getattr(shorter, kind).copy_(by_head[:, :-1].flatten(0, 1))
    return shorter
