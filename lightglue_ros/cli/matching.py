"""Matches image files for `lightglue_ros match`; each image is read and extracted once.

What fails is named and left out, and the rest goes on: an image that cannot be read, or an image or a pair
at which OpenCV or ONNX Runtime raises.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from lightglue_ros.cli.formats import MatchedPair, hloc_files, hloc_names, json_file, npz_file
from lightglue_ros.cli.kept_features import Extracted, KeptFeatures
from lightglue_ros.cli.left_out import LeftOut
from lightglue_ros.cli.masks import FileMasks
from lightglue_ros.core import Features, MatchPipeline, PairMatches
from lightglue_ros.core.best_rotation import match_turned
from lightglue_ros.core.draw import Style, draw_matches
from lightglue_ros.core.files import Writer, require_file_name, require_parent_folder, written_whole
from lightglue_ros.core.image_files import read_image, require_image_name, write_image
from lightglue_ros.core.masks import Mask
from lightglue_ros.core.refinement import GreyImage
from lightglue_ros.core.rotation import ROTATIONS, turned_size
from lightglue_ros.errors import ConfigError, LightGlueRosError
from lightglue_ros.rig.verification import Intrinsics, Verification, verify_pair

# Limit of images, and of pairs, in one run of the graphs: at 640x480 DISK takes 330 MiB per image of a run.
IMAGES_PER_RUN = 4
# Images whose features are kept for later pairs, the last ones used; 512 of ALIKED take 270 MiB at K = 1024.
# Those of XFeat take 140 MiB, and their grey images for refinement 150 to 600 MiB on a canvas of 640 x 480.
# An image beyond them is read and extracted again.
MOST_HELD = 512

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Geometry:
    """Geometry that verifies matches: its name, and the intrinsics of both images, which essential needs."""

    name: str
    intrinsics: tuple[Intrinsics, Intrinsics] | None = None


@dataclass(frozen=True)
class Outputs:
    """Files to write; None is not written.

    Attributes:
        draw: picture of the first pair; a path without a suffix is a folder, for pictures of all pairs.
        h5: folder, see `hloc_files`.
        style: of the pictures; None is the default.
        features: see `KeptFeatures`.
    """

    draw: Path | None = None
    json: Path | None = None
    npz: Path | None = None
    h5: Path | None = None
    style: Style | None = None
    features: Path | None = None

    @property
    def draws_all(self) -> bool:
        """True if `draw` is a folder."""
        return self.draw is not None and (self.draw.is_dir() or not self.draw.suffix)

    def check(self, images: Sequence[Path]) -> None:
        """Check before any work that all of them can be written.

        Raises:
            ConfigError, ImageError: a file cannot be written.
        """
        files = [path for path in (self.json, self.npz, self.features) if path]
        folders = [path for path in (self.h5, self.draw if self.draws_all else None) if path]
        if self.draw and not self.draws_all:
            require_image_name(self.draw)
            files.append(self.draw)
        for path in files:
            require_file_name(path)
        for path in folders:
            require_parent_folder(path / "file" if path.is_dir() else path)
            if path.exists() and not path.is_dir():
                raise ConfigError(f"cannot write {path}: it is no folder", fix="name a folder")
        if len({path.resolve() for path in (*files, *folders)}) < len(files + folders):
            raise ConfigError("two outputs have the same name", allowed="a name for each")
        if self.h5:
            hloc_names(images)

    def writers(self, images: Sequence[Path], canvas_size: tuple[int, int]) -> Mapping[Path, Writer]:
        """Return the files of matches with their writers."""
        files: dict[Path, Writer] = {}
        if self.json:
            files[self.json] = partial(json_file, images=images)
        if self.npz:
            files[self.npz] = partial(npz_file, images=images)
        if self.h5:
            self.h5.mkdir(exist_ok=True)
            files |= hloc_files(self.h5, images, canvas_size)
        return files


def match_and_write(
    pipeline: MatchPipeline,
    paths: Sequence[Path],
    pairs: Sequence[tuple[int, int]],
    outputs: Outputs,
    geometry: Geometry | None = None,
    turns: bool = False,
    references: References | None = None,
    masks: FileMasks | None = None,
) -> int:
    """Match pairs of image files as `FileMatcher` does, print a line for each and write the outputs.

    With references the pairs of each first image come best first.

    Returns:
        Exit status: 1 if something was left out, else 0.

    Raises:
        ConfigError: a file of the outputs cannot be written, or no pair could be matched. Then no file of
            matches is written.
    """
    begin = time.perf_counter()
    left_out = LeftOut()
    done = 0
    with written_whole(outputs.writers(paths, pipeline.image_size)) as add:
        kept = None if references is None else references.kept
        matcher = FileMatcher(pipeline, paths, left_out, geometry, turns=turns, kept=kept, masks=masks)
        if kept is not None:
            count = kept.complete(references.images, matcher.extract)
            print(f"{len(references.images)} references, {count} of them extracted now", flush=True)
        # Only on a terminal.
        matched = tqdm(matcher.match(pairs), total=len(pairs), unit=" pairs", leave=False, disable=None)
        for pair in matched if references is None else _best_first(matched, bool(outputs.draw)):
            with tqdm.external_write_mode():
                print(f"{paths[pair.first]} {paths[pair.second]}: {pair}", flush=True)
            add(pair)
            if outputs.draws_all or (outputs.draw and not done):
                _draw(outputs, paths, pair, left_out)
            done += 1
        if not done:
            raise ConfigError(f"none of {len(pairs)} pairs could be matched", fix="see the causes above")
    seconds = time.perf_counter() - begin
    print(f"{done} pairs in {seconds:.1f} s, {done / seconds:.1f} per second", file=sys.stderr)
    if done < len(pairs):
        print(f"{len(pairs) - done} of {len(pairs)} pairs left out, see the causes above", file=sys.stderr)
    return int(left_out.count > 0)


@dataclass(frozen=True)
class References:
    """Images that are matched with each query, and where their features are kept (None: in memory)."""

    images: Sequence[Path]
    kept: KeptFeatures | None


def _best_first(matched: Iterable[MatchedPair], keeps_features: bool) -> Iterator[MatchedPair]:
    """Sort the pairs of each first image by their inliers, or by their matches if they were not verified."""
    number = 0
    for _, pairs in groupby(matched, key=lambda pair: pair.first):
        # Features only for pictures: those of a thousand references take 300 MB with XFeat.
        found = [pair if keeps_features else replace(pair, features=None) for pair in pairs]
        for pair in sorted(found, key=lambda pair: pair.agreeing, reverse=True):
            yield replace(pair, number=number)
            number += 1


class _MaskedImage(NamedTuple):
    image: np.ndarray
    mask: Mask | None


class FileMatcher:
    """Matches pairs of image files.

    An image is read and extracted for its first pair, and its features are kept until its last pair is done.
    So a sequence, each image with the next, takes the memory of a few images, however long it is.

    Args:
        pipeline: with a pipeline.onnx, which gives no features, the images themselves are kept for a run.
        paths: the images.
        left_out: called for each image that fails, and for each pair that fails although its images do not.
        geometry: None is no verification.
        most_held: images whose features are kept; the last ones used stay.
        turns: try the second image of each pair in four orientations, which are all kept.
        kept: features on disk, which are not extracted again.
        masks: of the images; None if they have none.
    """

    def __init__(
        self,
        pipeline: MatchPipeline,
        paths: Sequence[Path],
        left_out: Callable[[str, Exception], None],
        geometry: Geometry | None = None,
        most_held: int = MOST_HELD,
        turns: bool = False,
        kept: KeptFeatures | None = None,
        masks: FileMasks | None = None,
    ) -> None:
        self._kept = kept
        self._masks = masks
        self._turns = ROTATIONS if turns else (0,)
        self._pipeline = pipeline
        self._paths = paths
        self._left_out = left_out
        self._geometry = geometry
        self._most_held = most_held // len(self._turns) if pipeline.is_split else IMAGES_PER_RUN
        # The last ones used stand at the end.
        # Features and grey image in each orientation, or an image.
        self._held: dict[int, list[tuple[Features, GreyImage | None]] | _MaskedImage] = {}
        self._failed: set[int] = set()

    def match(self, pairs: Sequence[tuple[int, int]]) -> Iterator[MatchedPair]:
        """Match pairs (first, second), indices of images, in their order; those that fail are left out."""
        last_pair = {image: number for number, pair in enumerate(pairs) for image in pair}
        begin = 0
        for of_run in _runs(pairs, self._pipeline, turns=len(self._turns) > 1):
            self._load({image for pair in of_run for image in pair} - self._failed)
            whole = {
                number: pair for number, pair in enumerate(of_run, begin) if not self._failed & set(pair)
            }
            results = _together_or_alone(self._match_held, list(whole.values()))
            for (number, (first, second)), result in zip(whole.items(), results, strict=True):
                if isinstance(result, Exception):
                    self._left_out(f"{self._paths[first]} {self._paths[second]}", result)
                    continue
                both = self._held[first], self._held[second]
                features = None
                if self._pipeline.is_split:
                    features = both[0][0][0], both[1][result[2]][0]
                yield MatchedPair(number, first, second, result[0], features, result[1])
            begin += len(of_run)
            needed = [image for image in self._held if last_pair[image] >= begin]
            self._held = {image: self._held[image] for image in needed[-self._most_held :]}

    def extract(self, images: Sequence[Path]) -> Iterator[Extracted]:
        """Extract some of the images; one that fails is left out, here and in pairs."""
        numbers = {path: number for number, path in enumerate(self._paths)}
        for begin in range(0, len(images), IMAGES_PER_RUN):
            of_run = images[begin : begin + IMAGES_PER_RUN]
            self._read_and_extract([numbers[path] for path in of_run])
            for path in of_run:
                for features, grey in self._held.pop(numbers[path], ()):
                    yield path, features, grey

    def _load(self, images: set[int]) -> None:
        """Read and extract the images that are not held."""
        lacking = []
        for image in sorted(images):
            if image in self._held:
                self._held[image] = self._held.pop(image)
            elif self._kept is not None and (kept := self._kept.read(self._paths[image])) is not None:
                self._held[image] = [kept]
            else:
                lacking.append(image)
        self._read_and_extract(lacking)

    def _read_and_extract(self, images: Sequence[int]) -> None:
        read = {}
        for image in images:
            try:
                read[image] = self._read(self._paths[image])
            except Exception as error:
                self._fail(image, error)
        extract = self._extract if self._pipeline.is_split else list
        for image, found in zip(read, _together_or_alone(extract, list(read.values())), strict=True):
            if isinstance(found, Exception):
                self._fail(image, found)
            else:
                self._held[image] = found

    def _read(self, path: Path) -> _MaskedImage:
        image, mask = read_image(path), self._masks.of(path) if self._masks else None
        if mask is not None:
            mask.require_aspect(image.shape[1::-1])
        return _MaskedImage(image, mask)

    def _fail(self, image: int, error: Exception) -> None:
        self._failed.add(image)
        self._left_out(str(self._paths[image]), error)

    def _extract(self, read: Sequence[_MaskedImage]) -> list[list[tuple[Features, GreyImage | None]]]:
        canvas, prepare = self._pipeline.image_size, self._pipeline.refiner.prepare
        images, masks = zip(*read, strict=True)
        held: list[list[tuple[Features, GreyImage | None]]] = [[] for _ in images]
        for rotation in self._turns:
            features = self._pipeline.extract(images, [rotation] * len(images), masks)
            for slot, (image, mask) in enumerate(read):
                # Copied, because a view would keep the features of all images of the run in memory.
                held[slot].append((features.of_image(slot).copy(), prepare(image, canvas, rotation, mask)))
        return held

    def _match_held(
        self, pairs: Sequence[tuple[int, int]]
    ) -> list[tuple[PairMatches, Verification | None, int]]:
        """Return the matches of pairs, their verification, and the orientation of each second image."""
        images = sorted({image for pair in pairs for image in pair})
        held = [self._held[image] for image in images]
        slots = [(images.index(first), images.index(second)) for first, second in pairs]
        canvas = self._pipeline.image_size
        if self._pipeline.is_split:
            turned = [
                Features.concatenate([orientations[number][0] for orientations in held])
                for number in range(len(self._turns))
            ]
            matches, rotations = match_turned(self._pipeline, turned, slots)
            turns = [rotation // 90 for rotation in rotations]
            sizes = turned[0].image_sizes
            matches = [
                self._pipeline.refiner.refine(of_pair, held[first][0][1], held[second][turn][1], canvas)
                for of_pair, turn, (first, second) in zip(matches, turns, slots, strict=True)
            ]
        else:
            images, masks = zip(*held, strict=True)
            matches = self._pipeline.match(images, slots, masks=masks)
            sizes = [image.shape[1::-1] for image in images]
            turns = [0] * len(slots)
        if self._geometry is None:
            return [(of_pair, None, turn) for of_pair, turn in zip(matches, turns, strict=True)]
        name, intrinsics = self._geometry.name, self._geometry.intrinsics
        return [
            (of_pair, verify_pair(of_pair, name, _sizes(sizes, pair, turn), canvas, intrinsics), turn)
            for of_pair, turn, pair in zip(matches, turns, slots, strict=True)
        ]


def _sizes(
    sizes: Sequence[Sequence[float]], pair: tuple[int, int], turn: int
) -> tuple[Sequence[float], tuple[int, int]]:
    """Return the sizes of both images as they lay on the canvas."""
    return sizes[pair[0]], turned_size(sizes[pair[1]], 90 * turn)


def _runs(
    pairs: Sequence[tuple[int, int]], pipeline: MatchPipeline, turns: bool = False
) -> Iterator[list[tuple[int, int]]]:
    """Group consecutive pairs into runs. The first pair runs alone, so that its matches are printed soon."""
    most_images = min(IMAGES_PER_RUN, pipeline.info.batch or IMAGES_PER_RUN)
    most_pairs = min(IMAGES_PER_RUN, pipeline.info.pairs or IMAGES_PER_RUN)
    if turns:  # an image that is first and second goes in twice
        most_pairs = min(most_pairs, max(1, most_images // 2))
    of_run: list[tuple[int, int]] = []
    is_first = True
    for pair in pairs:
        images = {number for other in (*of_run, pair) for number in other}
        if of_run and (is_first or len(of_run) == most_pairs or len(images) > most_images):
            yield of_run
            of_run, is_first = [], False
        of_run = [*of_run, pair]
    if of_run:
        yield of_run


def _together_or_alone(
    run: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]
) -> list[Result | Exception]:
    """Run all items at once. If that raises, run each alone, and return the error of each that raises."""
    if not items:
        return []
    try:
        return run(items)
    except LightGlueRosError:  # of the model or of a setting, and so of all items
        raise
    except Exception as error:
        failure = error
    if len(items) == 1:
        return [failure]
    return [result for item in items for result in _together_or_alone(run, [item])]


def _draw(outputs: Outputs, paths: Sequence[Path], pair: MatchedPair, left_out: LeftOut) -> None:
    path = outputs.draw
    if outputs.draws_all:
        path.mkdir(exist_ok=True)
        path /= f"{pair.number:0>4}_{paths[pair.first].stem}_{paths[pair.second].stem}.png"
    inliers = None if pair.verification is None else pair.verification.inliers
    try:
        images = read_image(paths[pair.first]), read_image(paths[pair.second])
        picture = draw_matches(
            *images, pair.matches, inliers=inliers, keypoints=pair.keypoints, style=outputs.style
        )
        write_image(path, picture)
    except ConfigError:  # such as a full disk
        raise
    except Exception as error:
        left_out(str(path), error)
