"""Features of a folder's images in an HDF5 file, so that `lightglue_ros match --against` extracts them once.

The file is laid out as hloc reads it (see `formats.hloc_files`), with a group for each image by its name.
Each group has the SHA-256 of the image's file as well, so that a changed image is extracted again, and
`grey` [h, w], the image for refinement. The file tells what made the features; those of another model or of
other settings are refused. It is replaced as a whole: a run that is killed leaves the file as it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lightglue_ros.cli.formats import h5py_module, hdf5_file, write_features
from lightglue_ros.core import Features, MatchPipeline
from lightglue_ros.core.files import written_whole
from lightglue_ros.core.refinement import GreyImage
from lightglue_ros.core.store import find_model
from lightglue_ros.errors import ConfigError

# Attribute of the file: what made the features, as JSON.
_MADE_WITH = "lightglue_ros"
_SHA256 = "sha256"

# An image, its features, and its grey image for refinement.
Extracted = tuple[Path, Features, GreyImage | None]


class KeptFeatures:
    """Features in a file; see the head of this module.

    Args:
        path: of the file, which may not exist yet.
        model: as it was given to the pipeline.
        pipeline: that the features are matched by.

    Raises:
        ConfigError: h5py is not installed, or the file holds something else.
    """

    def __init__(self, path: Path, model: str, pipeline: MatchPipeline) -> None:
        self._path = path.expanduser()
        self._pipeline = pipeline
        self._h5py = h5py_module()
        extractor = find_model(model).extractor
        assert extractor is not None  # the pipeline is split
        self._made_with = {
            "model": pipeline.info.model,
            "image_size": "{}x{}".format(*pipeline.image_size),
            "max_keypoints": pipeline.max_keypoints,
            "extractor": hashlib.sha256(extractor.read_bytes()).hexdigest(),
        }
        self._file = self._open()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def complete(
        self, images: Sequence[Path], extract: Callable[[Sequence[Path]], Iterable[Extracted]]
    ) -> int:
        """Extract the images that the file does not hold as they are now; returns how many these are.

        Args:
            images: all images of the folder; others are dropped from the file.
            extract: yields the features of images; it leaves out an image that it cannot read.

        Raises:
            ConfigError: the file cannot be written.
        """
        hashes = {path: _hash(path) for path in images}
        lacking = [path for path in images if not self._holds(path, hashes[path])]
        if lacking:
            held = [path.name for path in images if path not in lacking]
            with written_whole({self._path: lambda part: self._writer(part, held)}) as add:
                for path, features, grey in extract(lacking):
                    add((path, features, grey, hashes[path]))
            self.close()
            self._file = self._open()
        return len(lacking)

    def read(self, path: Path) -> tuple[Features, GreyImage | None] | None:
        """Read the features of an image, and its grey image; None if it is not in the file."""
        if self._file is None or path.name not in self._file:
            return None
        group = self._file[path.name]
        size = tuple(group["image_size"][()].tolist())
        keypoints, scores, descriptors = (group[name][()] for name in ("keypoints", "scores", "descriptors"))
        slots = self._pipeline.info.max_keypoints
        features = Features.pad(keypoints, scores, np.ascontiguousarray(descriptors.T), size, slots)
        is_refined = self._pipeline.refiner.is_on and "grey" in group
        return features, GreyImage(group["grey"][()], size) if is_refined else None

    def _open(self) -> Any:
        if not self._path.exists():
            return None
        try:
            file = self._h5py.File(self._path, "r")
            made_with = json.loads(file.attrs[_MADE_WITH])
        except (OSError, KeyError, ValueError) as error:
            raise ConfigError(
                f"{self._path} is no file of features that match --against has written ({error})",
                fix="name another file",
            ) from error
        for name, now in self._made_with.items():
            if made_with.get(name) != now:
                before, now = (str(it)[:16] for it in (made_with.get(name), now))
                raise ConfigError(
                    f"{self._path} has features of {name} {before}, and {name} is {now} now",
                    fix=f"give the same settings, name another file, or rm {self._path}",
                )
        return file

    def _holds(self, path: Path, sha256: str | None) -> bool:
        if self._file is None or path.name not in self._file:
            return False
        group = self._file[path.name]
        return group.attrs[_SHA256] == sha256 and ("grey" in group or not self._pipeline.refiner.is_on)

    @contextmanager
    def _writer(self, path: Path, held: Sequence[str]) -> Iterator[Callable[[Any], None]]:
        """Write a file with the groups that are held, and give a function that adds one more image."""
        with hdf5_file(path) as (file, check):
            file.attrs[_MADE_WITH] = json.dumps(self._made_with)
            for name in held:
                self._file.copy(name, file)

            def add(extracted: tuple[Path, Features, GreyImage | None, str]) -> None:
                image, features, grey, sha256 = extracted
                group = write_features(file, image.name, features, self._pipeline.image_size)
                group.attrs[_SHA256] = sha256
                if grey is not None:
                    group["grey"] = grey.pixels
                check()

            yield add


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # the extraction names the error
        return None
