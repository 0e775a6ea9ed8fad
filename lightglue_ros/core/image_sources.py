"""Sources of images: a file, a folder or a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from lightglue_ros.core.image_files import list_images, read_stored_image
from lightglue_ros.errors import ImageError

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".webm", ".ogv", ".mjpg", ".mjpeg")


class ImageSource:
    """Images, one by one, and from the beginning again after the last.

    Args:
        begin: begins a pass over the images.
        rate: images per second; None if the source does not say.

    Attributes:
        rate: as given.
        passes: number of times that the end was reached.
    """

    def __init__(self, begin: Callable[[], Iterator[np.ndarray]], rate: float | None = None) -> None:
        self.rate = rate
        self.passes = 0
        self._begin = begin
        self._images = begin()

    def next_image(self) -> np.ndarray:
        """Return the next image in the depth of its file: uint8 or uint16, [H, W] grey or [H, W, 3] RGB.

        Raises:
            ImageError: the image cannot be read.
        """
        image = next(self._images, None)
        if image is None:
            self.passes += 1
            self._images = self._begin()
            image = next(self._images)
        return image


def open_source(path: str | Path) -> ImageSource:
    """Open a folder of images, whose order is that of their names, a video or an image.

    Raises:
        ImageError: the path is missing or cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        paths = list_images(path)
        return ImageSource(lambda: map(read_stored_image, paths))
    if path.suffix.lower() in VIDEO_SUFFIXES:
        capture, _ = _open_video(path)
        rate = capture.get(cv2.CAP_PROP_FPS) or None
        capture.release()
        return ImageSource(lambda: _video_images(path), rate)
    image = read_stored_image(path)
    return ImageSource(lambda: iter((image,)))


def _video_images(path: Path) -> Iterator[np.ndarray]:
    capture, image = _open_video(path)
    try:
        while image is not None:
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            image = capture.read()[1]
    finally:
        capture.release()


def _open_video(path: Path) -> tuple[cv2.VideoCapture, np.ndarray]:
    """Open a video and read its first image, because some files open that have no images."""
    if not path.is_file():
        raise ImageError(f"there is no video file {path}", fix="check the path")
    capture = cv2.VideoCapture(str(path))
    image = capture.read()[1]
    if image is None:
        raise ImageError(
            f"{path} cannot be read as a video",
            allowed="a video file that OpenCV can decode",
            fix=f"convert it: ffmpeg -i {path.name} -c:v mjpeg -q:v 2 {path.stem}.avi",
        )
    return capture, image
