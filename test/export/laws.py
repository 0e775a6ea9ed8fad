"""What the tests of the laws share: rigs of images with few keypoints or many, and what must not differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import Phase, settings
from hypothesis import strategies as st

from lightglue_ros.core.contract import INPUTS, OUTPUTS

SLOTS = 48  # K of the matchers, and the most keypoints that are taken of an image
POISON = [np.nan, np.inf, -np.inf, 1e30, -1e30]
FEATURES = ("keypoints", "keypoint_scores", "descriptors")
THRESHOLD = 1e-3  # low, because scores are with random weights
# Examples are small as they are, and looking for the smallest that fails takes minutes.
quick = settings(deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])


@dataclass(frozen=True)
class Tolerance:
    """By how much the order of additions, which the shape of a batch decides, may move a result.

    Attributes:
        features: keypoints in pixels, elements of descriptors, scores (as shares of the best one above 1).
        match_scores: from 0 to 1.
    """

    features: float
    match_scores: float


# In float16 a sum that falls on the other side of a rounding step moves by 2^-11 of itself at once, and
# what follows in the matcher makes 1e-2 of a score of that: so far apart are ONNX Runtime and PyTorch, which
# round in different places. (On the CPU that this was written on batches moved nothing at all.)
# In int8 a value that falls on the other side of a step moves by 1/127 of the largest at once. (Sums of such
# numbers have no order, so batches move what comes before them only.)
TOLERANCES = {
    "fp32": Tolerance(1e-4, 1e-4),
    "fp16": Tolerance(2e-3, 2e-2),
    "int8": Tolerance(2e-2, 5e-2),
}


@dataclass(frozen=True)
class Rig:
    """Slots, each with one of the pool's images and how many of its keypoints it has, and pairs of slots."""

    slots: tuple[tuple[int, int], ...]
    pairs: tuple[tuple[int, int], ...]


@st.composite
def rigs(draw, counts=(0, 1, 2, 7, 30, SLOTS, SLOTS)):
    slots = draw(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(counts)), min_size=1, max_size=4))
    slot = st.integers(0, len(slots) - 1)
    return Rig(tuple(slots), tuple(draw(st.lists(st.tuples(slot, slot), max_size=3))))


USUAL_RIG = Rig(((0, SLOTS), (3, 0), (1, SLOTS), (2, 30)), ((0, 2), (3, 2), (0, 1), (3, 0)))


def random_bytes(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def views(motorcycle):
    """Five images: four views of one place, of several sizes, and noise."""
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


def run_in_torch(module, graph, tensors):
    with torch.inference_mode():
        outputs = module(*(torch.from_numpy(tensors[name]) for name in INPUTS[graph]))
    return {name: output.numpy() for name, output in zip(OUTPUTS[graph], outputs, strict=True)}


def match_in_torch(module, features, pairs):
    return run_in_torch(module, "matcher", with_pairs(features, pairs, THRESHOLD))


def features_of(rig, pool):
    """The features of a rig's slots."""
    images, counts = np.array(rig.slots).T
    features = {name: array[images] for name, array in pool.items()}
    features["keypoint_mask"] &= np.arange(SLOTS) < counts[:, None]
    return features


def with_slots(features, slots):
    """The features with more padded slots, or less, and their keypoints."""
    change = max(0, slots - SLOTS)
    resized = {
        name: np.pad(array, [(0, 0), (0, change), *[(0, 0)] * (array.ndim - 2)])[:, :slots]
        for name, array in features.items()
    }
    return resized | {"image_sizes": features["image_sizes"]}


def poisoned(features, values, sizes):
    """The features with one of the values in each kind's padded slots, and such sizes of empty images."""
    dirty = {name: array.copy() for name, array in features.items()}
    for name, value in zip(FEATURES, values, strict=True):
        dirty[name][~features["keypoint_mask"]] = value
    dirty["image_sizes"][~features["keypoint_mask"].any(axis=1)] = sizes
    return dirty


def fewest_keypoints(features, pairs):
    """Of the two images of each pair."""
    counts = features["keypoint_mask"].sum(axis=1)
    return np.array([min(counts[first], counts[second]) for first, second in pairs], int)


def rows(tensors, *numbers):
    return {name: array[list(numbers)] for name, array in tensors.items()}


def assert_same_matches(found, expected, tolerance):
    """The same but for matches that score so near to the threshold that one side may lack them."""
    sure = np.maximum(found["match_scores"], expected["match_scores"]) > THRESHOLD + tolerance
    np.testing.assert_array_equal(found["matches"][sure], expected["matches"][sure])
    np.testing.assert_allclose(
        found["match_scores"][sure], expected["match_scores"][sure], rtol=0, atol=tolerance
    )


def assert_same_bits(found, expected):
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].view(np.uint8), array.view(np.uint8), err_msg=name)


def assert_are_matches(found, threshold):
    """Each in its slot once, with scores above the threshold up to 1; nothing else, so no NaN either."""
    matches, scores = found["matches"], found["match_scores"]
    assert ((matches >= -1) & (matches < SLOTS)).all()
    matched = matches >= 0
    assert (scores[matched] > threshold).all()
    assert (scores[matched] <= 1 + 1e-6).all()
    assert not scores[~matched].view(np.uint8).any()
    for row in matches:
        partners = row[row >= 0]
        assert len(set(partners)) == len(partners)
