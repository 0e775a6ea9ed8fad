"""Reads and writes image files."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lightglue_ros.errors import ImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_ALLOWED = f"an image file ({', '.join(SUFFIXES)})"


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image as uint8 [H, W, 3] RGB, or [H, W] where the file is grey.

    Raises:
        ImageError: there is no such file, or it is no image that OpenCV reads.
    """
    path = Path(path).expanduser()
    _need_file(path)
    image = cv2.imread(str(path), cv2.IMREAD_ANYCOLOR)
    if image is None:
        raise ImageError(
            f"{path} cannot be read as an image", allowed=_ALLOWED, fix="check that the file is whole"
        )
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def find_images(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Image files of all sources, in their order: a file, the images of a folder, or those that a glob names.

    Raises:
        ImageError: a file is missing, or a folder or glob has no images.
    """
    return [path for source in sources for path in _images_of(Path(source).expanduser())]


def _images_of(source: Path) -> list[Path]:
    if source.is_dir():
        return list_images(source)
    if source.is_file() or not glob.has_magic(str(source)):
        _need_file(source)
        return [source]
    paths = sorted(map(Path, glob.glob(str(source), recursive=True)))
    paths = [path for path in paths if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise ImageError(f"no images are named {source}", allowed=f"files ending in {', '.join(SUFFIXES)}")
    return paths


def _need_file(path: Path) -> None:
    if not path.is_file():
        raise ImageError(f"there is no image file {path}", allowed=_ALLOWED, fix="check the path")


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Image files of a folder, sorted by name.

    Raises:
        ImageError: the folder holds none.
    """
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ImageError(f"folder {folder} holds no images", allowed=f"files ending in {', '.join(SUFFIXES)}")
    return paths


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write uint8 [H, W, 3] RGB as an image file; the suffix says which format.

    Raises:
        ImageError: the folder is missing or the suffix is no image format.
    """
    try:
        is_written = cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        is_written = False
    if not is_written:
        raise ImageError(
            f"cannot write {path}", allowed=f"a file ending in {', '.join(SUFFIXES)} in a folder that exists"
        )
