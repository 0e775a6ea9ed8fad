"""Checks of the parameters that are lists of one value for each camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue_ros.core.rotation import AUTO, ROTATIONS
from lightglue_ros.errors import ConfigError

if TYPE_CHECKING:
    from lightglue_ros.rosdata.parameters import MatcherParameters


def check_lists_of_cameras(settings: MatcherParameters) -> None:
    """Raise a ConfigError if a list has not one value for each camera, or a value that is not allowed."""
    _check_camera_info_topics(settings)
    _check_rotations(settings)
    _check_masks(settings)


def _check_camera_info_topics(settings: MatcherParameters) -> None:
    topics = settings.given_camera_info_topics
    if topics and len(topics) != len(settings.cameras):
        raise ConfigError(
            f"parameter camera_info_topics has {len(topics)} topics for {len(settings.cameras)} cameras",
            allowed="one topic for each camera, in the same order, or none",
            fix="camera_info_topics: [left/camera_info, right/camera_info]",
        )


def _check_rotations(settings: MatcherParameters) -> None:
    given = [it for it in settings.camera_rotations if it]
    allowed = [*map(str, ROTATIONS), AUTO]
    if given and (len(given) != len(settings.cameras) or not set(given) <= set(allowed)):
        raise ConfigError(
            f"parameter camera_rotations is {settings.camera_rotations} for {len(settings.cameras)} cameras",
            allowed=f"{', '.join(allowed)}, one for each camera, or none",
            fix='camera_rotations: ["0", "180"]',
        )
    if given and settings.takes_features:
        raise ConfigError(
            "parameter camera_rotations is set and input is features, which come without images",
            allowed="rotations where the images are extracted",
            fix="set camera_rotations of the matcher that publishes the features",
        )


def _check_masks(settings: MatcherParameters) -> None:
    for name in ("mask_files", "mask_topics"):
        given, cameras = getattr(settings, name), len(settings.cameras)
        if any(given) and (settings.takes_features or len(given) != cameras):
            raise ConfigError(
                f"parameter {name} is {given} for {cameras} cameras and input: {settings.input}",
                allowed="one for each camera, empty for a camera without, and input: images",
                fix=f'{name}: ["", "right/mask"], of the matcher that extracts the images',
            )
