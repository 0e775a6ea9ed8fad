"""Features of the references of a rig."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.image_files import read_stored_image
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.core.refinement import Refiner
from lightglue_ros.errors import ConfigError, ImageError
from lightglue_ros.rig.frame import FrameSettings
from lightglue_ros.rig.history import ExtractedImage
from lightglue_ros.rig.references import Reference, StoredImage
from lightglue_ros.rig.rig import Rig, View

Item = TypeVar("Item")


class ExtractedReferences:
    """Extracted images of a rig's references; use them from the thread of the pipeline.

    Attributes:
        extracted: number of images extracted so far.
    """

    def __init__(self) -> None:
        self.extracted = 0
        self._images: list[list[ExtractedImage[StoredImage]]] = []
        self._made_with: object = ()

    def extract(self, pipeline: MatchPipeline, settings: FrameSettings) -> None:
        """Extract all images, unless they were extracted with the same settings of the same pipeline.

        Raises:
            ConfigError: an image cannot be read.
        """
        refiner = Refiner(settings.refine, pipeline.info.extractor)
        references = settings.rig.references
        settings_used = pipeline.image_size, pipeline.max_keypoints, refiner.is_on, settings.mono16
        if not references or self._made_with == (references, settings_used):
            return
        self._images = []
        # As many images in a run as of a frame, because on a GPU and in static exports a run has no more.
        size = len(settings.rig.cameras)
        for reference in references:
            found: list[ExtractedImage[StoredImage]] = []
            for paths in in_parts(reference.images, size):
                pixels = [_read(reference, path, settings.mono16) for path in paths]
                features = pipeline.extract(pixels)
                for slot, (path, image) in enumerate(zip(paths, pixels, strict=True)):
                    stored = StoredImage(path, image.shape[1], image.shape[0])
                    # A copy, because the arrays hold the features of all images of the run.
                    copied = features.of_image(slot).copy()
                    grey = refiner.prepare(image, pipeline.image_size)
                    found.append(ExtractedImage(stored, copied, grey))
                self.extracted += len(paths)
            self._images.append(found)
        self._made_with = references, settings_used

    def of(self, view: View, rig: Rig) -> Sequence[ExtractedImage[StoredImage]]:
        """Return the images of a view that is a reference."""
        return self._images[view.camera - len(rig.cameras)]


def in_parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Divide items into parts of at most `size`."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def _read(reference: Reference, path: Path, mono16: Mono16Range) -> np.ndarray:
    try:
        return mono16.to_8_bits(read_stored_image(path))
    except ImageError as error:
        raise ConfigError(
            f"parameter references has '{reference.name}', whose image is broken: {error.what}",
            allowed="whole image files",
            fix=f"replace {path}, or remove it from the folder" if reference.is_folder else f"replace {path}",
        ) from error
