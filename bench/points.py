"""Measures refined matches against the truth: disparities and depths of stereo pairs, and epipolar lines.

    . tools/env.sh
    python bench/points.py xfeat aliked

First rectified stereo pairs with a known disparity: the motorcycle pair, and aloe of ../shared/data, whose
truth is in whole pixels (the variance of rounding, 1/12, is taken off its measured deviation). The error of a
disparity is that of all matches whose truth is known. Points are what the topic `points` has: their stated
standard deviation should be within a factor of 1.5 of the one measured on points within a pixel of the truth.
The same images always give the same matches, so each pair is measured several times, with other rows and
columns cut off above and on the left (`--shifts`). The table has mean and standard deviation over these.

Then frames i and i + N of kitti_seq1: the share of matches within a pixel of the true epipolar line, with and
without refinement, and the pose's AUC at 5 degrees as in pose.py, with its standard error over the seeds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np

from lightglue_ros.core import Features, MatchPipeline, PairMatches
from lightglue_ros.core.image_files import read_image
from lightglue_ros.core.refinement import GreyImage, refine
from lightglue_ros.export.weights import PinnedFile, WheelMember, fetch, motorcycle_pair
from lightglue_ros.rig.points import Points, StereoPair, triangulate
from pose import DATA
from pose_error import Camera, area_under_curve, pose_error, read_camera
from tables import Table, keep, parser_of, print_head, print_table

MOTORCYCLE_TRUTH = PinnedFile(
    "motorcycle_disp.npz",
    "2e49c8cebff3fa20359a0cc6880c82e1c03bbb106da81a177218281bc2f113d7",
    WheelMember("scikit-image==0.25.2", "skimage/data/motorcycle_disp.npz"),
)
KITTI_CANVAS = 960, 320
STRIDES = 1, 3, 5, 7, 9
AUC_DEGREES = 5.0
REFINEMENTS = "none", "lucas_kanade"
STEREO_COLUMNS = (
    "pair",
    "canvas",
    "model",
    "refine",
    "matches",
    "median error (px)",
    "median row error (px)",
    "points",
    "median error of points (px)",
    "points within 1 px (%)",
    "stated deviation (px)",
    "measured (px)",
    "ms",
)
NUMBERS = STEREO_COLUMNS[4:]
KITTI_COLUMNS = (
    "frames",
    "model",
    "refine",
    "matches",
    "within 1 px (%)",
    "checked (%)",
    "checked within 1 px (%)",
    "AUC at 5 degrees",
)


@dataclass(frozen=True)
class TrueStereo:
    """A rectified stereo pair with its truth.

    Attributes:
        name: in the table.
        images: uint8 [H, W, 3] RGB each.
        disparity: float [H, W] of the first image in pixels; not finite or 0 where it is not known.
        stereo: geometry of the two cameras.
        rounding: variance of the truth's rounding in squared pixels.
    """

    name: str
    images: tuple[np.ndarray, np.ndarray]
    disparity: np.ndarray
    stereo: StereoPair
    rounding: float = 0.0


def main() -> None:
    """Measure and print two tables."""
    arguments = parse_arguments()
    print_head("Refinement and points")
    tables = []
    rows = [
        row
        for pair, canvas in stereo_pairs(arguments.data)
        for model in arguments.models
        for row in shifted_rows(pair, canvas, model, arguments)
    ]
    tables.append(Table("Stereo pairs", STEREO_COLUMNS, rows, x="refine", y="median error (px)"))
    print_table(tables[-1])
    if (arguments.data / "kitti_seq1").is_dir():
        rows = [row for model in arguments.models for row in kitti_rows(model, arguments)]
        tables.append(Table("KITTI", KITTI_COLUMNS, rows, x="frames", y="within 1 px (%)", series="refine"))
        print_table(tables[-1])
    keep(tables, arguments)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__)
    parser.add_argument("models", nargs="*", default=["xfeat"])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with stereo_aloe and kitti_seq1")
    parser.add_argument("--shifts", type=int, default=10, help="how often a stereo pair is cut and measured")
    parser.add_argument("--seeds", type=int, default=10, help="orders of the matches for the pose")
    parser.add_argument("--step", type=int, default=1, help="of every how many frames a pair begins")
    return parser.parse_args()


def stereo_pairs(data: Path) -> Iterator[tuple[TrueStereo, tuple[int, int]]]:
    """Return each pair with the canvases that it is matched on."""
    images = tuple(map(read_image, motorcycle_pair()))
    (truth,) = fetch([MOTORCYCLE_TRUTH])
    (disparity,) = np.load(truth.path).values()
    # As skimage.data.stereo_motorcycle describes it.
    stereo = StereoPair((994.978, 994.978), (311.193, 254.877), (342.279, 254.877), 0.193001)
    motorcycle = TrueStereo("motorcycle", images, disparity, stereo)
    yield motorcycle, (768, 512)
    yield motorcycle, (640, 480)
    folder = data / "stereo_aloe"
    if folder.is_dir():
        images = tuple(read_image(folder / f"aloe-{side}.png") for side in "LR")
        disparity = read_image(folder / "aloe-disp.png")
        disparity = disparity if disparity.ndim == 2 else disparity[..., 0]
        # The true focal length and baseline are not known, and do not matter to disparities.
        aloe = StereoPair((640.0, 640.0), (319.5, 276.0), (319.5, 276.0), 0.1)
        pair = TrueStereo("aloe", images, disparity.astype(float), aloe, rounding=1 / 12)
        yield pair, (640, 576)
        yield pair, (640, 480)


def shifted_rows(
    pair: TrueStereo, canvas: tuple[int, int], model: str, arguments: argparse.Namespace
) -> Iterator[tuple]:
    """Return a row without and one with refinement: the mean and the deviation over the shifts."""
    named = len(STEREO_COLUMNS) - len(NUMBERS)
    shifts = [shifted(pair, number, 3 * number) for number in range(arguments.shifts)]
    rows = [list(stereo_rows(one, canvas, model, arguments.rounds)) for one in shifts]
    for of_method in zip(*rows, strict=True):
        cells = []
        for name, values in zip(NUMBERS, list(zip(*of_method, strict=True))[named:], strict=True):
            digits = 0 if name in ("matches", "points") else 1 if "%" in name else 2
            spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 and name != "ms" else ""
            cells.append(f"{np.mean(values):.{digits}f}{spread}")
        yield (*of_method[0][:named], *cells)


def shifted(pair: TrueStereo, columns: int, rows: int) -> TrueStereo:
    """Cut columns and rows off, on the left and above."""
    focal_lengths, *centres, baseline = astuple(pair.stereo)
    centres = [(x - columns, y - rows) for x, y in centres]
    return replace(
        pair,
        images=tuple(image[rows:, columns:].copy() for image in pair.images),
        disparity=pair.disparity[rows:, columns:],
        stereo=StereoPair(focal_lengths, *centres, baseline),
    )


def stereo_rows(pair: TrueStereo, canvas: tuple[int, int], model: str, rounds: int) -> Iterator[tuple]:
    """Return a row without and one with refinement."""
    pipeline = MatchPipeline(model, "cpu", canvas, refine="none")
    (matches,) = pipeline.match(pair.images, [(0, 1)])
    for method in REFINEMENTS:
        found, seconds = matches, 0.0
        if method != "none":
            found, seconds = timed_refinement(matches, pair.images, pipeline.image_size, rounds)
        errors = disparity_errors(pair, found.keypoints0, found.keypoints1)
        is_known = np.isfinite(errors)
        row_errors = np.abs(found.keypoints0[:, 1] - found.keypoints1[:, 1])
        sizes = [image.shape[1::-1] for image in pair.images]
        points = triangulate(found, None, pair.stereo, sizes, pipeline.image_size)
        cells = point_cells(pair, points, found)
        name = f"{canvas[0]}x{canvas[1]}"
        medians = float(np.median(np.abs(errors[is_known]))), float(np.median(row_errors))
        yield (pair.name, name, model, method, len(found), *medians, *cells, 1e3 * seconds)


def timed_refinement(
    matches: PairMatches, images: Sequence[np.ndarray], canvas: tuple[int, int], rounds: int
) -> tuple[PairMatches, float]:
    """Refine matches, grey images included, and return the result and the least seconds."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        greys = [GreyImage.of(image, canvas) for image in images]
        found = refine(matches, *greys, canvas)
        seconds.append(time.perf_counter() - start)
    return found, min(seconds)


def disparity_errors(pair: TrueStereo, keypoints0: np.ndarray, keypoints1: np.ndarray) -> np.ndarray:
    """Signed errors of the disparities in pixels [M]; not finite where the truth is not known."""
    columns, rows = np.rint(keypoints0).astype(int).T
    height, width = pair.disparity.shape
    truth = pair.disparity[rows.clip(0, height - 1), columns.clip(0, width - 1)].astype(float)
    truth[~(truth > 0)] = np.nan
    errors = keypoints0[:, 0] - keypoints1[:, 0] - truth
    errors[~np.isfinite(errors)] = np.nan
    return errors


def point_cells(pair: TrueStereo, points: Points, matches: PairMatches) -> tuple:
    """Return the number of points, their error, and the stated and the measured deviation of disparities."""
    of_match = {index: row for row, index in enumerate(matches.indices0.tolist())}
    rows = [of_match[index] for index in points.indices.tolist()]
    errors = disparity_errors(pair, matches.keypoints0[rows], matches.keypoints1[rows])
    is_known = np.isfinite(errors)
    near = errors[is_known & (np.abs(errors) <= 1.0)]
    measured = np.sqrt(max(0.0, np.mean(near**2) - pair.rounding))
    # The deviation of a depth is depth / disparity times that of the disparity.
    scale = abs(pair.stereo.baseline) * pair.stereo.focal_lengths[0]
    stated = float(np.median(points.deviations * scale / points.positions[:, 2] ** 2))
    share = 100.0 * len(near) / np.count_nonzero(is_known)
    return len(points), float(np.median(np.abs(errors[is_known]))), share, stated, float(measured)


def kitti_rows(model: str, arguments: argparse.Namespace) -> Iterator[tuple]:
    """Return a row for each stride without and with refinement."""
    folder = arguments.data / "kitti_seq1"
    camera = read_camera(folder)
    images = [read_image(path) for path in sorted((folder / "image_l").glob("*.png"))]
    pipeline = MatchPipeline(model, "cpu", KITTI_CANVAS)
    features = [pipeline.extract([image]) for image in images]
    greys = [GreyImage.of(image, pipeline.image_size) for image in images]
    for stride in STRIDES:
        pairs = [(first, first + stride) for first in range(0, len(images) - stride, arguments.step)]
        found: dict[str, list[PairMatches]] = {method: [] for method in REFINEMENTS}
        for first, second in pairs:
            both = Features.concatenate([features[first], features[second]])
            (matches,) = pipeline.match_features(both, [(0, 1)])
            found["none"].append(matches)
            found["lucas_kanade"].append(refine(matches, greys[first], greys[second], pipeline.image_size))
        for method, of_pairs in found.items():
            cells = kitti_cells(camera, pairs, of_pairs, arguments.seeds)
            print(stride, method, *cells, file=sys.stderr, flush=True)
            yield (f"i + {stride}", model, method, *cells)


def kitti_cells(
    camera: Camera, pairs: Sequence[tuple[int, int]], found: Sequence[PairMatches], seeds: int
) -> tuple:
    """Return the matches per pair, shares in percent, and the pose's AUC with its standard error."""
    near = [distances(camera, *both) <= 1.0 for both in zip(pairs, found, strict=True)]
    right, count = np.concatenate(near), len(np.concatenate(near)) / len(pairs)
    checked = "", ""
    if found[0].checked is not None:
        flags = np.concatenate([matches.checked for matches in found])
        checked = f"{100 * flags.mean():.1f}", f"{100 * right[flags].mean():.1f}"
    aucs = []
    for seed in range(seeds):
        errors = [
            pose_error(
                np.hstack([matches.keypoints0, matches.keypoints1]), camera.matrix, camera.motion(*pair), seed
            )
            for pair, matches in zip(pairs, found, strict=True)
        ]
        aucs.append(100 * area_under_curve(errors, AUC_DEGREES))
    error = np.std(aucs, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.nan
    return count, f"{100 * right.mean():.1f}", *checked, f"{np.mean(aucs):.1f} ± {error:.1f}"


def distances(camera: Camera, pair: tuple[int, int], matches: PairMatches) -> np.ndarray:
    """Distances of the second keypoints from the true epipolar lines of the first, in pixels [M]."""
    rotation, (x, y, z) = camera.motion(*pair)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    inverse = np.linalg.inv(camera.matrix)
    fundamental = inverse.T @ cross @ rotation @ inverse
    ones = np.ones((len(matches), 1))
    lines = np.hstack([matches.keypoints0, ones]) @ fundamental.T
    offsets = (lines * np.hstack([matches.keypoints1, ones])).sum(axis=1)
    return np.abs(offsets) / np.linalg.norm(lines[:, :2], axis=1)


if __name__ == "__main__":
    main()
