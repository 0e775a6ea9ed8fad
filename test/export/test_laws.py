"""Laws 1 to 3 of the contract on the exported files, for every model: what batch and padding must not do.

1. A pair's result does not depend on what else is in the batch, nor on how many slots are padded.
2. Whatever stands in padded slots, in invalid images and in their sizes and scales changes nothing.
3. Few keypoints, none, black images, tiny canvases and no pairs give few matches or none, all finite.

Extractors are the files that are compared with the originals. Matchers have two layers: what the first one
leaves in padded slots the second would bring out, and further layers are the same code. aliked stands for
aliked-n16rot and aliked-n32: its network with other weights, and more samples to a descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from laws import (
    FEATURES,
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
    random_bytes,
    rigs,
    rows,
    run_in_torch,
    views,
    with_pairs,
    with_slots,
)

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.session import GraphSession
from lightglue_ros.export.graphs import ExtractorGraph, MatcherGraph
from lightglue_ros.export.options import ExportOptions
from lightglue_ros.export.registry import ModelSpec

BORDERS = {"superpoint": 4}  # pixels along the edges of an image where no keypoint comes out; 0 of others
extracting = settings(quick, max_examples=15)
matching = settings(quick, max_examples=25)


# Extractors do not know of pairs that end early, and of int8 XFeat alone.
EXTRACTORS = ("xfeat", "xfeat-fp16", "xfeat-int8", "disk", "aliked", "aliked-t16", "superpoint")
MATCHERS = (*EXTRACTORS, "aliked-adaptive", "disk-adaptive-int8")
of_extractors = pytest.mark.parametrize("graphs", EXTRACTORS, indirect=True, scope="session")
of_matchers = pytest.mark.parametrize("graphs", MATCHERS, indirect=True, scope="session")
LAYERS = 2  # of the matchers
ADAPTIVE = {"layers": 3, "adaptive": True, "depth_confidence": 0.5, "width_confidence": 0.9}


@dataclass(frozen=True)
class Graphs:
    """A model's files in ONNX Runtime, and its networks in PyTorch (ALIKED's without DeformConv)."""

    spec: ModelSpec = field(repr=False)
    extractor: GraphSession
    matcher: GraphSession
    networks: tuple[torch.nn.Module, torch.nn.Module] = field(repr=False)
    options: ExportOptions

    @property
    def precision(self):
        return self.options.precision

    @property
    def tolerance(self):
        return TOLERANCES[self.precision]

    def place(self, images, image_size, limit=SLOTS):
        """What the extractor takes."""
        batch = vars(Canvas(image_size, self.spec.channels, self.spec.divisor).place(images))
        batch.pop("image_sizes")
        return batch | {"max_keypoints": np.array([limit])}

    def extract(self, batch):
        """The features of images, in SLOTS slots."""
        found = self.extractor.run(batch)
        assert not found["keypoint_mask"][:, SLOTS:].any()
        return {name: array[:, :SLOTS] for name, array in found.items()}

    def match(self, features, pairs, threshold=THRESHOLD):
        return self.matcher.run(with_pairs(features, pairs, threshold))

    def extract_in_torch(self, batch, slots):
        return run_in_torch(ExtractorGraph(self.networks[0], slots), "extractor", batch)

    def match_in_torch(self, features, pairs):
        return match_in_torch(MatcherGraph(self.networks[1]), features, pairs)


@pytest.fixture(scope="session")
def graphs(request, networks, write_graph, export_of):
    name, precision, adaptive = _variant(request.param)
    chosen = {"split": True, "max_keypoints": SLOTS, "precision": precision, **adaptive}
    spec, parts = networks(name, **{"layers": LAYERS, **chosen})
    chosen.pop("layers", None)
    options = ExportOptions(**chosen)
    is_rounded = precision == "fp16" or (precision == "int8" and parts[0].int8_layers)
    extractor_file = (
        write_graph("extractor", spec, parts, options) if is_rounded else export_of(name).files[0]
    )
    return Graphs(
        spec,
        GraphSession(extractor_file, "extractor", provider="cpu"),
        GraphSession(write_graph("matcher", spec, parts, options), "matcher", provider="cpu"),
        parts,
        options,
    )


def _variant(name):
    """Model, precision and adaptive options of a name such as disk-adaptive-int8."""
    model, _, precision = name.rpartition("-")
    if precision not in ("fp16", "int8"):
        model, precision = name, "fp32"
    plain = model.removesuffix("-adaptive")
    adaptive = ADAPTIVE if plain != model else {}
    if plain == "xfeat":  # which only prunes, unless told otherwise
        adaptive = {name: value for name, value in adaptive.items() if name != "depth_confidence"}
    return plain, precision, adaptive


@dataclass(frozen=True)
class Picture:
    """A part of a photo, noise of that size, or black."""

    kind: str
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Frame:
    """Pictures, or None in empty slots, and the (width, height) of a canvas, which is rounded up."""

    pictures: tuple[Picture | None, ...]
    image_size: tuple[int, int]


pictures = st.builds(
    Picture,
    kind=st.sampled_from(["photo", "photo", "noise", "black"]),
    x=st.integers(0, 500),
    y=st.integers(0, 300),
    width=st.integers(1, 160),
    height=st.integers(1, 120),
)
frames = st.builds(
    Frame,
    st.lists(st.none() | pictures, min_size=1, max_size=3).map(tuple),
    st.tuples(st.integers(1, 128), st.integers(1, 96)),
)
USUAL_FRAME = Frame(
    (Picture("photo", 230, 200, 120, 90), None, Picture("photo", 238, 200, 160, 120)), (128, 96)
)
limits = st.integers(1, SLOTS)


@pytest.fixture(scope="session")
def paint(motorcycle):
    """Makes uint8 [H, W, 3] of pictures."""

    def paint(picture):
        if picture is None:
            return None
        height, width = picture.height, picture.width
        if picture.kind == "photo":
            return motorcycle[0][picture.y :, picture.x :][:height, :width]
        return random_bytes(height, width, 3) * np.uint8(picture.kind == "noise")

    return paint


@pytest.fixture(scope="session")
def pool(graphs, motorcycle):
    """Features of five images."""
    images = views(motorcycle)
    sizes = np.array([image.shape[1::-1] for image in images], np.float32)
    return graphs.extract(graphs.place(images, (160, 128))) | {"image_sizes": sizes}


def assert_same_features(found, expected, tolerance):
    np.testing.assert_array_equal(found["keypoint_mask"], expected["keypoint_mask"])
    best = max(1, expected["keypoint_scores"].max(initial=0))
    for name in FEATURES:
        scale = best if name == "keypoint_scores" else 1
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance * scale, err_msg=name)


@of_matchers
def test_images_of_one_place_are_matched(graphs, pool):
    """Or the laws would be kept by finding nothing."""
    features = features_of(USUAL_RIG, pool)
    assert (features["keypoint_mask"].sum(axis=1) >= [30, 0, 30, 20]).all()
    found = graphs.match(features, USUAL_RIG.pairs)
    assert ((found["matches"] >= 0).sum(axis=1) >= [10, 5, 0, 5]).all()
    if not graphs.options.adaptive:
        assert (found["layers"] == LAYERS).all()


@of_matchers
@matching
@given(rig=rigs())
@example(rig=USUAL_RIG)
def test_a_pair_is_matched_alone_as_in_a_batch(graphs, pool, rig):
    features = features_of(rig, pool)
    together = graphs.match(features, rig.pairs)
    assert together["matches"].shape == (len(rig.pairs), SLOTS)
    for row, pair in enumerate(rig.pairs):
        alone = graphs.match(rows(features, *pair), [(0, 1)])
        assert_same_matches(rows(together, row), alone, graphs.tolerance.match_scores)


@of_matchers
@matching
@given(rig=rigs(), slots=st.integers(1, 100))
@example(rig=USUAL_RIG, slots=100)
def test_a_pair_is_matched_alike_with_any_number_of_slots(graphs, pool, rig, slots):
    """Against PyTorch, and in float16 and int8, which round elsewhere there, PyTorch with itself."""
    features = features_of(rig, pool)
    slots = max(slots, features["keypoint_mask"].sum(axis=1).max())
    found = (graphs.match if graphs.precision == "fp32" else graphs.match_in_torch)(features, rig.pairs)
    expected = graphs.match_in_torch(with_slots(features, slots), rig.pairs)
    for name, nothing in (("matches", -1), ("match_scores", 0)):
        assert (found[name][:, slots:] == nothing).all()
        assert (expected[name][:, SLOTS:] == nothing).all()
        expected[name] = expected[name][:, :SLOTS]
        found[name] = found[name][:, :slots]
    assert_same_matches(found, expected, graphs.tolerance.match_scores)


@of_extractors
@extracting
@given(frame=frames, slot=st.integers(0, 2), limit=limits)
@example(frame=USUAL_FRAME, slot=2, limit=SLOTS)
def test_an_image_is_extracted_alone_as_in_a_batch(graphs, paint, frame, slot, limit):
    images = [paint(picture) for picture in frame.pictures]
    slot %= len(images)
    together = graphs.extract(graphs.place(images, frame.image_size, limit))
    alone = graphs.extract(graphs.place([images[slot]], frame.image_size, limit))
    assert_same_features(rows(together, slot), alone, graphs.tolerance.features)


@of_extractors
@extracting
@given(frame=frames, slots=st.integers(1, 100), limit=limits)
@example(frame=USUAL_FRAME, slots=100, limit=SLOTS)
def test_an_image_is_extracted_alike_with_any_number_of_slots(graphs, paint, frame, slots, limit):
    """Against PyTorch, and in float16, whose rounding chooses other keypoints there, PyTorch with itself."""
    limit = min(slots, limit)
    batch = graphs.place(list(map(paint, frame.pictures)), frame.image_size, limit)
    expected = graphs.extract_in_torch(batch, slots)
    found = graphs.extract(batch) if graphs.precision == "fp32" else graphs.extract_in_torch(batch, SLOTS)
    assert not found["keypoint_mask"][:, limit:].any()
    assert not expected["keypoint_mask"][:, limit:].any()
    assert_same_features(
        {name: array[:, :limit] for name, array in found.items()},
        {name: array[:, :limit] for name, array in expected.items()},
        graphs.tolerance.features,
    )


@of_matchers
@matching
@given(
    rig=rigs(),
    values=st.lists(st.sampled_from(POISON), min_size=3, max_size=3),
    sizes=st.lists(st.sampled_from(POISON), min_size=2, max_size=2),
)
@example(rig=USUAL_RIG, values=[np.nan] * 3, sizes=[np.nan] * 2)
@example(rig=USUAL_RIG, values=[1e30, np.inf, -np.inf], sizes=[np.inf, 1e30])
def test_padded_slots_are_not_looked_at(graphs, pool, rig, values, sizes):
    """Neither are sizes of images without keypoints."""
    clean = features_of(rig, pool)
    dirty = poisoned(clean, values, sizes)
    assert_same_bits(graphs.match(dirty, rig.pairs), graphs.match(clean, rig.pairs))


@of_extractors
@extracting
@given(frame=frames, slot=st.integers(0, 3), values=st.lists(st.sampled_from(POISON), min_size=4, max_size=4))
@example(frame=USUAL_FRAME, slot=1, values=[np.nan] * 4)
@example(frame=USUAL_FRAME, slot=0, values=[np.inf, 1e30, 0.0, -np.inf])
def test_invalid_images_are_not_looked_at(graphs, paint, frame, slot, values):
    images = list(map(paint, frame.pictures))
    images.insert(slot, None)
    clean = graphs.place(images, frame.image_size)
    dirty = with_dirt(clean, values)
    assert_same_bits(graphs.extract(dirty), graphs.extract(clean))


def with_dirt(batch, values):
    """The batch with random bytes as images in its invalid slots, and values as their sizes and scales."""
    dirty = {name: array.copy() for name, array in batch.items()}
    invalid = ~batch["valid"]
    dirty["images"][invalid] = random_bytes(*batch["images"].shape[1:])
    dirty["sizes"][invalid], dirty["scales"][invalid] = values[:2], values[2:]
    return dirty


@of_matchers
@matching
@given(rig=rigs(counts=(0, 1)), threshold=st.sampled_from([0.0, THRESHOLD]))
@example(rig=Rig(((0, 0),), ((0, 0),)), threshold=0.0)
@example(rig=Rig(((0, 1),), ((0, 0),)), threshold=0.0)
@example(rig=Rig(((0, SLOTS), (1, 0)), ((0, 1), (1, 0))), threshold=0.0)
@example(rig=Rig(((0, SLOTS),), ()), threshold=0.0)
def test_images_with_one_keypoint_or_none_match_at_most_those(graphs, pool, rig, threshold):
    features = features_of(rig, pool)
    found = graphs.match(features, rig.pairs, threshold)
    assert found["matches"].shape == found["match_scores"].shape == (len(rig.pairs), SLOTS)
    assert_are_matches(found, threshold)
    assert ((found["matches"] >= 0).sum(axis=1) <= fewest_keypoints(features, rig.pairs)).all()
    if not graphs.options.adaptive:
        assert (found["layers"] == LAYERS).all()


@of_extractors
@extracting
@given(frame=frames)
@example(frame=USUAL_FRAME)
@example(frame=Frame((Picture("black", 0, 0, 128, 96), USUAL_FRAME.pictures[0]), (128, 96)))
@example(frame=Frame(USUAL_FRAME.pictures, (1, 1)))
@example(frame=Frame((None,), (64, 64)))
def test_any_images_give_finite_features_and_matches(graphs, paint, frame):
    """Of any canvas; none are of black images."""
    features = graphs.extract(graphs.place(list(map(paint, frame.pictures)), frame.image_size))
    for name in FEATURES:
        assert np.isfinite(features[name]).all(), name
    for picture, mask in zip(frame.pictures, features["keypoint_mask"], strict=True):
        assert (picture is not None and picture.kind != "black") or not mask.any()
    slots = range(len(frame.pictures))
    sizes = [(picture.width, picture.height) if picture else (1, 1) for picture in frame.pictures]
    features["image_sizes"] = np.array(sizes, np.float32)
    pairs = [(first, second) for first in slots for second in slots]
    assert_are_matches(graphs.match(features, pairs, 0.0), 0.0)


@of_extractors
@extracting
@given(frame=frames)
@example(frame=USUAL_FRAME)
def test_grey_images_are_as_colours_that_are_equal(graphs, paint, frame):
    images = [picture and paint(picture)[..., 1] for picture in frame.pictures]
    batch = graphs.place(images, frame.image_size)
    grey = batch["images"][..., :1]
    found, expected = (graphs.extract(batch | {"images": grey.repeat(count, axis=3)}) for count in (1, 3))
    assert_same_bits(found, expected)


@of_extractors
@extracting
@given(frame=frames, limit=limits)
@example(frame=USUAL_FRAME, limit=SLOTS)
def test_keypoints_come_best_first_inside_the_image_and_the_rest_is_zero(graphs, paint, frame, limit):
    """Whatever is beside the image."""
    batch = graphs.place(list(map(paint, frame.pictures)), frame.image_size, limit)
    images, beside = batch["images"], random_bytes(*batch["images"].shape)
    for slot, (width, height) in enumerate(batch["sizes"].astype(int)):
        beside[slot, :height, :width] = images[slot, :height, :width]
    found = graphs.extract(batch | {"images": beside})
    mask, scores = found["keypoint_mask"], found["keypoint_scores"]
    assert (mask.sum(axis=1) <= limit * batch["valid"]).all()
    assert (np.diff(mask.astype(int), axis=1) <= 0).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (scores[mask] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(found["descriptors"][mask], axis=1), 1, atol=1e-5)
    for name in FEATURES:
        assert not found[name][~mask].view(np.uint8).any(), name
    border = BORDERS.get(graphs.spec.name, 0)
    scales, sizes = batch["scales"][:, None], batch["sizes"][:, None]
    on_canvas = (found["keypoints"] + 0.5) * scales - 0.5
    inside = (on_canvas >= border - 1e-3) & (on_canvas <= sizes - 1 - border + 1e-3)
    assert inside[mask].all()


@of_matchers
@matching
@given(rig=rigs(), threshold=st.floats(THRESHOLD, 1))
@example(rig=USUAL_RIG, threshold=0.01)
def test_matches_score_above_the_threshold_and_are_mutual(graphs, pool, rig, threshold):
    features = features_of(rig, pool)
    pairs = (*rig.pairs, *(pair[::-1] for pair in rig.pairs))
    usual, strict = graphs.match(features, pairs), graphs.match(features, pairs, threshold)
    assert_are_matches(usual, THRESHOLD)
    kept = usual["match_scores"] > np.float32(threshold)
    np.testing.assert_array_equal(strict["matches"], np.where(kept, usual["matches"], -1))
    np.testing.assert_array_equal(strict["match_scores"], np.where(kept, usual["match_scores"], 0))
    there, back = np.split(usual["matches"], 2)
    row, slot = np.nonzero(np.split(usual["match_scores"], 2)[0] > THRESHOLD + graphs.tolerance.match_scores)
    np.testing.assert_array_equal(back[row, there[row, slot]], slot)


@extracting
@given(frame=frames, slot=st.integers(0, 3), values=st.lists(st.sampled_from(POISON), min_size=4, max_size=4))
@example(frame=USUAL_FRAME, slot=1, values=[np.nan] * 4)
@pytest.mark.parametrize("model", ["xfeat"], indirect=True)
def test_invalid_images_are_not_looked_at_by_the_pipeline(pipeline, place, paint, frame, slot, values):
    """Neither for matches, nor where there are no pairs."""
    images = list(map(paint, frame.pictures))
    images.insert(slot, None)
    clean = place(images, frame.image_size)
    clean.pop("image_sizes")
    dirty = with_dirt(clean, values)
    empty = clean["valid"].argmin()
    for pairs in ([(0, empty), (empty, 0), (0, len(images) - 1)], []):
        found, expected = (pipeline.run(with_pairs(batch, pairs, THRESHOLD)) for batch in (dirty, clean))
        assert_same_bits(found, expected)
        assert found["matches"].shape == (len(pairs), 512)
        assert (found["matches"][:2] == -1).all()
