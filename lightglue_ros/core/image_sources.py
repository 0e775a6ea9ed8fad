"""Sources of images: a file, a folder or a video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from lightglue_ros.core.image_files import list_images, read_image
from lightglue_ros.errors import ImageError

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".webm", ".ogv", ".mjpg", ".mjpeg")


class StillImage:
    """One image file, which is read once: each pass over it gives the same array."""

    rate: float | None = None

    def __init__(self, path: Path) -> None:
        self._image = read_image(path)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self._image,))


class ImageFolder:
    """The images of a folder in the order of their names, read one at a time."""

    rate: float | None = None

    def __init__(self, path: Path) -> None:
        self._paths = list_images(path)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(read_image, self._paths)


class Video:
    """The images of a video file, decoded one at a time.

    Attributes:
        rate: images per second, None where the file does not say.

    Raises:
        ImageError: there is no such file, or OpenCV cannot read it.
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
        """Open it and read its first image: some files open that have none."""
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
    """Open what is at a path: a folder of images, a video or an image.

    Raises:
        ImageError: it is missing or cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return ImageFolder(path)
    return Video(path) if path.suffix.lower() in VIDEO_SUFFIXES else StillImage(path)


class Repeated:
    """Gives the images of a source one by one, from the beginning again after the last.

    Attributes:
        passes: how often the end was reached.
    """

    def __init__(self, source: StillImage | ImageFolder | Video) -> None:
        self.passes = 0
        self._source = source
        self._images = iter(source)

    def next_image(self) -> np.ndarray:
        """The next image, uint8 [H, W] grey or [H, W, 3] RGB.

        Raises:
            ImageError: it cannot be read.
        """
        image = next(self._images, None)
        if image is None:
            self.passes += 1
            self._images = iter(self._source)
            image = next(self._images)
        return image
