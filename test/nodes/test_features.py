"""Features as messages: what is sent is what is matched; what cannot be is refused by its cause."""

from dataclasses import replace

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from lightglue_ros.core import MatchPipeline
from lightglue_ros.errors import RejectedImageError
from lightglue_ros.msg import Features as FeaturesMsg
from lightglue_ros.nodes.features import check_features, features_to_message


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return MatchPipeline(model_folder, "cpu", image_size=(320, 224))


@pytest.fixture(scope="module")
def features(pipeline, motorcycle):
    return pipeline.extract(motorcycle[:1])


@pytest.fixture
def message(pipeline, features):
    return features_to_message(features, Header(frame_id="left_optical"), "left", pipeline.info, "fp32")


def test_features_come_out_of_a_message_as_they_went_in(pipeline, features, message):
    received = deserialize_message(serialize_message(message), FeaturesMsg)
    image = check_features(received, pipeline.info, pipeline.max_keypoints)
    assert (image.header.frame_id, image.width, image.height) == ("left_optical", 741, 500)
    found = image.decode(None)
    for field in ("keypoints", "scores", "mask", "descriptors", "image_sizes"):
        np.testing.assert_array_equal(getattr(found, field), getattr(features, field))


def test_features_of_a_turned_image_are_matched_elsewhere_as_turned(pipeline, motorcycle):
    mounted = [motorcycle[0], motorcycle[1][::-1, ::-1].copy()]
    features = pipeline.extract(mounted, [0, 180])
    sent = features_to_message(features.of_image(1), Header(), "right", pipeline.info, "fp32")
    assert sent.rotation == 180
    received = check_features(sent, pipeline.info, pipeline.max_keypoints).decode(None)
    together = type(received).concatenate([features.of_image(0), received])
    (found,), (expected,) = (pipeline.match_features(it, [(0, 1)]) for it in (together, features))
    assert len(found) > 50
    np.testing.assert_array_equal(found.indices1, expected.indices1)


def test_half_precision_halves_the_descriptors_and_keeps_the_rest(pipeline, features, message):
    half = features_to_message(features, Header(), "left", pipeline.info, "fp16")
    assert 2 * len(half.descriptors) == len(message.descriptors)
    found = check_features(half, pipeline.info, pipeline.max_keypoints).decode(None)
    np.testing.assert_array_equal(found.keypoints, features.keypoints)
    np.testing.assert_allclose(found.descriptors, features.descriptors, atol=2**-11)


def test_the_cap_on_keypoints_holds_for_features(pipeline, features, message):
    found = check_features(message, pipeline.info, 50).decode(None)
    assert found.mask.sum() == 50
    np.testing.assert_array_equal(found.keypoints[:, :50], features.keypoints[:, :50])
    assert not found.descriptors[:, 50:].any()


@pytest.mark.parametrize(
    ("field", "value", "cause", "says"),
    [
        ("model", "disk", "other_model", "'disk'; allowed: 'xfeat'"),
        ("weights_sha256", "0" * 64, "other_weights", "give extractors and matcher the same model"),
        ("descriptor_dim", 128, "other_descriptors", "descriptor_dim '128'; allowed: '64'"),
        ("width", 0, "empty_image", "0x500"),
        ("rotation", 45, "unknown_rotation", "rotation 45; allowed: 0, 90, 180, 270"),
        ("descriptor_type", 9, "unknown_descriptor_type", "descriptor_type 9; allowed: FLOAT32, FLOAT16"),
        ("descriptor_type", FeaturesMsg.FLOAT16, "wrong_size", "bytes of descriptors; allowed"),
        ("keypoints", [1.0, 2.0, 3.0], "wrong_size", "3 coordinates"),
        ("scores", [], "wrong_size", "features of 0 keypoints"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_decoded(pipeline, message, field, value, cause, says):
    setattr(message, field, value)
    with pytest.raises(RejectedImageError) as caught:
        check_features(message, pipeline.info, pipeline.max_keypoints)
    assert caught.value.cause == cause
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_that_are_not_finite_are_refused(pipeline, features):
    for field in ("keypoints", "scores", "descriptors"):
        broken = replace(features, **{field: getattr(features, field).copy()})
        getattr(broken, field)[0, 3] = np.nan
        message = features_to_message(broken, Header(), "left", pipeline.info, "fp16")
        with pytest.raises(RejectedImageError) as caught:
            check_features(message, pipeline.info, pipeline.max_keypoints).decode(None)
        assert caught.value.cause == "not_finite"


def test_an_image_without_keypoints_goes_through(pipeline):
    black = pipeline.extract([np.zeros((100, 120), np.uint8)])
    message = features_to_message(black, Header(), "left", pipeline.info, "fp32")
    assert len(message.scores) == len(message.descriptors) == 0
    found = check_features(message, pipeline.info, pipeline.max_keypoints).decode(None)
    assert not found.mask.any()
