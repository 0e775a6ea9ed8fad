"""Files of matches: JSON, NumPy's .npz and the HDF5 files of hloc.

In all of them keypoints are in pixels of the original images, with the centre of the first pixel at (0, 0).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lightglue_ros.core import ConfigError, Features, MatchPipeline, PairMatches
from lightglue_ros.core.canvas import canvas_pixel
from lightglue_ros.core.features import MATCH_ARRAYS
from lightglue_ros.rig.verification import Verification


@dataclass(frozen=True)
class MatchedPair:
    """Matches of a pair of images.

    Attributes:
        first: index of the first image.
        second: index of the second image.
        features: of both images, one image each; None with a pipeline.onnx, which gives no features.
        verification: None if the matches were not verified.
    """

    first: int
    second: int
    matches: PairMatches
    features: tuple[Features, Features] | None
    verification: Verification | None

    @property
    def unmatched(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Keypoints [U, 2] of each image that have no match; None without features."""
        if self.features is None:
            return None
        matched = self.matches.indices0, self.matches.indices1
        return tuple(
            np.delete(of.keypoints[0][of.mask[0]], indices, axis=0)
            for of, indices in zip(self.features, matched, strict=True)
        )

    def __str__(self) -> str:
        """Return the number of matches, and of those that agree with the geometry."""
        found = self.verification
        inliers = "" if found is None else f", {np.count_nonzero(found.inliers)} inliers"
        return f"{len(self.matches)} matches{inliers}"


def write_json(path: Path, images: Sequence[Path], pairs: Sequence[MatchedPair]) -> None:
    """Write a list with an object for each pair.

    Keys of an object: `image0`, `image1` (paths), `keypoints0`, `keypoints1` (lists of [x, y]), `scores`,
    `indices0`, `indices1` (index of each keypoint within its image). Verified matches add `geometry` (its
    name), `matrix` (three rows; null if no geometry was found) and `inliers` (list of booleans).

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(json.dumps([_json_entry(images, pair) for pair in pairs]))


def _json_entry(images: Sequence[Path], pair: MatchedPair) -> dict[str, Any]:
    entry = {"image0": str(images[pair.first]), "image1": str(images[pair.second])}
    entry |= {name: getattr(pair.matches, name).tolist() for name in MATCH_ARRAYS}
    found = pair.verification
    if found is None:
        return entry
    matrix = None if found.matrix is None else found.matrix.tolist()
    return entry | {"geometry": found.geometry, "matrix": matrix, "inliers": found.inliers.tolist()}


def write_npz(path: Path, images: Sequence[Path], pairs: Sequence[MatchedPair]) -> None:
    """Write the M matches of all P pairs, one pair after the other.

    Arrays: `images` (paths) [N], `pairs` (indices of images) [P, 2], `pair_of_match` (index of the pair) [M],
    `keypoints0`, `keypoints1` [M, 2], `scores`, `indices0`, `indices1` [M]. Verified matches add `inliers`
    [M] and `matrices` [P, 3, 3], which are NaN if no geometry was found.

    Raises:
        OSError: the file cannot be written.
    """
    arrays = {
        "images": np.array(list(map(str, images))),
        "pairs": np.array([(pair.first, pair.second) for pair in pairs], np.int32),
        "pair_of_match": np.repeat(np.arange(len(pairs), dtype=np.int32), [len(p.matches) for p in pairs]),
        **{name: np.concatenate([getattr(pair.matches, name) for pair in pairs]) for name in MATCH_ARRAYS},
    }
    if pairs[0].verification is not None:
        found = [pair.verification for pair in pairs]
        nothing = np.full((3, 3), np.nan)
        arrays["inliers"] = np.concatenate([one.inliers for one in found])
        arrays["matrices"] = np.stack([nothing if one.matrix is None else one.matrix for one in found])
    # An open file, because NumPy would add .npz to a path with another suffix.
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


class HlocFiles:
    """Writes features.h5, matches.h5 and pairs.txt as hloc (cvg/Hierarchical-Localization) reads them.

    features.h5 has a group for each image with `keypoints` [N, 2], `scores` [N], `descriptors` [D, N] and
    `image_size` (width, height); `keypoints` has the attribute `uncertainty` in pixels. matches.h5 has a
    group for each pair, named by its images with `-` for `/`, with `matches0` [N0] (partner in the second
    image or -1) and `matching_scores0` [N0] (0 without a partner). Verified matches add `inliers0` [N0],
    which hloc ignores. The name of an image is its path inside the folder that holds all images, hloc's
    image_dir. Keypoints are in hloc's coordinates, too: hloc itself adds the 0.5 of COLMAP's.

    The files get their names when everything is written.

    Args:
        folder: it is made if it is missing.
        images: paths of the images.
        pipeline: pipeline of a split model, which extracts the images.

    Raises:
        ConfigError: h5py is not installed, or hloc cannot use the names of the images.
    """

    def __init__(self, folder: Path, images: Sequence[Path], pipeline: MatchPipeline) -> None:
        try:
            import h5py
        except ImportError as missing:
            raise ConfigError(
                f"writing HDF5 needs the Python package h5py ({missing})", fix="pip install h5py"
            ) from missing
        self._names = _hloc_names(images)
        self._canvas_size = pipeline.image_size
        folder.mkdir(exist_ok=True)
        self._paths = [folder / name for name in ("features.h5", "matches.h5", "pairs.txt")]
        self._staged = [path.with_name(f"{path.name}.part") for path in self._paths]
        with ExitStack() as opened:
            self._features = opened.enter_context(h5py.File(self._staged[0], "w"))
            self._matches = opened.enter_context(h5py.File(self._staged[1], "w"))
            self._pairs = opened.enter_context(self._staged[2].open("w"))
            self._opened = opened.pop_all()

    def __enter__(self) -> HlocFiles:
        return self

    def add(self, pair: MatchedPair) -> None:
        """Write a pair, and its images if no earlier pair had them."""
        names = self._names[pair.first], self._names[pair.second]
        for name, features in zip(names, pair.features, strict=True):
            if name not in self._features:
                self._add_image(name, features)
        group_name = "/".join(name.replace("/", "-") for name in names)
        if group_name in self._matches:
            return
        group = self._matches.create_group(group_name)
        count, slots = np.count_nonzero(pair.features[0].mask), pair.matches.indices0
        group["matches0"] = _spread(pair.matches.indices1, slots, count, -1)
        group["matching_scores0"] = _spread(pair.matches.scores, slots, count, 0)
        if pair.verification is not None:
            group["inliers0"] = _spread(pair.verification.inliers, slots, count, False)
        print(*names, file=self._pairs)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()
        for staged, path in zip(self._staged, self._paths, strict=True):
            if kind is None:
                os.replace(staged, path)
            else:
                staged.unlink()

    def _add_image(self, name: str, features: Features) -> None:
        group = self._features.create_group(name)
        mask, image_size = features.mask[0], features.image_sizes[0]
        group["keypoints"] = features.keypoints[0][mask]
        # As in hloc, the detector is taken to be accurate to a pixel of the canvas.
        group["keypoints"].attrs["uncertainty"] = canvas_pixel(image_size, self._canvas_size)
        group["scores"] = features.scores[0][mask]
        group["descriptors"] = features.descriptors[0][mask].T
        group["image_size"] = image_size.astype(np.int64)


def _hloc_names(images: Sequence[Path]) -> list[str]:
    """Return the path of each image inside the folder that holds all images, if hloc can use it."""
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


def _spread(values: np.ndarray, slots: np.ndarray, count: int, empty: float) -> np.ndarray:
    """Spread the values [M] of the keypoints `slots` [M] over all [count] keypoints."""
    spread = np.full(count, empty, values.dtype)
    spread[slots] = values
    return spread
