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
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightglue_ros.export.operators import attend, rotate

# Logit of a padded keypoint: exp() makes it 0 beside any real one, and sums of it stay finite.
MASKED = {torch.float32: -1e9, torch.float16: -3e4}
NEVER = -1.0  # a confidence that is never reached, as the reference says it
_OLDER_NAME = re.compile(r"^(self_attn|cross_attn)\.(\d+)")


@dataclass(frozen=True)
class LightGlueConfig:
    """The shape of a LightGlue network.

    Attributes:
        input_dim: width of the descriptors.
        width: width of the transformer's tokens.
        heads: attention heads in each block.
        layers: transformer layers, each a self- and a cross-attention block.
        depth_confidence: share of points that must be sure before an adaptive pair stops; -1 is never.
        width_confidence: how sure an adaptive matcher must be that a point has no partner before it is
            pruned; -1 is never. Both are the reference's defaults (section 3.3).
    """

    input_dim: int
    width: int
    heads: int
    layers: int
    depth_confidence: float = 0.95
    width_confidence: float = 0.99

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def has_projection(self) -> bool:
        """Whether descriptors are projected to tokens; those as wide as tokens are tokens as they are."""
        return self.input_dim != self.width


class Expansion(nn.Module):
    """The first linear layer of a `FeedForward`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, 2 * width)

    def forward(self, tokens: Tensor, messages: Tensor) -> Tensor:
        """Both [S, K, width] to [S, K, 2 * width]."""
        return linear(self.linear, torch.cat([tokens, messages], dim=2))


class FeedForward(nn.Module):
    """Token update from (token, attention's message): linear, layer norm, GELU, linear (section 3.1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = Expansion(width)
        self.norm = nn.LayerNorm(2 * width)
        self.shrink = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor, messages: Tensor) -> Tensor:
        """Both [S, K, width]; the updated tokens, same shape."""
        hidden = self.norm(self.expand(tokens, messages))
        return tokens + linear(self.shrink, _gelu(hidden))

    def load(self, weights: Mapping[str, Tensor], block: str, projection: str) -> None:
        """Read the block's weights, with the attention's output projection multiplied in."""
        for_token, for_message = weights[f"{block}.ffn.0.weight"].chunk(2, dim=1)
        for_context = for_message @ weights[f"{block}.{projection}.weight"]
        offset = for_message @ weights[f"{block}.{projection}.bias"]
        self.expand.linear.weight.copy_(torch.cat([for_token, for_context], dim=1))
        self.expand.linear.bias.copy_(weights[f"{block}.ffn.0.bias"] + offset)
        copy_linear(self.norm, weights, f"{block}.ffn.1")
        copy_linear(self.shrink, weights, f"{block}.ffn.3")


class Attention(nn.Module):
    """Softmax attention to keypoints only, of heads that lie side by side.

    Each head of query and key has a channel more than the reference's: 1 in the query, and in the key the
    logit that keeps padding out, so that no mask has to be added to the K x K logits.

    Args:
        config: of the network.
        key_channel: what the additional channel of the keys holds before.
    """

    def __init__(self, config: LightGlueConfig, key_channel: float) -> None:
        super().__init__()
        self.config, self.key_channel = config, key_channel

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Messages [S, K, width].

        Args:
            query: [S, K, width + heads].
            key: [S, K, width + heads].
            value: [S, K, width].
            mask: bool [S, K], of the keys.
        """
        heads, head_dim = self.config.heads, self.config.head_dim
        logits = _mask_logits(mask, key.dtype) - self.key_channel
        key = key + _mask_channels(logits, self.config.width, heads)
        return attend(query, key, value, heads, head_dim + 1, head_dim)


class SelfAttention(nn.Module):
    """Self-attention within one image, with rotary encoding of relative position (section 3.1)."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        self.query = nn.Linear(config.width, config.width + config.heads)
        self.key = nn.Linear(config.width, config.width + config.heads)
        self.value = nn.Linear(config.width, config.width)
        self.attention = Attention(config, key_channel=0)
        self.feed_forward = FeedForward(config.width)

    def forward(self, tokens: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Tokens [S, K, width], mask bool [S, K], the last three of `Sides`; the updated tokens."""
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
                first, second = part.unbind(2)  # the two channels of each plane that the encoding turns
                mask_channel = torch.full_like(first[:, :1], channel)
                by_head = torch.cat([first, second, mask_channel], dim=1)
                getattr(layer, kind).copy_(by_head.flatten(0, 1))
            getattr(self.value, kind).copy_(value.flatten(0, 2))
        self.feed_forward.load(weights, block, "out_proj")


class CrossAttention(nn.Module):
    """Attention to the other image, query and key being one projection (section 3.1)."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        self.query_key = nn.Linear(config.width, config.width + config.heads)
        self.value = nn.Linear(config.width, config.width)
        self.attention = Attention(config, key_channel=1)
        self.feed_forward = FeedForward(config.width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens [S, K, width] and mask bool [S, K]; the updated tokens."""
        query, value = linear(self.query_key, tokens), linear(self.value, tokens)
        others = (part.index_select(0, _other_side(tokens)) for part in (query, value, mask))
        return self.feed_forward(tokens, self.attention(query, *others))

    def load(self, weights: Mapping[str, Tensor], block: str) -> None:
        """Read the block's weights; query and key share the scale, each taking its square root."""
        heads, head_dim = self.config.heads, self.config.head_dim
        for kind, one in (("weight", 0.0), ("bias", 1.0)):
            part = weights[f"{block}.to_qk.{kind}"].unflatten(0, (heads, head_dim)) * head_dim**-0.25
            by_head = torch.cat([part, torch.full_like(part[:, :1], one)], dim=1)
            getattr(self.query_key, kind).copy_(by_head.flatten(0, 1))
        copy_linear(self.value, weights, f"{block}.to_v")
        self.feed_forward.load(weights, block, "to_out")


class Assignment(nn.Module):
    """Match probabilities from similarity and matchability (section 3.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, width + 1)
        self.matchability = nn.Linear(width, 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The assignment [P, K, K] of first to second images' keypoints, without its dustbins.

        Probabilities are multiplied, not their logarithms added as in the reference: similarities of 100
        would leave five digits of the logarithm.

        Args:
            tokens: [2 P, K, width].
            mask: bool [2 P, K].
        """
        query = linear(self.projection, tokens)
        key = query + _mask_channels(_mask_logits(mask, tokens.dtype) - 1, tokens.shape[2], heads=1)
        matching = (query @ key.index_select(0, _other_side(tokens)).transpose(1, 2)).softmax(-1)
        there, back = both_sides(matching * self.matchable(tokens).unsqueeze(2))
        return there * back.transpose(1, 2)

    def matchable(self, tokens: Tensor) -> Tensor:
        """Probability [2 P, K] that a keypoint has a partner."""
        return linear(self.matchability, tokens).sigmoid().squeeze(2)

    def load(self, weights: Mapping[str, Tensor], block: str) -> None:
        """Read the head's weights; both sides of a product share the scale, each taking its square root."""
        for kind, one in (("weight", 0.0), ("bias", 1.0)):
            part = weights[f"{block}.final_proj.{kind}"]
            part = part * part.shape[0] ** -0.25
            getattr(self.projection, kind).copy_(torch.cat([part, torch.full_like(part[:1], one)]))
        copy_linear(self.matchability, weights, f"{block}.matchability")


class Sides(NamedTuple):
    """The two sides of P pairs, stacked to S = 2 P: first the pairs' first images, then their second ones.

    So every step is one operation for all images of all pairs.

    Attributes:
        tokens: [S, K, width].
        mask: bool [S, K].
        rows: int64 [S, K], rows of `cosines` and `sines` of each keypoint.
        cosines: [N * K, head_dim / 2], rotary encoding of the images' keypoints.
        sines: [N * K, head_dim / 2].
    """

    tokens: Tensor
    mask: Tensor
    rows: Tensor
    cosines: Tensor
    sines: Tensor


class Layer(nn.Module):
    """A self- and a cross-attention block."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config)
        self.cross_attention = CrossAttention(config)

    def forward(self, sides: Sides) -> Tensor:
        """The updated tokens [S, K, width]."""
        return self.cross_attention(self.self_attention(sides.tokens, sides.mask, sides[2:]), sides.mask)

    def load(self, weights: Mapping[str, Tensor], layer: str) -> None:
        """Read the layer's weights."""
        self.self_attention.load(weights, f"{layer}.self_attn")
        self.cross_attention.load(weights, f"{layer}.cross_attn")


class LightGlue(nn.Module):
    """LightGlue for P pairs out of N images at once, all layers for all points.

    With parameters of float16 (see `precision`) the layers compute in float16; positions, and the assignment
    with its exponentials and products of probabilities, stay in float32.
    """

    kept_in_fp32 = ("frequencies", "assignment")

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        self.input = nn.Linear(config.input_dim, config.width) if config.has_projection else nn.Identity()
        self.frequencies = nn.Linear(2, config.head_dim // 2, bias=False)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
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
            matcher.load(state_dict)
        return matcher.eval()

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Read the weights."""
        if self.config.has_projection:
            copy_linear(self.input, weights, "input_proj")
        self.frequencies.weight.copy_(weights["posenc.Wr.weight"])
        for number, layer in enumerate(self.layers):
            layer.load(weights, f"transformers.{number}")
        self.assignment.load(weights, f"log_assignment.{self.config.layers - 1}")

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
        sides = self.begin(keypoints, keypoint_mask, descriptors, image_sizes, pairs)
        for layer in self.layers:
            sides = sides._replace(tokens=layer(sides))
        assignment = self.assignment(sides.tokens.float(), sides.mask)
        matches, scores = mutual_matches(assignment, sides.mask, match_threshold)
        # Computed from an input, because providers stumble over outputs that are constants (OpenVINO does).
        layers = (pairs[:, 0] * 0 + self.config.layers).to(torch.int32)
        return matches, scores, layers

    @property
    def precision(self) -> torch.dtype:
        """Of the tokens."""
        return self.layers[0].cross_attention.feed_forward.norm.weight.dtype

    def begin(
        self,
        keypoints: Tensor,
        keypoint_mask: Tensor,
        descriptors: Tensor,
        image_sizes: Tensor,
        pairs: Tensor,
    ) -> Sides:
        """What goes into the first layer, of the inputs of `forward`."""
        precision = self.precision
        chosen = pairs.transpose(0, 1).flatten()
        slots = keypoints.shape[1]
        positions = _normalise_keypoints(keypoints, keypoint_mask, image_sizes)
        angles = self.frequencies(positions.flatten(0, 1))
        cosines, sines = (values.to(precision) for values in (angles.cos(), angles.sin()))
        rows = chosen.unsqueeze(1) * slots + torch.arange(slots)
        known = torch.where(keypoint_mask.unsqueeze(2), descriptors, 0.0)[chosen].to(precision)
        tokens = linear(self.input, known) if self.config.has_projection else known
        return Sides(tokens, keypoint_mask[chosen], rows, cosines, sines)


def copy_linear(layer: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Read weight and bias of the layer that has this name in the weights."""
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


def linear(layer: nn.Linear, tokens: Tensor) -> Tensor:
    """A linear layer on [S, K, C], as one product of matrices: with its offset it is one step then."""
    sides, slots = tokens.shape[:2]
    return layer(tokens.flatten(0, 1)).view(sides, slots, layer.out_features)


def both_sides(values: Tensor) -> tuple[Tensor, Tensor]:
    """[2 P, ...] to what belongs to the pairs' first images [P, ...] and to their second ones."""
    return values.view(2, values.shape[0] // 2, *values.shape[1:]).unbind(0)


def _other_side(sides: Tensor) -> Tensor:
    """For each of S = 2 P sides the one of its pair's other image: int64 [S]."""
    pairs = sides.shape[0] // 2
    return torch.cat([torch.arange(pairs, 2 * pairs), torch.arange(pairs)])


def _mask_channels(logits: Tensor, width: int, heads: int) -> Tensor:
    """What is added to keys [S, K, width + heads]: the logits [S, K] in the last channel of each head."""
    pattern = torch.zeros(heads, width // heads + 1, dtype=logits.dtype)
    pattern[:, -1] = 1
    return logits.unsqueeze(2) * pattern.flatten()


def mutual_matches(assignment: Tensor, mask: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of keypoints that are each other's best and score above the threshold (section 3.2).

    Args:
        assignment: [P, K, K].
        mask: bool [2 P, K].
        threshold: float32 [1].

    Returns:
        partners int32 [P, K] or -1, and their scores float32 [P, K] or 0.
    """
    score, partner = assignment.max(dim=2)
    is_mutual = assignment.argmax(dim=1).gather(1, partner) == torch.arange(assignment.shape[1])
    first, second = both_sides(mask)
    matched = is_mutual & first & second.gather(1, partner) & (score > threshold)
    return torch.where(matched, partner, -1).to(torch.int32), torch.where(matched, score, 0.0)
