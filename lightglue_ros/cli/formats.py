"""Files of matches: JSON, NumPy's .npz and the HDF5 files of hloc.

Each function opens a file and gives a function that writes one more pair (see `core.files.Writer`). Its
memory does not grow with the number of matches. Keypoints are in pixels of the original images, with the
centre of the first pixel at (0, 0).
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, count, repeat
from pathlib import Path
from typing import IO, Any

import numpy as np

from lightglue_ros.core import ConfigError, Features, PairMatches
from lightglue_ros.core.canvas import canvas_pixel
from lightglue_ros.core.draw import BothKeypoints, ImageKeypoints
from lightglue_ros.core.features import MATCH_ARRAYS
from lightglue_ros.core.files import Writer
from lightglue_ros.rig.verification import Verification


@dataclass(frozen=True, eq=False)
class MatchedPair:
    """Matches of a pair of images.

    Attributes:
        number: index of the pair among all pairs of the run.
        first: index of the first image.
        second: index of the second image.
        features: of both images, one image each; None with a pipeline.onnx, which gives no features.
        verification: None if the matches were not verified.
    """

    number: int
    first: int
    second: int
    matches: PairMatches
    features: tuple[Features, Features] | None
    verification: Verification | None

    @property
    def agreeing(self) -> int:
        """Number of inliers; of matches, if they were not verified."""
        found = self.verification
        return len(self.matches) if found is None else int(np.count_nonzero(found.inliers))

    @property
    def keypoints(self) -> BothKeypoints:
        """All keypoints of both images, to be drawn; None without features."""
        if self.features is None:
            return None, None
        first, second = (ImageKeypoints(of.keypoints[0][of.mask[0]]) for of in self.features)
        return first, second

    def __str__(self) -> str:
        """Return the number of matches, and of those that agree with the geometry."""
        found = self.verification
        inliers = "" if found is None else f", {np.count_nonzero(found.inliers)} inliers"
        return f"{len(self.matches)} matches{inliers}"


@contextmanager
def json_file(path: Path, images: Sequence[Path]) -> Iterator[Callable[[MatchedPair], object]]:
    """Write a list with an object for each pair, each on a line.

    Keys of an object: `image0`, `image1` (paths), `keypoints0`, `keypoints1` (lists of [x, y]), `scores`,
    `indices0`, `indices1` (index of each keypoint within its image). Refined matches add `checked` (list of
    booleans, see `PairMatches`). Verified matches add `geometry` (its name), `matrix` (three rows; null if no
    geometry was found) and `inliers` (list of booleans).
    """
    with path.open("w") as file:
        separators = chain("[", repeat(",\n"))
        yield lambda pair: file.write(next(separators) + json.dumps(_json_entry(images, pair)))
        file.write("]\n")


def _json_entry(images: Sequence[Path], pair: MatchedPair) -> dict[str, Any]:
    entry = {"image0": str(images[pair.first]), "image1": str(images[pair.second])}
    entry |= {name: getattr(pair.matches, name).tolist() for name in MATCH_ARRAYS}
    if pair.matches.checked is not None:
        entry["checked"] = pair.matches.checked.tolist()
    found = pair.verification
    if found is None:
        return entry
    matrix = None if found.matrix is None else found.matrix.tolist()
    return entry | {"geometry": found.geometry, "matrix": matrix, "inliers": found.inliers.tolist()}


@contextmanager
def npz_file(path: Path, images: Sequence[Path]) -> Iterator[Callable[[MatchedPair], object]]:
    """Write the M matches of all P pairs, one pair after the other.

    Arrays: `images` (paths) [N], `pairs` (indices of images) [P, 2], `pair_of_match` (index of the pair) [M],
    `keypoints0`, `keypoints1` [M, 2], `scores`, `indices0`, `indices1` [M]. Refined matches add `checked`
    [M]. Verified matches add `inliers` [M] and `matrices` [P, 3, 3], which are NaN if no geometry was found.

    A stored array begins with its length, which is known at the end. So each array is collected in a file
    without a name next to `path` first.
    """
    numbers = count()
    collected: dict[str, tuple[IO[bytes], np.ndarray]] = {}
    with ExitStack() as opened:

        def add(pair: MatchedPair) -> None:
            for name, array in _npz_arrays(pair, next(numbers)).items():
                if name not in collected:
                    file = opened.enter_context(tempfile.TemporaryFile(dir=path.parent))
                    collected[name] = file, array[:0]
                collected[name][0].write(array.tobytes())

        yield add
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open("images.npy", "w") as member:
                np.save(member, np.array(list(map(str, images))))
            for name, (file, empty) in collected.items():
                header = np.lib.format.header_data_from_array_1_0(empty)
                row_bytes = empty.itemsize * math.prod(empty.shape[1:])
                header["shape"] = (file.tell() // row_bytes, *empty.shape[1:])
                file.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    shutil.copyfileobj(file, member)


def _npz_arrays(pair: MatchedPair, number: int) -> dict[str, np.ndarray]:
    """Return what a pair adds to each array."""
    arrays = {
        "pairs": np.array([[pair.first, pair.second]], np.int32),
        "pair_of_match": np.full(len(pair.matches), number, np.int32),
        **{name: getattr(pair.matches, name) for name in MATCH_ARRAYS},
    }
    if pair.matches.checked is not None:
        arrays["checked"] = pair.matches.checked
    if pair.verification is not None:
        matrix = pair.verification.matrix
        arrays["inliers"] = pair.verification.inliers
        arrays["matrices"] = np.full((1, 3, 3), np.nan) if matrix is None else matrix[None]
    return arrays


def hloc_files(folder: Path, images: Sequence[Path], canvas_size: tuple[int, int]) -> dict[Path, Writer]:
    """Return the files that hloc (cvg/Hierarchical-Localization) reads, with their writers.

    features.h5 has a group for each image with `keypoints` [N, 2], `scores` [N], `descriptors` [D, N] and
    `image_size` (width, height); `keypoints` has the attribute `uncertainty` in pixels. matches.h5 has a
    group for each pair, named by its images with `-` for `/`, with `matches0` [N0] (partner in the second
    image or -1) and `matching_scores0` [N0] (0 without a partner). Verified matches add `inliers0` [N0],
    which hloc ignores. hloc has one position for each keypoint, so the files have those before refinement.
    pairs.txt lists the pairs. The name of an image is its path inside the folder that
    holds all images, hloc's image_dir. Keypoints are in hloc's coordinates, too: hloc itself adds the 0.5 of
    COLMAP's.

    Args:
        canvas_size: (width, height) that images were shrunk to.

    Raises:
        ConfigError: h5py is not installed, or hloc cannot use the names of the images.
    """
    names = hloc_names(images)
    return {
        folder / "features.h5": lambda path: _hloc_features(path, names, canvas_size),
        folder / "matches.h5": lambda path: _hloc_matches(path, names),
        folder / "pairs.txt": lambda path: _hloc_pairs(path, names),
    }


def hloc_names(images: Sequence[Path]) -> list[str]:
    """Return the path of each image inside the folder that holds all images.

    Raises:
        ConfigError: hloc cannot use a name, or h5py is not installed.
    """
    h5py_module()
    whole = [image.absolute() for image in images]
    folder = os.path.commonpath([image.parent for image in whole])
    names = [image.relative_to(folder).as_posix() for image in whole]
    with_space = [name for name in names if name.split() != [name]]
    if with_space:
        raise ConfigError(
            f"image name '{with_space[0]}' has a space, which separates names in hloc's list of pairs",
            fix="rename the image",
        )
    if len({name.replace("/", "-") for name in names}) < len(set(names)):
        what = "two image names differ only in / and -, which are the same to hloc"
        raise ConfigError(what, fix="rename one")
    return names


@contextmanager
def _hloc_features(
    path: Path, names: Sequence[str], canvas_size: tuple[int, int]
) -> Iterator[Callable[[MatchedPair], object]]:
    with hdf5_file(path) as (file, check):

        def add(pair: MatchedPair) -> None:
            for image, features in zip((pair.first, pair.second), pair.features, strict=True):
                if names[image] in file:
                    continue
                write_features(file, names[image], features, canvas_size)
            check()

        yield add


def write_features(file: Any, name: str, features: Features, canvas_size: tuple[int, int]) -> Any:
    """Add the features of one image to an open HDF5 file as hloc reads them; returns their group."""
    group = file.create_group(name)
    mask, image_size = features.mask[0], features.image_sizes[0]
    group["keypoints"] = features.keypoints[0][mask]
    # As in hloc, the detector is taken to be accurate to a pixel of the canvas.
    group["keypoints"].attrs["uncertainty"] = canvas_pixel(image_size, canvas_size)
    group["scores"] = features.scores[0][mask]
    group["descriptors"] = features.descriptors[0][mask].T
    group["image_size"] = image_size.astype(np.int64)
    return group


@contextmanager
def _hloc_matches(path: Path, names: Sequence[str]) -> Iterator[Callable[[MatchedPair], object]]:
    with hdf5_file(path) as (file, check):

        def add(pair: MatchedPair) -> None:
            name = "/".join(names[image].replace("/", "-") for image in (pair.first, pair.second))
            if name in file:
                return
            group = file.create_group(name)
            count, slots = np.count_nonzero(pair.features[0].mask), pair.matches.indices0
            group["matches0"] = _spread(pair.matches.indices1, slots, count, -1)
            group["matching_scores0"] = _spread(pair.matches.scores, slots, count, 0)
            if pair.verification is not None:
                group["inliers0"] = _spread(pair.verification.inliers, slots, count, False)
            check()

        yield add


@contextmanager
def _hloc_pairs(path: Path, names: Sequence[str]) -> Iterator[Callable[[MatchedPair], object]]:
    written = set()
    with path.open("w") as file:

        def add(pair: MatchedPair) -> None:
            of_pair = names[pair.first], names[pair.second]
            if of_pair not in written:
                written.add(of_pair)
                print(*of_pair, file=file)

        yield add


def _spread(values: np.ndarray, slots: np.ndarray, count: int, empty: float) -> np.ndarray:
    """Spread the values [M] of the keypoints `slots` [M] over all [count] keypoints."""
    spread = np.full(count, empty, values.dtype)
    spread[slots] = values
    return spread


@contextmanager
def hdf5_file(path: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Open an HDF5 file; give it with a function that raises the OSError of an earlier write."""
    with _ErrorKeepingFile(path, "w+") as file:
        with h5py_module().File(file, "w") as hdf5:
            yield hdf5, file.check
        file.check()


class _ErrorKeepingFile(io.FileIO):
    """A file that keeps the error of a write for `check`.

    HDF5 must not see the error: h5py prints some errors instead of raising them, and the process crashes when
    the file is closed (HDF5 2.0.0).
    """

    _error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all bytes, or keep the error."""
        left = memoryview(data).cast("B")
        try:
            while len(left) and self._error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self._error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Change the size of the file, or keep the error."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = error
            return size or 0

    def check(self) -> None:
        """Raise the error that was kept."""
        if self._error is not None:
            raise self._error


def h5py_module() -> Any:
    """Import h5py.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import h5py
    except ImportError as missing:
        raise ConfigError(
            f"writing HDF5 needs the Python package h5py ({missing})", fix="pip install h5py"
        ) from missing
    return h5py
