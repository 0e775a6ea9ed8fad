"""Matches image files for `lightglue_ros match`; each image is read and extracted once."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from lightglue_ros.cli.formats import HlocFiles, MatchedPair, write_json, write_npz
from lightglue_ros.core import Features, MatchPipeline
from lightglue_ros.core.draw import draw_matches
from lightglue_ros.core.files import require_parent_folder
from lightglue_ros.core.image_files import read_image, write_image
from lightglue_ros.rig.verification import Intrinsics, verify_pair

# Limit of images, and of pairs, in one run of the graphs: at 640x480 DISK takes 330 MiB per image of a run.
IMAGES_PER_RUN = 4


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
        h5: folder, see `HlocFiles`.
    """

    draw: Path | None = None
    json: Path | None = None
    npz: Path | None = None
    h5: Path | None = None

    def check(self) -> None:
        """Raise a ConfigError before any work if the folder of a file is missing."""
        for path in filter(None, (self.draw, self.json, self.npz, self.h5)):
            require_parent_folder(path)


def match_and_write(
    pipeline: MatchPipeline,
    paths: Sequence[Path],
    pairs: Sequence[tuple[int, int]],
    outputs: Outputs,
    geometry: Geometry | None = None,
) -> None:
    """Match pairs of image files as `match_files` does, print a line for each and write the outputs.

    Raises:
        ImageError: an image cannot be read, or a picture cannot be written.
        ConfigError: a file of the outputs cannot be written.
    """
    collected = []
    begin = time.perf_counter()
    with ExitStack() as stack:
        hloc = outputs.h5 and stack.enter_context(HlocFiles(outputs.h5, paths, pipeline))
        matched = match_files(pipeline, paths, pairs, geometry)
        # Only on a terminal.
        bar = tqdm(matched, total=len(pairs), unit=" pairs", leave=False, disable=None)
        for number, pair in enumerate(bar):
            with tqdm.external_write_mode():
                print(f"{paths[pair.first]} {paths[pair.second]}: {pair}", flush=True)
            if outputs.draw:
                _draw(outputs.draw, paths, pair, number)
            if hloc:
                hloc.add(pair)
            # These files are written at the end. A pair takes 14 KB at 500 matches.
            if outputs.json or outputs.npz:
                collected.append(replace(pair, features=None))
    seconds = time.perf_counter() - begin
    print(f"{len(pairs)} pairs in {seconds:.1f} s, {len(pairs) / seconds:.1f} per second", file=sys.stderr)
    if outputs.json:
        write_json(outputs.json, paths, collected)
    if outputs.npz:
        write_npz(outputs.npz, paths, collected)


def match_files(
    pipeline: MatchPipeline,
    paths: Sequence[Path],
    pairs: Sequence[tuple[int, int]],
    geometry: Geometry | None = None,
) -> Iterator[MatchedPair]:
    """Match pairs of image files in their order.

    An image is read and extracted for its first pair, and its features are kept until its last pair is done.
    So a sequence, each image with the next, takes the memory of a few images, however long it is.

    Args:
        pipeline: with a pipeline.onnx an image is extracted in every run that needs it.
        paths: the images.
        pairs: (first, second), indices into `paths`.
        geometry: None is no verification.

    Raises:
        ImageError: an image cannot be read.
    """
    last_pair = {number: index for index, pair in enumerate(pairs) for number in pair}
    held: dict[int, Features] = {}
    done = 0
    for of_run in _runs(pairs, pipeline):
        numbers = sorted({number for pair in of_run for number in pair})
        slots = [(numbers.index(first), numbers.index(second)) for first, second in of_run]
        if pipeline.is_split:
            _extract(pipeline, paths, [number for number in numbers if number not in held], held)
            features = Features.concatenate([held[number] for number in numbers])
            matches, sizes = pipeline.match_features(features, slots), features.image_sizes
        else:
            images = [read_image(paths[number]) for number in numbers]
            matches, sizes = pipeline.match(images, slots), [image.shape[1::-1] for image in images]
        for (first, second), of_pair, (slot0, slot1) in zip(of_run, matches, slots, strict=True):
            verification = None
            if geometry is not None:
                of_both = sizes[slot0], sizes[slot1]
                verification = verify_pair(
                    of_pair, geometry.name, of_both, pipeline.image_size, geometry.intrinsics
                )
            of_images = (held[first], held[second]) if held else None
            yield MatchedPair(first, second, of_pair, of_images, verification)
        done += len(of_run)
        held = {number: features for number, features in held.items() if last_pair[number] >= done}


def _runs(pairs: Sequence[tuple[int, int]], pipeline: MatchPipeline) -> Iterator[list[tuple[int, int]]]:
    """Group consecutive pairs into runs. The first pair runs alone, so that its matches are printed soon."""
    most_images = min(IMAGES_PER_RUN, pipeline.info.batch or IMAGES_PER_RUN)
    most_pairs = min(IMAGES_PER_RUN, pipeline.info.pairs or IMAGES_PER_RUN)
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


def _extract(
    pipeline: MatchPipeline, paths: Sequence[Path], numbers: Sequence[int], held: dict[int, Features]
) -> None:
    features = pipeline.extract([read_image(paths[number]) for number in numbers])
    for slot, number in enumerate(numbers):
        # Copied, because a view would keep the features of all images of the run in memory.
        held[number] = features.of_image(slot).copy()


def _draw(output: Path, paths: Sequence[Path], pair: MatchedPair, number: int) -> None:
    path = output
    if output.is_dir() or not output.suffix:
        output.mkdir(exist_ok=True)
        path = output / f"{number:0>4}_{paths[pair.first].stem}_{paths[pair.second].stem}.png"
    elif number > 0:
        return
    images = read_image(paths[pair.first]), read_image(paths[pair.second])
    inliers = None if pair.verification is None else pair.verification.inliers
    write_image(path, draw_matches(*images, pair.matches, unmatched=pair.unmatched, inliers=inliers))
