"""LightGlue (Lindenberger et al., ICCV 2023) over padded keypoints with validity masks.

Equal to the reference implementation, cvg/LightGlue, with point pruning and early stopping off, for every
pair alone. What the reference does in several linear steps is one matrix here, multiplied together when the
weights are read: attention scales, the order of rotary channels, and attention's output projection, which
goes into the first matrix of the feed-forward network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Logit of a padded keypoint: exp() makes it 0 beside any real one, and sums of it stay finite.
MASKED = {torch.float32: -1e9, torch.float16: -3e4}
_OLDER_NAME = re.compile(r"^(self_attn|cross_attn)\.(\d+)")


@dataclass(frozen=True)
class LightGlueConfig:
    """The shape of a LightGlue network.

    Attributes:
        input_dim: width of the descriptors.
        width: width of the transformer's tokens.
        heads: attention heads in each block.
        layers: transformer layers, each a self- and a cross-attention block.
    """

    input_dim: int
    width: int
    heads: int
    layers: int

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def has_projection(self) -> bool:
        """Whether descriptors are projected to tokens; those as wide as tokens are tokens as they are."""
        return self.input_dim != self.width


class FeedForward(nn.Module):
    """Token update from (token, attention's message): linear, layer norm, GELU, linear (section 3.1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(2 * width, 2 * width)
        self.norm = nn.LayerNorm(2 * width)
        self.shrink = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor, messages: Tensor) -> Tensor:
        """Both [S * K, width]; the updated tokens, same shape."""
        hidden = self.norm(self.expand(torch.cat([tokens, messages], dim=1)))
        return tokens + self.shrink(_gelu(hidden))

    def load(self, weights: Mapping[str, Tensor], block: str, projection: str) -> None:
        """Read the block's weights, with the attention's output projection multiplied in."""
        for_token, for_message = weights[f"{block}.ffn.0.weight"].chunk(2, dim=1)
        for_context = for_message @ weights[f"{block}.{projection}.weight"]
        offset = for_message @ weights[f"{block}.{projection}.bias"]
        self.expand.weight.copy_(torch.cat([for_token, for_context], dim=1))
        self.expand.bias.copy_(weights[f"{block}.ffn.0.bias"] + offset)
        _copy_linear(self.norm, weights, f"{block}.ffn.1")
        _copy_linear(self.shrink, weights, f"{block}.ffn.3")


class SelfAttention(nn.Module):
    """Self-attention within one image, with rotary encoding of relative position (section 3.1).

    Query and key lie side by side, so that turning them is one product with cosines and one with sines.
    Each head has a channel more than the reference: 1 in the query, the logit of padding in the key.
    """

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query_key = nn.Linear(config.width, 2 * (config.width + config.heads))
        self.query_key_turned = nn.Linear(config.width, 2 * (config.width + config.heads))
        self.value = nn.Linear(config.width, config.width)
        self.feed_forward = FeedForward(config.width)

    def forward(self, tokens: Tensor, rotary: tuple[Tensor, Tensor], slots: int) -> Tensor:
        """Tokens [S * K, width], cosines and sines as `_rotary` makes them; the updated tokens."""
        cosines, sines = rotary
        turned = self.query_key(tokens) * cosines + self.query_key_turned(tokens) * sines
        half = turned.shape[1] // 2
        query, key = (_by_head(part, slots, self.heads) for part in (turned[:, :half], turned[:, half:]))
        messages = _attend(query, key, _by_head(self.value(tokens), slots, self.heads))
        return self.feed_forward(tokens, messages)

    def load(self, weights: Mapping[str, Tensor], block: str) -> None:
        """Read the block's weights; the reference interleaves query, key and value channel by channel."""
        head_dim = self.value.out_features // self.heads
        for kind, one in (("weight", 0.0), ("bias", 1.0)):
            rows = weights[f"{block}.Wqkv.{kind}"].unflatten(0, (self.heads, head_dim // 2, 2, 3))
            query, key, value = rows.unbind(3)
            upright, turned = [], []
            for part in (query * head_dim**-0.5, key):
                first, second = part.unbind(2)  # the two channels of each plane that the encoding turns
                mask_channel = torch.zeros_like(first[:, :1])
                upright.append(torch.cat([first, second, mask_channel + one], dim=1).flatten(0, 1))
                turned.append(torch.cat([-second, first, mask_channel], dim=1).flatten(0, 1))
            getattr(self.query_key, kind).copy_(torch.cat(upright))
            getattr(self.query_key_turned, kind).copy_(torch.cat(turned))
            getattr(self.value, kind).copy_(value.flatten(0, 2))
        self.feed_forward.load(weights, block, "out_proj")


class CrossAttention(nn.Module):
    """Attention to the other image, query and key being one projection (section 3.1)."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query_key = MaskedProjection(config.width, config.heads)
        self.value = nn.Linear(config.width, config.width)
        self.feed_forward = FeedForward(config.width)

    def forward(self, tokens: Tensor, mask_logits: Tensor, other_side: Tensor) -> Tensor:
        """Tokens [S * K, width]; side s attends to side other_side[s], the other image of its pair."""
        slots = mask_logits.shape[1]
        query, key = self.query_key(tokens, mask_logits)
        value = _by_head(self.value(tokens), slots, self.heads)
        messages = _attend(query, key.index_select(0, other_side), value.index_select(0, other_side))
        return self.feed_forward(tokens, messages)

    def load(self, weights: Mapping[str, Tensor], block: str) -> None:
        """Read the block's weights."""
        self.query_key.load(weights, f"{block}.to_qk")
        _copy_linear(self.value, weights, f"{block}.to_v")
        self.feed_forward.load(weights, block, "to_out")


class MaskedProjection(nn.Module):
    """One projection for both sides of a scaled dot product, and padding's logit as one more channel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear = nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [S * K, width], mask logits [S, K]; query and key [S, heads, K, head_dim + 1]."""
        projected = _by_head(self.linear(tokens), mask_logits.shape[1], self.heads)
        key_channel = mask_logits[:, None, :, None].expand(-1, self.heads, -1, -1)
        query_channel = torch.ones_like(key_channel)
        return torch.cat([projected, query_channel], dim=3), torch.cat([projected, key_channel], dim=3)

    def load(self, weights: Mapping[str, Tensor], name: str) -> None:
        """Read the weights; query and key share the scale, each taking its square root."""
        scale = (self.linear.out_features // self.heads) ** -0.25
        self.linear.weight.copy_(weights[f"{name}.weight"] * scale)
        self.linear.bias.copy_(weights[f"{name}.bias"] * scale)


class Assignment(nn.Module):
    """Match probabilities from similarity and matchability (section 3.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.similarity = MaskedProjection(width, heads=1)
        self.matchability = nn.Linear(width, 1)

    def forward(self, tokens: Tensor, mask_logits: Tensor, other_side: Tensor) -> Tensor:
        """The assignment [P, K, K] of first to second images' keypoints, without its dustbins.

        Probabilities are multiplied, not their logarithms added as in the reference: similarities of 100
        would leave five digits of the logarithm.

        Args:
            tokens: [2 P * K, width].
            mask_logits: [2 P, K].
            other_side: [2 P].
        """
        pairs, slots = mask_logits.shape[0] // 2, mask_logits.shape[1]
        query, key = (part.squeeze(1) for part in self.similarity(tokens, mask_logits))
        matching = (query @ key.index_select(0, other_side).transpose(1, 2)).softmax(-1)
        matching = matching * self.matchability(tokens).sigmoid().view(-1, slots, 1)
        return matching[:pairs] * matching[pairs:].transpose(1, 2)

    def load(self, weights: Mapping[str, Tensor], block: str) -> None:
        """Read the head's weights."""
        self.similarity.load(weights, f"{block}.final_proj")
        _copy_linear(self.matchability, weights, f"{block}.matchability")


class LightGlue(nn.Module):
    """LightGlue for P pairs out of N images at once, all layers for all points.

    Inside, the two sides of the pairs are stacked to S = 2 P: first the pairs' first images, then their
    second ones, so that every step is one operation for all images of all pairs.

    With parameters of float16 (see `precision`) the layers compute in float16; positions, and the assignment
    with its exponentials and products of probabilities, stay in float32.
    """

    kept_in_fp32 = ("frequencies", "assignment")

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        self.input = nn.Linear(config.input_dim, config.width) if config.has_projection else nn.Identity()
        self.frequencies = nn.Linear(2, config.head_dim // 2, bias=False)
        self.self_attention = nn.ModuleList(SelfAttention(config) for _ in range(config.layers))
        self.cross_attention = nn.ModuleList(CrossAttention(config) for _ in range(config.layers))
        self.assignment = Assignment(config.width)

    @classmethod
    def from_state_dict(cls, config: LightGlueConfig, state_dict: Mapping[str, Tensor]) -> LightGlue:
        """The matcher with weights named as in the reference (``transformers.0.self_attn.Wqkv.weight``, …).

        Older files say ``self_attn.0.Wqkv.weight``, which the reference renames as well.

        Raises:
            KeyError: a tensor is missing.
            RuntimeError: a tensor has another shape.
        """
        matcher = cls(config)
        state_dict = {_OLDER_NAME.sub(r"transformers.\2.\1", name): it for name, it in state_dict.items()}
        with torch.no_grad():
            if config.has_projection:
                _copy_linear(matcher.input, state_dict, "input_proj")
            matcher.frequencies.weight.copy_(state_dict["posenc.Wr.weight"])
            for layer in range(config.layers):
                matcher.self_attention[layer].load(state_dict, f"transformers.{layer}.self_attn")
                matcher.cross_attention[layer].load(state_dict, f"transformers.{layer}.cross_attn")
            matcher.assignment.load(state_dict, f"log_assignment.{config.layers - 1}")
        return matcher.eval()

    def forward(
        self,
        keypoints: Tensor,
        keypoint_mask: Tensor,
        descriptors: Tensor,
        image_sizes: Tensor,
        pairs: Tensor,
        match_threshold: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Match pairs of images.

        Args:
            keypoints: float32 [N, K, 2], original pixels.
            keypoint_mask: bool [N, K].
            descriptors: float32 [N, K, D].
            image_sizes: float32 [N, 2], (width, height) of the original images.
            pairs: int64 [P, 2].
            match_threshold: float32 [1], matches must score above it.

        Returns:
            matches: int32 [P, K], partner of each keypoint of the first image, or -1.
            match_scores: float32 [P, K], 0 where unmatched.
            layers: int32 [P], transformer layers that the pair went through.
        """
        pair_count, slots = pairs.shape[0], keypoints.shape[1]
        sides = pairs.transpose(0, 1).flatten()
        other_side = torch.cat([torch.arange(pair_count, 2 * pair_count), torch.arange(pair_count)])
        mask = keypoint_mask[sides]
        precision = self.cross_attention[0].value.weight.dtype
        mask_logits = _mask_logits(mask, precision)

        positions = _normalise_keypoints(keypoints, keypoint_mask, image_sizes)
        rotary = self._rotary(positions[sides], mask_logits)
        known = torch.where(keypoint_mask.unsqueeze(2), descriptors, 0.0)
        tokens = self.input(known[sides].flatten(0, 1).to(precision))
        for self_attention, cross_attention in zip(self.self_attention, self.cross_attention, strict=True):
            tokens = self_attention(tokens, rotary, slots)
            tokens = cross_attention(tokens, mask_logits, other_side)

        assignment = self.assignment(tokens.float(), _mask_logits(mask, torch.float32), other_side)
        matches, scores = _mutual_matches(assignment, mask, match_threshold)
        # Computed from an input, because providers stumble over outputs that are constants (OpenVINO does).
        layers = (pairs[:, 0] * 0 + self.config.layers).to(torch.int32)
        return matches, scores, layers

    def _rotary(self, positions: Tensor, mask_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for the channels of query and key: two [S * K, 2 * (width + heads)].

        In the mask's channel the cosine is 1 for queries and padding's logit for keys, the sine 0.
        """
        angles = self.frequencies(positions.flatten(0, 1))
        cosine, sine = (values.to(mask_logits.dtype) for values in (angles.cos(), angles.sin()))
        logit = mask_logits.flatten().unsqueeze(1)
        one, zero = torch.ones_like(logit), torch.zeros_like(logit)
        heads = self.config.heads
        cosines = [cosine, cosine, one] * heads + [cosine, cosine, logit] * heads
        return torch.cat(cosines, dim=1), torch.cat([sine, sine, zero] * 2 * heads, dim=1)


def _copy_linear(layer: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    layer.weight.copy_(weights[f"{name}.weight"])
    layer.bias.copy_(weights[f"{name}.bias"])


def _mask_logits(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Mask [S, K] to the logits that attention adds: 0 for keypoints, MASKED for padding."""
    return torch.where(mask, 0.0, MASKED[dtype]).to(dtype)


def _normalise_keypoints(keypoints: Tensor, mask: Tensor, image_sizes: Tensor) -> Tensor:
    """Keypoints [N, K, 2] with the image's centre at 0 and its longer side from -1 to 1; 0 where masked."""
    has_keypoints = mask.any(dim=1, keepdim=True)
    sizes = torch.where(has_keypoints, image_sizes, 1.0).unsqueeze(1)
    centred = torch.where(mask.unsqueeze(-1), keypoints, 0.0) - sizes / 2
    return centred / (sizes.amax(dim=-1, keepdim=True) / 2)


def _gelu(values: Tensor) -> Tensor:
    """The exact GELU, in the order of operations that ONNX Runtime knows to fuse."""
    return values * (1 + torch.erf(values / 2**0.5)) * 0.5


def _by_head(tokens: Tensor, slots: int, heads: int) -> Tensor:
    """[S * K, heads * C] to [S, heads, K, C]."""
    channels = tokens.shape[1] // heads
    if heads == 1:  # the same without a transposition, which would be a copy in every layer
        return tokens.view(-1, 1, slots, channels)
    return tokens.view(-1, slots, heads, channels).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of [S, heads, K, C], queries scaled; messages [S * K, heads * C]."""
    messages = (query @ key.transpose(2, 3)).softmax(-1) @ value
    heads, channels = value.shape[1], value.shape[3]
    if heads == 1:
        return messages.view(-1, channels)
    return messages.transpose(1, 2).reshape(-1, heads * channels)


def _mutual_matches(assignment: Tensor, mask: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of keypoints that are each other's best and score above the threshold (section 3.2).

    Args:
        assignment: [P, K, K].
        mask: bool [2 P, K].
        threshold: float32 [1].

    Returns:
        partners int32 [P, K] or -1, and their scores float32 [P, K] or 0.
    """
    pairs, slots = assignment.shape[:2]
    score, partner = assignment.max(dim=2)
    is_mutual = assignment.argmax(dim=1).gather(1, partner) == torch.arange(slots)
    matched = is_mutual & mask[:pairs] & mask[pairs:].gather(1, partner) & (score > threshold)
    return torch.where(matched, partner, -1).to(torch.int32), torch.where(matched, score, 0.0)
