"""Extractors at the cameras' computers and a matcher elsewhere, each in a process of its own."""

import contextlib
import re
from functools import partial

import numpy as np
import pytest
from std_msgs.msg import Header

from lightglue_ros.core import MatchPipeline
from lightglue_ros.msg import Features, PairMatches
from lightglue_ros.nodes import qos
from lightglue_ros.nodes.features import features_to_message
from lightglue_ros.nodes.processes import node_process
from lightglue_ros.rosdata.messages import message_to_matches

SIZE = {"image_width": 640, "image_height": 480}
EXTRACTS = {"publish_features": True, "publish_matches": False}


@pytest.fixture
def extractors(ros, model_folder):
    """Starts an extractor of each camera."""
    with contextlib.ExitStack() as stack:

        def start(*cameras):
            for camera in cameras:
                values = {"cameras": [camera], "image_topics": [f"{camera}/image_rect"], **EXTRACTS, **SIZE}
                stack.enter_context(node_process("matcher", values, name=f"extractor_{camera}"))

        yield start


def test_extractors_and_matcher_apart_give_the_matches_of_the_pipeline_on_images(robot, extractors, images):
    pipeline = MatchPipeline("xfeat", "cpu", image_size=(640, 480), refine="none")
    (expected,) = pipeline.match(list(images.values()), [(0, 1)])
    extractors("left", "right")
    rig = robot(input="features", connected=False, **SIZE)
    message = rig.show_until(images, partial(_has_status, PairMatches.STATUS_OK), "matches of features")
    (pair,) = message.pairs
    found = message_to_matches(pair)
    assert len(found) > 500
    for field in ("keypoints0", "keypoints1", "indices0", "indices1"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert found.checked is None  # refinement needs the images
    assert pair.stamp0 == pair.stamp1 == message.header.stamp
    assert (pair.frame_id0, pair.frame_id1) == ("left_optical", "right_optical")
    assert (pair.width0, pair.height0, pair.layers) == (741, 500, 6)
    # Whoever extracts does not match, and the other way round.
    topics = ("matches", "features/left", "features/right", "matches/image")
    assert [rig.count_publishers(topic) for topic in topics] == [1, 1, 1, 0]

    missing = partial(_has_status, PairMatches.STATUS_MISSING)
    rig.show_until({"left": images["left"]}, missing, "the right camera to be missing")


def test_features_of_another_model_are_rejected_by_cause_and_the_next_good_ones_matched(robot, motorcycle):
    pipeline = MatchPipeline("xfeat", image_size=(320, 224))
    rig = robot(input="features", connected=False)
    publishers = {
        camera: rig.create_publisher(Features, f"features/{camera}", qos.result_qos())
        for camera in ("left", "right")
    }
    rig.wait_until(lambda: rig.requested("features/left") == ["RELIABLE"], "subscriptions as it is offered")
    features = pipeline.extract(motorcycle)

    def show(**other):
        stamp = rig.get_clock().now().to_msg()
        for slot, (camera, publisher) in enumerate(publishers.items()):
            message = features_to_message(
                features.of_image(slot), Header(stamp=stamp, frame_id=camera), camera, pipeline.info, "fp32"
            )
            for field, value in other.items():
                setattr(message, field, value)
            publisher.publish(message)

    def is_counted(cause):
        return int(rig.diagnostics.get(f"images rejected: {cause}", 0)) > 0

    for other, cause in (
        ({"model": "disk"}, "other_model"),
        ({"weights_sha256": ""}, "other_weights"),
        ({"descriptor_dim": 128}, "other_descriptors"),
        ({"keypoints": [0.0]}, "wrong_size"),
    ):
        rig.repeat_until(partial(show, **other), partial(is_counted, cause), f"{cause} to be counted")
    assert not rig.messages
    rig.repeat_until(show, lambda: rig.messages, "matches of good features")
    found = message_to_matches(rig.messages[0].pairs[0])
    (expected,) = pipeline.match_features(features, [(0, 1)])
    np.testing.assert_array_equal(found.indices1, expected.indices1)
    # The features of either camera may come first.
    assert re.search("camera (left|right): features have the model 'disk'; allowed: 'xfeat'", rig.end())


def test_a_matcher_on_images_publishes_features_too_and_past_ones_are_matched(robot, images):
    # Refined matches end next to the keypoints.
    pairs = {"pairs": ["left:right", "left@-1:left"], "refine": "none"}
    stereo = robot(publish_features=True, features_precision="fp16", **pairs)
    received = stereo.hear(Features, "features/right", qos.result_qos())
    message = stereo.show_until(
        images,
        lambda message: [pair.status for pair in message.pairs] == [PairMatches.STATUS_OK] * 2,
        "both pairs",
    )
    stereo.repeat_until(lambda: stereo.show(images), lambda: received, "features of the right camera")
    features, pair = received[-1], message.pairs[0]
    assert (features.camera, features.header.frame_id) == ("right", "right_optical")
    keypoints = np.asarray(features.keypoints).reshape(-1, 2)
    np.testing.assert_array_equal(
        keypoints[np.asarray(pair.indices1)], np.asarray(pair.keypoints1).reshape(-1, 2)
    )


def _has_status(status, message):
    return message.pairs[0].status == status
