"""Laws 1 to 3 of the contract on the exported extractors of every model, and on XFeat's pipeline.

1. An image's features do not depend on the rest of the batch, nor on the number of padded slots.
2. Bytes, sizes and scales of invalid images change nothing.
3. All features are finite; black images have no keypoints.

aliked stands for aliked-n16rot and aliked-n32, whose network differs in weights and sample counts only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import laws
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from laws import FEATURES, SLOTS, THRESHOLD, rows

from lightglue_ros.core.masks import Mask
from lightglue_ros.core.session import GraphSession
from lightglue_ros.export.graphs import ExtractorGraph

# fp16 has the form for GPUs.
EXTRACTORS = (
    "xfeat",
    "xfeat-fp16",
    "xfeat-int8",
    "xfeat-subpixel",
    "disk",
    "disk-gpu",
    "aliked",
    "aliked-t16",
    "superpoint",
)
VARIANTS = {
    "fp16": {"precision": "fp16"},
    "int8": {"precision": "int8"},
    "gpu": {"target": "gpu"},
    "subpixel": {"subpixel": True},
}
BORDERS = {"superpoint": 4}  # pixels along the edges of an image without keypoints; 0 for other models


@dataclass(frozen=True)
class Extractor:
    """A file in ONNX Runtime, and its network in PyTorch (ALIKED's without DeformConv)."""

    session: GraphSession
    network: torch.nn.Module = field(repr=False)

    @property
    def precision(self):
        return self.session.info.precision

    def place(self, images, image_size, limit=SLOTS):
        return laws.place(images, image_size, self.session.info, limit)[0]

    def extract(self, batch):
        """Extract features into SLOTS slots."""
        found = self.session.run(batch)
        assert not found["keypoint_mask"][:, SLOTS:].any()
        return {name: array[:, :SLOTS] for name, array in found.items()}

    def extract_in_torch(self, batch, slots):
        return laws.run_in_torch(ExtractorGraph(self.network, slots), batch)


@pytest.fixture(scope="session")
def extractor(request, small, export_of):
    name, _, variant = request.param.rpartition("-")
    if variant not in VARIANTS:
        name, variant = request.param, None
    made = small(name, split=True, max_keypoints=SLOTS, **VARIANTS.get(variant, {}))
    path = made.write("extractor") if variant else export_of(name).files[0]
    session = GraphSession(path, "extractor", provider="cpu", num_threads=1)
    return Extractor(session, made.networks[0])


@dataclass(frozen=True)
class Picture:
    """A part of a photo, or noise or black of that size."""

    kind: str
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Frame:
    """Pictures, None for empty slots, and the (width, height) of a canvas, which is rounded up."""

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
PHOTO = Picture("photo", 230, 200, 120, 90)
USUAL_FRAME = Frame((PHOTO, None, Picture("photo", 238, 200, 160, 120)), (128, 96))
BLACK_FRAME = Frame((Picture("black", 0, 0, 128, 96), PHOTO), (128, 96))
TINY_FRAME = Frame(USUAL_FRAME.pictures, (1, 1))
EMPTY_FRAME = Frame((None,), (64, 64))


@pytest.fixture(scope="session")
def paint(motorcycle):
    """Paint the pictures of a frame: uint8 [H, W, 3] or None."""

    def paint(picture):
        if picture is None:
            return None
        height, width = picture.height, picture.width
        if picture.kind == "photo":
            return motorcycle[0][picture.y :, picture.x :][:height, :width]
        return laws.random_bytes(height, width, 3) * np.uint8(picture.kind == "noise")

    return lambda frame: [paint(picture) for picture in frame.pictures]


of_each = pytest.mark.parametrize("extractor", EXTRACTORS, indirect=True, scope="session")
values = st.lists(laws.poison, min_size=4, max_size=4)


@of_each
@settings(laws.quick, max_examples=5)
@given(
    frame=frames, slot=st.integers(0, 2), slots=st.integers(1, 100), limit=st.integers(1, SLOTS), dirt=values
)
@example(frame=USUAL_FRAME, slot=2, slots=100, limit=SLOTS, dirt=[np.nan] * 4)
@example(frame=BLACK_FRAME, slot=1, slots=30, limit=SLOTS, dirt=[np.inf, 1e30, 0.0, -np.inf])
@example(frame=TINY_FRAME, slot=0, slots=1, limit=1, dirt=[0.0] * 4)
@example(frame=EMPTY_FRAME, slot=0, slots=7, limit=7, dirt=[-np.inf] * 4)
def test_the_laws_are_kept(extractor, paint, frame, slot, slots, limit, dirt):
    images = paint(frame)
    slot %= len(images)
    batch = extractor.place(images, frame.image_size, limit)
    found = extractor.extract(batch)
    border = BORDERS.get(extractor.session.info.model, 0)
    assert_are_features(found, batch, limit, border)
    assert_are_features(extractor.extract(littered(batch)), batch, limit, border)
    for picture, mask in zip(frame.pictures, found["keypoint_mask"], strict=True):
        assert (picture is not None and picture.kind != "black") or not mask.any()
    tolerance = laws.FEATURE_TOLERANCE[extractor.precision]
    alone = extractor.extract(extractor.place([images[slot]], frame.image_size, limit))
    assert_same_features(rows(found, slot), alone, tolerance)
    laws.assert_same_bits(extractor.extract(with_dirt(batch, dirt)), found)
    assert_are_as_with(slots, extractor, batch, found, tolerance)


def assert_are_features(found, batch, limit, border):
    """Keypoints come first, the best first, inside the image; the other slots are zero."""
    for name in FEATURES:
        assert np.isfinite(found[name]).all(), name
    mask, scores = found["keypoint_mask"], found["keypoint_scores"]
    assert (mask.sum(axis=1) <= limit * batch["valid"]).all()
    assert (np.diff(mask.astype(int), axis=1) <= 0).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (scores[mask] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(found["descriptors"][mask], axis=1), 1, atol=1e-5)
    for name in FEATURES:
        assert not found[name][~mask].view(np.uint8).any(), name
    scales, sizes = batch["scales"][:, None], batch["sizes"][:, None]
    on_canvas = (found["keypoints"] + 0.5) * scales - 0.5
    inside = (on_canvas >= border - 1e-3) & (on_canvas <= sizes - 1 - border + 1e-3)
    assert inside[mask].all()


def assert_same_features(found, expected, tolerance):
    np.testing.assert_array_equal(found["keypoint_mask"], expected["keypoint_mask"])
    best = max(1, expected["keypoint_scores"].max(initial=0))
    for name in FEATURES:
        scale = best if name == "keypoint_scores" else 1
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance * scale, err_msg=name)


def assert_are_as_with(slots, extractor, batch, found, tolerance):
    """Law 1: with another number of slots PyTorch finds the same.

    fp32 files are compared with PyTorch. fp16 and int8 round in other places there, so PyTorch is compared
    with itself.
    """
    limit = min(slots, int(batch["max_keypoints"][0]))
    batch = batch | {"max_keypoints": np.array([limit])}
    expected = extractor.extract_in_torch(batch, slots)
    if extractor.precision != "fp32":
        found = extractor.extract_in_torch(batch, SLOTS)
    elif limit < SLOTS:
        found = extractor.extract(batch)
    assert not found["keypoint_mask"][:, limit:].any()
    assert not expected["keypoint_mask"][:, limit:].any()
    cut, expected = ({name: it[:, :limit] for name, it in some.items()} for some in (found, expected))
    assert_same_features(cut, expected, tolerance)


def with_dirt(batch, dirt):
    """Fill invalid images with random bytes, and their sizes and scales with the values of `dirt`."""
    dirty = {name: array.copy() for name, array in batch.items()}
    invalid = ~batch["valid"]
    dirty["images"][invalid] = laws.random_bytes(*batch["images"].shape[1:])
    dirty["sizes"][invalid], dirty["scales"][invalid] = dirt[:2], dirt[2:]
    return dirty


def littered(batch):
    """Fill the canvas outside the images with random bytes."""
    images = laws.random_bytes(*batch["images"].shape)
    for slot, (width, height) in enumerate(batch["sizes"].astype(int)):
        images[slot, :height, :width] = batch["images"][slot, :height, :width]
    return batch | {"images": images}


@of_each
def test_grey_images_are_as_colours_that_are_equal(extractor, paint):
    images = [image if image is None else image[..., 1] for image in paint(USUAL_FRAME)]
    batch = extractor.place(images, USUAL_FRAME.image_size)
    grey = batch["images"][..., :1]
    found, expected = (extractor.extract(batch | {"images": grey.repeat(count, axis=3)}) for count in (1, 3))
    laws.assert_same_bits(found, expected)


@settings(laws.quick, max_examples=5)
@given(frame=frames, slot=st.integers(0, 3), dirt=values)
@example(frame=USUAL_FRAME, slot=1, dirt=[np.nan] * 4)
@example(frame=BLACK_FRAME, slot=0, dirt=[np.inf] * 4)
@example(frame=TINY_FRAME, slot=3, dirt=[1e30] * 4)
def test_the_pipeline_ignores_invalid_images_and_takes_no_pairs(pipeline, paint, frame, slot, dirt):
    images = paint(frame)
    images.insert(slot, None)
    clean, _ = laws.place(images, frame.image_size, pipeline.info)
    dirty = with_dirt(clean, dirt)
    empty = clean["valid"].argmin()
    for pairs in ([(0, empty), (empty, 0), (0, len(images) - 1)], []):
        found, expected = (pipeline.run(laws.with_pairs(batch, pairs, THRESHOLD)) for batch in (dirty, clean))
        laws.assert_same_bits(found, expected)
        laws.assert_are_matches(found, THRESHOLD)
        assert found["matches"].shape == (len(pairs), 512)
        assert (found["matches"][:2] == -1).all()


@of_each
@settings(laws.quick, max_examples=4)
@given(frame=frames, slot=st.integers(0, 2), share=st.floats(0.05, 0.9), seed=st.integers(0, 99))
@example(frame=USUAL_FRAME, slot=0, share=0.5, seed=0)
def test_no_keypoint_is_in_a_mask_and_all_others_are_as_without(extractor, paint, frame, slot, share, seed):
    images = paint(frame)
    slot %= len(images)
    batch = extractor.place(images, frame.image_size)
    canvas = batch["images"].shape[1:3]
    random, reach = np.random.default_rng(seed), extractor.session.info.keypoint_reach
    blocks = random.random((canvas[0] // 8, canvas[1] // 8)) >= share
    blocks[random.integers(len(blocks)), random.integers(blocks.shape[1])] = True
    white = blocks.repeat(8, axis=0).repeat(8, axis=1)
    masks = np.ones((len(images), *canvas), bool)
    masks[slot] = Mask(white).on_canvas(canvas[::-1], reach=reach)
    masked, plain = (extractor.extract(it) for it in (batch | {"masks": masks}, batch))
    assert_are_features(masked, batch, SLOTS, BORDERS.get(extractor.session.info.model, 0))
    found, before = (pixels_of(it, batch, slot) for it in (masked, plain))
    assert white[found[:, 1], found[:, 0]].all()
    # A keypoint that moved may come from a pixel that is black by now.
    stays = Mask(white).on_canvas(canvas[::-1], reach=2 * reach)[before[:, 1], before[:, 0]]
    rest = {name: masked[name][slot][: len(found)] for name in FEATURES}
    for number in np.flatnonzero(stays):
        (place,) = np.flatnonzero((rest["keypoints"] == plain["keypoints"][slot, number]).all(axis=1))
        assert rest["keypoint_scores"][place] == plain["keypoint_scores"][slot, number]
        np.testing.assert_allclose(
            rest["descriptors"][place],
            plain["descriptors"][slot, number],
            rtol=0,
            atol=laws.FEATURE_TOLERANCE[extractor.precision],
        )
    others = [it for it in range(len(images)) if it != slot]
    laws.assert_same_bits(rows(masked, *others), rows(plain, *others))
    for shape in (masks.shape, (1, *canvas), (len(images), 1, canvas[1])):
        laws.assert_same_bits(extractor.extract(batch | {"masks": np.ones(shape, bool)}), plain)


def pixels_of(features, batch, slot):
    """The pixels of the canvas (x, y), int64 [M, 2], at which the keypoints of an image are."""
    keypoints = features["keypoints"][slot][features["keypoint_mask"][slot]]
    return np.floor((keypoints + 0.5) * batch["scales"][slot]).astype(np.int64)
