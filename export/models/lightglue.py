"""LightGlue (Lindenberger et al., ICCV 2023) over padded keypoints with validity masks.

For every pair the result equals the reference implementation's, cvg/LightGlue, run on that pair alone with
point pruning and early stopping off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightglue_ros.export.models.transformer import (
    Layer,
    LightGlueConfig,
    Sides,
    both_sides,
    linear,
    other_side,
    pad_heads,
    set_token_weights,
    token_layer,
    with_mask_logits,
)
from lightglue_ros.export.operators.assignment import best_of_columns, best_of_rows

NEVER = -1.0  # the reference's value for a confidence that is never reached
_OLDER_NAME = re.compile(r"^(self_attn|cross_attn)\.(\d+)")


class Assignment(nn.Module):
    """Match probabilities from similarity and matchability (section 3.2)."""

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        self.projection = token_layer(config, config.with_mask_channel(config.width))
        self.matchability = token_layer(config, 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Compute the assignment [P, K, K] of first to second images' keypoints, without its dustbins.

        Tokens are [2 P, K, token_dim]. Probabilities are multiplied. The reference adds their logarithms,
        which float32 holds to five digits where similarities reach 100.
        """
        query = linear(self.projection, tokens)
        key = with_mask_logits(query, mask, heads=1, channel=self.config.width)
        matching = (query @ key.index_select(0, other_side(tokens)).transpose(1, 2)).softmax(-1)
        there, back = both_sides(matching * self.matchable(tokens).unsqueeze(2))
        return there * back.transpose(1, 2)

    def matchable(self, tokens: Tensor) -> Tensor:
        """Compute the probability [2 P, K] that a keypoint has a partner."""
        return linear(self.matchability, tokens).sigmoid().squeeze(2)

    def load(self, weights: Mapping[str, Tensor], block: str, missing: Tensor) -> None:
        """Read the head's weights; both factors of a similarity take the square root of the scale."""
        found = []
        for kind, one in (("weight", 0.0), ("bias", 1.0)):
            part = weights[f"{block}.final_proj.{kind}"]
            part = part * part.shape[0] ** -0.25
            with_channel = torch.cat([part, torch.full_like(part[:1], one)])
            found.append(pad_heads(with_channel, 1, self.projection.out_features))
        set_token_weights(self.projection, *found, missing)
        found = [weights[f"{block}.matchability.{kind}"] for kind in ("weight", "bias")]
        set_token_weights(self.matchability, *found, missing)


class LightGlue(nn.Module):
    """LightGlue for P pairs of N images at once, all layers for all points.

    With float16 parameters (see `precision`) the layers compute in float16. Positions and the assignment,
    with its exponentials and products of probabilities, stay in float32.
    """

    kept_in_fp32 = ("frequencies", "assignment")

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        self.has_input = config.has_projection or not config.has_biases
        self.input = nn.Linear(config.input_dim, config.token_dim) if self.has_input else nn.Identity()
        self.frequencies = nn.Linear(2, config.encoding_dim, bias=False)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.assignment = Assignment(config)

    @classmethod
    def from_state_dict(cls, config: LightGlueConfig, state_dict: Mapping[str, Tensor]) -> LightGlue:
        """Build the matcher from weights with the reference's names (``posenc.Wr.weight`` …).

        Older files have names such as ``self_attn.0.Wqkv.weight``, which the reference renames as well.

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
        """Read weights with the reference's names."""
        if self.has_input:
            self._load_input(weights)
        frequencies = weights["posenc.Wr.weight"]
        if self.config.target == "portable":  # the sign and the constant channels that `rotate` wants
            frequencies = pad_heads(torch.cat([-frequencies, frequencies]), 1, self.config.encoding_dim)
        self.frequencies.weight.copy_(frequencies)
        missing = torch.zeros(self.config.width)
        for number, layer in enumerate(self.layers):
            missing = layer.load(weights, f"transformers.{number}", missing)
        self.assignment.load(weights, f"log_assignment.{self.config.layers - 1}", missing)

    def _load_input(self, weights: Mapping[str, Tensor]) -> None:
        """Read the projection of descriptors, or make one that copies them; channels of its bias are 1."""
        width = self.config.width
        weight, bias = torch.eye(width), torch.zeros(width)
        if self.config.has_projection:
            weight, bias = (weights[f"input_proj.{kind}"] for kind in ("weight", "bias"))
        self.input.weight.copy_(pad_heads(weight, 1, self.config.token_dim))
        self.input.bias.copy_(pad_heads(bias, 1, self.config.token_dim))
        self.input.bias[width : width + 2] = 1.0  # not there if tokens have no such channels

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return matches [P, K], match scores [P, K] and layers [P].

        Inputs and outputs are the contract's for a matcher (`core.contract`), without the keypoint scores.
        """
        *features, pairs, match_threshold = inputs
        sides = self.begin(*features, pairs)
        for layer in self.layers:
            sides = sides._replace(tokens=layer(sides))
        assignment = self.assignment(sides.tokens.float(), sides.mask)
        matches, scores = mutual_matches(assignment, sides.mask, match_threshold)
        # Computed from an input because some runtimes fail on outputs that are constants.
        layers = (pairs[:, 0] * 0 + self.config.layers).to(torch.int32)
        return matches, scores, layers

    @property
    def precision(self) -> torch.dtype:
        """Type of the tokens."""
        return self.layers[0].cross_attention.feed_forward.norm.weight.dtype

    def begin(
        self,
        keypoints: Tensor,
        keypoint_mask: Tensor,
        descriptors: Tensor,
        image_sizes: Tensor,
        pairs: Tensor,
    ) -> Sides:
        """Prepare the input of the first layer from the inputs of `forward`."""
        precision = self.precision
        chosen = pairs.transpose(0, 1).flatten()
        slots = keypoints.shape[1]
        positions = _normalise_keypoints(keypoints, keypoint_mask, image_sizes)
        angles = self.frequencies(positions.flatten(0, 1))
        cosines, sines = (values.to(precision) for values in (angles.cos(), angles.sin()))
        rows = chosen.unsqueeze(1) * slots + torch.arange(slots)
        known = torch.where(keypoint_mask.unsqueeze(2), descriptors, 0.0)[chosen].to(precision)
        tokens = linear(self.input, known) if self.has_input else known
        return Sides(tokens, keypoint_mask[chosen], rows, cosines, sines)


def _normalise_keypoints(keypoints: Tensor, mask: Tensor, image_sizes: Tensor) -> Tensor:
    """Scale keypoints [N, K, 2]: 0 is the image's centre, its longer side -1 to 1; padded keypoints are 0."""
    # A sum, because ONNX Runtime finds the largest of integers by cuDNN, which takes 60 µs on an H100.
    has_keypoints = mask.float().sum(dim=1, keepdim=True) > 0
    sizes = torch.where(has_keypoints, image_sizes, 1.0).unsqueeze(1)
    centred = torch.where(mask.unsqueeze(-1), keypoints, 0.0) - sizes / 2
    return centred / (sizes.amax(dim=-1, keepdim=True) / 2)


def mutual_matches(assignment: Tensor, mask: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Find keypoints that are each other's best and score above the threshold (section 3.2).

    From an assignment [P, K, K] and a mask bool [2 P, K] follow the partners int32 [P, K], or -1, and their
    scores float32 [P, K], or 0.
    """
    score, partner = best_of_rows(assignment)
    is_mutual = best_of_columns(assignment).gather(1, partner) == torch.arange(assignment.shape[1])
    first, second = both_sides(mask)
    matched = is_mutual & first & second.gather(1, partner) & (score > threshold)
    return torch.where(matched, partner, -1).to(torch.int32), torch.where(matched, score, 0.0)
