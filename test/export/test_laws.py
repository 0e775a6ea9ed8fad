"""Laws 1 to 3 on the exported files: what batch and padding must not do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightglue_ros.export import MODELS

POISON = [np.nan, np.inf, -np.inf, 1e30, -1e30]
ALL = 1024  # or more than there are
quick = settings(max_examples=10, deadline=None, derandomize=True)


def with_counts(features, counts):
    """The features with only the best keypoints of each image."""
    mask = features["keypoint_mask"]
    return features | {"keypoint_mask": mask & (np.arange(mask.shape[1]) < np.array(counts)[:, None])}


def poisoned(features, values):
    """The features with other values in their padded slots, and as sizes of images without keypoints."""
    mask = features["keypoint_mask"]
    names = ("keypoints", "keypoint_scores", "descriptors")
    arrays = {name: features[name].copy() for name in names}
    for array, value in zip(arrays.values(), values, strict=False):
        array[~mask] = value
    image_sizes = features["image_sizes"].copy()
    image_sizes[~mask.any(axis=1)] = values[-1]
    return features | arrays | {"image_sizes": image_sizes}


def with_dirt(batch, slot, value):
    """The batch with random bytes as the image in that slot, and a value as its size and scale."""
    dirty = {name: array.copy() for name, array in batch.items()}
    dirty["images"][slot] = np.random.default_rng(0).integers(0, 256, dirty["images"][slot].shape)
    dirty["sizes"][slot] = dirty["scales"][slot] = value
    return dirty


def assert_equal_bits(found, expected):
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].view(np.uint8), array.view(np.uint8), err_msg=name)


counts = st.lists(st.sampled_from([0, 1, 2, 63, 300, ALL]), min_size=4, max_size=4)
pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=3)


@quick
@given(counts=counts, pairs=pairs)
def test_a_pair_is_matched_alone_as_in_a_batch(features, match, slots, counts, pairs):
    features = with_counts(features, counts)
    together = match(features, pairs)
    assert together["matches"].shape == (len(pairs), slots)
    for row, pair in enumerate(pairs):
        two = {name: array[list(pair)] for name, array in features.items()}
        alone = match(two, [(0, 1)])
        np.testing.assert_array_equal(together["matches"][row], alone["matches"][0])
        np.testing.assert_allclose(together["match_scores"][row], alone["match_scores"][0], atol=1e-5)


def test_an_image_is_extracted_alone_as_in_a_batch(features, extract, motorcycle):
    for slot, image in ((0, motorcycle[0]), (2, motorcycle[1])):
        alone = extract([image])
        assert (features["keypoint_mask"][slot] == alone["keypoint_mask"][0]).all()
        for name in ("keypoints", "keypoint_scores", "descriptors"):
            np.testing.assert_allclose(features[name][slot], alone[name][0], rtol=1e-5, atol=1e-5)


@quick
@given(counts=counts, pairs=pairs, values=st.lists(st.sampled_from(POISON), min_size=4, max_size=4))
def test_padded_slots_are_not_looked_at(features, match, counts, pairs, values):
    features = with_counts(features, counts)
    assert_equal_bits(match(poisoned(features, values), pairs), match(features, pairs))


@pytest.mark.parametrize("value", POISON)
def test_invalid_images_are_not_looked_at(extractor, place, motorcycle, value):
    clean = place([motorcycle[0], None, motorcycle[1]], (320, 224))
    clean.pop("image_sizes")
    assert_equal_bits(extractor.run(with_dirt(clean, 1, value)), extractor.run(clean))


@pytest.mark.parametrize("value", POISON)
@pytest.mark.parametrize("model", ["xfeat"], indirect=True)
def test_invalid_images_are_not_looked_at_by_the_pipeline(pipeline, place, motorcycle, value):
    clean = place([motorcycle[0], None, motorcycle[1]], (320, 224))
    clean.pop("image_sizes")
    dirty = with_dirt(clean, 1, value)
    matching = {"pairs": np.array([[0, 1], [0, 2]]), "match_threshold": np.array([0.1], np.float32)}
    found = pipeline.run(dirty | matching)
    assert_equal_bits(found, pipeline.run(clean | matching))
    assert (found["matches"] >= 0).any(axis=1).tolist() == [False, True]


def test_keypoints_come_first_best_first_and_the_rest_is_zero(extract, slots, motorcycle, noise):
    found = extract([motorcycle[0][:100, :120], None, noise(90, 120)])
    mask, scores = found["keypoint_mask"], found["keypoint_scores"]
    assert 0 < mask[0].sum() < slots
    assert not mask[1].any()
    assert (np.diff(mask.astype(int), axis=1) <= 0).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (scores[mask] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(found["descriptors"][mask], axis=1), 1, atol=1e-5)
    for name in ("keypoints", "keypoint_scores", "descriptors"):
        assert not found[name][~mask].view(np.uint8).any(), name


def test_keypoints_lie_inside_the_image_whatever_is_beside_it(extractor, place, noise):
    batch = place([noise(100, 151)], (320, 224))
    batch.pop("image_sizes")
    beside = noise(224, 320)
    beside[:100, :151] = batch["images"][0, :100, :151]
    found = extractor.run(batch | {"images": beside[None]})
    keypoints = found["keypoints"][found["keypoint_mask"]]
    assert len(keypoints) > 100
    assert (keypoints >= 0).all()
    assert (keypoints <= [150, 99]).all()


@pytest.mark.parametrize("limit", [1, 100])
def test_max_keypoints_takes_the_best(extractor, place, features, motorcycle, limit):
    batch = place([motorcycle[0]]) | {"max_keypoints": np.array([limit])}
    batch.pop("image_sizes")
    found = extractor.run(batch)
    assert found["keypoint_mask"].sum() == limit
    np.testing.assert_array_equal(found["keypoints"][0, :limit], features["keypoints"][0, :limit])


def test_black_images_and_tiny_canvases_are_no_error(model, extract, match, slots, motorcycle):
    black = extract([np.zeros((480, 640, 3), np.uint8), motorcycle[0]])
    assert black["keypoint_mask"].sum(axis=1).tolist() == [0, slots]
    tiny = extract(motorcycle, (32, 32))
    for features, pairs in ((black, [(0, 1), (1, 0), (0, 0)]), (tiny, [(0, 1)])):
        found = match(features, pairs)
        assert not np.isnan(found["match_scores"]).any()
        assert (found["layers"] == MODELS[model].matcher.layers).all()
    assert (match(black, [(0, 1), (1, 0), (0, 0)])["matches"] == -1).all()


def test_no_pairs_are_no_error(features, match, slots):
    assert match(features, [])["matches"].shape == (0, slots)


@pytest.mark.parametrize("model", ["xfeat"], indirect=True)
def test_no_pairs_are_no_error_to_the_pipeline(pipeline, place, motorcycle):
    batch = place([motorcycle[0]], (320, 224)) | {
        "pairs": np.zeros((0, 2), np.int64),
        "match_threshold": np.array([0.1], np.float32),
    }
    batch.pop("image_sizes")
    found = pipeline.run(batch)
    assert found["matches"].shape == (0, 512)
    assert found["keypoint_mask"].any()


def test_matches_score_above_the_threshold_and_are_mutual(features, match):
    usual, strict = match(features, [(0, 2), (2, 0)], 0.1), match(features, [(0, 2), (2, 0)], 0.8)
    for found, threshold in ((usual, 0.1), (strict, 0.8)):
        matched = found["matches"] >= 0
        assert (found["match_scores"][matched] > threshold).all()
        assert (found["match_scores"] <= 1).all()
        assert not found["match_scores"][~matched].any()
        first = np.flatnonzero(matched[0])
        np.testing.assert_array_equal(found["matches"][1][found["matches"][0][first]], first)
    kept = strict["matches"] >= 0
    assert 0 < kept.sum() < (usual["matches"] >= 0).sum()
    np.testing.assert_array_equal(strict["matches"][kept], usual["matches"][kept])
