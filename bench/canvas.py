"""Compares the part of the canvas that the images need with the whole canvas: speed, and right matches.

    . tools/env.sh
    for model in xfeat disk; do lightglue_ros export $model --split; done
    python bench/canvas.py xfeat disk

Images of KITTI (1226 x 370) cover 640 x 193 of the default canvas. All variants take turns in each round.
`spin` means that threads spin for as long as they wait, as they did when the node always ran on the whole
canvas; by default they spin for 5 µs. A match is right if it lies within 1.5 px of where the truth allows it:
between frames of KITTI of its epipolar line, in a rectified stereo pair of its row.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features import DATA
from lightglue_ros.cli.bench import camera_images
from lightglue_ros.core import MatchPipeline, PairMatches
from lightglue_ros.core.contract import CANVAS_MARGINS
from lightglue_ros.core.image_files import read_image
from pose import Camera, read_camera
from tables import Table, keep, parser_of, print_head, print_table
from timing import interleaved

CANVAS = 640, 480
TOLERANCE = 1.5  # pixels
SPEED = ("model", "variant", "canvas", "frame (ms)", "times as fast")
QUALITY = ("model", "images", "part", "right matches", "on the whole", "ratio", "share right", "on the whole")


@dataclass(frozen=True)
class Scene:
    """Pairs of images of a kind, and which of a pair's matches are right."""

    name: str
    pairs: list[tuple[np.ndarray, np.ndarray]]
    is_right: list[Callable[[PairMatches], np.ndarray]]


@contextmanager
def whole_canvas(extractor: str) -> Iterator[None]:
    """Let pipelines that are made meanwhile run on the whole canvas."""
    margin = CANVAS_MARGINS.pop(extractor, None)
    try:
        yield
    finally:
        if margin is not None:
            CANVAS_MARGINS[extractor] = margin


def variants_of(model: str, max_keypoints: int | None) -> dict[str, MatchPipeline]:
    """Make the pipelines that take turns, by what is special about each."""
    extractor = MatchPipeline(model, "cpu", graphs=("extractor",)).info.extractor

    def pipeline(spin: bool) -> MatchPipeline:
        return MatchPipeline(model, "cpu", CANVAS, max_keypoints=max_keypoints, spin_threads=spin)

    with whole_canvas(extractor):
        whole = {"whole, spin (as before)": pipeline(True), "whole": pipeline(False)}
    return whole | {"part, spin": pipeline(True), "part": pipeline(False)}


def read_scenes(data: Path, pairs: int) -> list[Scene]:
    """Read frames of KITTI, one and six frames apart, and two rectified stereo pairs."""
    kitti = data / "kitti_seq1"
    camera = read_camera(kitti)
    scenes = []
    for stride in (1, 6):
        starts = np.linspace(0, len(camera.poses) - 1 - stride, pairs).astype(int)
        numbers = [(int(start), int(start) + stride) for start in starts]
        images = [tuple(read_image(kitti / "image_l" / f"{it:06}.png") for it in both) for both in numbers]
        rules = [near_epipolar_line(camera, *both) for both in numbers]
        scenes.append(Scene(f"KITTI, stride {stride}", images, rules))
    aloe = tuple(read_image(data / "stereo_aloe" / f"aloe-{side}.png") for side in "LR")
    motorcycle = tuple(camera_images((741, 500)))
    return [*scenes, Scene("aloe", [aloe], [near_row]), Scene("motorcycle", [motorcycle], [near_row])]


def near_epipolar_line(camera: Camera, first: int, second: int) -> Callable[[PairMatches], np.ndarray]:
    """Return a function that finds the matches of two frames that are near their true epipolar lines."""
    rotation, (x, y, z) = camera.motion(first, second)
    inverse = np.linalg.inv(camera.matrix)
    fundamental = inverse.T @ np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation @ inverse

    def is_right(matches: PairMatches) -> np.ndarray:
        ends = (np.column_stack([it, np.ones(len(it))]) for it in (matches.keypoints0, matches.keypoints1))
        starts, ends = ends
        lines = starts @ fundamental.T
        return np.abs((lines * ends).sum(axis=1)) < TOLERANCE * np.hypot(lines[:, 0], lines[:, 1])

    return is_right


def near_row(matches: PairMatches) -> np.ndarray:
    """Find the matches of a rectified pair whose ends are in the same row."""
    return np.abs(matches.keypoints0[:, 1] - matches.keypoints1[:, 1]) < TOLERANCE


def count_right(pipeline: MatchPipeline, scene: Scene) -> tuple[float, float]:
    """Return the number of right matches per pair, and their share of all matches."""
    found = [pipeline.match(pair, [(0, 1)])[0] for pair in scene.pairs]
    right = sum(int(rule(matches).sum()) for rule, matches in zip(scene.is_right, found, strict=True))
    return right / len(found), right / max(1, sum(map(len, found)))


def canvas_text(pipeline: MatchPipeline, image: np.ndarray) -> str:
    """Return the size of the canvas of an image."""
    width, height = pipeline.placement((image.shape[1], image.shape[0])).canvas_size
    return f"{width} x {height}"


def speed_rows(
    model: str, variants: dict[str, MatchPipeline], images: Sequence[np.ndarray], rounds: int
) -> list[tuple]:
    """Time a stereo frame of each variant."""
    works = {name: [lambda it=it: it.match(images, [(0, 1)])] for name, it in variants.items()}
    for (work,) in works.values():
        work()
    seconds = interleaved(works, rounds)
    before = seconds[next(iter(variants))]
    return [
        (model, name, canvas_text(it, images[0]), 1e3 * seconds[name], before / seconds[name])
        for name, it in variants.items()
    ]


def quality_rows(model: str, variants: dict[str, MatchPipeline], scenes: Sequence[Scene]) -> list[tuple]:
    """Count the right matches of each scene, on the part of the canvas and on the whole."""
    rows = []
    for scene in scenes:
        right, share = count_right(variants["part"], scene)
        right_whole, share_whole = count_right(variants["whole"], scene)
        canvas = canvas_text(variants["part"], scene.pairs[0][0])
        ratio = right / max(1.0, right_whole)
        rows.append((model, scene.name, canvas, right, right_whole, ratio, share, share_whole))
    return rows


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("models", nargs="*", default=["xfeat"])
    parser.add_argument("--max-keypoints", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=10, help="of KITTI, of each stride")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with kitti_seq1 and stereo_aloe")
    return parser.parse_args()


def main() -> None:
    """Measure and print both tables."""
    arguments = parse_arguments()
    print_head("The part of the canvas that the images need")
    scenes = read_scenes(arguments.data, arguments.pairs)
    speed, quality = [], []
    for model in arguments.models:
        variants = variants_of(model, arguments.max_keypoints)
        speed += speed_rows(model, variants, scenes[0].pairs[0], arguments.rounds)
        quality += quality_rows(model, variants, scenes)
    title = (
        f"Two images of KITTI, canvas {CANVAS[0]} x {CANVAS[1]}, at most {arguments.max_keypoints} keypoints"
    )
    tables = [
        Table(f"{title}: medians of {arguments.rounds} rounds", SPEED, speed, x="variant", y="frame (ms)"),
        Table("Right matches per pair", QUALITY, quality, x="images", y="ratio", series="model"),
    ]
    for table in tables:
        print_table(table)
    keep(tables, arguments)


if __name__ == "__main__":
    main()
