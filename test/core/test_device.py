"""Runs on tensors that stay on a device, in the memory of the CPU here; they equal plain runs."""

import numpy as np
import pytest
from rounding import assert_same

from lightglue_ros.core import Features, MatchPipeline
from lightglue_ros.core.features import LazyFeatures

SIZE = (160, 128)
ARRAYS = ("keypoints", "scores", "mask", "descriptors", "image_sizes")


@pytest.fixture
def plain(model_folder):
    """A pipeline on the CPU; for a canvas of this size no image lies on a part of it."""
    return MatchPipeline(model_folder, "cpu", SIZE)


@pytest.fixture
def device(model_folder, on_device):
    pipeline = on_device(model_folder, SIZE)
    pipeline.warm_up(cameras=2, pairs=1)
    return pipeline


@pytest.fixture
def images(motorcycle):
    """Left and right, with the aspect of the canvas."""
    return [image[:, : 500 * SIZE[0] // SIZE[1]] for image in motorcycle]


def assert_same_matches(found, expected):
    for of_found, of_expected in zip(found, expected, strict=True):
        for name, array in vars(of_expected).items():
            assert_same(getattr(of_found, name), array, name)


def assert_same_features(found, expected):
    for name in ARRAYS:
        assert_same(getattr(found, name), getattr(expected, name), name)


def test_cameras_that_come_and_go_and_changed_settings_give_the_matches_of_the_plain_pipeline(
    plain, device, images
):
    left, right = images
    expected = plain.match(images, [(0, 1)])
    assert len(expected[0]) > 30
    for pipeline in (plain, device):
        pipeline.prepare(2, 1, 2)
    assert_same_matches(device.match(images, [(0, 1)]), expected)
    for other in ([right, None], [None, left]):
        assert device.match(other, [(0, 1)])[0].scores.size == 0
        assert_same_features(device.extract(other), plain.extract(other))
    assert device.match([right], []) == []
    assert_same_matches(device.match([right, left], [(1, 0)]), plain.match([right, left], [(1, 0)]))
    for pipeline in (plain, device):
        pipeline.max_keypoints, pipeline.match_threshold = 60, 0.3
    fewer = plain.match(images, [(0, 1)])
    assert 0 < len(fewer[0]) < len(expected[0])
    assert_same_matches(device.match(images, [(0, 1)]), fewer)


def test_features_that_somebody_holds_are_still_right_after_the_next_images(plain, device, images):
    held = device.extract(images)
    turned = device.extract(images[::-1])
    assert_same_features(held, plain.extract(images))
    # Of the newest images in another order, then of earlier ones.
    order = Features.concatenate([turned.of_image(1), turned.of_image(0)])
    expected = plain.match_features(plain.extract(images), [(0, 1)])
    for features in (order, held):
        assert_same_matches(device.match_features(features, [(0, 1)]), expected)
    assert_same_features(turned, plain.extract(images[::-1]))


def test_pairs_through_time_and_more_images_than_the_warm_up_had(plain, device, images):
    found = []
    for pipeline in (plain, device):
        past = pipeline.extract(images[:1]).copy()
        present = pipeline.extract(images)
        together = Features.concatenate([present, past])
        found.append(pipeline.match_features(together, [(0, 1), (2, 1)]) + pipeline.match(images, [(0, 1)]))
    assert_same_matches(*found)
    assert_same_matches([found[0][1]], [found[0][0]])
    more, pairs = [*images, None, images[0]], [(0, 1), (1, 3), (2, 3)]
    for some in ((more, pairs), (images, [(0, 1)])):
        assert_same_matches(device.match(*some), plain.match(*some))


def test_kept_features_stay_on_the_device_and_are_matched_there_with_those_of_later_images(
    plain, device, images
):
    """As of pairs through time, also while a camera is missing or turned."""
    left, right = images
    upside_down = np.ascontiguousarray(right[::-1, ::-1])
    moments = [(left, right), (right, left), (left, None), (right, upside_down), (left, right)]
    turns = [None, None, None, (0, 180), None]
    found = []
    for pipeline in (plain, device):
        pipeline.warm_up(cameras=2, pairs=2, images=4)
        before, results = None, []
        for moment, rotations in zip(moments, turns, strict=True):
            present = pipeline.extract(moment, rotations)
            images_of = [slot for slot in (0, 1) if moment[slot] is not None]
            parts = [present.of_image(slot) for slot in images_of]
            if before is not None:
                together = Features.concatenate([*parts, *before])
                count = len(images_of)
                pairs = [(slot, count + slot) for slot in range(min(count, len(before)))]
                results += pipeline.match_features(together, pairs)
                if pipeline is device:
                    assert all("descriptors" not in vars(part) for part in before)
            before = [part.copy() for part in parts]
        found.append(results)
        if pipeline is device:
            assert isinstance(before[0], LazyFeatures)
            assert_same_features(before[0], plain.extract([left]))
    assert sum(map(len, found[0])) > 100
    for of_device, expected in zip(found[1], found[0], strict=True):
        np.testing.assert_array_equal(of_device.indices0, expected.indices0)
        np.testing.assert_array_equal(of_device.indices1, expected.indices1)
        # Positions in a turned image are rounded when they come down and go up again.
        np.testing.assert_allclose(of_device.scores, expected.scores, atol=3e-4)


def test_features_stay_on_the_device_until_an_array_is_asked_for(device, images):
    features = device.extract(images)
    matches = device.match_features(features, [(0, 1)])
    assert "descriptors" not in vars(features)
    np.testing.assert_array_equal(features.keypoints[0][matches[0].indices0], matches[0].keypoints0)
    assert features.copy().descriptors.shape == (2, 1024, 64)
    with pytest.raises(AttributeError, match="colour"):
        _ = features.colour


def test_a_gpu_places_a_wide_image_on_the_whole_canvas_on_which_it_runs(plain, device):
    """As the node says in `/diagnostics` and in the line about the first frame."""
    image = np.zeros((100, 400, 3), np.uint8)
    for pipeline in (plain, device):
        pipeline.set_image_size((640, 480))
    assert plain.placement((400, 100)).canvas_size == (448, 128)
    assert device.placement((400, 100)).canvas_size == device.image_size == (640, 480)
    device.extract([image])
    assert device._runner._tensors.frame.host["images"].shape[1:3] == (480, 640)


def test_the_canvases_are_made_where_the_device_copies_them_from(device, images):
    batch = device._place(images, device.image_size, ())
    assert np.shares_memory(batch.images, device._runner._tensors.frame.host["images"])
