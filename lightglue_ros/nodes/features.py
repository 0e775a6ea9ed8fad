"""Messages of features, from the computer of a camera to the one that matches."""

from __future__ import annotations

import array
from dataclasses import replace
from functools import partial

import numpy as np
from std_msgs.msg import Header

from lightglue_ros.core import Features
from lightglue_ros.core.contract import GraphInfo
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.core.rotation import ROTATIONS
from lightglue_ros.errors import RejectedImageError
from lightglue_ros.msg import Features as FeaturesMsg
from lightglue_ros.rosdata.decoding import CameraImage

_TYPES = {FeaturesMsg.FLOAT32: np.dtype("<f4"), FeaturesMsg.FLOAT16: np.dtype("<f2")}
_TYPE_OF = {"fp32": FeaturesMsg.FLOAT32, "fp16": FeaturesMsg.FLOAT16}


def features_to_message(
    features: Features, header: Header, camera: str, info: GraphInfo, precision: str
) -> FeaturesMsg:
    """Make the message of the features of one image.

    Args:
        info: of the model that extracted them.
        precision: ``fp32``, or ``fp16`` for descriptors of half the size.
    """
    count = int(features.mask[0].sum())
    width, height = features.image_sizes[0]
    kind = _TYPE_OF[precision]
    message = FeaturesMsg(header=header, camera=camera, width=int(width), height=int(height))
    message.rotation = features.rotations[0] if features.rotations else 0
    message.model, message.weights_sha256 = info.model, info.weights_sha256[0]
    message.keypoints = array.array("f", features.keypoints[0, :count].tobytes())
    message.scores = array.array("f", features.scores[0, :count].tobytes())
    message.descriptor_type, message.descriptor_dim = kind, info.descriptor_dim
    message.descriptors = array.array("B", features.descriptors[0, :count].astype(_TYPES[kind]).tobytes())
    return message


def check_features(message: FeaturesMsg, info: GraphInfo, max_keypoints: int) -> CameraImage:
    """Check that features can be matched in place of their image.

    Args:
        info: of the model that will match them.
        max_keypoints: cap; the keypoints with the best scores are taken.

    Raises:
        RejectedImageError: they come from another model, or their sizes are inconsistent.
    """
    _check_model(message, info)
    _check_sizes(message)
    decode = partial(_decode, message, max_keypoints, info.max_keypoints)
    return CameraImage(message.header, message.width, message.height, decode)


def _check_model(message: FeaturesMsg, info: GraphInfo) -> None:
    ours = {
        "model": ("model", info.model),
        "weights_sha256": ("weights", info.weights_sha256[0]),
        "descriptor_dim": ("descriptors", info.descriptor_dim),
    }
    for field, (what, expected) in ours.items():
        found = getattr(message, field)
        if found != expected:
            raise RejectedImageError(
                f"other_{what}",
                f"features have the {field} {str(found)[:64]!r}",
                allowed=f"{str(expected)!r}, as of this matcher",
                fix="give extractors and matcher the same model, exported from the same weights",
            )


def _check_sizes(message: FeaturesMsg) -> None:
    if not message.width or not message.height:
        raise RejectedImageError(
            "empty_image",
            f"features are of an empty image ({message.width}x{message.height})",
            allowed="a width and a height of at least 1 pixel",
        )
    if message.rotation not in ROTATIONS:
        raise RejectedImageError(
            "unknown_rotation",
            f"features have the rotation {message.rotation}",
            allowed=", ".join(map(str, ROTATIONS)),
        )
    kind = _TYPES.get(message.descriptor_type)
    if kind is None:
        raise RejectedImageError(
            "unknown_descriptor_type",
            f"features have the descriptor_type {message.descriptor_type}",
            allowed="FLOAT32, FLOAT16",
        )
    count = len(message.scores)
    expected = (2 * count, count * message.descriptor_dim * kind.itemsize)
    found = (len(message.keypoints), len(message.descriptors))
    if found != expected:
        raise RejectedImageError(
            "wrong_size",
            f"features of {count} keypoints have {found[0]} coordinates and {found[1]} bytes of descriptors",
            allowed=f"{expected[0]} coordinates and {expected[1]} bytes",
        )


def _decode(message: FeaturesMsg, max_keypoints: int, slots: int, _: Mono16Range) -> Features:
    kind = _TYPES[message.descriptor_type]
    keypoints = np.asarray(message.keypoints, np.float32).reshape(-1, 2)
    scores = np.asarray(message.scores, np.float32)
    descriptors = np.frombuffer(message.descriptors, kind).reshape(-1, message.descriptor_dim)
    arrays = [values[:max_keypoints] for values in (keypoints, scores, descriptors)]
    if not all(np.isfinite(values).all() for values in arrays):
        raise RejectedImageError("not_finite", "features have numbers that are infinite or NaN")
    features = Features.pad(*arrays, (message.width, message.height), slots)
    return replace(features, rotations=(message.rotation,)) if message.rotation else features
