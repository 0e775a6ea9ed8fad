"""Masks of cameras from files and from image messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightglue_ros.core.masks import Mask, read_mask
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import ConfigError, ImageError
from lightglue_ros.rig.masks import CameraMasks
from lightglue_ros.rosdata.decoding import CompressedImage, Image, check_message

if TYPE_CHECKING:
    from lightglue_ros.rosdata.parameters import MatcherParameters

# Other encodings would be converted, and then black may be another value.
_ENCODINGS = ("mono8", "8UC1")


def camera_masks(settings: MatcherParameters, topics: Sequence[str]) -> CameraMasks | None:
    """Read the masks of a rig's cameras; None if it has none.

    Args:
        topics: full name of each camera's topic of masks; empty for a camera without.

    Raises:
        ConfigError: a file is no mask.
    """
    files = settings.mask_files
    if not any(files) and not any(topics):
        return None
    staying: list[Mask | None] = []
    for camera, file in zip(settings.cameras, settings.of_cameras(files), strict=True):
        try:
            staying.append(read_mask(file) if file else None)
        except ImageError as error:
            raise ConfigError(f"parameter mask_files, camera {camera}: {error}") from error
    return CameraMasks(staying, settings.of_cameras(topics), settings.mask_max_age)


def mask_of_message(message: Image | CompressedImage, topic: str, max_pixels: int) -> Mask:
    """Decode a mask.

    Raises:
        ImageError: the message is no mask.
    """
    name = f"the mask on {topic}"
    encoding = getattr(message, "encoding", "")
    if encoding and encoding not in _ENCODINGS:
        allowed = f"{', '.join(_ENCODINGS)}, or a compressed grey PNG"
        raise ImageError(f"{name} has the encoding {encoding[:40]!r}", allowed=allowed)
    try:
        image = check_message(message, max_pixels)
        pixels = image.decode(Mono16Range()) if image.decode else None
    except ImageError as error:
        raise ImageError(f"{name} is broken: {error}") from error
    return Mask(pixels if isinstance(pixels, np.ndarray) else np.zeros(0, np.uint8), name)
