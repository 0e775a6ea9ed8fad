"""Writes videos, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from lightglue_ros.core.canvas import fitted_size
from lightglue_ros.core.files import require_file_name
from lightglue_ros.core.shrinking import shrink
from lightglue_ros.errors import ConfigError

SUFFIX = ".mp4"
# MPEG-4 part 2: OpenCV's wheels have its encoder, and none of H.264. VP9 was seen to take 20 times as long.
_CODEC = "mp4v"
# OpenCV does not report errors of the disk. With less room than this, what is being written may be lost.
_LEAST_FREE = 2**20


def require_video_name(path: Path) -> None:
    """Raise a ConfigError if no video can be made or replaced at `path`."""
    if path.suffix.lower() != SUFFIX:
        raise ConfigError(f"cannot write {path} as a video", allowed=f"a name that ends in {SUFFIX}")
    require_file_name(path)


@contextmanager
def video_file(path: Path, rate: float) -> Iterator[Callable[[np.ndarray], object]]:
    """Open a video, and give a function that adds a picture; see `core.files.Writer`.

    The first picture, uint8 [H, W, 3] RGB, gives the size. Larger ones are shrunk, smaller ones get black
    edges.

    Args:
        path: any name.
        rate: pictures per second.

    Raises:
        OSError: the file cannot be written, or is not whole.
    """
    unfinished = path.with_name(path.name + SUFFIX)  # FFmpeg chooses the format by the suffix
    writer = cv2.VideoWriter()
    size, count = (0, 0), 0

    def add(picture: np.ndarray) -> None:
        nonlocal size, count
        if not count:
            height, width = picture.shape[:2]
            size = width + width % 2, height + height % 2  # the codec wants even numbers
            if not writer.open(str(unfinished), cv2.VideoWriter.fourcc(*_CODEC), rate, size):
                raise OSError(errno.EIO, f"OpenCV cannot write a video of {width}x{height} pixels here")
        if shutil.disk_usage(path.parent).free < _LEAST_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        writer.write(cv2.cvtColor(_fit(picture, size), cv2.COLOR_RGB2BGR))
        count += 1

    try:
        yield add
        writer.release()
        if not _is_whole(unfinished, count):
            raise OSError(errno.ENOSPC, "not all of it could be written; the disk may be full")
        unfinished.replace(path)
    finally:
        writer.release()
        unfinished.unlink(missing_ok=True)


def _fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrink a picture to a (width, height), and add black edges at the right and below."""
    fitted = fitted_size((picture.shape[1], picture.shape[0]), size)
    if fitted != (picture.shape[1], picture.shape[0]):
        picture = shrink(picture, fitted)
    return np.pad(picture, ((0, size[1] - len(picture)), (0, size[0] - picture.shape[1]), (0, 0)))


def _is_whole(path: Path, count: int) -> bool:
    """Return True if a video has `count` pictures and the last of them can be read."""
    if not count or not path.exists():
        return False
    capture = cv2.VideoCapture(str(path))
    try:
        if capture.get(cv2.CAP_PROP_FRAME_COUNT) != count:
            return False
        capture.set(cv2.CAP_PROP_POS_FRAMES, count - 1)
        return bool(capture.read()[0])
    finally:
        capture.release()
