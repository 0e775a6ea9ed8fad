"""Reads and writes image files, and reads folders of them and videos."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from lightglue_ros.core.encoded_images import LONGEST_JPEG_SIDE, decode_image
from lightglue_ros.core.files import natural_order, require_file_name, write_whole
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import ImageError, RejectedImageError

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".webm", ".ogv", ".mjpg", ".mjpeg")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_NAMED = ", ".join(SUFFIXES)
# Most pixels across and down in the formats that take fewer than OpenCV itself.
_LONGEST_SIDES = {".jpg": LONGEST_JPEG_SIDE, ".jpeg": LONGEST_JPEG_SIDE, ".webp": 16383}


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image as uint8 [H, W, 3] RGB, or [H, W] if the file is grey.

    A 16-bit image is normalised by its percentiles, as the matcher node does by default. Pixels are those of
    the file as stored; Exif orientation is ignored.

    Raises:
        ImageError: the file is missing, or it is not a whole image that OpenCV reads.
    """
    return Mono16Range().to_8_bits(read_stored_image(path))


def read_stored_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image in its own depth, uint8 or uint16, but otherwise as `read_image` does."""
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
    """List the image files of a folder, sorted 1, 2, 10; raise an ImageError if there are none."""
    return _require_images(Path(folder).iterdir(), f"folder {folder} holds no images")


def _require_images(paths: Iterable[Path], otherwise: str) -> list[Path]:
    images = sorted((path for path in paths if path.suffix.lower() in SUFFIXES), key=natural_order)
    if not images:
        raise ImageError(otherwise, allowed=f"files ending in {_NAMED}")
    return images


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ImageError(
            f"there is no image file {path}", allowed=f"an image file ({_NAMED})", fix="check the path"
        )


def require_image_name(path: str | os.PathLike[str]) -> None:
    """Check that an image file can be made at `path`, or replaced.

    Raises:
        ImageError: no image format has its suffix.
        ConfigError: its folder is missing, or it is itself a folder.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ImageError(f"cannot write {path}: no image format has this suffix", allowed=_NAMED)
    require_file_name(Path(path))


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write uint8 [H, W, 3] RGB as an image file in the format of its suffix, whole or not at all.

    Raises:
        ImageError: the suffix is not that of an image format, or the format takes no image of this size.
        ConfigError: the folder is missing, or the file cannot be written.
    """
    path = Path(path)
    require_image_name(path)
    suffix, (height, width) = path.suffix.lower(), image.shape[:2]
    longest = _LONGEST_SIDES.get(suffix, 2**20)
    if max(height, width) > longest:
        raise ImageError(
            f"cannot write {path}: the image has {width}x{height} pixels",
            allowed=f"at most {longest} across and down in a {suffix} file",
            fix=f"write {path.with_suffix('.png')}",
        )
    is_encoded, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not is_encoded:
        what = f"OpenCV cannot write {path} with {width}x{height} pixels"
        raise ImageError(what, allowed=f"another format ({_NAMED})")
    write_whole(path, data.tobytes())


class ImageSource:
    """Images, one by one, and from the beginning again after the last.

    Args:
        begin: begins a pass over the images.

    Attributes:
        rate: images per second; None if the source does not say.
        passes: number of times that the end was reached.
    """

    def __init__(
        self, begin: Callable[[], Iterator[np.ndarray | ImageError]], rate: float | None = None
    ) -> None:
        self.rate = rate
        self.passes = 0
        self._begin = begin
        self._images = begin()

    def next_image(self) -> np.ndarray | ImageError:
        """Return the next image as `read_stored_image` does, or its error if it cannot be read."""
        image = next(self._images, None)
        if image is None:
            self.passes += 1
            self._images = self._begin()
            image = next(self._images)
        return image


def open_source(path: str | Path) -> ImageSource:
    """Open a folder of images, whose order is 1, 2, 10, a video or an image.

    Raises:
        ImageError: the path is missing or cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        paths = list_images(path)
        return ImageSource(lambda: map(_image_or_error, paths))
    if path.suffix.lower() in VIDEO_SUFFIXES:
        capture, _ = _open_video(path)
        rate = capture.get(cv2.CAP_PROP_FPS) or None
        capture.release()
        return ImageSource(lambda: _video_images(path), rate)
    image = read_stored_image(path)
    return ImageSource(lambda: iter((image,)))


def _image_or_error(path: Path) -> np.ndarray | ImageError:
    try:
        return read_stored_image(path)
    except ImageError as error:
        return error


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
