"""The transformer layers of LightGlue (Lindenberger et al., ICCV 2023, section 3.1) over padded keypoints.

Steps that are linear in the reference, cvg/LightGlue, are multiplied into one matrix when the weights are
read: attention scales, the order of rotary channels, and attention's output projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightglue_ros.export.operators.attention import attend, rotate

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

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def has_projection(self) -> bool:
        """True if descriptors are projected to tokens; descriptors as wide as tokens are not."""
        return self.input_dim != self.width


class Sides(NamedTuple):
    """Images of P pairs, stacked to S = 2 P sides: first images of all pairs, then second images.

    The stack makes every step one operation for all images of all pairs.
    """

    tokens: Tensor  # [S, K, width]
    mask: Tensor  # bool [S, K]
    rows: Tensor  # int64 [S, K], row of each keypoint in `cosines` and `sines`
    cosines: Tensor  # [N * K, head_dim / 2], rotary encoding of the images' keypoints
    sines: Tensor  # [N * K, head_dim / 2]


class Expansion(nn.Module):
    """First linear layer of a `FeedForward`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, 2 * width)

    def forward(self, tokens: Tensor, messages: Tensor) -> Tensor:
        """Expand tokens and messages, both [S, K, width], to [S, K, 2 * width]."""
        return linear(self.linear, torch.cat([tokens, messages], dim=2))


class FeedForward(nn.Module):
    """Update of tokens by attention's messages: linear, layer norm, GELU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = Expansion(width)
        self.norm = nn.LayerNorm(2 * width)
        self.shrink = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor, messages: Tensor) -> Tensor:
        """Update tokens [S, K, width] by messages of the same shape."""
        hidden = self.norm(self.expand(tokens, messages))
        return tokens + linear(self.shrink, _gelu(hidden))

    def load(self, weights: Mapping[str, Tensor], block: str, projection: str) -> None:
        """Read the block's weights and multiply attention's output projection into the first layer."""
        for_token, for_message = weights[f"{block}.ffn.0.weight"].chunk(2, dim=1)
        for_context = for_message @ weights[f"{block}.{projection}.weight"]
        offset = for_message @ weights[f"{block}.{projection}.bias"]
        self.expand.linear.weight.copy_(torch.cat([for_token, for_context], dim=1))
        self.expand.linear.bias.copy_(weights[f"{block}.ffn.0.bias"] + offset)
        copy_linear(self.norm, weights, f"{block}.ffn.1")
        copy_linear(self.shrink, weights, f"{block}.ffn.3")


class Attention(nn.Module):
    """Softmax attention of all heads, to keypoints that are not padded.

    Each head of query and key has one channel more than the reference: 1 in the query, and in the key the
    logit that masks padding. So no mask has to be added to the K x K logits. The keys that come in have
    `key_channel` in this channel.
    """

    def __init__(self, config: LightGlueConfig, key_channel: float) -> None:
        super().__init__()
        self.config, self.key_channel = config, key_channel

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Compute messages [S, K, width] from value [S, K, width], and query and key [S, K, width + heads].

        The mask bool [S, K] is True for keys that are not padded.
        """
        heads, head_dim = self.config.heads, self.config.head_dim
        logits = mask_logits(mask, key.dtype) - self.key_channel
        key = key + mask_channels(logits, self.config.width, heads)
        return attend(query, key, value, heads, head_dim + 1, head_dim)


class SelfAttention(nn.Module):
    """Attention within one image, with rotary encoding of relative position."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        self.query = nn.Linear(config.width, config.width + config.heads)
        self.key = nn.Linear(config.width, config.width + config.heads)
        self.value = nn.Linear(config.width, config.width)
        self.attention = Attention(config, key_channel=0)
        self.feed_forward = FeedForward(config.width)

    def forward(self, tokens: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Update tokens [S, K, width]; mask is bool [S, K], rotary the last three fields of `Sides`."""
        query, key = (self._turned(layer, tokens, rotary) for layer in (self.query, self.key))
        messages = self.attention(query, key, linear(self.value, tokens), mask)
        return self.feed_forward(tokens, messages)

    def _turned(self, layer: nn.Linear, tokens: Tensor, rotary: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return rotate(linear(layer, tokens), *rotary, self.config.heads, self.config.head_dim)

    def load(self, weights: Mapping[str, Tensor], block: str) -> None:
        """Read the block's weights; the reference interleaves query, key and value channel by channel."""
        heads, head_dim = self.config.heads, self.config.head_dim
        for kind, one in (("weight", 0.0), ("bias", 1.0)):
            rows = weights[f"{block}.Wqkv.{kind}"].unflatten(0, (heads, head_dim // 2, 2, 3))
            query, key, value = rows.unbind(3)
            for layer, part, channel in ((self.query, query * head_dim**-0.5, one), (self.key, key, 0.0)):
                first, second = part.unbind(2)  # the two channels that the rotary encoding turns together
                mask_channel = torch.full_like(first[:, :1], channel)
                by_head = torch.cat([first, second, mask_channel], dim=1)
                getattr(layer, kind).copy_(by_head.flatten(0, 1))
            getattr(self.value, kind).copy_(value.flatten(0, 2))
        self.feed_forward.load(weights, block, "out_proj")


class CrossAttention(nn.Module):
    """Attention to the other image, with one projection for query and key."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        self.query_key = nn.Linear(config.width, config.width + config.heads)
        self.value = nn.Linear(config.width, config.width)
        self.attention = Attention(config, key_channel=1)
        self.feed_forward = FeedForward(config.width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Update tokens [S, K, width]; mask is bool [S, K]."""
        query, value = linear(self.query_key, tokens), linear(self.value, tokens)
        others = (part.index_select(0, other_side(tokens)) for part in (query, value, mask))
        return self.feed_forward(tokens, self.attention(query, *others))

    def load(self, weights: Mapping[str, Tensor], block: str) -> None:
        """Read the block's weights; query and key each take the square root of the scale."""
        heads, head_dim = self.config.heads, self.config.head_dim
        for kind, one in (("weight", 0.0), ("bias", 1.0)):
            part = weights[f"{block}.to_qk.{kind}"].unflatten(0, (heads, head_dim)) * head_dim**-0.25
            by_head = torch.cat([part, torch.full_like(part[:, :1], one)], dim=1)
            getattr(self.query_key, kind).copy_(by_head.flatten(0, 1))
        copy_linear(self.value, weights, f"{block}.to_v")
        self.feed_forward.load(weights, block, "to_out")


class Layer(nn.Module):
    """A self- and a cross-attention block."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config)
        self.cross_attention = CrossAttention(config)

    def forward(self, sides: Sides) -> Tensor:
        """Return the updated tokens [S, K, width]."""
        return self.cross_attention(self.self_attention(sides.tokens, sides.mask, sides[2:]), sides.mask)

    def load(self, weights: Mapping[str, Tensor], layer: str) -> None:
        """Read the layer's weights."""
        self.self_attention.load(weights, f"{layer}.self_attn")
        self.cross_attention.load(weights, f"{layer}.cross_attn")


def copy_linear(layer: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Copy the weight and bias that have this name into a layer."""
    layer.weight.copy_(weights[f"{name}.weight"])
    layer.bias.copy_(weights[f"{name}.bias"])


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


def mask_logits(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a mask [S, K] to logits that attention adds: 0 for keypoints, MASKED for padding."""
    return torch.where(mask, 0.0, MASKED[dtype]).to(dtype)


def mask_channels(logits: Tensor, width: int, heads: int) -> Tensor:
    """Place logits [S, K] in the last channel of each head: [S, K, width + heads], else 0."""
    pattern = torch.zeros(heads, width // heads + 1, dtype=logits.dtype)
    pattern[:, -1] = 1
    return logits.unsqueeze(2) * pattern.flatten()


def _gelu(values: Tensor) -> Tensor:
    """Compute the exact GELU, in the order of operations that ONNX Runtime can fuse."""
    return values * (1 + torch.erf(values / 2**0.5)) * 0.5
