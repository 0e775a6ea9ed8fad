"""Reads and writes image files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from lightglue_ros.core.encoded_images import decode_image
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import ImageError, RejectedImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_ALLOWED = f"an image file ({', '.join(SUFFIXES)})"


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image as uint8 [H, W, 3] RGB, or [H, W] if the file is grey.

    A 16-bit image is normalised by its percentiles, as the matcher node does by default. Pixels are those of
    the file as stored; Exif orientation is ignored.

    Raises:
        ImageError: the file is missing, or it is not a whole image that OpenCV reads.
    """
    return Mono16Range().to_8_bits(read_stored_image(path))


def read_stored_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image in its own depth: uint8 or uint16, [H, W] grey or [H, W, 3] RGB.

    Raises:
        ImageError: the file is missing, or it is not a whole image that OpenCV reads.
    """
    path = Path(path).expanduser()
    _require_file(path)
    try:
        return decode_image(path.read_bytes())
    except (OSError, RejectedImageError) as error:
        raise ImageError(f"{path} cannot be read as an image: {error}") from error


def find_images(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List the image files of all sources in their order: files, the images of folders, and those of globs.

    Raises:
        ImageError: a file is missing, or a folder or glob has no images.
    """
    return [path for source in sources for path in _images_of(Path(source).expanduser())]


def _images_of(source: Path) -> list[Path]:
    if source.is_dir():
        return list_images(source)
    if source.is_file() or not glob.has_magic(str(source)):
        _require_file(source)
        return [source]
    return _require_images(map(Path, glob.glob(str(source), recursive=True)), f"no images are named {source}")


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the image files of a folder, sorted by name.

    Raises:
        ImageError: the folder holds no images.
    """
    return _require_images(Path(folder).iterdir(), f"folder {folder} holds no images")


def _require_images(paths: Iterable[Path], otherwise: str) -> list[Path]:
    images = sorted(path for path in paths if path.suffix.lower() in SUFFIXES)
    if not images:
        raise ImageError(otherwise, allowed=f"files ending in {', '.join(SUFFIXES)}")
    return images


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ImageError(f"there is no image file {path}", allowed=_ALLOWED, fix="check the path")


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write uint8 [H, W, 3] RGB as an image file in the format of its suffix.

    Raises:
        ImageError: the folder is missing, or the suffix is not that of an image format.
    """
    try:
        is_written = cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        is_written = False
    if not is_written:
        raise ImageError(
            f"cannot write {path}", allowed=f"a file ending in {', '.join(SUFFIXES)} in a folder that exists"
        )
