"""Growth of a model's time with images, their size, pairs, keypoint slots and empty slots.

    . tools/env.sh
    for k in 256 300 512 2048; do lightglue_ros export disk --split --max-keypoints $k; done
    python bench/scaling.py disk

A table for each, whose rows take turns; an option without values leaves its table out. Features are those of
the motorcycle pair, repeated where more keypoints are asked for than it has. Exports with other K are looked
for in the model store under the model's name with -kK (disk-k512), and rows without one are left out.

Empty slots: an export with many slots, of which few hold a keypoint, beside the export with just as many
slots as there are keypoints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from exported import Exported, Tensors
from features import export_with_slots, filled
from lightglue_ros.cli.bench import camera_images
from lightglue_ros.errors import LightGlueRosError, ModelError
from tables import THREADS_SPIN, Cell, Table, keep, parser_of, print_head, print_table
from timing import Work, interleaved

FEATURES_SIZE = (640, 480)  # canvas of the images whose features are matched
Cells = tuple[Cell, ...]


def main() -> None:
    """Measure and print the tables."""
    arguments = parse_arguments()
    try:
        exported = Exported(arguments.model, arguments.threads)
    except LightGlueRosError as error:
        sys.exit(str(error))
    print_head(f"How the time of {arguments.model} grows", THREADS_SPIN)
    tables = []
    for table in measure(exported, arguments):
        print_table(table)
        tables.append(table)
    keep(tables, arguments)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__)
    parser.add_argument("model", nargs="?", default="xfeat", help="a name in the model store, or a folder")
    parser.add_argument("--images", nargs="*", type=int, default=[1, 2, 4, 8], metavar="N")
    parser.add_argument("--sizes", nargs="*", default=["320x240", "640x480", "960x720", "1280x960"])
    parser.add_argument("--pairs", nargs="*", type=int, default=[1, 2, 4, 8], metavar="P")
    parser.add_argument("--keypoints", nargs="*", type=int, default=[256, 512, 1024, 2048], metavar="K")
    parser.add_argument(
        "--empty",
        nargs="*",
        default=["1024:300", "2048:256"],
        metavar="K:KEYPOINTS",
        help="slots, and how many of them hold a keypoint",
    )
    parser.add_argument("--threads", type=int, default=0, help="0 is one per core")
    return parser.parse_args()


def measure(exported: Exported, arguments: argparse.Namespace) -> Iterator[Table]:
    """The tables that were asked for."""
    rounds, model = arguments.rounds, arguments.model
    features = exported.extract(exported.place(camera_images(FEATURES_SIZE), FEATURES_SIZE))
    slots = exported.info.max_keypoints
    if arguments.images:
        works = {(count,): extraction(exported, FEATURES_SIZE, count) for count in arguments.images}
        yield table_of("Extraction, images of 640x480 a run", ("N",), works, rounds)
    if arguments.sizes:
        works = {(size, pixels(size)): extraction(exported, resolution(size), 1) for size in arguments.sizes}
        yield table_of("Extraction of an image", ("size", "megapixels"), works, rounds, x="megapixels")
    if arguments.pairs:
        works = {(count,): match(exported, features, slots, count) for count in arguments.pairs}
        yield table_of(f"Matching, pairs a run, {slots} keypoints an image", ("P",), works, rounds)
    exports = Exports(model, exported, arguments.threads)
    if arguments.keypoints:
        works = {(k,): exports.match(features, k, k) for k in arguments.keypoints if exports.has(k)}
        if works:
            yield table_of("Matching of a pair, all slots filled", ("K",), works, rounds)
    for text in arguments.empty:
        slots, count = (int(part) for part in text.split(":"))
        if exports.has(slots) and exports.has(count):
            works = {(k, count): exports.match(features, k, count) for k in (count, slots)}
            title = f"Matching of a pair with {count} keypoints an image"
            yield table_of(title, ("K", "keypoints"), works, rounds)


def resolution(text: str) -> tuple[int, int]:
    """(width, height) of a text such as 640x480."""
    width, height = text.split("x")
    return int(width), int(height)


def pixels(text: str) -> float:
    """Return the megapixels of a size such as 640x480."""
    width, height = resolution(text)
    return 1e-6 * width * height


class Exports:
    """Exports of one model with different K, opened when first asked for."""

    def __init__(self, model: str, exported: Exported, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._opened = {exported.info.max_keypoints: exported}
        self._missing: set[int] = set()

    def has(self, slots: int) -> bool:
        """True if there is an export with this number of slots; else print the command that makes it."""
        if slots not in self._opened and slots not in self._missing:
            try:
                self._opened[slots] = Exported(export_with_slots(self._model, slots), self._threads)
            except ModelError as error:
                self._missing.add(slots)
                print(f"left out: {error}", file=sys.stderr)
        return slots in self._opened

    def match(self, features: Tensors, slots: int, count: int) -> Work:
        """Match a pair with this number of keypoints per image."""
        return match(self._opened[slots], features, count, 1)


def extraction(exported: Exported, size: tuple[int, int], count: int) -> Work:
    """Extract some images of a (width, height) in one run."""
    images = camera_images(size)
    batch = exported.place([images[number % 2] for number in range(count)], size)
    return lambda: exported.extract(batch)


def match(exported: Exported, features: Tensors, count: int, pairs: int) -> Work:
    """Match some pairs in one run, each of two own images with `count` keypoints."""
    pair = filled(features, count, exported.info.max_keypoints)
    images = {name: np.concatenate([values] * pairs) for name, values in pair.items()}
    indices = np.arange(2 * pairs).reshape(-1, 2)
    return lambda: exported.match(images, indices)


def table_of(
    title: str, heads: Sequence[str], works: Mapping[Cells, Work], rounds: int, x: str | None = None
) -> Table:
    """Time the works in turns, and return a row for each that begins with the cells of its name."""
    for work in works.values():
        work()
    seconds = interleaved({str(cells): [work] for cells, work in works.items()}, rounds)
    spent = [seconds[str(cells)] for cells in works]
    rows = [(*cells, 1e3 * time, time / spent[0]) for cells, time in zip(works, spent, strict=True)]
    return Table(title, (*heads, "ms", "ratio"), rows, x=x or heads[0], y="ms")


if __name__ == "__main__":
    main()
