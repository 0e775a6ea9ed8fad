"""The transformer layers of LightGlue (Lindenberger et al., ICCV 2023, section 3.1) over padded keypoints.

Steps that are linear in the reference, cvg/LightGlue, are multiplied into one matrix when the weights are
read: attention scales, the order of rotary channels, and attention's output projection. So is the padding of
attention's heads for GPUs.

On a GPU ONNX Runtime adds a bias in a kernel of its own before each product, 2 µs of 3 to 6. The linear
layers of exports for GPUs therefore have no biases. Tokens have two more channels there, which are always 1.
The weight of a layer has a column for each of the two: the bias rounded to float16, and the rest of the bias.

The last layer of a block reads no tokens, and so it has no such columns. Its bias is left out. Later layers
know the sum of all biases that are left out (`missing`), and their own biases make up for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightglue_ros.export.operators.attention import attend, rotary_embedding, rotate

# ONNX Runtime's fused attention on a GPU takes heads of a multiple of 8 channels, and its FlashAttention only
# values that are as wide as keys.
HEAD_STEP_ON_GPU = 8
# Logit of a padded keypoint: exp() makes it 0 next to any real logit, and sums of it stay finite.
MASKED = {torch.float32: -1e9, torch.float16: -3e4}


@dataclass(frozen=True)
class LightGlueConfig:
    """Shape of a LightGlue network; by default the reference's full size and confidences (section 3.3)."""

    input_dim: int  # of the descriptors
    width: int = 256  # of the tokens
    heads: int = 4  # in each attention block
    layers: int = 9  # each has a self- and a cross-attention block
    depth_confidence: float = 0.95  # share of confident points at which an adaptive pair stops; -1 is never
    width_confidence: float = 0.99  # of having no partner, at which a point is pruned; -1 is never
    target: str = "cpu"  # of the export, which decides about the heads and the rotary encoding

    @property
    def head_dim(self) -> int:
        """Channels of one attention head in the reference."""
        return self.width // self.heads

    @property
    def key_dim(self) -> int:
        """Channels of a head of query and key: the reference's, the mask's, and zeros."""
        return self.with_mask_channel(self.head_dim)

    @property
    def value_dim(self) -> int:
        """Channels of a head of value: the reference's, and zeros."""
        return self.key_dim if self.target == "gpu" else self.head_dim

    @property
    def encoding_dim(self) -> int:
        """Channels of the rotary encoding: of `rotate` in portable exports, else of `rotary_embedding`."""
        return self.key_dim if self.target == "portable" else self.head_dim // 2

    @property
    def token_dim(self) -> int:
        """Channels of the tokens: the reference's, and on a GPU two that are 1, and zeros."""
        return self.width + (HEAD_STEP_ON_GPU if self.target == "gpu" else 0)

    @property
    def has_biases(self) -> bool:
        """True if linear layers have biases, and tokens no channels in their place."""
        return self.target != "gpu"

    def with_mask_channel(self, channels: int) -> int:
        """Add the channel of the mask, and as many zeros as the target needs."""
        step = HEAD_STEP_ON_GPU if self.target == "gpu" else 1
        return -(-(channels + 1) // step) * step

    @property
    def has_projection(self) -> bool:
        """True if descriptors are projected to tokens; descriptors as wide as tokens are not."""
        return self.input_dim != self.width


class Sides(NamedTuple):
    """Images of P pairs, stacked to S = 2 P sides: first images of all pairs, then second images.

    The stack makes every step one operation for all images of all pairs.
    """

    tokens: Tensor  # [S, K, token_dim]
    mask: Tensor  # bool [S, K]
    rows: Tensor  # int64 [S, K], row of each keypoint in `cosines` and `sines`
    cosines: Tensor  # [N * K, encoding_dim], rotary encoding of the images' keypoints
    sines: Tensor  # [N * K, encoding_dim]


class Expansion(nn.Module):
    """First linear layer of a `FeedForward`."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        channels = config.token_dim + config.heads * config.value_dim
        self.linear = nn.Linear(channels, 2 * config.width, bias=config.has_biases)

    def forward(self, tokens: Tensor, messages: Tensor) -> Tensor:
        """Expand tokens [S, K, token_dim] and messages [S, K, heads * value_dim] to [S, K, 2 * width]."""
        return linear(self.linear, torch.cat([tokens, messages], dim=2))


class FeedForward(nn.Module):
    """Update of tokens by attention's messages: linear, layer norm, GELU, linear."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        self.expand = Expansion(config)
        self.norm = nn.LayerNorm(2 * config.width)
        self.shrink = nn.Linear(2 * config.width, config.token_dim, bias=config.has_biases)

    def forward(self, tokens: Tensor, messages: Tensor) -> Tensor:
        """Update tokens [S, K, token_dim] by messages [S, K, heads * value_dim]."""
        hidden = self.norm(self.expand(tokens, messages))
        return tokens + linear(self.shrink, _gelu(hidden))

    def load(self, weights: Mapping[str, Tensor], block: str, projection: str, missing: Tensor) -> Tensor:
        """Read the block's weights and multiply attention's output projection into the first layer.

        Returns the sum of the biases that the tokens lack after the block.
        """
        for_token, for_message = weights[f"{block}.ffn.0.weight"].chunk(2, dim=1)
        for_context = for_message @ weights[f"{block}.{projection}.weight"]
        for_context = pad_heads(for_context.t(), self.config.heads, self.config.value_dim).t()
        offset = for_message @ weights[f"{block}.{projection}.bias"]
        expand = self.expand.linear
        set_token_weights(expand, for_token, weights[f"{block}.ffn.0.bias"] + offset, missing, for_context)
        copy_linear(self.norm, weights, f"{block}.ffn.1")
        weight, bias = (weights[f"{block}.ffn.3.{kind}"] for kind in ("weight", "bias"))
        self.shrink.weight.copy_(pad_heads(weight, 1, self.config.token_dim))
        if self.shrink.bias is None:
            return missing + bias
        self.shrink.bias.copy_(bias)
        return missing


class Attention(nn.Module):
    """Softmax attention of all heads, to keypoints that are not padded.

    Each head of query and key has one channel more than the reference: 1 in the query and the key. In the
    key it becomes the logit that masks padding here. So no mask has to be added to the K x K logits.
    """

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Compute messages like value [S, K, heads * value_dim] from query and key [S, K, heads * key_dim].

        The mask bool [S, K] is True for keys that are not padded.
        """
        heads, key_dim, value_dim = self.config.heads, self.config.key_dim, self.config.value_dim
        key = with_mask_logits(key, mask, heads, self.config.head_dim)
        return attend(query, key, value, heads, key_dim, value_dim)


class SelfAttention(nn.Module):
    """Attention within one image, with rotary encoding of relative position."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        self.query = token_layer(config, config.heads * config.key_dim)
        self.key = token_layer(config, config.heads * config.key_dim)
        self.value = token_layer(config, config.heads * config.value_dim)
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, tokens: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Update tokens [S, K, token_dim]; mask is bool [S, K], rotary the last three fields of `Sides`."""
        query, key = (self._turned(layer, tokens, rotary) for layer in (self.query, self.key))
        messages = self.attention(query, key, linear(self.value, tokens), mask)
        return self.feed_forward(tokens, messages)

    def _turned(self, layer: nn.Linear, tokens: Tensor, rotary: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        turn = rotate if self.config.target == "portable" else rotary_embedding
        return turn(linear(layer, tokens), *rotary, self.config.heads, self.config.head_dim)

    def load(self, weights: Mapping[str, Tensor], block: str, missing: Tensor) -> Tensor:
        """Read the block's weights; the reference interleaves query, key and value channel by channel."""
        heads, head_dim = self.config.heads, self.config.head_dim
        found: dict[nn.Linear, list[Tensor]] = {layer: [] for layer in (self.query, self.key, self.value)}
        for kind, one in (("weight", 0.0), ("bias", 1.0)):
            rows = weights[f"{block}.Wqkv.{kind}"].unflatten(0, (heads, head_dim // 2, 2, 3))
            query, key, value = rows.unbind(3)
            for layer, part in ((self.query, query * head_dim**-0.5), (self.key, key)):
                first, second = part.unbind(2)  # the two channels that the rotary encoding turns together
                mask_channel = torch.full_like(first[:, :1], one)
                by_head = torch.cat([first, second, mask_channel], dim=1)
                found[layer].append(pad_heads(by_head.flatten(0, 1), heads, self.config.key_dim))
            found[self.value].append(pad_heads(value.flatten(0, 2), heads, self.config.value_dim))
        for layer, (weight, bias) in found.items():
            set_token_weights(layer, weight, bias, missing)
        return self.feed_forward.load(weights, block, "out_proj", missing)


class CrossAttention(nn.Module):
    """Attention to the other image, with one projection for query and key."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        self.query_key = token_layer(config, config.heads * config.key_dim)
        self.value = token_layer(config, config.heads * config.value_dim)
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Update tokens [S, K, token_dim]; mask is bool [S, K]."""
        query, value = linear(self.query_key, tokens), linear(self.value, tokens)
        others = (part.index_select(0, other_side(tokens)) for part in (query, value, mask))
        return self.feed_forward(tokens, self.attention(query, *others))

    def load(self, weights: Mapping[str, Tensor], block: str, missing: Tensor) -> Tensor:
        """Read the block's weights; query and key each take the square root of the scale."""
        heads, head_dim = self.config.heads, self.config.head_dim
        found: dict[nn.Linear, list[Tensor]] = {self.query_key: [], self.value: []}
        for kind, one in (("weight", 0.0), ("bias", 1.0)):
            part = weights[f"{block}.to_qk.{kind}"].unflatten(0, (heads, head_dim)) * head_dim**-0.25
            by_head = torch.cat([part, torch.full_like(part[:, :1], one)], dim=1)
            found[self.query_key].append(pad_heads(by_head.flatten(0, 1), heads, self.config.key_dim))
            found[self.value].append(pad_heads(weights[f"{block}.to_v.{kind}"], heads, self.config.value_dim))
        for layer, (weight, bias) in found.items():
            set_token_weights(layer, weight, bias, missing)
        return self.feed_forward.load(weights, block, "to_out", missing)


class Layer(nn.Module):
    """A self- and a cross-attention block."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config)
        self.cross_attention = CrossAttention(config)

    def forward(self, sides: Sides) -> Tensor:
        """Return the updated tokens [S, K, token_dim]."""
        return self.cross_attention(self.self_attention(sides.tokens, sides.mask, sides[2:]), sides.mask)

    def load(self, weights: Mapping[str, Tensor], layer: str, missing: Tensor) -> Tensor:
        """Read the layer's weights; takes and returns what the tokens lack."""
        missing = self.self_attention.load(weights, f"{layer}.self_attn", missing)
        return self.cross_attention.load(weights, f"{layer}.cross_attn", missing)


def copy_linear(layer: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Copy the weight and bias that have this name into a layer."""
    layer.weight.copy_(weights[f"{name}.weight"])
    layer.bias.copy_(weights[f"{name}.bias"])


def token_layer(config: LightGlueConfig, channels: int) -> nn.Linear:
    """Make a linear layer from tokens to so many channels, for `set_token_weights`."""
    return nn.Linear(config.token_dim, channels, bias=config.has_biases)


def set_token_weights(
    layer: nn.Linear, weight: Tensor, bias: Tensor, missing: Tensor, others: Tensor | None = None
) -> None:
    """Set a layer of tokens, and of other channels after them.

    Args:
        layer: with a bias, or with two columns for it.
        weight: [out, width].
        bias: [out].
        missing: [width], sum of the biases that the tokens lack.
        others: weight [out, C] of the other channels.
    """
    bias = bias + weight @ missing
    after = weight[:, :0] if others is None else others
    if layer.bias is None:
        rounded = bias.half().float()
        for_bias = torch.stack([rounded, bias - rounded], dim=1)
        given = weight.shape[1] + for_bias.shape[1] + after.shape[1]
        zeros = weight.new_zeros(len(weight), layer.in_features - given)
        after = torch.cat([for_bias, zeros, after], dim=1)
    else:
        layer.bias.copy_(bias)
    layer.weight.copy_(torch.cat([weight, after], dim=1))


def linear(layer: nn.Linear, tokens: Tensor) -> Tensor:
    """Apply a linear layer to [S, K, C] as one matrix product, into which ONNX Runtime fuses the bias."""
    sides, slots = tokens.shape[:2]
    return layer(tokens.flatten(0, 1)).view(sides, slots, layer.out_features)


def both_sides(values: Tensor) -> tuple[Tensor, Tensor]:
    """Split [2 P, ...] into the pairs' first images [P, ...] and second images [P, ...]."""
    return values.view(2, values.shape[0] // 2, *values.shape[1:]).unbind(0)


def other_side(sides: Tensor) -> Tensor:
    """Return for each of S = 2 P sides the index of the other image of its pair: int64 [S]."""
    pairs = sides.shape[0] // 2
    return torch.cat([torch.arange(pairs, 2 * pairs), torch.arange(pairs)])


def with_mask_logits(keys: Tensor, mask: Tensor, heads: int, channel: int) -> Tensor:
    """Turn the 1 in one channel of each head of keys [S, K, heads * C] to logits: 0, and MASKED for padding.

    The differences are added, because ONNX Runtime computes them once for all layers and adds them in a
    quarter of the time that it takes to choose between keys and logits.
    """
    logits = torch.where(mask, 0.0, MASKED[keys.dtype]).to(keys.dtype)
    is_logit = (torch.arange(keys.shape[2] // heads) == channel).repeat(heads).to(keys.dtype)
    return keys + (logits - 1).unsqueeze(2) * is_logit


def pad_heads(values: Tensor, heads: int, channels: int) -> Tensor:
    """Add zeros to each head of values [heads * c, ...]: [heads * channels, ...]."""
    by_head = values.unflatten(0, (heads, -1))
    zeros = by_head.new_zeros(heads, channels - by_head.shape[1], *by_head.shape[2:])
    return torch.cat([by_head, zeros], dim=1).flatten(0, 1)


def _gelu(values: Tensor) -> Tensor:
    """Compute the exact GELU, in the order of operations that ONNX Runtime can fuse."""
    return values * (1 + torch.erf(values / 2**0.5)) * 0.5
