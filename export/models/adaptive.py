"""LightGlue that pays only for what a pair needs: early stopping and point pruning, for each pair of a batch.

Each pair stops after the layer at which the reference stops when it is given that pair alone on the CPU, and
is matched by that layer's head; points that the reference prunes leave attention (section 3.3; forward of
cvg/LightGlue). What is left after each layer, pairs and points, is gathered into smaller tensors, down to
none, and an operation on nothing costs next to nothing. So there is no If and no Loop in the graph, whose
bodies ONNX Runtime optimises less, and one file serves all pairs in one run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightglue_ros.core.contract import MATCHER, OUTPUTS
from lightglue_ros.export.assembly import Free, Part, TensorSpec
from lightglue_ros.export.models.lightglue import (
    NEVER,
    Assignment,
    LightGlue,
    LightGlueConfig,
    Sides,
    both_sides,
    copy_linear,
    linear,
    mutual_matches,
)
from lightglue_ros.export.operators import compact, first_slots, where_true


class Going(NamedTuple):
    """The pairs that go on, P of them, and their points; sides are stacked as in `Sides`.

    Attributes:
        tokens: [2 P, K, width].
        mask: bool [2 P, K].
        rows: int64 [2 P, K], rows of the rotary encoding.
        slots: int64 [2 P, K], the slot of each point among its image's keypoints; no two are equal in a side.
        counts: float32 [P], keypoints that both images had.
        numbers: int64 [P], the number of each pair in the batch.
    """

    tokens: Tensor
    mask: Tensor
    rows: Tensor
    slots: Tensor
    counts: Tensor
    numbers: Tensor


class Ended(NamedTuple):
    """The pairs that ended after one layer, F of them.

    Attributes:
        numbers: int64 [F], the number of each pair in the batch.
        matches: int32 [F, K].
        scores: float32 [F, K].
        layers: int32 [F].
    """

    numbers: Tensor
    matches: Tensor
    scores: Tensor
    layers: Tensor


class AdaptiveLightGlue(LightGlue):
    """`LightGlue` with early stopping and point pruning."""

    kept_in_fp32 = (*LightGlue.kept_in_fp32, "earlier_assignments", "confidences")

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__(config)
        earlier = range(config.layers - 1)
        self.earlier_assignments = nn.ModuleList(Assignment(config.width) for _ in earlier)
        self.confidences = nn.ModuleList(nn.Linear(config.width, 1) for _ in earlier)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Read the weights."""
        super().load(weights)
        for number, (assignment, confidence) in enumerate(
            zip(self.earlier_assignments, self.confidences, strict=True)
        ):
            assignment.load(weights, f"log_assignment.{number}")
            copy_linear(confidence, weights, f"token_confidence.{number}.token.0")

    def forward(
        self,
        keypoints: Tensor,
        keypoint_mask: Tensor,
        descriptors: Tensor,
        image_sizes: Tensor,
        pairs: Tensor,
        match_threshold: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Matches [P, K], match scores [P, K] and layers [P], as of `LightGlue`."""
        *going, cosines, sines = self.start(keypoints, keypoint_mask, descriptors, image_sizes, pairs)
        ended, fields = [], len(Ended._fields)
        for number in range(self.config.layers):
            step = Step(self, number, keypoints.shape[1])
            constants = Step.constants(number, self.config.layers)
            found = step(*going, cosines, sines, match_threshold, *constants)
            ended.append(Ended(*found[:fields]))
            going = found[fields:]
        return in_order(ended)

    def start(
        self,
        keypoints: Tensor,
        keypoint_mask: Tensor,
        descriptors: Tensor,
        image_sizes: Tensor,
        pairs: Tensor,
    ) -> tuple[Tensor, ...]:
        """What goes into the first layer: the fields of `Going`, cosines and sines of the rotary encoding."""
        keypoints, keypoint_mask, descriptors = compact(keypoints, keypoint_mask, descriptors)
        sides = self.begin(keypoints, keypoint_mask, descriptors, image_sizes, pairs)
        slots = torch.zeros_like(sides.rows) + torch.arange(sides.rows.shape[1])
        first, second = keypoint_mask.sum(dim=1)[pairs].float().unbind(1)
        return *sides[:3], slots, first + second, torch.arange(pairs.shape[0]), *sides[3:]


class Step(nn.Module):
    """A layer, and what follows from it.

    All steps but the last one are the same but for their weights, and for `constants`.

    Args:
        matcher: whose layer it is.
        number: of the layer, from 0.
        slots: K of the matches.
    """

    def __init__(self, matcher: AdaptiveLightGlue, number: int, slots: int) -> None:
        super().__init__()
        config = matcher.config
        self.config, self.slots = config, slots
        self.layer = matcher.layers[number]
        self.is_last = number == config.layers - 1
        if self.is_last:
            self.assignment = matcher.assignment
            return
        self.assignment, self.confidence = matcher.earlier_assignments[number], matcher.confidences[number]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What ends here and what goes on: the fields of `Ended`, and, but for the last step, of `Going`.

        Args:
            inputs: the fields of `Going`, cosines and sines as `Sides` has them, the match threshold, and
                what `constants` gives.
        """
        *state, cosines, sines, match_threshold, layer, sure = inputs
        going = Going(*state)
        # Pairs that lack points on a side: the reference stops before a layer and counts that layer.
        lacking = torch.logical_or(*both_sides(~going.mask.any(dim=1)))
        going = going._replace(tokens=self.layer(Sides(*going[:3], cosines, sines)))
        tokens = going.tokens.float()
        stopping, keep = (~lacking, going.mask) if self.is_last else self._judge(tokens, going, sure)
        ending = where_true(stopping | lacking)
        ended = self._match(tokens, going, ending, match_threshold)
        layers = torch.zeros_like(ending, dtype=torch.int32) + layer
        if self.is_last:
            return *ended, layers
        return *ended, layers, *_go_on(going, keep, where_true(~(stopping | lacking)))

    @staticmethod
    def constants(number: int, layers: int) -> tuple[Tensor, Tensor]:
        """Layers gone through, int32 [1], and the confidence from which a point is sure, float32 [1].

        That is the reference's confidence_threshold (section 3.3, lambda of a layer).
        """
        sure = 0.8 + 0.1 * math.exp(-4.0 * number / layers)
        return torch.tensor([number + 1], dtype=torch.int32), torch.tensor([sure])

    def _judge(self, tokens: Tensor, going: Going, sure: Tensor) -> tuple[Tensor, Tensor]:
        """Which pairs stop after the layer, bool [P], and which points stay, bool [2 P, K]."""
        depth, width = self.config.depth_confidence, self.config.width_confidence
        stopping, keep = torch.zeros_like(going.counts, dtype=torch.bool), going.mask
        confidence = linear(self.confidence, tokens).sigmoid().squeeze(2)
        if depth != NEVER:
            unsure = sum(both_sides(((confidence < sure) & going.mask).sum(dim=1)))
            stopping = 1.0 - unsure.float() / going.counts > depth
        if width != NEVER:
            keep = self.assignment.matchable(tokens) > 1 - width
            if depth != NEVER:
                keep = keep | (confidence <= sure)
        return stopping, keep & going.mask

    def _match(
        self, tokens: Tensor, going: Going, ending: Tensor, match_threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers, matches and match scores of the pairs with the indices `ending`, in all slots."""
        sides = torch.cat([ending, ending + going.numbers.shape[0]])
        mask = going.mask[sides]
        slots0, slots1 = both_sides(going.slots[sides])
        partners, scores = mutual_matches(self.assignment(tokens[sides], mask), mask, match_threshold)
        partner_slots = slots1.gather(1, partners.clamp(min=0).long())
        matches = torch.where(partners >= 0, partner_slots, -1).to(torch.int32)
        all_scores = torch.zeros(ending.shape[0], self.slots)
        all_matches = torch.full(all_scores.shape, -1, dtype=torch.int32)
        return (
            going.numbers[ending],
            all_matches.scatter(1, slots0, matches),
            all_scores.scatter(1, slots0, scores),
        )


def in_order(ended: Sequence[Ended]) -> tuple[Tensor, Tensor, Tensor]:
    """Matches, match scores and layers of all pairs in the order of the batch."""
    numbers, matches, scores, layers = (torch.cat(parts) for parts in zip(*ended, strict=True))
    places = torch.zeros_like(numbers).scatter(0, numbers, torch.arange(numbers.shape[0]))
    return matches[places], scores[places], layers[places]


def _go_on(going: Going, keep: Tensor, pairs: Tensor) -> Going:
    """The pairs of these indices with the points to keep, in as many slots as that takes."""
    sides = torch.cat([pairs, pairs + going.numbers.shape[0]])
    keep = keep[sides]
    slots = keep.shape[1]
    # Points to keep come first, and in their order, which is that of their scores.
    rank = torch.arange(slots, 0, -1) + torch.where(keep, slots, 0)
    order = first_slots(rank.argsort(dim=1, descending=True), keep)
    place = (sides.unsqueeze(1) * slots + order).flatten()
    shape = order.shape

    def taken(values: Tensor) -> Tensor:
        return values.flatten(0, 1).index_select(0, place).view(*shape, *values.shape[2:])

    return Going(
        taken(going.tokens),
        keep.gather(1, order),
        taken(going.rows),
        taken(going.slots),
        going.counts[pairs],
        going.numbers[pairs],
    )


class _Start(nn.Module):
    """`AdaptiveLightGlue.start` as a part of a graph."""

    def __init__(self, matcher: AdaptiveLightGlue) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        keypoints, _scores, *others = inputs
        return self.matcher.start(keypoints, *others)


class _InOrder(nn.Module):
    """`in_order` as a part of a graph."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fields = len(Ended._fields)
        return in_order([Ended(*inputs[at : at + fields]) for at in range(0, len(inputs), fields)])


def parts(matcher: AdaptiveLightGlue, slots: int) -> list[Part]:
    """The matcher as parts of a graph from the contract's inputs of a matcher to its outputs.

    Args:
        matcher: the network.
        slots: K.
    """
    config = matcher.config
    precision = matcher.precision
    images, pairs, sides, points = Free("N"), Free("P"), Free("P", times=2), Free("K")
    encoding = TensorSpec(precision, (Free("R"), config.head_dim // 2))
    threshold = TensorSpec(torch.float32, (1,))
    going = {
        "tokens": TensorSpec(precision, (sides, points, config.width)),
        "mask": TensorSpec(torch.bool, (sides, points)),
        "rows": TensorSpec(torch.int64, (sides, points)),
        "slots": TensorSpec(torch.int64, (sides, points)),
        "counts": TensorSpec(torch.float32, (pairs,)),
        "numbers": TensorSpec(torch.int64, (pairs,)),
    }

    def going_into(number: int) -> dict[str, TensorSpec]:
        return {f"{name}{number}": spec for name, spec in going.items()}

    start = Part(
        "start",
        _Start(matcher),
        {
            "keypoints": TensorSpec(torch.float32, (images, slots, 2)),
            "keypoint_scores": TensorSpec(torch.float32, (images, slots)),
            "keypoint_mask": TensorSpec(torch.bool, (images, slots)),
            "descriptors": TensorSpec(torch.float32, (images, slots, config.input_dim)),
            "image_sizes": TensorSpec(torch.float32, (images, 2)),
            "pairs": TensorSpec(torch.int64, (pairs, 2)),
        },
        [*going_into(0), "cosines", "sines"],
    )
    steps, ended = [], {}
    for number in range(config.layers):
        layer, sure = Step.constants(number, config.layers)
        is_last = number == config.layers - 1
        ending = Free(f"F{number}")
        found = {
            f"ended{number}": TensorSpec(torch.int64, (ending,)),
            f"matches{number}": TensorSpec(torch.int32, (ending, slots)),
            f"scores{number}": TensorSpec(torch.float32, (ending, slots)),
            f"layers{number}": TensorSpec(torch.int32, (ending,)),
        }
        steps.append(
            Part(
                f"layer{number}",
                Step(matcher, number, slots),
                going_into(number)
                | {"cosines": encoding, "sines": encoding, "match_threshold": threshold}
                | {f"layer{number}": TensorSpec(torch.int32, (1,)), f"sure{number}": threshold},
                [*found, *({} if is_last else going_into(number + 1))],
                {f"layer{number}": layer, f"sure{number}": sure},
                traced_as=None if is_last else "layer",
            )
        )
        ended |= found
    return [start, *steps, Part("end", _InOrder(), ended, OUTPUTS[MATCHER])]
