"""SuperPoint + LightGlue with random weights: laws 1 to 4 (goldens: see make_goldens_superpoint.py)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from random_weights import lightglue_weights, superpoint_weights

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.session import GraphSession
from lightglue_ros.export import MODELS, export_model
from lightglue_ros.export.graphs import ExtractorGraph, MatcherGraph
from lightglue_ros.export.lightglue import LightGlue
from lightglue_ros.export.selfcheck import compare
from lightglue_ros.export.superpoint import SuperPoint
from lightglue_ros.export.weights import sha256_of

SEED = 0  # of make_goldens_superpoint.py
SLOTS = 256
SMALL = 320, 224  # the canvas of the tests that need no goldens
PAIRS = np.array([[0, 1]])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files with the random weights, extractor first."""
    folder = tmp_path_factory.mktemp("weights")
    files = {
        "superpoint.pth": superpoint_weights(SEED),
        "lightglue.pth": lightglue_weights(MODELS["superpoint"].matcher, SEED),
    }
    for name, state_dict in files.items():
        torch.save(state_dict, folder / name)
    return [folder / name for name in files]


@pytest.fixture(scope="module")
def lines():
    """What the export said."""
    return []


@pytest.fixture(scope="module")
def sessions(tmp_path_factory, weights, lines):
    folder = tmp_path_factory.mktemp("superpoint")
    files = export_model(
        "superpoint", split=True, max_keypoints=SLOTS, output=folder, weights=weights, report=lines.append
    )
    return {path.stem: GraphSession(path, path.stem, provider="cpu") for path in files}


@pytest.fixture(scope="module")
def place():
    def place(images, image_size=SMALL, limit=SLOTS):
        batch = vars(Canvas(image_size, channels=1, divisor=8).place(images))
        return batch | {"max_keypoints": np.array([limit])}

    return place


@pytest.fixture(scope="module")
def extract(sessions, place):
    def extract(images, image_size=SMALL, limit=SLOTS):
        batch = place(images, image_size, limit)
        image_sizes = batch.pop("image_sizes")
        return sessions["extractor"].run(batch) | {"image_sizes": image_sizes}

    return extract


def matching(features, pairs):
    pairs = np.array(pairs, np.int64).reshape(-1, 2)
    return features | {"pairs": pairs, "match_threshold": np.array([0], np.float32)}


@pytest.fixture(scope="module")
def match(sessions):
    return lambda features, pairs: sessions["matcher"].run(matching(features, pairs))


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(Path(__file__).parent.parent / "data" / "superpoint_random.npz"))


@pytest.fixture(scope="module")
def golden_images(motorcycle):
    left, _ = motorcycle
    return [left[:464, :616], left[:464, 8:624]]


@pytest.fixture(scope="module")
def found(extract, match, golden_images):
    features = extract(golden_images, (640, 480))
    return features | match(features, PAIRS)


@pytest.fixture(scope="module")
def slots_of_golden(golden, found):
    """For each keypoint of the goldens [2, K] our slot of the keypoint at its place."""
    offsets = golden["keypoints"][:, :, None] - found["keypoints"][:, None]
    return np.abs(offsets).max(axis=3).argmin(axis=2)


@pytest.fixture(scope="module")
def features(extract, motorcycle):
    """Of three slots on a small canvas: a part of the left image, an empty one, the part 8 pixels beside."""
    left, _ = motorcycle
    return extract([left[100:300, 100:400], None, left[100:300, 108:408]])


def with_best(features, count):
    """The features with only the best keypoints of each image."""
    return features | {"keypoint_mask": features["keypoint_mask"] & (np.arange(SLOTS) < count)}


def test_keypoints_and_matches_are_those_of_the_original(golden, found):
    assert (golden["matches"] >= 0).sum() >= 100
    names = ("keypoints", "keypoint_scores", "keypoint_mask", "matches", "match_scores", "layers")
    differences = compare({name: golden[name] for name in names}, found, PAIRS)
    assert differences.same["keypoints"] >= 0.999
    assert differences.same["matches"] >= 0.995
    assert differences.same["match_scores"] >= 0.99
    assert differences.largest["keypoints"] <= 0.01
    assert differences.largest["keypoint_scores"] <= 1e-6
    assert differences.largest["match_scores"] <= 1e-4
    assert differences.largest["layers"] == 0


def test_descriptors_are_those_of_the_original(golden, found, slots_of_golden):
    for image, slots in enumerate(slots_of_golden[:, ::4]):
        expected = golden["descriptors"][image].astype(np.float32)  # of half the precision in the file
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        cosines = (found["descriptors"][image][slots] * expected).sum(axis=1)
        assert cosines.min() >= 0.9999


def test_without_a_threshold_there_are_as_many_keypoints_as_in_the_original(golden, golden_images, place):
    extractor = SuperPoint.from_state_dict(superpoint_weights(SEED), detection_threshold=0.0)
    batch = place(golden_images, (640, 480))
    inputs = [torch.from_numpy(batch[name]) for name in ("images", "sizes", "scales", "valid")]
    with torch.inference_mode():
        _, scores, _, _ = ExtractorGraph(extractor, 8000)(*inputs, torch.tensor([8000]))
    counts = (scores > 0).sum(dim=1).numpy()
    np.testing.assert_allclose(counts, golden["counts"], rtol=1e-3)


def test_the_log_assignment_is_that_of_the_original(golden, found, slots_of_golden):
    matcher = LightGlue.from_state_dict(
        MODELS["superpoint"].matcher, lightglue_weights(MODELS["superpoint"].matcher, SEED)
    )
    assignments = []
    matcher.assignment.register_forward_hook(lambda *call: assignments.append(call[2]))
    names = ("keypoints", "keypoint_scores", "keypoint_mask", "descriptors", "image_sizes")
    inputs = matching({name: found[name] for name in names}, PAIRS)
    with torch.inference_mode():
        MatcherGraph(matcher)(*map(torch.from_numpy, inputs.values()))
    rows, columns = (slots[::2] for slots in slots_of_golden)
    found_logs = assignments[0][0].log().numpy()[np.ix_(rows, columns)]
    held = golden["log_assignment"] > np.log(1e-30)  # float32 holds their exponentials
    assert held.mean() > 0.9
    np.testing.assert_allclose(found_logs[held], golden["log_assignment"][held], atol=1e-3)


def test_the_files_say_that_they_are_of_own_weights(sessions, weights, lines):
    for session in sessions.values():
        info = session.info
        assert (info.model, info.extractor, info.divisor) == ("superpoint", "superpoint", 8)
        assert info.descriptor_dim == 256
        assert info.weights_sha256 == tuple(map(sha256_of, weights))
        assert info.licence == "unknown (weights of your own)"
    for line, published in zip(lines, MODELS["superpoint"].weights, strict=False):
        assert f"is not the published {published.name}" in line


def test_weights_of_another_extractor_are_refused(weights, tmp_path):
    with pytest.raises(Exception, match=r"lightglue\.pth do not fit superpoint: .*conv1a"):
        export_model("superpoint", output=tmp_path, weights=weights[::-1], report=lambda line: None)


def test_colours_count_as_much_as_in_their_grey():
    extractor = SuperPoint.from_state_dict(superpoint_weights(SEED))
    colours = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    grey = (colours * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    with torch.inference_mode():
        (scores, features), (grey_scores, grey_features) = map(
            extractor, (colours, grey.expand(-1, 3, -1, -1))
        )
    assert (scores > 0).any()
    torch.testing.assert_close(scores, grey_scores, atol=1e-6, rtol=0)
    torch.testing.assert_close(features, grey_features, atol=1e-5, rtol=0)


def test_an_image_of_one_colour_has_no_keypoints():
    extractor = SuperPoint.from_state_dict(superpoint_weights(SEED))
    images = torch.rand(2, 3, 32, 48)
    images[0] = torch.tensor([0.0, 0.25, 0.8]).view(3, 1, 1)
    with torch.inference_mode():
        scores, _ = extractor(images)
    assert (scores > 0).flatten(1).any(dim=1).tolist() == [False, True]


def test_alone_is_as_in_a_batch(features, extract, match, motorcycle):
    together = match(features, [(0, 2), (1, 0), (2, 0)])
    alone = extract([motorcycle[0][100:300, 100:400]])
    for name in ("keypoint_mask", "keypoints", "keypoint_scores", "descriptors"):
        np.testing.assert_allclose(features[name][0], alone[name][0], atol=1e-5, err_msg=name)
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
    dirty["images"][1] = noise(128, 160)[..., :1]
    dirty["sizes"][1] = dirty["scales"][1] = value
    found, expected = (sessions["extractor"].run(batch) for batch in (dirty, clean))
    assert expected["keypoint_mask"][0].any()
    for name, array in found.items():
        np.testing.assert_array_equal(array.view(np.uint8), expected[name].view(np.uint8), err_msg=name)


def test_keypoints_come_best_first_4_pixels_inside_the_image_and_the_rest_is_zero(sessions, place, noise):
    """Whatever is beside the image."""
    batch = place([noise(60, 91)], (160, 128))
    batch.pop("image_sizes")
    beside = noise(128, 160)[..., :1]
    beside[:60, :91] = batch["images"][0, :60, :91]
    found = sessions["extractor"].run(batch | {"images": beside[None]})
    mask, scores = found["keypoint_mask"], found["keypoint_scores"]
    assert 0 < mask.sum() < SLOTS
    assert (np.diff(mask.astype(int), axis=1) <= 0).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (scores[mask] > 0).all()
    assert (found["keypoints"][mask] >= 4).all()
    assert (found["keypoints"][mask] <= [86, 55]).all()
    np.testing.assert_allclose(np.linalg.norm(found["descriptors"][mask], axis=1), 1, atol=1e-5)
    for name in ("keypoints", "keypoint_scores", "descriptors"):
        assert not found[name][~mask].view(np.uint8).any(), name


def test_fewer_keypoints_are_the_best(features, extract, motorcycle):
    few = extract([motorcycle[0][100:300, 100:400]], limit=50)
    assert few["keypoint_mask"].sum() == 50
    np.testing.assert_array_equal(few["keypoints"][0, :50], features["keypoints"][0, :50])


def test_empty_images_tiny_canvases_and_no_pairs_are_no_error(features, extract, match, motorcycle):
    black = extract([np.zeros((224, 320), np.uint8), motorcycle[0]])
    assert black["keypoint_mask"].any(axis=1).tolist() == [False, True]
    found = match(black, [(0, 1), (1, 0), (0, 0)])
    assert (found["matches"] == -1).all()
    assert not found["match_scores"].any()
    for few in (with_best(features, 0), with_best(features, 1), extract(motorcycle, (16, 16))):
        assert not np.isnan(match(few, [(0, 1)])["match_scores"]).any()
    assert match(features, [])["matches"].shape == (0, SLOTS)
