"""Laws 1 to 3 of the contract on exported matchers: every model, and each pair of options together.

1. A pair's result does not depend on the rest of the batch, nor on the number of padded slots.
2. Values in padded slots, and sizes of images without keypoints, change nothing.
3. With few keypoints, none, or no pairs there are few matches or none, and no NaN.

The matchers have two or three layers: the second layer would show what the first leaves in padded slots, and
further layers are the same code. Most options are tested on LighterGlue, which has one head.

These combinations are only checked for being accepted; * stands for each value: fp32-gpu-full-static,
fp32-portable-*-*, fp32-cpu-width-dynamic, fp16-gpu-full-dynamic, fp16-portable-full-static, int8-cpu-full-*,
int8-cpu-depth-dynamic, int8-portable-full-dynamic and int8-portable-width-dynamic.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from itertools import combinations, product

import laws
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from laws import SLOTS, SPARSE_RIG, THIN_RIG, THRESHOLD, USUAL_RIG, Rig, rows

from lightglue_ros.core import ConfigError
from lightglue_ros.core.contract import INPUTS
from lightglue_ros.core.session import GraphSession
from lightglue_ros.export import MODELS, onnx_file
from lightglue_ros.export.models.adaptive import Active, Finished, Step
from lightglue_ros.export.models.lightglue import NEVER
from lightglue_ros.export.options import PRECISIONS, TARGETS, ExportOptions
from lightglue_ros.export.tracing import trace

# With these, some pairs of USUAL_RIG stop after the first layer, and points of other pairs are pruned.
DEPTH, WIDTH = {"depth_confidence": 0.075}, {"width_confidence": 0.5}
NO_DEPTH, NO_WIDTH = {"depth_confidence": NEVER}, {"width_confidence": NEVER}
ADAPTIVE = {
    "full": {},
    "depth": {"adaptive": True} | DEPTH | NO_WIDTH,
    "width": {"adaptive": True} | NO_DEPTH | WIDTH,
    "both": {"adaptive": True} | DEPTH | WIDTH,
}
STATIC = {"image_size": (64, 64), "batch": 4, "pairs": 4}  # the most that a rig has
COMBINATIONS = {
    "-".join(names): {
        "precision": names[0],
        "target": names[1],
        **ADAPTIVE[names[2]],
        **(STATIC if names[3] == "static" else {}),
    }
    for names in product(PRECISIONS, TARGETS, ADAPTIVE, ("dynamic", "static"))
}


def is_refused(options):
    """Pruning makes shapes depend on the points, and runs on CPUs only; fp16 is slow there, int8 fast."""
    on_gpu = options["target"] == "gpu"
    wrong_precision = (options["precision"], options["target"]) in (("fp16", "cpu"), ("int8", "gpu"))
    wrong_adaptive = on_gpu or options["precision"] == "fp16" or "image_size" in options
    return wrong_precision or (options.get("adaptive", False) and wrong_adaptive)


ALLOWED = {name: options for name, options in COMBINATIONS.items() if not is_refused(options)}
REFUSED = [options for options in COMBINATIONS.values() if is_refused(options)]
TRACED = (
    "fp32-cpu-full-static",
    "fp32-cpu-depth-dynamic",
    "fp32-gpu-full-dynamic",
    "fp32-portable-width-dynamic",
    "fp16-gpu-full-static",
    "fp16-portable-full-dynamic",
    "int8-cpu-width-dynamic",
    "int8-portable-depth-dynamic",
    "int8-portable-both-dynamic",
    "int8-portable-full-static",
)
# Models with other networks: their layers, combination of options, and confidences that suit their weights.
MODEL_ADAPTIVE = {"depth_confidence": 0.5, "width_confidence": 0.9}
OTHER_MODELS = {
    **{name: (2, "fp32-cpu-full-dynamic", {}) for name in ("disk", "aliked-t16")},
    "superpoint": (2, "fp32-gpu-full-dynamic", {}),  # four heads
    "aliked": (3, "fp32-cpu-both-dynamic", MODEL_ADAPTIVE),
    "disk-int8": (3, "int8-cpu-both-dynamic", MODEL_ADAPTIVE),
}
VARIANTS = {name: ("xfeat", 2, ALLOWED[name]) for name in TRACED} | {
    name: (name.removesuffix("-int8"), layers, ALLOWED[options] | confidences)
    for name, (layers, options, confidences) in OTHER_MODELS.items()
}


@dataclass(frozen=True)
class Matcher:
    """A file in ONNX Runtime, its graph in PyTorch, and features of five images."""

    session: GraphSession
    module: torch.nn.Module = field(repr=False)
    pool: dict[str, np.ndarray] = field(repr=False)

    @property
    def info(self):
        return self.session.info

    @property
    def tolerance(self):
        return laws.MATCH_TOLERANCE[self.info.precision]

    def match(self, features, pairs, threshold=THRESHOLD):
        """Match; a static file gets empty images, and pairs of an empty image, up to its batch."""
        if not self.info.is_static:
            return self.session.run(laws.with_pairs(features, pairs, threshold))
        images = self.info.batch - len(features["keypoints"])
        filled = {
            name: np.pad(array, [(0, images), *[(0, 0)] * (array.ndim - 1)])
            for name, array in features.items()
        }
        all_pairs = [*pairs, *[(self.info.batch - 1,) * 2] * (self.info.pairs - len(pairs))]
        return rows(self.session.run(laws.with_pairs(filled, all_pairs, threshold)), *range(len(pairs)))

    def match_in_torch(self, features, pairs):
        return laws.run_in_torch(self.module, laws.with_pairs(features, pairs, THRESHOLD))


@pytest.fixture(scope="module")
def pool_of(export_of, motorcycle):
    """Extract features of five images, in SLOTS slots."""

    @functools.cache
    def make(name):
        batch, sizes = laws.place(laws.views(motorcycle), (160, 128), MODELS[name])
        session = GraphSession(export_of(name).files[0], "extractor", provider="cpu", num_threads=1)
        features = session.run(batch)
        return {it: array[:, :SLOTS] for it, array in features.items()} | {"image_sizes": sizes}

    return make


@pytest.fixture(scope="module")
def matcher(request, small, pool_of, traced):
    name, layers, options = VARIANTS[request.param]
    made = small(name, layers=layers, split=True, max_keypoints=SLOTS, **options)

    def trace_once(part, **kind):
        """Adaptive exports of one precision differ only in the layer that knows the confidences."""
        if not made.options.adaptive:
            return trace(part, **kind)
        confidences = part.traced_as and (made.options.depth_confidence, made.options.width_confidence)
        key = name, made.options.precision, part.name, confidences, kind["target"]
        if key not in traced:
            traced[key] = trace(part, **kind)
        return traced[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "trace", trace_once)
        session = GraphSession(made.write("matcher"), "matcher", provider="cpu", num_threads=1)
    return Matcher(session, made.graphs["matcher"], pool_of(name))


@pytest.fixture(scope="module")
def traced():
    """Parts that are already traced."""
    return {}


of_each = pytest.mark.parametrize("matcher", VARIANTS, indirect=True, scope="module")


def test_only_options_that_go_together_are_taken():
    assert (len(ALLOWED), len(REFUSED)) == (26, 46)
    for options in ALLOWED.values():
        ExportOptions(**options).settle(MODELS["xfeat"])
    for options in REFUSED:
        with pytest.raises(ConfigError, match=r"^(adaptive|precision) is "):
            ExportOptions(**options).settle(MODELS["xfeat"])


def test_each_two_options_that_go_together_are_in_one_of_the_files():
    def pairs(names):
        return {pair for name in names for pair in combinations(enumerate(name.split("-")), 2)}

    assert pairs([*TRACED, *(options for _, options, _ in OTHER_MODELS.values())]) == pairs(ALLOWED)


@of_each
def test_images_of_one_place_are_matched_in_fewer_layers_and_with_fewer_points_if_wanted(matcher):
    """A matcher that finds nothing, or never stops or prunes, would pass the laws; here it fails."""
    info, features = matcher.info, laws.features_of(USUAL_RIG, matcher.pool)
    assert (features["keypoint_mask"].sum(axis=1) >= [30, 0, 30, 20]).all()
    found = matcher.match(features, USUAL_RIG.pairs)
    assert ((found["matches"] >= 0).sum(axis=1) >= [10, 5, 0, 5]).all()
    layers = set(found["layers"][[0, 1, 3]])  # pair 2 lacks keypoints
    if info.model == "xfeat":
        assert layers == ({1, 2} if info.depth_confidence != NEVER else {2})
    elif not info.adaptive:
        assert layers == {2}
    if info.model == "xfeat" and info.adaptive:
        before, after = points_of_a_pair(matcher.module.matcher, features)
        assert after < before if info.width_confidence != NEVER else after == before


def points_of_a_pair(network, features):
    """Count the keypoints of USUAL_RIG's first pair before and after the first layer."""
    inputs = laws.with_pairs(features, USUAL_RIG.pairs[:1], THRESHOLD)
    *inputs, threshold = (torch.from_numpy(inputs[name]) for name in INPUTS["matcher"])
    with torch.inference_mode():
        start = network.start(inputs[0], *inputs[2:])
        found = Step(network, 0, SLOTS)(*start, threshold, *Step.constants(0, network.config.layers))
    before, after = Active(*start[:-2]), Active(*found[len(Finished._fields) :])
    return int(before.mask.sum()), int(after.mask.sum())


@of_each
@settings(laws.quick, max_examples=3)
@given(
    rig=laws.rigs(),
    slots=st.integers(1, 100),
    values=st.lists(laws.poison, min_size=3, max_size=3),
    sizes=st.lists(laws.poison, min_size=2, max_size=2),
    threshold=st.floats(THRESHOLD, 1),
)
@example(rig=USUAL_RIG, slots=100, values=[np.nan] * 3, sizes=[np.nan] * 2, threshold=0.01)
@example(rig=THIN_RIG, slots=30, values=[-np.inf] * 3, sizes=[np.nan, 0], threshold=0.1)
@example(rig=SPARSE_RIG, slots=1, values=[1e30, np.inf, -np.inf], sizes=[0, np.inf], threshold=0.01)
@example(rig=Rig(((0, SLOTS),), ()), slots=7, values=[np.inf] * 3, sizes=[1e30] * 2, threshold=0.5)
def test_the_laws_are_kept(matcher, rig, slots, values, sizes, threshold):
    features = laws.features_of(rig, matcher.pool)
    found = matcher.match(features, rig.pairs)
    assert found["matches"].shape == found["match_scores"].shape == (len(rig.pairs), SLOTS)
    laws.assert_are_matches(found, THRESHOLD)
    assert_are_as_alone(matcher, features, rig.pairs, found)
    assert_are_as_with(slots, matcher, features, rig.pairs, found)
    laws.assert_same_bits(matcher.match(laws.poisoned(features, values, sizes), rig.pairs), found)
    counts = features["keypoint_mask"].sum(axis=1)
    fewest = np.array([min(counts[first], counts[second]) for first, second in rig.pairs], int)
    assert ((found["matches"] >= 0).sum(axis=1) <= fewest).all()
    assert_follow(threshold, matcher, features, rig.pairs, found)
    assert_are_mutual(matcher, features, rig.pairs, found)


def assert_are_as_alone(matcher, features, pairs, found):
    """Law 1: each pair has the matches that it has alone."""
    for row, pair in enumerate(pairs):
        alone = matcher.match(rows(features, *pair), [(0, 1)])
        assert found["layers"][row] == alone["layers"][0]
        laws.assert_same_matches(rows(found, row), alone, matcher.tolerance)


def assert_are_as_with(slots, matcher, features, pairs, found):
    """Law 1: with another number of slots PyTorch finds the same.

    fp32 files are compared with PyTorch. fp16 and int8 round in other places there, so PyTorch is compared
    with itself.
    """
    slots = max(slots, features["keypoint_mask"].sum(axis=1).max())
    if matcher.info.precision != "fp32":
        found = matcher.match_in_torch(features, pairs)
    expected = matcher.match_in_torch(laws.with_slots(features, slots), pairs)
    cut = {}
    for name, nothing in (("matches", -1), ("match_scores", 0)):
        assert (found[name][:, slots:] == nothing).all()
        assert (expected[name][:, SLOTS:] == nothing).all()
        expected[name] = expected[name][:, :SLOTS]
        cut[name] = found[name][:, :slots]
    laws.assert_same_matches(cut, expected, matcher.tolerance)


def assert_follow(threshold, matcher, features, pairs, found):
    """A higher threshold keeps exactly the matches that score above it."""
    strict = matcher.match(features, pairs, threshold)
    kept = found["match_scores"] > np.float32(threshold)
    np.testing.assert_array_equal(strict["matches"], np.where(kept, found["matches"], -1))
    np.testing.assert_array_equal(strict["match_scores"], np.where(kept, found["match_scores"], 0))


def assert_are_mutual(matcher, features, pairs, found):
    """The second image's matches are the first image's."""
    back = matcher.match(features, [pair[::-1] for pair in pairs])["matches"]
    row, slot = np.nonzero(found["match_scores"] > THRESHOLD + matcher.tolerance)
    np.testing.assert_array_equal(back[row, found["matches"][row, slot]], slot)
