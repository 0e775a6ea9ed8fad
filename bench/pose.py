"""Relative pose of a driving car's camera from matches: the exports and the original code, on KITTI.

    . tools/env.sh
    pip install --no-deps -r requirements/originals.txt
    for model in xfeat disk aliked; do lightglue_ros export $model --split; done
    python bench/pose.py --scratch /tmp/pose ours=xfeat ours=disk ours=aliked

Each variant is LABEL=MODEL, a name in the model store or a folder. The variants of one model are judged by
its original, which runs once and whose matches are kept in the scratch folder.

Frames i and i + 6 of kitti_seq1, i = 0 to 44 (about seven metres apart); every frame is extracted once. All
sides get the same canvas, as many pixels as 640 x 480 in the shape of KITTI's images. The pose comes from the
essential matrix, by OpenCV's RANSAC (1 px, confidence 0.99999), and its error is the larger one of the angle
of the rotation and the angle between the directions of translation (either sign, as is the custom), in
degrees; 180 where no pose was found. The figures are the area under the curve of recall over error up to 1,
3 and 5 degrees, in percent.

OpenCV's RANSAC draws the same samples each time, whatever cv2.setRNGSeed says. So a seed is an order of the
matches: they are sorted by their coordinates, that both sides have the same order, and then shuffled by the
seed. A table gives the mean over the seeds and its standard error.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from against_originals import DATA, joined, versions
from exported import Exported, Tensors
from lightglue_ros.cli.bench import machine
from lightglue_ros.core.image_files import read_image
from originals import MATCHERS, Original, load_original
from pose_error import THRESHOLDS, Camera, area_under_curve, pose_error, read_camera

STRIDE = 6  # frames
PAIRS = np.array([(first, first + STRIDE) for first in range(45)])
IMAGE_SIZE = 960, 320
MOST_POINTS = {
    "fp32": 1.0,
    "fp16": 2.0,
    "int8": 2.0,
}  # that an export may be away from its original at the last threshold


@dataclass(frozen=True)
class Variant:
    """A model that takes part in the comparison.

    Attributes:
        model: the model's name in the registry.
        label: what the table calls it.
        precision: of an export; empty for an original.
        matches: float32 [M, 4] of each pair, (x0, y0, x1, y1) in pixels of the original images, sorted.
    """

    model: str
    label: str
    precision: str
    matches: list[np.ndarray]


def main() -> None:
    """Match, estimate poses and print a table."""
    arguments = parse_arguments()
    camera = read_camera(arguments.data / "kitti_seq1")
    images = [
        read_image(arguments.data / "kitti_seq1" / "image_l" / f"{i:06}.png") for i in range(PAIRS.max() + 1)
    ]
    width, height = IMAGE_SIZE
    print("# Relative pose on KITTI\n")
    print(f"    {shlex.join(['python', 'bench/pose.py', *sys.argv[1:]])}\n")
    print(f"{machine()},\n{versions()}.\n")
    print(f"{len(PAIRS)} pairs, canvas {width} x {height}, {arguments.seeds} seeds: mean ± standard error.\n")
    print_head()
    originals = {}
    for text in arguments.variants:
        label, model = text.split("=", 1)
        exported = Exported(model)
        name = exported.info.model
        if name not in originals:
            original = match_original(exported, images, arguments.scratch)
            originals[name] = aucs_by_seed(original, camera, arguments.seeds) if original else None
            if original:
                print_row(original, originals[name], None)
        matches = matches_of_pairs(match_frames(exported, exported, images, label))
        variant = Variant(name, label, exported.info.precision, matches)
        print_row(variant, aucs_by_seed(variant, camera, arguments.seeds), originals[name])


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="+", metavar="LABEL=MODEL", help="such as fp16=xfeat-fp16")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with kitti_seq1")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the originals' matches")
    parser.add_argument("--seeds", type=int, default=20)
    return parser.parse_args()


def match_original(exported: Exported, images: Sequence[np.ndarray], scratch: Path) -> Variant | None:
    """Return the original's matches, kept in the scratch folder; None if it has no matcher."""
    model, slots = exported.info.model, exported.info.max_keypoints
    if model not in MATCHERS:
        return None
    width, height = IMAGE_SIZE
    cache = scratch / f"original-{model}-k{slots}-{width}x{height}.npz"
    if not cache.is_file():
        scratch.mkdir(parents=True, exist_ok=True)
        outputs = match_frames(load_original(model, slots), exported, images, "original")
        np.savez(cache, **outputs)
    return Variant(model, "original", "", matches_of_pairs(dict(np.load(cache))))


def match_frames(
    side: Original | Exported, exported: Exported, images: Sequence[np.ndarray], label: str
) -> Tensors:
    """Keypoints of all frames and matches of all pairs; the export says what its model's canvases are."""
    print(f"matching: {exported.info.model}, {label}", file=sys.stderr)
    features = joined([side.extract(exported.place([image], IMAGE_SIZE)) for image in images])
    matches = joined([side.match(features, PAIRS[row : row + 1]) for row in range(len(PAIRS))])
    return {"keypoints": features["keypoints"]} | matches


def matches_of_pairs(outputs: Tensors) -> list[np.ndarray]:
    """The matches of each pair as `Variant` wants them."""
    found = []
    for (first, second), partners in zip(PAIRS, outputs["matches"], strict=True):
        slots = np.flatnonzero(partners >= 0)
        ends = outputs["keypoints"][first][slots], outputs["keypoints"][second][partners[slots]]
        matches = np.concatenate(ends, axis=1)
        found.append(matches[np.lexsort(matches.T[::-1])])
    return found


def aucs_by_seed(variant: Variant, camera: Camera, seeds: int) -> np.ndarray:
    """float64 [seeds, thresholds], in percent."""
    aucs = []
    for seed in range(seeds):
        errors = [
            pose_error(matches, camera.matrix, camera.motion(*pair), seed)
            for pair, matches in zip(PAIRS, variant.matches, strict=True)
        ]
        aucs.append([100 * area_under_curve(errors, threshold) for threshold in THRESHOLDS])
    return np.array(aucs)


def print_head() -> None:
    """Print the head of the table."""
    columns = [f"AUC at {threshold:g} degrees" for threshold in THRESHOLDS]
    last = f"difference at {THRESHOLDS[-1]:g} degrees"
    print(f"| model | variant | matches a pair | {' | '.join(columns)} | {last} |")
    print("| --- | --- | ---: | ---: | ---: | ---: | --- |")


def print_row(variant: Variant, aucs: np.ndarray, original: np.ndarray | None) -> None:
    """Print the line of a variant."""
    errors = aucs.std(axis=0, ddof=1) / np.sqrt(len(aucs))
    cells = [f"{mean:.1f} ± {error:.1f}" for mean, error in zip(aucs.mean(axis=0), errors, strict=True)]
    count = np.mean([len(matches) for matches in variant.matches])
    verdict = verdict_text(variant, aucs, original)
    print(
        f"| {variant.model} | {variant.label} | {count:.1f} | {' | '.join(cells)} | {verdict} |", flush=True
    )


def verdict_text(variant: Variant, aucs: np.ndarray, original: np.ndarray | None) -> str:
    """Return a variant's difference from its original at the last threshold, and a verdict."""
    if original is None:
        return ""
    points = aucs[:, -1].mean() - original[:, -1].mean()
    most = MOST_POINTS.get(variant.precision)
    if most is None:
        return f"{points:+.1f}"
    return f"{points:+.1f} (at most {most:g}) {'PASS' if abs(points) <= most else 'FAIL'}"


if __name__ == "__main__":
    main()
