"""LightGlue with early stopping and point pruning for each pair of a batch (section 3.3).

Each pair stops after the layer at which the reference, cvg/LightGlue, stops if it runs that pair alone on the
CPU, and is matched by that layer's head. Points that the reference prunes leave attention.

After each layer the remaining pairs and points are gathered into smaller tensors, which may become empty; an
operation on an empty tensor costs almost nothing. So the graph needs no If and no Loop, whose bodies ONNX
Runtime optimises less, and one run serves all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightglue_ros.core.contract import INPUTS, MATCHER, OUTPUTS
from lightglue_ros.export.models.lightglue import NEVER, Assignment, LightGlue, mutual_matches
from lightglue_ros.export.models.transformer import LightGlueConfig, Sides, both_sides, copy_linear, linear
from lightglue_ros.export.operators.slots import compact, first_slots, where_true
from lightglue_ros.export.tracing import Free, Part, TensorSpec


class Active(NamedTuple):
    """The P pairs that continue, and their points; sides are stacked as in `Sides`."""

    tokens: Tensor  # [2 P, K, width]
    mask: Tensor  # bool [2 P, K]
    rows: Tensor  # int64 [2 P, K], rows of the rotary encoding
    slots: Tensor  # int64 [2 P, K], slot of each point among its image's keypoints, unique within a side
    counts: Tensor  # float32 [P], sum of the keypoint counts of both images
    numbers: Tensor  # int64 [P], index of each pair in the batch


class Finished(NamedTuple):
    """The F pairs that stopped after one layer."""

    numbers: Tensor  # int64 [F], index of each pair in the batch
    matches: Tensor  # int32 [F, K]
    scores: Tensor  # float32 [F, K]
    layers: Tensor  # int32 [F]


class AdaptiveLightGlue(LightGlue):
    """`LightGlue` with early stopping and point pruning."""

    kept_in_fp32 = (*LightGlue.kept_in_fp32, "earlier_assignments", "confidences")

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__(config)
        earlier = range(config.layers - 1)
        self.earlier_assignments = nn.ModuleList(Assignment(config) for _ in earlier)
        self.confidences = nn.ModuleList(nn.Linear(config.width, 1) for _ in earlier)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Read the weights."""
        super().load(weights)
        for number, (assignment, confidence) in enumerate(
            zip(self.earlier_assignments, self.confidences, strict=True)
        ):
            assignment.load(weights, f"log_assignment.{number}", missing=torch.zeros(self.config.width))
            copy_linear(confidence, weights, f"token_confidence.{number}.token.0")

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return matches [P, K], match scores [P, K] and layers [P] for the inputs of `LightGlue.forward`."""
        *features, match_threshold = inputs
        *active, cosines, sines = self.start(*features)
        finished, fields = [], len(Finished._fields)
        for number in range(self.config.layers):
            step = Step(self, number, features[0].shape[1])
            constants = Step.constants(number, self.config.layers)
            found = step(*active, cosines, sines, match_threshold, *constants)
            finished += found[:fields]
            active = found[fields:]
        return InOrder()(*finished)

    def start(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Prepare the first layer: the fields of `Active`, then cosines and sines of the rotary encoding."""
        *features, image_sizes, pairs = inputs
        features = compact(*features)
        sides = self.begin(*features, image_sizes, pairs)
        slots = torch.zeros_like(sides.rows) + torch.arange(sides.rows.shape[1])
        first, second = features[1].sum(dim=1)[pairs].float().unbind(1)
        return *sides[:3], slots, first + second, torch.arange(pairs.shape[0]), *sides[3:]


class Step(nn.Module):
    """A layer, and the decision which pairs and points continue; matches have K = `slots`.

    All steps except the last differ only in their weights and `constants`.
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
        """Return the fields of `Finished` and, except in the last step, the fields of `Active`.

        Inputs are the fields of `Active`, cosines and sines as in `Sides`, the threshold and `constants`.
        """
        *state, cosines, sines, match_threshold, layer, sure = inputs
        active = Active(*state)
        # Without points on one side the reference stops before a layer, and counts this layer.
        lacking = torch.logical_or(*both_sides(~active.mask.any(dim=1)))
        active = active._replace(tokens=self.layer(Sides(*active[:3], cosines, sines)))
        tokens = active.tokens.float()
        stopping, keep = (~lacking, active.mask) if self.is_last else self._judge(tokens, active, sure)
        ending = where_true(stopping | lacking)
        finished = self._match(tokens, active, ending, match_threshold)
        layers = torch.zeros_like(ending, dtype=torch.int32) + layer
        if self.is_last:
            return *finished, layers
        return *finished, layers, *_continue(active, keep, where_true(~(stopping | lacking)))

    @staticmethod
    def constants(number: int, layers: int) -> tuple[Tensor, Tensor]:
        """Return the number of layers so far, int32 [1], and the confidence threshold of points, float32 [1].

        The threshold is the reference's confidence_threshold (section 3.3, lambda of a layer).
        """
        sure = 0.8 + 0.1 * math.exp(-4.0 * number / layers)
        return torch.tensor([number + 1], dtype=torch.int32), torch.tensor([sure])

    def _judge(self, tokens: Tensor, active: Active, sure: Tensor) -> tuple[Tensor, Tensor]:
        """Decide which pairs stop after the layer, bool [P], and which points stay, bool [2 P, K]."""
        depth, width = self.config.depth_confidence, self.config.width_confidence
        stopping, keep = torch.zeros_like(active.counts, dtype=torch.bool), active.mask
        confidence = linear(self.confidence, tokens).sigmoid().squeeze(2)
        if depth != NEVER:
            unsure = sum(both_sides(((confidence < sure) & active.mask).sum(dim=1)))
            stopping = 1.0 - unsure.float() / active.counts > depth
        if width != NEVER:
            keep = self.assignment.matchable(tokens) > 1 - width
            if depth != NEVER:
                keep = keep | (confidence <= sure)
        return stopping, keep & active.mask

    def _match(
        self, tokens: Tensor, active: Active, ending: Tensor, match_threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return numbers, matches and match scores, in all slots, of the pairs with the indices `ending`."""
        sides = torch.cat([ending, ending + active.numbers.shape[0]])
        mask = active.mask[sides]
        slots0, slots1 = both_sides(active.slots[sides])
        partners, scores = mutual_matches(self.assignment(tokens[sides], mask), mask, match_threshold)
        partner_slots = slots1.gather(1, partners.clamp(min=0).long())
        matches = torch.where(partners >= 0, partner_slots, -1).to(torch.int32)
        all_scores = torch.zeros(ending.shape[0], self.slots)
        all_matches = torch.full(all_scores.shape, -1, dtype=torch.int32)
        return (
            active.numbers[ending],
            all_matches.scatter(1, slots0, matches),
            all_scores.scatter(1, slots0, scores),
        )


class InOrder(nn.Module):
    """Results of all pairs in the order of the batch."""

    def forward(self, *finished: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return matches, match scores and layers, given the fields of `Finished` of each step."""
        fields = len(Finished._fields)
        numbers, matches, scores, layers = (torch.cat(finished[field::fields]) for field in range(fields))
        places = torch.zeros_like(numbers).scatter(0, numbers, torch.arange(numbers.shape[0]))
        return matches[places], scores[places], layers[places]


def _continue(active: Active, keep: Tensor, pairs: Tensor) -> Active:
    """Gather the pairs with these indices, and their points to keep, into as few slots as possible."""
    sides = torch.cat([pairs, pairs + active.numbers.shape[0]])
    keep = keep[sides]
    slots = keep.shape[1]
    # Points to keep come first, in the order that they had, which is that of their scores.
    rank = torch.arange(slots, 0, -1) + torch.where(keep, slots, 0)
    order = first_slots(rank.argsort(dim=1, descending=True), keep)
    place = (sides.unsqueeze(1) * slots + order).flatten()
    tokens, rows, slots_left = (
        values.flatten(0, 1).index_select(0, place).view(*order.shape, *values.shape[2:])
        for values in (active.tokens, active.rows, active.slots)
    )
    return Active(
        tokens, keep.gather(1, order), rows, slots_left, active.counts[pairs], active.numbers[pairs]
    )


class _Start(nn.Module):
    """`AdaptiveLightGlue.start` as a part."""

    def __init__(self, matcher: AdaptiveLightGlue) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        keypoints, _scores, *others = inputs
        return self.matcher.start(keypoints, *others)


def matcher_parts(matcher: AdaptiveLightGlue, specs: Mapping[str, TensorSpec]) -> list[Part]:
    """Return the parts of a graph from the contract's inputs of a matcher to its outputs."""
    config, slots, threshold = matcher.config, specs["keypoints"].axes[1], specs["match_threshold"]
    pairs, sides, points = Free("P"), Free("P", times=2), Free("K")
    encoding = TensorSpec(matcher.precision, (Free("R"), config.encoding_dim))
    active = {
        "tokens": TensorSpec(matcher.precision, (sides, points, config.width)),
        "mask": TensorSpec(torch.bool, (sides, points)),
        "rows": TensorSpec(torch.int64, (sides, points)),
        "slots": TensorSpec(torch.int64, (sides, points)),
        "counts": TensorSpec(torch.float32, (pairs,)),
        "numbers": TensorSpec(torch.int64, (pairs,)),
    }

    def entering(number: int) -> dict[str, TensorSpec]:
        return {f"{name}{number}": spec for name, spec in active.items()}

    inputs = {name: specs[name] for name in INPUTS[MATCHER] if name != "match_threshold"}
    start = Part("start", _Start(matcher), inputs, [*entering(0), "cosines", "sines"])
    steps, finished = [], {}
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
        inputs = entering(number) | {"cosines": encoding, "sines": encoding, "match_threshold": threshold}
        inputs |= {f"layer{number}": TensorSpec(torch.int32, (1,)), f"sure{number}": threshold}
        outputs = [*found, *({} if is_last else entering(number + 1))]
        constants = {f"layer{number}": layer, f"sure{number}": sure}
        name, traced_as = f"layer{number}", None if is_last else "layer"
        steps.append(Part(name, Step(matcher, number, slots), inputs, outputs, constants, traced_as))
        finished |= found
    return [start, *steps, Part("end", InOrder(), finished, OUTPUTS[MATCHER])]
