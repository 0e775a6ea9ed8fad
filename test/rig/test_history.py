"""Rigs through the exported XFeat + LighterGlue: what is extracted, kept and matched, and with what."""

import numpy as np
import pytest

from lightglue_ros.core import Features, MatchPipeline
from lightglue_ros.core.image_files import list_images, read_image
from lightglue_ros.rig.history import RigMatcher
from lightglue_ros.rig.rig import Rig


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return MatchPipeline(model_folder, "cpu", image_size=(320, 224))


@pytest.fixture(scope="module")
def drive(shared_data):
    """Thirteen consecutive images of a car's camera."""
    return [read_image(path) for path in list_images(shared_data / "kitti_seq1" / "image_l")[:13]]


@pytest.fixture
def runs(pipeline, monkeypatch):
    """Counts the images that the extractor runs on, and the runs of the matcher."""
    counts = {"images": 0, "matcher": 0}
    extractor, matcher = (pipeline._sessions[graph] for graph in ("extractor", "matcher"))
    extract, match = extractor.run, matcher.run

    def counting_extract(tensors):
        counts["images"] += len(tensors["images"])
        return extract(tensors)

    def counting_match(tensors):
        counts["matcher"] += 1
        return match(tensors)

    monkeypatch.setattr(extractor, "run", counting_extract)
    monkeypatch.setattr(matcher, "run", counting_match)
    return counts


def assert_same(found, expected):
    np.testing.assert_array_equal(found.indices0, expected.indices0)
    np.testing.assert_array_equal(found.indices1, expected.indices1)
    np.testing.assert_allclose(found.keypoints0, expected.keypoints0, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_stereo_with_time_extracts_every_image_once_and_matches_as_each_pair_alone(pipeline, drive, runs):
    """The left camera one frame ahead stands in for a right one."""
    rig = Rig.parse(["left", "right"], ["left:right", "left@-1:left", "left@-5:left", "right:right@-1"])
    matcher = RigMatcher(pipeline, rig)
    frames = [(drive[number], drive[number + 1]) for number in range(8)]
    results = [matcher.match(frame, (("left", n), ("right", n))) for n, frame in enumerate(frames)]
    assert runs == {"images": 2 * len(frames), "matcher": len(frames)}
    assert matcher.extracted == 2 * len(frames)
    for number, (stereo, one_back, five_back, right) in enumerate(results):
        assert [pair.is_missing for pair in (stereo, one_back, five_back, right)] == [
            False,
            number < 1,
            number < 5,
            number < 1,
        ]
        assert (stereo.label0, stereo.label1) == (("left", number), ("right", number))
        assert one_back.label0 == (("left", number - 1) if number else None)
        assert five_back.label1 == ("left", number)
    stereo, one_back, five_back, right = results[6]
    for pair, images in (
        (stereo, (drive[6], drive[7])),
        (one_back, (drive[5], drive[6])),
        (five_back, (drive[1], drive[6])),
        (right, (drive[7], drive[6])),
    ):
        (alone,) = pipeline.match(images, [(0, 1)])
        assert len(alone) > 30
        assert_same(pair.matches, alone)


def test_one_camera_through_time_begins_again_after_forgetting(pipeline, motorcycle, runs):
    left, right = motorcycle
    matcher = RigMatcher(pipeline, Rig.parse(["camera"], ["camera@-1:camera"]))
    found = [matcher.match([image], [n])[0] for n, image in enumerate((left, right))]
    assert [pair.is_missing for pair in found] == [True, False]
    assert runs["matcher"] == 1
    assert len(found[1].matches) > 100
    matcher.forget()
    assert matcher.match([left], ["new"])[0].is_missing


def test_a_camera_that_was_missing_is_missing_in_the_past_but_one_between_two_images_is_not(
    pipeline, motorcycle
):
    left, right = motorcycle
    rig = Rig.parse(["fast", "slow"], ["fast:slow", "slow@-1:slow", "fast@-1:fast"])
    for between, slow_before in (([1], "slow 0"), ([], None)):
        matcher = RigMatcher(pipeline, rig)
        matcher.match([left, right], ["fast 0", "slow 0"])
        stereo, slow, fast = matcher.match([left, None], ["fast 1", None], between)
        assert [pair.is_missing for pair in (stereo, slow, fast)] == [True, True, False]
        assert (stereo.label0, stereo.label1) == ("fast 1", None)
        assert len(stereo.matches) == 0
        _, slow, fast = matcher.match([left, right], ["fast 2", "slow 2"])
        assert (slow.label0, slow.label1) == (slow_before, "slow 2")
        assert fast.label0 == "fast 1"


def test_no_more_is_kept_than_the_pairs_need_and_a_copy_of_nothing_else(pipeline, motorcycle):
    rig = Rig.parse(["left", "right"], ["left:right", "left@-3:left"])
    matcher = RigMatcher(pipeline, rig)
    for number in range(6):
        matcher.match(motorcycle, [number, number])
    assert [[image.label for image in past] for past in matcher._past] == [[3, 4, 5], []]
    kept = matcher._past[0][0].features
    assert len(kept.keypoints) == 1
    assert kept.descriptors.base is None
    matcher.set_rig(Rig.parse(["left", "right"], ["left@-1:left"]))
    assert [[image.label for image in past] for past in matcher._past] == [[5], []]
    assert not matcher.match(motorcycle, [6, 6])[0].is_missing


def test_no_image_at_all_is_a_frame_of_missing_pairs(pipeline, runs):
    matcher = RigMatcher(pipeline, Rig.parse(["left", "right"], ["left:right"]))
    assert matcher.match([None, None], [None, None])[0].is_missing
    assert runs == {"images": 0, "matcher": 0}


def test_features_that_were_extracted_elsewhere_are_matched_as_if_here(pipeline, motorcycle, runs):
    rig = Rig.parse(["left", "right"], ["left:right", "left@-1:left"])
    here, there = RigMatcher(pipeline, rig), RigMatcher(pipeline, rig)
    for number in range(2):
        sent = [_through_a_message(features) for features in here.extract(motorcycle)]
        expected = here.match(motorcycle, [number, number])
        # One of the two as an image, for a rig may have both.
        found = there.match([sent[0], motorcycle[1]], [number, number])
        for pair, alone in zip(found, expected, strict=True):
            assert pair.is_missing == alone.is_missing
            assert_same(pair.matches, alone.matches)
    assert len(found[0].matches) > 100
    assert there.extracted == 2


def test_of_too_many_keypoints_the_best_are_taken(pipeline, motorcycle):
    whole = pipeline.extract(motorcycle[:1])
    count = int(whole.mask.sum())
    few = Features.pad(whole.keypoints[0], whole.scores[0], whole.descriptors[0], (741, 500), slots=100)
    assert count > 100
    assert few.mask.all()
    np.testing.assert_array_equal(few.keypoints, whole.keypoints[:, :100])
    np.testing.assert_array_equal(few.image_sizes, whole.image_sizes)


def _through_a_message(features):
    """Without its padding, and padded again."""
    count = int(features.mask.sum())
    unpadded = (features.keypoints[0, :count], features.scores[0, :count], features.descriptors[0, :count])
    width, height = features.image_sizes[0]
    return Features.pad(*unpadded, (width, height), slots=features.mask.shape[1])
