"""Right matches of exports, next to those of a first export: what a precision costs.

    . tools/env.sh
    lightglue_ros export xfeat --split && lightglue_ros export xfeat --split --precision int8
    python bench/right_matches.py xfeat xfeat-int8

A match is right if its second keypoint is within 1 px of the true epipolar line of its first. It is the same
as a match of the first export if both ends are within 1 px of that match's ends. Matches are counted as they
are, and refined.

The pairs are frames i and i + N of kitti_seq1, and the rectified pair aloe, where the line is the row. Last
is the first export on the same images with each value changed by -1, 0 or 1 grey level at random, which is
less than a camera's noise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from against_originals import DATA
from lightglue_ros.core import Features, MatchPipeline, PairMatches
from lightglue_ros.core.image_files import read_image
from lightglue_ros.core.refinement import GreyImage, refine
from points import KITTI_CANVAS, REFINEMENTS, distances
from pose_error import read_camera
from tables import Table, keep, parser_of, print_head, print_table

TOLERANCE = 1.0  # pixels from the line, and between the ends of matches that are the same
ALOE_CANVAS = 640, 576
COLUMNS = (
    "pairs",
    "refine",
    "model",
    "matches per pair",
    "right per pair",
    "right, of the first's",
    "the first's that are the same",
)


@dataclass(frozen=True)
class Views:
    """Images with pairs whose epipolar lines are known.

    Attributes:
        images: uint8 [H, W, 3] RGB or [H, W] each.
        canvas: (width, height).
        pairs: by name, indices of two images each.
        errors: computes distances from the true lines in pixels [M] of a pair's matches.
    """

    images: Sequence[np.ndarray]
    canvas: tuple[int, int]
    pairs: dict[str, list[tuple[int, int]]]
    errors: Callable[[tuple[int, int], PairMatches], np.ndarray]


def main() -> None:
    """Match and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "models", nargs="+", help="names in the model store, or folders; the first is compared with"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with kitti_seq1 and stereo_aloe")
    parser.add_argument("--strides", default="3,5,7,9", help="N of frames i and i + N, with commas")
    parser.add_argument("--step", type=int, default=1, help="of every how many frames a pair begins")
    arguments = parser.parse_args()
    print_head("Right matches")
    strides = [int(stride) for stride in arguments.strides.split(",")]
    views = (
        kitti(arguments.data / "kitti_seq1", strides, arguments.step),
        aloe(arguments.data / "stereo_aloe"),
    )
    rows = [row for view in views for row in rows_of(view, arguments.models)]
    table = Table("Matches", COLUMNS, rows, x="pairs", y="right per pair", series="model")
    print_table(table)
    keep([table], arguments)


def kitti(folder: Path, strides: Sequence[int], step: int) -> Views:
    """Return frames of a car's camera whose poses are known."""
    images = [read_image(path) for path in sorted((folder / "image_l").glob("*.png"))]
    pairs = {
        f"i, i + {stride}": [(i, i + stride) for i in range(0, len(images) - stride, step)]
        for stride in strides
    }
    return Views(images, KITTI_CANVAS, pairs, partial(distances, read_camera(folder)))


def aloe(folder: Path) -> Views:
    """Return a rectified stereo pair."""

    def row_errors(_: tuple[int, int], matches: PairMatches) -> np.ndarray:
        return np.abs(matches.keypoints0[:, 1] - matches.keypoints1[:, 1])

    images = [read_image(folder / f"aloe-{side}.png") for side in "LR"]
    return Views(images, ALOE_CANVAS, {"aloe": [(0, 1)]}, row_errors)


def rows_of(views: Views, models: Sequence[str]) -> Iterator[tuple]:
    """Return a row for each name, refinement and model, and for the first model with noise."""
    found = {model: matches_of(views, model) for model in models}
    found[f"{models[0]}, images ± 1"] = matches_of(with_noise(views), models[0])
    for name, pairs in views.pairs.items():
        for method in REFINEMENTS:
            first = [found[models[0]][method, pair] for pair in pairs]
            right_of_first = count_right(views, pairs, first)
            for model in found:
                matches = [found[model][method, pair] for pair in pairs]
                count, right = sum(map(len, matches)), count_right(views, pairs, matches)
                same = sum(map(count_same, first, matches)) / max(1, sum(map(len, first)))
                shares = right / max(1, right_of_first), same
                yield (name, method, model, count / len(pairs), right / len(pairs), *shares)


def with_noise(views: Views) -> Views:
    """Change each value of the images by at most one grey level."""
    random = np.random.default_rng(0)
    changed = (image + random.integers(-1, 2, image.shape) for image in views.images)
    return replace(views, images=[image.clip(0, 255).astype(np.uint8) for image in changed])


def matches_of(views: Views, model: str) -> dict[tuple[str, tuple[int, int]], PairMatches]:
    """Match all pairs; the results by refinement and pair."""
    print(f"matching: {model}", file=sys.stderr, flush=True)
    pipeline = MatchPipeline(model, "cpu", views.canvas, refine="none")
    features = [pipeline.extract([image]) for image in views.images]
    greys = [GreyImage.of(image, pipeline.image_size) for image in views.images]
    found = {}
    for first, second in {pair for pairs in views.pairs.values() for pair in pairs}:
        both = Features.concatenate([features[first], features[second]])
        (matches,) = pipeline.match_features(both, [(0, 1)])
        refined = refine(matches, greys[first], greys[second], pipeline.image_size)
        for method, of_pair in zip(REFINEMENTS, (matches, refined), strict=True):
            found[method, (first, second)] = of_pair
    return found


def count_right(views: Views, pairs: Sequence[tuple[int, int]], found: Sequence[PairMatches]) -> int:
    """Count matches within a pixel of their true line."""
    both = zip(pairs, found, strict=True)
    return sum(int((views.errors(pair, matches) <= TOLERANCE).sum()) for pair, matches in both)


def count_same(first: PairMatches, other: PairMatches) -> int:
    """Count matches of the first to which the other has one with both ends within a pixel."""
    ends, others = (np.hstack([it.keypoints0, it.keypoints1]) for it in (first, other))
    apart = np.abs(ends[:, None] - others[None]).max(axis=2, initial=0)
    return int((apart <= TOLERANCE).any(axis=1).sum())


if __name__ == "__main__":
    main()
