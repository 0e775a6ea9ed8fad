"""Measures which matches of rectified stereo pairs verification keeps, and its time.

    . tools/env.sh
    python bench/verification.py xfeat-k512 xfeat aliked

In rectified stereo a right match has the same row in both images. The share of those is printed before and
after each geometry, which knows nothing of rows, and the median processor time of verifying the pair, which
one thread does. Last come matches that are all false, which take the most rounds. Intrinsics of aloe are not
known: they are guessed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightglue_ros.cli.bench import machine
from lightglue_ros.cli.demo import same_row_share
from lightglue_ros.core import MatchPipeline, PairMatches
from lightglue_ros.core.image_files import read_image
from lightglue_ros.export.weights import motorcycle_pair
from lightglue_ros.rig.verification import GEOMETRIES, Intrinsics, Verification, verify_pair

ALOE = Path(__file__).parents[2] / "shared" / "data" / "stereo_aloe"
TOLERANCES = (1.5, 3.0)  # pixels between the rows of a match
FALSE_MATCHES = 500


@dataclass(frozen=True)
class StereoPair:
    """Two rectified images.

    Attributes:
        name: in the table.
        images: uint8 [H, W, 3] RGB each.
        intrinsics: of both cameras.
    """

    name: str
    images: tuple[np.ndarray, np.ndarray]
    intrinsics: tuple[Intrinsics, Intrinsics]

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of both images."""
        return tuple(image.shape[1::-1] for image in self.images)


def main() -> int:
    """Measure and print; the exit status is 0 if inliers share a row more often than all matches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=["xfeat"])
    parser.add_argument("--image-size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    canvas_size = tuple(arguments.image_size)

    print(f"{machine()}\ncanvas {canvas_size[0]}x{canvas_size[1]}, median of {arguments.rounds} rounds\n")
    heads = [f"same row to {tolerance:g} px: before, after" for tolerance in TOLERANCES]
    print(f"| pair | model | geometry | matches | inliers | {' | '.join(heads)} | ms |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    is_better = True
    pairs = list(stereo_pairs())
    for pair in pairs:
        for model in arguments.models:
            pipeline = MatchPipeline(model, "cpu", canvas_size, refine="none")
            (matches,) = pipeline.match(pair.images, [(0, 1)])
            for geometry in GEOMETRIES:
                found, seconds = timed(pair, matches, geometry, pipeline.image_size, arguments.rounds)
                shares = row_shares(matches, found.inliers)
                is_better &= all(after > before or before == 1.0 for before, after in shares)
                print_row(pair.name, model, found, shares, seconds)
    for geometry in GEOMETRIES:
        found, seconds = timed(pairs[0], false_matches(pairs[0]), geometry, canvas_size, arguments.rounds)
        print_row("all false", "", found, [], seconds)
    print(f"\na larger share on the same row each time: {'PASS' if is_better else 'FAIL'}")
    return 0 if is_better else 1


def stereo_pairs() -> Iterator[StereoPair]:
    """Return Middlebury's motorcycle, and aloe if it is there."""
    # As skimage.data.stereo_motorcycle describes it; the centres are 31.086 px apart.
    left, right = (camera(994.978, x, 254.877) for x in (311.193, 342.279))
    yield StereoPair("motorcycle", tuple(map(read_image, motorcycle_pair())), (left, right))
    if ALOE.is_dir():
        images = tuple(read_image(ALOE / f"aloe-{side}.png") for side in "LR")
        height, width = images[0].shape[:2]
        yield StereoPair("aloe", images, (camera(width, (width - 1) / 2, (height - 1) / 2),) * 2)


def camera(focal_length: float, x: float, y: float) -> Intrinsics:
    """Intrinsics of a camera with square pixels and its centre at (x, y)."""
    return Intrinsics(np.array([[focal_length, 0.0, x], [0.0, focal_length, y], [0.0, 0.0, 1.0]]))


def false_matches(pair: StereoPair) -> PairMatches:
    """Return random points of two images, without any relation between them."""
    random = np.random.default_rng(0)
    points = [random.uniform(0, size, (FALSE_MATCHES, 2)).astype(np.float32) for size in pair.sizes]
    numbers = np.arange(FALSE_MATCHES, dtype=np.int32)
    return PairMatches(*points, np.ones(FALSE_MATCHES, np.float32), numbers, numbers, 0)


def timed(
    pair: StereoPair, matches: PairMatches, geometry: str, canvas_size: tuple[int, int], rounds: int
) -> tuple[Verification, float]:
    """Verify matches, and return the result and the median seconds of processor time."""
    seconds = []
    for _ in range(rounds):
        start = time.thread_time()
        found = verify_pair(matches, geometry, pair.sizes, canvas_size, pair.intrinsics)
        seconds.append(time.thread_time() - start)
    return found, float(np.median(seconds))


def row_shares(matches: PairMatches, inliers: np.ndarray) -> list[tuple[float, float]]:
    """Share of the matches, and of the inliers, on the same row, for each tolerance."""
    both = matches.keypoints0, matches.keypoints1
    kept = tuple(keypoints[inliers] for keypoints in both)
    return [(same_row_share(*both, tolerance), same_row_share(*kept, tolerance)) for tolerance in TOLERANCES]


def print_row(
    name: str, model: str, found: Verification, shares: Sequence[tuple[float, float]], seconds: float
) -> None:
    """Print a line of the table."""
    texts = [f"{100 * before:.1f}%, {100 * after:.1f}%" for before, after in shares] or [""] * len(TOLERANCES)
    counts = f"{len(found.inliers)} | {np.count_nonzero(found.inliers)}"
    print(f"| {name} | {model} | {found.geometry} | {counts} | {' | '.join(texts)} | {1e3 * seconds:.1f} |")


if __name__ == "__main__":
    raise SystemExit(main())
