"""Masks of image files, for `lightglue_ros match --mask`."""

from __future__ import annotations

from pathlib import Path

from lightglue_ros.core.image_files import list_images
from lightglue_ros.core.masks import Mask, read_mask
from lightglue_ros.errors import ConfigError


class FileMasks:
    """The masks of image files: one file for all of them, or a folder with a file for each.

    In a folder the mask of left.jpg is left.png or left.jpg.png. An image without a file there has no mask.

    Raises:
        ConfigError: the folder has no mask of any of the images.
        ImageError: the file is no mask, or the folder has no images.
    """

    def __init__(self, path: Path, images: list[Path]) -> None:
        path = path.expanduser()
        self._of_all = None if path.is_dir() else read_mask(path)
        self._files = {file.stem: file for file in list_images(path)} if path.is_dir() else {}
        if self._of_all is None and not any(map(self._file_of, images)):
            raise ConfigError(
                f"folder {path} has no mask of any of the images",
                allowed=f"files such as {images[0].stem}.png or {images[0].name}.png",
            )

    def of(self, image: Path) -> Mask | None:
        """Return the mask of an image, which is read from its file in the folder; None if it has none.

        Raises:
            ImageError: the file is no mask.
        """
        file = self._file_of(image)
        return self._of_all if file is None else read_mask(file)

    def _file_of(self, image: Path) -> Path | None:
        return self._files.get(image.name) or self._files.get(image.stem)
