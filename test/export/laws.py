"""Rigs, poison and comparisons that the tests of the contract's laws share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import Phase, settings
from hypothesis import strategies as st

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.contract import INPUTS, OUTPUTS

SLOTS = 48  # K of the matchers, and the limit of keypoints per image
POISON = [np.nan, np.inf, -np.inf, 1e30, -1e30]
FEATURES = ("keypoints", "keypoint_scores", "descriptors")
THRESHOLD = 1e-3  # low because random weights give low scores
# Examples are not shrunk: they are small, and shrinking takes minutes.
quick = settings(deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
poison = st.sampled_from(POISON)


# Largest difference that the order of additions, which depends on the batch's shape, may cause: in keypoints
# in pixels, elements of descriptors and scores relative to the best score above 1; and in match scores.
# In float16 a sum that crosses a rounding step moves by 2^-11 of itself, and the matcher amplifies this to
# 1e-2 of a score. ONNX Runtime and PyTorch, which round in different places, differ by as much. In int8 a
# value that crosses a step moves by 1/127 of the largest; sums of 8-bit numbers are exact.
FEATURE_TOLERANCE = {"fp32": 1e-4, "fp16": 2e-3, "int8": 2e-2}
MATCH_TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 5e-2}


@dataclass(frozen=True)
class Rig:
    """Slots, each with an image of the pool and its number of keypoints, and pairs of slots."""

    slots: tuple[tuple[int, int], ...]
    pairs: tuple[tuple[int, int], ...]


@st.composite
def rigs(draw, counts=(0, 1, 2, 7, 30, SLOTS, SLOTS)):
    slots = draw(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(counts)), min_size=1, max_size=4))
    slot = st.integers(0, len(slots) - 1)
    return Rig(tuple(slots), tuple(draw(st.lists(st.tuples(slot, slot), max_size=3))))


USUAL_RIG = Rig(((0, SLOTS), (3, 0), (1, SLOTS), (2, 30)), ((0, 2), (3, 2), (0, 1), (3, 0)))
# Two pairs that have more padding next to the third pair than alone.
THIN_RIG = Rig(((2, 30), (3, 30), (4, SLOTS)), ((0, 1), (1, 0), (2, 2)))
SPARSE_RIG = Rig(((0, 1), (1, SLOTS), (2, 0)), ((0, 1), (1, 2), (2, 2), (0, 0)))


def random_bytes(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def place(images, image_size, model, limit=SLOTS):
    """Place images on the canvas of a model or a file: inputs of the extractor, and image_sizes."""
    batch = vars(Canvas(image_size, model.channels, model.divisor).place(images))
    image_sizes = batch.pop("image_sizes")
    return batch | {"max_keypoints": np.array([limit])}, image_sizes


def views(motorcycle):
    """Cut out five images: four views of one place, of several sizes, and noise."""
    left, right = motorcycle
    return [
        left[200:320, 250:400],
        left[200:320, 258:408],
        right[200:320, 230:380],
        left[180:360, 240:460],
        random_bytes(90, 110, 3),
    ]


def with_pairs(features, pairs, threshold):
    pairs = np.array(pairs, np.int64).reshape(-1, 2)
    return features | {"pairs": pairs, "match_threshold": np.array([threshold], np.float32)}


def run_in_torch(module, tensors):
    with torch.inference_mode():
        outputs = module(*(torch.from_numpy(tensors[name]) for name in INPUTS[module.name]))
    return {name: output.numpy() for name, output in zip(OUTPUTS[module.name], outputs, strict=True)}


def features_of(rig, pool):
    """Gather the features of a rig's slots."""
    images, counts = np.array(rig.slots).T
    features = {name: array[images] for name, array in pool.items()}
    features["keypoint_mask"] &= np.arange(SLOTS) < counts[:, None]
    return features


def with_slots(features, slots):
    """Add or remove padded slots."""
    change = max(0, slots - SLOTS)
    resized = {
        name: np.pad(array, [(0, 0), (0, change), *[(0, 0)] * (array.ndim - 2)])[:, :slots]
        for name, array in features.items()
    }
    return resized | {"image_sizes": features["image_sizes"]}


def poisoned(features, values, sizes):
    """Put one of the values into the padded slots of each kind, and the sizes into empty images."""
    dirty = {name: array.copy() for name, array in features.items()}
    for name, value in zip(FEATURES, values, strict=True):
        dirty[name][~features["keypoint_mask"]] = value
    dirty["image_sizes"][~features["keypoint_mask"].any(axis=1)] = sizes
    return dirty


def rows(tensors, *numbers):
    return {name: array[list(numbers)] for name, array in tensors.items()}


def assert_same_matches(found, expected, tolerance):
    """Compare matches, except those that score so close to the threshold that one side may lack them."""
    sure = np.maximum(found["match_scores"], expected["match_scores"]) > THRESHOLD + tolerance
    np.testing.assert_array_equal(found["matches"][sure], expected["matches"][sure])
    np.testing.assert_allclose(
        found["match_scores"][sure], expected["match_scores"][sure], rtol=0, atol=tolerance
    )


def assert_same_bits(found, expected):
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].view(np.uint8), array.view(np.uint8), err_msg=name)


def assert_are_matches(found, threshold):
    """Check that slots are matched once at most, and score above the threshold, up to 1; no value is NaN."""
    matches, scores = found["matches"], found["match_scores"]
    matched = matches >= 0
    assert ((matches >= -1) & (matches < matches.shape[1])).all()
    assert (scores[matched] > threshold).all()
    assert (scores[matched] <= 1 + 1e-6).all()
    assert not scores[~matched].view(np.uint8).any()
    for row in matches:
        partners = row[row >= 0]
        assert len(set(partners)) == len(partners)
