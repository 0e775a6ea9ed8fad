"""Laws 1 to 3 of the contract (see test_laws.py) in every combination of the options that shape a matcher.

The matcher is LighterGlue's first two layers, which have one head; matchers with several heads and the other
models are in test_laws.py.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pytest
import small_matchers
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from laws import (
    POISON,
    SLOTS,
    THRESHOLD,
    TOLERANCES,
    USUAL_RIG,
    Rig,
    assert_are_matches,
    assert_same_bits,
    assert_same_matches,
    features_of,
    fewest_keypoints,
    match_in_torch,
    poisoned,
    quick,
    rigs,
    rows,
    run_in_torch,
    views,
    with_pairs,
    with_slots,
)

from lightglue_ros.core import ConfigError
from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.contract import INPUTS
from lightglue_ros.core.session import GraphSession
from lightglue_ros.export.graphs import ExtractorGraph
from lightglue_ros.export.models.adaptive import Ended, Going, Step
from lightglue_ros.export.models.lightglue import NEVER
from lightglue_ros.export.options import PRECISIONS, ExportOptions

# At these some pairs of USUAL_RIG stop after the first layer, and points of the others are pruned.
DEPTH, WIDTH = {"depth_confidence": 0.075}, {"width_confidence": 0.5}
NO_DEPTH, NO_WIDTH = {"depth_confidence": NEVER}, {"width_confidence": NEVER}
ADAPTIVE = {
    "full": {},
    "depth": {"adaptive": True} | DEPTH | NO_WIDTH,
    "width": {"adaptive": True} | NO_DEPTH | WIDTH,
    "both": {"adaptive": True} | DEPTH | WIDTH,
}
PROCESSES = 2
STATIC = {"image_size": (64, 64), "batch": 4, "pairs": 4}  # the most that a rig has
COMBINATIONS = {
    "-".join(names): ExportOptions(
        split=True,
        max_keypoints=SLOTS,
        precision=names[0],
        portable=names[1] == "portable",
        compaction=names[2] == "compacted",
        **ADAPTIVE[names[3]],
        **(STATIC if names[4] == "static" else {}),
    )
    for names in product(
        PRECISIONS, ("fused", "portable"), ("compacted", "padded"), ADAPTIVE, ("dynamic", "static")
    )
}


def is_refused(options):
    """Shapes that depend on what is in the images are free, and what is pruned is compacted."""
    follows_images = options.compaction or options.adaptive
    return bool(follows_images) if options.is_static else options.adaptive and not options.compaction


# Two pairs with more padding beside the third one than alone; and next to nothing.
THIN = Rig(((2, 30), (3, 30), (4, SLOTS)), ((0, 1), (1, 0), (2, 2)))
FEW = Rig(((0, 1), (1, SLOTS), (2, 0)), ((0, 1), (1, 2), (2, 2)))
ALLOWED = {name: options for name, options in COMBINATIONS.items() if not is_refused(options)}
REFUSED = [options for options in COMBINATIONS.values() if is_refused(options)]
# Some come to the same file: fp16 and static ones are never fused.
DISTINCT = {
    small_matchers.name(options.settle(small_matchers.SPEC)): name for name, options in ALLOWED.items()
}.values()


@dataclass(frozen=True)
class Matcher:
    """A file in ONNX Runtime, and the graph that it was made of in PyTorch."""

    options: ExportOptions
    session: GraphSession
    module: torch.nn.Module = field(repr=False)

    @property
    def tolerance(self):
        return TOLERANCES[self.options.precision].match_scores

    def match(self, features, pairs):
        """In a static file the images and pairs that are missing are empty, and the pairs of one such."""
        if not self.options.is_static:
            return self.session.run(with_pairs(features, pairs, THRESHOLD))
        images = self.options.batch - len(features["keypoints"])
        filled = {
            name: np.pad(array, [(0, images), *[(0, 0)] * (array.ndim - 1)])
            for name, array in features.items()
        }
        all_pairs = [*pairs, *[(self.options.batch - 1,) * 2] * (self.options.pairs - len(pairs))]
        return rows(self.session.run(with_pairs(filled, all_pairs, THRESHOLD)), *range(len(pairs)))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Of PyTorch: threads that wait for such small steps take the cores from the exporting processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def files(request, tmp_path_factory):
    """Gives the file of some options; processes export what the chosen tests need, in their order."""
    folder = tmp_path_factory.mktemp("options")
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    families = {}
    for name in (name for name in ALLOWED if {"matcher": name} in parameters):
        settled = ALLOWED[name].settle(small_matchers.SPEC)
        families.setdefault(family_of(settled), {})[small_matchers.name(settled)] = settled
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as processes:
        written = {
            name: processes.submit(small_matchers.write, list(family.values()), folder)
            for name, family in families.items()
        }

        def file_of(options):
            written[family_of(options)].result()
            return folder / f"{small_matchers.name(options)}.onnx"

        yield file_of
        processes.shutdown(cancel_futures=True)


def family_of(options):
    """What is traced alike (see `small_matchers.write`)."""
    return options.precision, options.is_fused, options.adaptive


@pytest.fixture(scope="module")
def matcher(request, files):
    options = ALLOWED[request.param].settle(small_matchers.SPEC)
    session = GraphSession(files(options), "matcher", provider="cpu", num_threads=1)
    return Matcher(options, session, small_matchers.load(options)[1])


@pytest.fixture(scope="module")
def pool(motorcycle):
    """XFeat's features of five images, in PyTorch."""
    images = views(motorcycle)
    extractor, _ = small_matchers.load(ExportOptions(split=True).settle(small_matchers.SPEC))
    batch = vars(Canvas((160, 128), 3, 32).place(images)) | {"max_keypoints": np.array([SLOTS])}
    features = run_in_torch(ExtractorGraph(extractor, SLOTS), "extractor", batch)
    return features | {"image_sizes": batch["image_sizes"]}


of_each = pytest.mark.parametrize("matcher", DISTINCT, indirect=True, scope="module")


def test_only_options_that_go_together_are_taken():
    assert (len(ALLOWED), len(DISTINCT), len(REFUSED)) == (36, 28, 60)
    for options in REFUSED:
        with pytest.raises(ConfigError, match=r"in an adaptive export|in a static export"):
            options.settle(small_matchers.SPEC)


@of_each
def test_images_of_one_place_are_matched_in_fewer_layers_and_with_fewer_points_if_wanted(matcher, pool):
    """Or the laws would be kept by finding nothing, or by doing nothing."""
    options, features = matcher.options, features_of(USUAL_RIG, pool)
    found = matcher.match(features, USUAL_RIG.pairs)
    assert ((found["matches"] >= 0).sum(axis=1) >= [10, 5, 0, 5]).all()
    layers = set(found["layers"][[0, 1, 3]])  # the other pair lacks keypoints
    assert layers == ({1, 2} if options.depth_confidence != NEVER else {2})
    if options.adaptive:
        before, after = points_of_a_pair(matcher.module.matcher, features)
        assert after < before if options.width_confidence != NEVER else after == before


def points_of_a_pair(network, features):
    """How many keypoints the first pair of USUAL_RIG has before and after the first layer."""
    inputs = with_pairs(features, USUAL_RIG.pairs[:1], THRESHOLD)
    *inputs, threshold = (torch.from_numpy(inputs[name]) for name in INPUTS["matcher"])
    with torch.inference_mode():
        start = network.start(inputs[0], *inputs[2:])
        step = Step(network, 0, SLOTS)
        found = step(*start, threshold, *Step.constants(0, small_matchers.LAYERS))
    before, after = Going(*start[:-2]), Going(*found[len(Ended._fields) :])
    return int(before.mask.sum()), int(after.mask.sum())


@of_each
@settings(quick, max_examples=2)
@given(
    rig=rigs(),
    slots=st.integers(1, 100),
    values=st.lists(st.sampled_from(POISON), min_size=3, max_size=3),
    sizes=st.lists(st.sampled_from(POISON), min_size=2, max_size=2),
)
@example(rig=USUAL_RIG, slots=100, values=[np.nan] * 3, sizes=[np.nan] * 2)
@example(rig=THIN, slots=30, values=[-np.inf] * 3, sizes=[np.nan, 0])
@example(rig=FEW, slots=1, values=[1e30, np.inf, -np.inf], sizes=[0, np.inf])
@example(rig=Rig(((0, SLOTS),), ()), slots=7, values=[np.inf] * 3, sizes=[1e30] * 2)
def test_the_laws_are_kept(matcher, pool, rig, slots, values, sizes):
    features = features_of(rig, pool)
    found = matcher.match(features, rig.pairs)
    assert_are_as_alone(matcher, features, rig.pairs, found)
    assert_are_as_with(slots, matcher, features, rig.pairs)
    assert_same_bits(matcher.match(poisoned(features, values, sizes), rig.pairs), found)
    assert found["matches"].shape == found["match_scores"].shape == (len(rig.pairs), SLOTS)
    assert_are_matches(found, THRESHOLD)
    assert ((found["matches"] >= 0).sum(axis=1) <= fewest_keypoints(features, rig.pairs)).all()


def assert_are_as_alone(matcher, features, pairs, found):
    """Law 1: what is matched of each pair is what is matched of it alone."""
    for row, pair in enumerate(pairs):
        alone = matcher.match(rows(features, *pair), [(0, 1)])
        assert found["layers"][row] == alone["layers"][0]
        assert_same_matches(rows(found, row), alone, matcher.tolerance)


def assert_are_as_with(slots, matcher, features, pairs):
    """Law 1: in PyTorch, what is matched in SLOTS slots is what is matched in so many, if not too few."""
    slots = max(slots, features["keypoint_mask"].sum(axis=1).max())
    found, expected = (
        match_in_torch(matcher.module, some, pairs) for some in (features, with_slots(features, slots))
    )
    for name, nothing in (("matches", -1), ("match_scores", 0)):
        assert (found[name][:, slots:] == nothing).all()
        assert (expected[name][:, SLOTS:] == nothing).all()
        expected[name] = expected[name][:, :SLOTS]
        found[name] = found[name][:, :slots]
    assert_same_matches(found, expected, matcher.tolerance)
