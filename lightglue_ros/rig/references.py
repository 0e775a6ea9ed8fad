"""References: stored images that stand in pairs like a camera, such as the picture of a dock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightglue_ros.core.image_files import SUFFIXES, list_images, read_stored_image
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import ConfigError, ImageError, RejectedImageError


@dataclass(frozen=True)
class Reference:
    """A stored image, or a folder of them.

    Attributes:
        name: in pairs and messages.
        images: the image file, or those of the folder, sorted 1, 2, 10; at least one.
        is_folder: True for a folder, even of one image.
    """

    name: str
    images: tuple[Path, ...]
    is_folder: bool

    def find(self, file_name: str) -> StoredImage | None:
        """Find an image by the name of its file, as messages have it, to look at; its size is not read."""
        return next((StoredImage(path, 0, 0) for path in self.images if path.name == file_name), None)


@dataclass(frozen=True)
class StoredImage:
    """An image of a reference; see `FrameImage`.

    Attributes:
        width: in pixels, as is the height.
    """

    path: Path
    width: int
    height: int

    def decode(self, mono16: Mono16Range) -> np.ndarray:
        """Read the file again.

        Raises:
            RejectedImageError: it cannot be read any more.
        """
        try:
            return mono16.to_8_bits(read_stored_image(self.path))
        except ImageError as error:
            raise RejectedImageError("broken_reference", str(error)) from error

    def without_pixels(self) -> StoredImage:
        """Return the same image, which has no pixels in memory."""
        return self


def parse_references(texts: Sequence[str], cameras: Sequence[str]) -> tuple[Reference, ...]:
    """Find the files of references that are written as ``name:path``.

    Args:
        texts: a path is that of an image file or of a folder of them; an empty text is left out.
        cameras: names that a reference cannot have.

    Raises:
        ConfigError: a name is empty, a camera's, or stands twice, or a path has no image.
    """
    references: list[Reference] = []
    for text in filter(None, texts):
        name, _, path = text.partition(":")
        if not name or "@" in name or not path:
            raise ConfigError(
                f"parameter references has '{text}'",
                allowed="NAME:FILE or NAME:FOLDER, with a name without '@'",
                fix='references: ["dock:dock.png"]',
            )
        if name in cameras or name in [it.name for it in references]:
            other = "a camera" if name in cameras else "another reference"
            raise ConfigError(
                f"parameter references has '{text}', and {name} is the name of {other}, too",
                allowed="names that no camera and no other reference has",
                fix=f'references: ["{name}_stored:{path}"]',
            )
        references.append(_find(text, name, Path(path).expanduser()))
    return tuple(references)


def _find(text: str, name: str, path: Path) -> Reference:
    if path.is_file():
        return Reference(name, (path,), is_folder=False)
    problem = f"there is no file or folder {path.absolute()}"
    if path.is_dir():
        try:
            return Reference(name, tuple(list_images(path)), is_folder=True)
        except (ImageError, OSError) as error:
            problem = error.what if isinstance(error, ImageError) else f"{path} cannot be read ({error})"
    raise ConfigError(
        f"parameter references has '{text}': {problem}",
        allowed=f"an image file, or a folder of them ({', '.join(SUFFIXES)})",
        fix="check the path; a path that does not begin with / or ~ begins in the folder of the process",
    )
