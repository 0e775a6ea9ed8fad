"""Growth of a model's time with images, their size, pairs, keypoints and empty slots, and of its work.

    . tools/env.sh
    for options in "" "--precision int8" "--adaptive" "--precision int8 --adaptive"; do
        lightglue_ros export xfeat --split --max-keypoints 2048 $options
    done
    python bench/scaling.py xfeat-k2048 xfeat-k2048-int8 xfeat-k2048-adaptive xfeat-k2048-int8-adaptive

A table for each, whose rows take turns; an option without values leaves its table out. `GFLOP` are the
operations of the matrix products and convolutions of the first export, which should be in fp32 and not
adaptive. `ratio` is the time compared with that of the same export in its first row. `against work` is this
ratio divided by that of the operations: more than 1 where time grows faster than the work.

Features are the motorcycle pair's on a canvas of 1280 x 960, repeated where more keypoints are asked for than
it has. Where an export has more slots than there are keypoints, slots are empty; an export with free shapes
skips them. `--empty` names exports with fewer slots, each of which is compared with the first export.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from exported import Exported, Tensors
from features import filled
from lightglue_ros.cli.bench import camera_images
from lightglue_ros.core.contract import EXTRACTOR, INPUTS, MATCHER
from lightglue_ros.core.pipeline import DEFAULT_MATCH_THRESHOLD
from lightglue_ros.core.store import find_model
from lightglue_ros.errors import LightGlueRosError
from tables import THREADS_SPIN, Cell, Table, keep, parser_of, print_head, print_table
from timing import Work, interleaved
from where_time_goes import products_of

FEATURES_SIZE = (1280, 960)  # canvas of the images whose features are matched
IMAGE_SIZE = (640, 480)  # of the images that are extracted, where the table has no sizes
Cells = tuple[Cell, ...]
# What is timed, by export, and the operations of the first export.
Row = tuple[Mapping[str, Work], float]


def main() -> None:
    """Measure and print the tables."""
    arguments = parse_arguments()
    try:
        exports = {name: Exported(name, arguments.threads) for name in arguments.models}
        others = {name: Exported(name, arguments.threads) for name in arguments.empty}
    except LightGlueRosError as error:
        sys.exit(str(error))
    print_head(f"How the time of {arguments.models[0]} grows", THREADS_SPIN)
    tables = []
    for table in measure(exports, others, arguments):
        print_table(table)
        tables.append(table)
    keep(tables, arguments)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__)
    parser.add_argument("models", nargs="+", help="names in the model store, or folders; in fp32 first")
    parser.add_argument("--images", nargs="*", type=int, default=[1, 2, 4, 8], metavar="N")
    parser.add_argument("--sizes", nargs="*", default=["320x240", "640x480", "960x720", "1280x960"])
    parser.add_argument("--pairs", nargs="*", type=int, default=[1, 2, 4, 8], metavar="P")
    parser.add_argument(
        "--pair-keypoints", type=int, default=512, metavar="K", help="of each image, where pairs grow (512)"
    )
    parser.add_argument("--keypoints", nargs="*", type=int, default=[256, 512, 1024, 2048], metavar="K")
    parser.add_argument("--empty", nargs="*", default=[], metavar="MODEL", help="exports with fewer slots")
    parser.add_argument("--threads", type=int, default=0, help="0 is one per core")
    return parser.parse_args()


def measure(
    exports: Mapping[str, Exported], others: Mapping[str, Exported], arguments: argparse.Namespace
) -> Iterator[Table]:
    """The tables that were asked for."""
    rounds, measured = arguments.rounds, _Growth(exports)
    features = {name: features_of(export) for name, export in {**exports, **others}.items()}
    if arguments.images:
        rows = {(count,): measured.extraction(IMAGE_SIZE, count) for count in arguments.images}
        yield table_of("Extraction, images of 640x480 a run", ("N",), rows, rounds)
    if arguments.sizes:
        sizes = {text: tuple(map(int, text.split("x"))) for text in arguments.sizes}
        rows = {
            (text, 1e-6 * size[0] * size[1]): measured.extraction(size, 1) for text, size in sizes.items()
        }
        yield table_of("Extraction of an image", ("size", "megapixels"), rows, rounds, x="megapixels")
    if arguments.pairs:
        count = arguments.pair_keypoints
        rows = {(pairs,): measured.matching(features, count, pairs) for pairs in arguments.pairs}
        yield table_of(f"Matching, pairs a run, {count} keypoints an image", ("P",), rows, rounds)
    if arguments.keypoints:
        rows = {(count,): measured.matching(features, count, 1) for count in arguments.keypoints}
        yield table_of("Matching of a pair, keypoints an image", ("K",), rows, rounds)
    for name, export in others.items():
        yield table_of_empty_slots({name: export, arguments.models[0]: measured.first}, features, rounds)


class _Growth:
    """The runs of all exports, with the operations of the first.

    Attributes:
        first: the first export.
    """

    def __init__(self, exports: Mapping[str, Exported]) -> None:
        self._exports = exports
        self._name, self.first = next(iter(exports.items()))

    def extraction(self, size: tuple[int, int], count: int) -> Row:
        """Extract some images of a (width, height) in one run."""
        images = camera_images(size)
        works = {}
        for name, export in self._exports.items():
            batch = export.place([images[number % 2] for number in range(count)], size)
            works[name] = lambda export=export, batch=batch: export.extract(batch)
            if export is self.first:
                slots = np.array([export.info.max_keypoints], np.int64)
                operations = self._operations(EXTRACTOR, vars(batch) | {"max_keypoints": slots})
        return works, operations

    def matching(self, features: Mapping[str, Tensors], count: int, pairs: int) -> Row:
        """Match some pairs in one run, each of two own images with `count` keypoints."""
        works = {name: matching_of(of, features[name], count, pairs) for name, of in self._exports.items()}
        images, indices = pairs_of(features[self._name], count, self.first.info.max_keypoints, pairs)
        threshold = np.array([DEFAULT_MATCH_THRESHOLD], np.float32)
        inputs = images | {"pairs": indices, "match_threshold": threshold}
        return works, self._operations(MATCHER, inputs)

    def _operations(self, graph: str, tensors: Tensors) -> float:
        path = getattr(find_model(self._name), graph)
        inputs = {name: tensors[name] for name in INPUTS[graph]}
        return float(sum(product.operations for product in products_of(path, inputs)))


def features_of(export: Exported) -> Tensors:
    """Features of the motorcycle pair."""
    return export.extract(export.place(camera_images(FEATURES_SIZE), FEATURES_SIZE))


def matching_of(export: Exported, features: Tensors, count: int, pairs: int) -> Work:
    """Match some pairs in one run, each of two own images with `count` keypoints."""
    images, indices = pairs_of(features, count, export.info.max_keypoints, pairs)
    return lambda: export.match(images, indices)


def pairs_of(features: Tensors, count: int, slots: int, pairs: int) -> tuple[Tensors, np.ndarray]:
    """The features of some pairs of images, and the pairs."""
    pair = filled(features, count, slots)
    images = {name: np.concatenate([values] * pairs) for name, values in pair.items()}
    return images, np.arange(2 * pairs).reshape(-1, 2)


def table_of(
    title: str, heads: Sequence[str], rows: Mapping[Cells, Row], rounds: int, x: str | None = None
) -> Table:
    """Time the works in turns, and return a row for each that begins with the cells of its name."""
    works = {(cells, name): work for cells, (of, _) in rows.items() for name, work in of.items()}
    for work in works.values():
        work()
    seconds = interleaved({str(key): [work] for key, work in works.items()}, rounds)
    first, (_, least) = next(iter(rows.items()))
    found = []
    for (cells, name), spent in zip(works, (seconds[str(key)] for key in works), strict=True):
        ratio = spent / seconds[str((first, name))]
        work = rows[cells][1]
        found.append((*cells, Path(name).name, 1e3 * spent, ratio, 1e-9 * work, ratio * least / work))
    columns = (*heads, "export", "ms", "ratio", "GFLOP", "against work")
    return Table(title, columns, found, x=x or heads[0], y="ms", series="export")


def table_of_empty_slots(
    exports: Mapping[str, Exported], features: Mapping[str, Tensors], rounds: int
) -> Table:
    """Match a pair in two exports, with as many keypoints as the first of them has slots."""
    count = next(iter(exports.values())).info.max_keypoints
    works = {name: [matching_of(export, features[name], count, 1)] for name, export in exports.items()}
    for (work,) in works.values():
        work()
    seconds = interleaved(works, rounds)
    rows = [
        (Path(name).name, export.info.max_keypoints, 1e3 * seconds[name]) for name, export in exports.items()
    ]
    title = f"Matching of a pair, {count} keypoints an image"
    return Table(title, ("export", "slots", "ms"), rows, x="export", y="ms")


if __name__ == "__main__":
    main()
