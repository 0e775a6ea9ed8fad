"""ALIKED + LightGlue: laws 1 to 4 on the exported files (goldens: see make_goldens.py).

Nobody has published a LightGlue for ALIKED-t16, so it has one with random weights here.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_weights import lightglue_weights

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.geometry import same_row_share
from lightglue_ros.core.session import GraphSession
from lightglue_ros.export import MODELS, export_model
from lightglue_ros.export.selfcheck import compare
from lightglue_ros.export.weights import sha256_of

PAIRS = np.array([[0, 1]])
SLOTS = 512
SMALL = 320, 224  # the canvas of the tests that need no goldens


@pytest.fixture(scope="module")
def sessions(aliked_export):
    return {path.stem: GraphSession(path, path.stem, provider="cpu") for path in aliked_export.files}


@pytest.fixture(scope="module")
def place():
    def place(images, image_size=SMALL, limit=SLOTS):
        batch = vars(Canvas(image_size, channels=3, divisor=32).place(images))
        return batch | {"max_keypoints": np.array([limit])}

    return place


@pytest.fixture(scope="module")
def extract(sessions, place):
    def extract(images, image_size=SMALL, limit=SLOTS):
        batch = place(images, image_size, limit)
        image_sizes = batch.pop("image_sizes")
        return sessions["extractor"].run(batch) | {"image_sizes": image_sizes}

    return extract


@pytest.fixture(scope="module")
def match(sessions):
    def match(features, pairs):
        pairs = np.array(pairs, np.int64).reshape(-1, 2)
        return sessions["matcher"].run(
            features | {"pairs": pairs, "match_threshold": np.array([0.1], np.float32)}
        )

    return match


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(Path(__file__).parent.parent / "data" / "aliked_motorcycle.npz"))


@pytest.fixture(scope="module")
def found(extract, match, motorcycle):
    features = extract(motorcycle, (640, 480))
    return features | match(features, PAIRS)


@pytest.fixture(scope="module")
def features(extract, motorcycle):
    """Of three slots on a small canvas: the left image, an empty one, the right image."""
    return extract([motorcycle[0], None, motorcycle[1]])


def with_best(features, count):
    """The features with only the best keypoints of each image."""
    return features | {"keypoint_mask": features["keypoint_mask"] & (np.arange(SLOTS) < count)}


def test_keypoints_and_matches_are_those_of_the_original(golden, found):
    all_but_descriptors = {name: array for name, array in golden.items() if name != "descriptors"}
    differences = compare(all_but_descriptors, found, PAIRS)
    assert differences.same["keypoints"] >= 0.999
    assert differences.same["matches"] >= 0.995
    assert differences.same["match_scores"] >= 0.99
    assert differences.largest["keypoints"] <= 0.01
    assert differences.largest["keypoint_scores"] <= 1e-4
    assert differences.largest["match_scores"] <= 5e-4
    assert differences.largest["layers"] == 0


def test_descriptors_are_those_of_the_original(golden, found):
    assert_descriptors_are_those_of(golden, found)


def assert_descriptors_are_those_of(golden, found):
    # The original's keypoints are in the order of their pixels' scores, so each is looked for at its place.
    count = golden["descriptors"].shape[1]
    for image in range(2):
        offsets = golden["keypoints"][image][:count, None] - found["keypoints"][image][None]
        slots = np.abs(offsets).max(axis=2).argmin(axis=1)
        cosines = (found["descriptors"][image][slots] * golden["descriptors"][image]).sum(axis=1)
        assert cosines.min() >= 0.9999


def test_matches_of_the_rectified_pair_lie_on_the_same_rows(found):
    slots = np.flatnonzero(found["matches"][0] >= 0)
    left, right = found["keypoints"][0][slots], found["keypoints"][1][found["matches"][0][slots]]
    assert same_row_share(left, right, 2) >= 0.99


def test_alone_is_as_in_a_batch(features, extract, match, motorcycle):
    together = match(features, [(0, 2), (1, 0), (2, 0)])
    alone = extract([motorcycle[0]])
    for name in ("keypoint_mask", "keypoints", "keypoint_scores", "descriptors"):
        np.testing.assert_allclose(features[name][0], alone[name][0], atol=1e-4, err_msg=name)
    two = {name: array[[0, 2]] for name, array in features.items()}
    pair = match(two, [(0, 1)])
    np.testing.assert_array_equal(together["matches"][0], pair["matches"][0])
    np.testing.assert_allclose(together["match_scores"][0], pair["match_scores"][0], atol=1e-5)
    assert (together["matches"] >= 0).any(axis=1).tolist() == [True, False, True]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_padded_slots_are_not_looked_at(features, match, value):
    clean = with_best(features, 100)
    dirty = clean | {name: clean[name].copy() for name in ("keypoints", "keypoint_scores", "descriptors")}
    for name in ("keypoints", "keypoint_scores", "descriptors"):
        dirty[name][~clean["keypoint_mask"]] = value
    expected = match(clean, [(0, 2)])
    assert (expected["matches"] >= 0).any()
    for name, array in match(dirty, [(0, 2)]).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_invalid_images_are_not_looked_at(sessions, place, noise, value):
    clean = place([noise(90, 120), None], (160, 128))
    clean.pop("image_sizes")
    dirty = {name: array.copy() for name, array in clean.items()}
    dirty["images"][1] = noise(128, 160)
    dirty["sizes"][1] = dirty["scales"][1] = value
    found, expected = (sessions["extractor"].run(batch) for batch in (dirty, clean))
    assert expected["keypoint_mask"][0].any()
    for name, array in found.items():
        np.testing.assert_array_equal(array.view(np.uint8), expected[name].view(np.uint8), err_msg=name)


def test_keypoints_come_best_first_inside_the_image_and_the_rest_is_zero(sessions, place, noise):
    """Whatever is beside the image."""
    batch = place([noise(60, 91)], (160, 128))
    batch.pop("image_sizes")
    beside = noise(128, 160)
    beside[:60, :91] = batch["images"][0, :60, :91]
    found = sessions["extractor"].run(batch | {"images": beside[None]})
    mask, scores = found["keypoint_mask"], found["keypoint_scores"]
    assert 0 < mask.sum() < SLOTS
    assert (np.diff(mask.astype(int), axis=1) <= 0).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (scores[mask] > 0).all()
    assert (found["keypoints"][mask] >= 0).all()
    assert (found["keypoints"][mask] <= [90, 59]).all()
    np.testing.assert_allclose(np.linalg.norm(found["descriptors"][mask], axis=1), 1, atol=1e-5)
    for name in ("keypoints", "keypoint_scores", "descriptors"):
        assert not found[name][~mask].view(np.uint8).any(), name


def test_fewer_keypoints_are_some_of_the_same(features, extract, motorcycle):
    """The best by the scores of their pixels, as in the original, not by those that come out."""
    few = extract([motorcycle[0]], limit=50)
    assert few["keypoint_mask"].sum() == 50
    offsets = few["keypoints"][0, :50, None] - features["keypoints"][0][None]
    assert np.abs(offsets).max(axis=2).min(axis=1).max() <= 1e-4


def test_empty_images_tiny_canvases_and_no_pairs_are_no_error(features, extract, match, motorcycle):
    black = extract([np.zeros((224, 320, 3), np.uint8), motorcycle[0]])
    assert not black["keypoint_mask"][0].any()
    assert black["keypoint_mask"][1].any()
    found = match(black, [(0, 1), (1, 0), (0, 0)])
    assert (found["matches"] == -1).all()
    assert not found["match_scores"].any()
    for few in (with_best(features, 0), with_best(features, 1), extract(motorcycle, (32, 32))):
        assert not np.isnan(match(few, [(0, 1)])["match_scores"]).any()
    assert match(features, [])["matches"].shape == (0, SLOTS)


@pytest.fixture(scope="module")
def own_lightglue(tmp_path_factory):
    """Of two layers, which are sooner exported than nine."""
    spec = MODELS["aliked-t16"]
    path = tmp_path_factory.mktemp("weights") / "own.pth"
    with pytest.MonkeyPatch.context() as patch:
        small = replace(spec.matcher, layers=2)
        patch.setitem(MODELS, "aliked-t16", replace(spec, matcher=small))
        torch.save(lightglue_weights(small, seed=0), path)
        yield path


@pytest.fixture(scope="module")
def t16_sessions(tmp_path_factory, own_lightglue):
    folder, lines = tmp_path_factory.mktemp("aliked-t16"), []
    options = {"split": True, "max_keypoints": SLOTS, "output": folder, "report": lines.append}
    files = export_model("aliked-t16", weights=[own_lightglue], **options)
    assert lines[0].endswith("is taken as a LightGlue for the 64 channels of aliked-t16")
    return {path.stem: GraphSession(path, path.stem, provider="cpu") for path in files}


@pytest.fixture(scope="module")
def t16_features(t16_sessions, place, motorcycle):
    batch = place(motorcycle, (640, 480))
    image_sizes = batch.pop("image_sizes")
    return t16_sessions["extractor"].run(batch) | {"image_sizes": image_sizes}


def test_keypoints_and_descriptors_of_t16_are_those_of_the_original(t16_features):
    golden = dict(np.load(Path(__file__).parent.parent / "data" / "aliked-t16_motorcycle.npz"))
    all_but_descriptors = {name: array for name, array in golden.items() if name != "descriptors"}
    differences = compare(all_but_descriptors, t16_features, PAIRS)
    assert differences.same["keypoints"] >= 0.999
    assert differences.largest["keypoints"] <= 0.01
    assert differences.largest["keypoint_scores"] <= 1e-4
    assert_descriptors_are_those_of(golden, t16_features)


def test_t16_is_matched_by_a_lightglue_of_ones_own(t16_sessions, t16_features, own_lightglue):
    """An image with itself: with random weights little else is the same."""
    info = t16_sessions["matcher"].info
    assert info.descriptor_dim == 64
    assert info.weights_sha256 == (MODELS["aliked-t16"].weights[0].sha256, sha256_of(own_lightglue))
    assert info.licence == "unknown (weights of your own)"
    matching = {"pairs": np.array([[0, 0]]), "match_threshold": np.array([0], np.float32)}
    matches = t16_sessions["matcher"].run(t16_features | matching)["matches"][0]
    same = matches == np.arange(SLOTS)
    assert same.sum() >= 100
    assert same.sum() >= 0.95 * (matches >= 0).sum()
