"""Sources of images: a file, a folder or a video.

Images keep the depth of their file: uint8 or uint16, [H, W] grey or [H, W, 3] RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from lightglue_ros.core.image_files import list_images, read_stored_image
from lightglue_ros.errors import ImageError

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".webm", ".ogv", ".mjpg", ".mjpeg")


class StillImage:
    """Image file that is read once: each pass over it gives the same array."""

    rate: float | None = None

    def __init__(self, path: Path) -> None:
        self._image = read_stored_image(path)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self._image,))


class ImageFolder:
    """Images of a folder in the order of their names, read one at a time."""

    rate: float | None = None

    def __init__(self, path: Path) -> None:
        self._paths = list_images(path)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(read_stored_image, self._paths)


class Video:
    """Images of a video file, decoded one at a time.

    Attributes:
        rate: images per second; None if the file does not say.

    Raises:
        ImageError: the file is missing, or OpenCV cannot read it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ImageError(f"there is no video file {path}", fix="check the path")
        self._path = path
        capture, _ = self._open()
        self.rate: float | None = capture.get(cv2.CAP_PROP_FPS) or None
        capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        capture, image = self._open()
        try:
            while image is not None:
                yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                image = capture.read()[1]
        finally:
            capture.release()

    def _open(self) -> tuple[cv2.VideoCapture, np.ndarray]:
        """Open the file and read its first image, because some files open that have no images."""
        capture = cv2.VideoCapture(str(self._path))
        image = capture.read()[1]
        if image is None:
            raise ImageError(
                f"{self._path} cannot be read as a video",
                allowed="a video file that OpenCV can decode",
                fix=f"convert it: ffmpeg -i {self._path.name} -c:v mjpeg -q:v 2 {self._path.stem}.avi",
            )
        return capture, image


def open_source(path: str | Path) -> StillImage | ImageFolder | Video:
    """Open a folder of images, a video or an image.

    Raises:
        ImageError: the path is missing or cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return ImageFolder(path)
    return Video(path) if path.suffix.lower() in VIDEO_SUFFIXES else StillImage(path)


class Repeated:
    """Images of a source, one by one, and from the beginning again after the last.

    Attributes:
        passes: number of times that the end was reached.
    """

    def __init__(self, source: StillImage | ImageFolder | Video) -> None:
        self.passes = 0
        self._source = source
        self._images = iter(source)

    def next_image(self) -> np.ndarray:
        """Return the next image.

        Raises:
            ImageError: the image cannot be read.
        """
        image = next(self._images, None)
        if image is None:
            self.passes += 1
            self._images = iter(self._source)
            image = next(self._images)
        return image
