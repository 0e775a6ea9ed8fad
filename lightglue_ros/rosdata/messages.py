"""Messages of matches and tracks, for the message classes of rclpy and for those of rosbags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lightglue_ros.core.features import MATCH_ARRAYS, PairMatches
from lightglue_ros.rig.frame import FrameImage, FrameResult, RigPair
from lightglue_ros.rig.references import StoredImage
from lightglue_ros.rig.tracks import CameraTracks
from lightglue_ros.rig.verification import Verification


class Stamp(Protocol):
    """builtin_interfaces/Time."""

    sec: int
    nanosec: int


class Header(Protocol):
    """std_msgs/Header."""

    stamp: Stamp
    frame_id: str


class StampedImage(FrameImage, Protocol):
    """An image with the header of its message."""

    header: Header


@dataclass(frozen=True)
class MessageTypes:
    """Classes of our messages and of builtin_interfaces/Time.

    Attributes:
        flat: converts an array of any shape to the value of a flat field.
    """

    matches: type
    pair_matches: type
    tracks: type
    camera_tracks: type
    time: type
    flat: Callable[[np.ndarray], Any]


def stamp_in_ns(header: Header) -> int:
    """Return the stamp in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def result_to_message(types: MessageTypes, result: FrameResult[StampedImage], model: str) -> Any:
    """Make the Matches message of a frame that has a usable image; it has as many pairs as the rig."""
    rig = result.settings.rig
    pairs = [
        _pair_message(types, rig.names[first.camera], rig.names[second.camera], pair)
        for (first, second), pair in zip(rig.pairs, result.pairs, strict=True)
    ]
    return types.matches(header=result.first_image.header, model=model, pairs=pairs)


def message_to_matches(message: Any) -> PairMatches:
    """Make the arrays of one pair of a `Matches` message, of rclpy or of rosbags."""
    return PairMatches(
        np.asarray(message.keypoints0, np.float32).reshape(-1, 2),
        np.asarray(message.keypoints1, np.float32).reshape(-1, 2),
        np.asarray(message.scores, np.float32),
        np.asarray(message.indices0, np.int32),
        np.asarray(message.indices1, np.int32),
        message.layers,
        np.asarray(message.checked, np.uint8) != 0 if len(message.checked) else None,
    )


def message_to_inliers(message: Any) -> np.ndarray | None:
    """Return which matches agree with the geometry, bool [M]; None if they were not verified."""
    if message.verification == message.VERIFICATION_NONE:
        return None
    return np.asarray(message.inliers, np.uint8) != 0


def _pair_message(types: MessageTypes, camera0: str, camera1: str, pair: RigPair[StampedImage]) -> Any:
    kind, matches = types.pair_matches, pair.matches
    # All fields are named, because the classes of rosbags have no defaults.
    return kind(
        status=kind.STATUS_MISSING if pair.is_missing else kind.STATUS_OK,
        camera0=camera0,
        camera1=camera1,
        **_image_fields(types, 0, pair.image0),
        **_image_fields(types, 1, pair.image1),
        num_keypoints0=pair.num_keypoints0,
        num_keypoints1=pair.num_keypoints1,
        **{name: types.flat(getattr(matches, name)) for name in MATCH_ARRAYS},
        checked=types.flat(_flags(matches.checked)),
        **_verification_fields(types, pair.verification),
        layers=matches.layers,
    )


def _flags(values: np.ndarray | None) -> np.ndarray:
    return np.zeros(0, np.uint8) if values is None else values.astype(np.uint8)


def _verification_fields(types: MessageTypes, found: Verification | None) -> dict[str, Any]:
    kind = types.pair_matches
    if found is None:
        nothing = types.flat(_flags(None))
        return {"verification": kind.VERIFICATION_NONE, "inliers": nothing, "matrix": np.zeros(9)}
    return {
        "verification": getattr(kind, f"VERIFICATION_{found.geometry.upper()}"),
        "inliers": types.flat(_flags(found.inliers)),
        "matrix": np.zeros(9) if found.matrix is None else found.matrix.ravel(),
    }


def _image_fields(
    types: MessageTypes, number: int, image: StampedImage | StoredImage | None
) -> dict[str, Any]:
    """Make the fields of the first (0) or second (1) image of a pair; zeros if it is missing.

    A reference has no stamp, and the name of its file in the place of a frame.
    """
    values = (types.time(sec=0, nanosec=0), "", 0, 0)
    if isinstance(image, StoredImage):
        values = (values[0], image.path.name, image.width, image.height)
    elif image is not None:
        values = (image.header.stamp, image.header.frame_id, image.width, image.height)
    names = ("stamp", "frame_id", "width", "height")
    return {f"{name}{number}": value for name, value in zip(names, values, strict=True)}


def tracks_to_message(
    types: MessageTypes,
    cameras: Sequence[str],
    headers: Sequence[Header | None],
    tracks: Sequence[CameraTracks | None],
) -> Any:
    """Make the Tracks message of a frame that has a usable image.

    Args:
        cameras: names of the rig's cameras.
        headers: of each camera's image; None if it is missing.
        tracks: of each camera; None likewise.
    """
    present = [
        types.camera_tracks(
            camera=camera,
            header=header,
            **{name: types.flat(values) for name, values in vars(of_camera).items()},
        )
        for camera, header, of_camera in zip(cameras, headers, tracks, strict=True)
        if header is not None and of_camera is not None
    ]
    return types.tracks(header=present[0].header, cameras=present)
