"""Frames through the exported XFeat + LighterGlue: what is extracted, kept and matched, and with what."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from lightglue_ros.core import Features, MatchPipeline
from lightglue_ros.core.image_files import list_images, read_image
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import ConfigError, RejectedImageError
from lightglue_ros.rig.frame import FrameSettings, RigFrame
from lightglue_ros.rig.processor import FrameProcessor
from lightglue_ros.rig.rig import Rig
from lightglue_ros.rig.verification import Intrinsics


@dataclass(frozen=True)
class NamedImage:
    """An image in memory, or features, or an error that decoding raises."""

    name: Any
    content: Any

    width, height = 741, 500

    def decode(self, mono16):
        if isinstance(self.content, Exception):
            raise self.content
        return self.content

    def without_pixels(self):
        return replace(self, content=None)


class Frames:
    """Hands frames of named images to a processor."""

    def __init__(self, pipeline, cameras, pairs, **settings):
        rig = Rig.parse(cameras, pairs)
        self.settings = FrameSettings(rig, pipeline.image_size, None, 0.1, Mono16Range(), **settings)
        self.processor = FrameProcessor(pipeline, self.settings)

    def frame(self, contents, names, between=(), epoch=0):
        images = tuple(
            None if content is None else NamedImage(name, content)
            for name, content in zip(names, contents, strict=True)
        )
        missing = {camera for camera, image in enumerate(images) if image is None} - set(between)
        return RigFrame(images, (0,) * len(images), frozenset(missing), (epoch,) * len(images))

    def process(self, contents, names, between=(), epoch=0):
        return self.processor.process(self.frame(contents, names, between, epoch), self.settings)

    def match(self, *frame):
        return self.process(*frame).pairs


def name_of(image):
    return None if image is None else image.name


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
    for graph, name in (("extractor", "images"), ("matcher", "matcher")):
        session = pipeline._sessions[graph]

        def counted(tensors, name=name, run=session.run):
            counts[name] += len(tensors["images"]) if name == "images" else 1
            return run(tensors)

        monkeypatch.setattr(session, "run", counted)
    return counts


def assert_same(found, expected):
    np.testing.assert_array_equal(found.indices0, expected.indices0)
    np.testing.assert_array_equal(found.indices1, expected.indices1)
    np.testing.assert_allclose(found.keypoints0, expected.keypoints0, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_stereo_with_time_extracts_every_image_once_and_matches_as_each_pair_alone(pipeline, drive, runs):
    """The left camera one frame ahead stands in for a right one."""
    frames = Frames(
        pipeline, ["left", "right"], ["left:right", "left@-1:left", "left@-5:left", "right:right@-1"]
    )
    images = [(drive[number], drive[number + 1]) for number in range(8)]
    results = [frames.match(image, (("left", n), ("right", n))) for n, image in enumerate(images)]
    assert runs == {"images": 2 * len(images), "matcher": len(images)}
    assert frames.processor.extracted == 2 * len(images)
    for number, (stereo, one_back, five_back, right) in enumerate(results):
        missing = [pair.is_missing for pair in (stereo, one_back, five_back, right)]
        assert missing == [False, number < 1, number < 5, number < 1]
        assert (stereo.image0.name, stereo.image1.name) == (("left", number), ("right", number))
        assert name_of(one_back.image0) == (("left", number - 1) if number else None)
        assert five_back.image1.name == ("left", number)
    stereo, one_back, five_back, right = results[6]
    for pair, first, second in ((stereo, 6, 7), (one_back, 5, 6), (five_back, 1, 6), (right, 7, 6)):
        (alone,) = pipeline.match((drive[first], drive[second]), [(0, 1)])
        assert len(alone) > 30
        assert_same(pair.matches, alone)


def test_one_camera_through_time_begins_again_when_time_is_set_back(pipeline, motorcycle, runs):
    left, right = motorcycle
    frames = Frames(pipeline, ["camera"], ["camera@-1:camera"])
    found = [frames.match([image], [n])[0] for n, image in enumerate((left, right))]
    assert [pair.is_missing for pair in found] == [True, False]
    assert runs["matcher"] == 1
    assert len(found[1].matches) > 100
    assert frames.match([left], ["new"], (), 1)[0].is_missing


def test_a_camera_that_was_missing_is_missing_in_the_past_but_one_between_two_images_is_not(
    pipeline, motorcycle
):
    left, right = motorcycle
    pairs = ["fast:slow", "slow@-1:slow", "fast@-1:fast"]
    for between, slow_before in (([1], "slow 0"), ([], None)):
        frames = Frames(pipeline, ["fast", "slow"], pairs)
        frames.match([left, right], ["fast 0", "slow 0"])
        stereo, slow, fast = frames.match([left, None], ["fast 1", None], between)
        assert [pair.is_missing for pair in (stereo, slow, fast)] == [True, True, False]
        assert (name_of(stereo.image0), stereo.image1) == ("fast 1", None)
        assert len(stereo.matches) == 0
        _, slow, fast = frames.match([left, right], ["fast 2", "slow 2"])
        assert (name_of(slow.image0), slow.image1.name) == (slow_before, "slow 2")
        assert fast.image0.name == "fast 1"


def test_no_more_is_kept_than_the_pairs_need_and_no_pixels(pipeline, motorcycle):
    frames = Frames(pipeline, ["left", "right"], ["left:right", "left@-3:left"])
    for number in range(6):
        frames.match(motorcycle, [number, number])
    past = frames.processor.history._past
    assert [[kept.image.name for kept in images] for images in past] == [[3, 4, 5], []]
    kept = past[0][0]
    assert kept.image.content is None
    assert len(kept.features.keypoints) == 1
    assert kept.features.descriptors.base is None
    rig = Rig.parse(["left", "right"], ["left@-1:left"])
    frames.settings = replace(frames.settings, rig=rig)
    assert not frames.match(motorcycle, [6, 6])[0].is_missing
    assert [[kept.image.name for kept in images] for images in frames.processor.history._past] == [[6], []]


def test_frames_may_be_extracted_before_earlier_ones_are_matched(pipeline, motorcycle):
    cameras, pairs = ["left", "right"], ["left:right", "left@-1:left"]
    contents = [motorcycle, motorcycle[::-1], motorcycle]
    in_turn, overlapping = (Frames(pipeline, cameras, pairs) for _ in range(2))
    expected = [in_turn.match(images, [number] * 2) for number, images in enumerate(contents)]
    frames = [overlapping.frame(images, [number] * 2) for number, images in enumerate(contents)]
    processor, settings = overlapping.processor, overlapping.settings
    extracted = [processor.extract(frame, settings) for frame in frames]
    for one, of_frame in zip(extracted, expected, strict=True):
        for pair, other in zip(processor.match(one).pairs, of_frame, strict=True):
            assert pair.is_missing == other.is_missing
            np.testing.assert_array_equal(pair.matches.keypoints1, other.matches.keypoints1)


def test_a_broken_image_is_rejected_and_the_frame_goes_on_without_its_camera(pipeline, motorcycle, runs):
    frames = Frames(pipeline, ["left", "right"], ["left:right"])
    broken = RejectedImageError("broken_jpeg", "cut")
    result = frames.process([motorcycle[0], broken], ["left", "right"])
    assert result.rejected == [(1, broken)]
    assert result.pairs[0].is_missing
    assert result.first_image.name == "left"
    assert runs == {"images": 1, "matcher": 0}


def test_a_frame_without_a_usable_image_has_no_pairs_and_leaves_the_past_alone(pipeline, motorcycle, runs):
    frames = Frames(pipeline, ["camera"], ["camera@-1:camera"])
    frames.match([motorcycle[0]], [0])
    result = frames.process([RejectedImageError("broken_jpeg", "cut")], [1])
    assert (result.first_image, result.pairs) == (None, [])
    assert runs == {"images": 1, "matcher": 0}
    assert frames.match([motorcycle[1]], [2])[0].image0.name == 0


def test_features_that_were_extracted_elsewhere_are_matched_as_if_here(pipeline, motorcycle):
    def through_a_message(features):
        """Without its padding, and padded again."""
        count = int(features.mask.sum())
        unpadded = (one[0, :count] for one in (features.keypoints, features.scores, features.descriptors))
        return Features.pad(*unpadded, tuple(features.image_sizes[0]), slots=features.mask.shape[1])

    pairs = ["left:right", "left@-1:left"]
    here, there = (Frames(pipeline, ["left", "right"], pairs) for _ in range(2))
    for number in range(2):
        result = here.process(motorcycle, [number, number])
        # One of the two as an image, because a rig may have both.
        sent = through_a_message(result.features[0])
        found = there.match([sent, motorcycle[1]], [number, number])
        for pair, alone in zip(found, result.pairs, strict=True):
            assert pair.is_missing == alone.is_missing
            assert_same(pair.matches, alone.matches)
    assert len(found[0].matches) > 100
    assert there.processor.extracted == 2


def test_pairs_that_cannot_be_verified_are_named_and_the_others_are_verified(pipeline, motorcycle):
    class Calibration:
        def intrinsics(self, camera, image_size):
            if camera == 1:
                raise ConfigError("camera right: is not calibrated")
            return Intrinsics(np.array([[995.0, 0, 311], [0, 995.0, 255], [0, 0, 1]]))

    frames = Frames(pipeline, ["left", "right"], ["left:right", "left@-1:left"], geometry="essential")
    frames.processor._calibration = Calibration()
    frames.process(motorcycle, [0, 0])
    result = frames.process([motorcycle[1], motorcycle[0]], [1, 1])
    stereo, through_time = result.pairs
    assert stereo.verification is None
    assert through_time.verification.inliers.mean() > 0.5
    assert result.unverified == "camera right: is not calibrated"


def test_of_too_many_keypoints_the_best_are_taken(pipeline, motorcycle):
    whole = pipeline.extract(motorcycle[:1])
    count = int(whole.mask.sum())
    few = Features.pad(whole.keypoints[0], whole.scores[0], whole.descriptors[0], (741, 500), slots=100)
    assert count > 100
    assert few.mask.all()
    np.testing.assert_array_equal(few.keypoints, whole.keypoints[:, :100])
    np.testing.assert_array_equal(few.image_sizes, whole.image_sizes)


def test_pairs_through_time_are_refined_as_the_two_images_themselves(pipeline, drive):
    frames = Frames(pipeline, ["left"], ["left@-1:left"], refine="lucas_kanade")
    (_,), (found,) = (frames.match((drive[number],), (number,)) for number in range(2))
    (expected,) = pipeline.match(drive[:2], [(0, 1)])
    assert_same(found.matches, expected)
    np.testing.assert_allclose(found.matches.keypoints1, expected.keypoints1, atol=1e-3)
    assert found.matches.checked.mean() > 0.5
    frames.settings = replace(frames.settings, refine="none")
    (unrefined,) = frames.match((drive[2],), (2,))
    assert unrefined.matches.checked is None


def test_features_that_come_in_place_of_images_are_not_refined(pipeline, motorcycle):
    features = pipeline.extract(motorcycle)
    frames = Frames(pipeline, ["left", "right"], ["left:right"], refine="lucas_kanade")
    (pair,) = frames.match([features.of_image(0), features.of_image(1)], ("left", "right"))
    (expected,) = pipeline.match_features(features, [(0, 1)])
    np.testing.assert_array_equal(pair.matches.keypoints1, expected.keypoints1)
    assert pair.matches.checked is None
