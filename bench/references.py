"""Finds a car's place among stored images: each second frame of a drive, and pictures of anything else.

    . tools/env.sh
    python bench/references.py

The queries are the frames between. A query is right if its best reference is one of the two frames next to
it. Features of the references are kept in a file, as by `match --against --h5`; each query reads them anew.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lightglue_ros.cli.formats import MatchedPair
from lightglue_ros.cli.kept_features import KeptFeatures
from lightglue_ros.cli.left_out import LeftOut
from lightglue_ros.cli.matching import FileMatcher, Geometry
from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.image_files import SUFFIXES, list_images
from pose import DATA
from tables import Cell, Table, keep, parser_of, print_head, print_table

COLUMNS = (
    "model",
    "keypoints",
    "references",
    "extraction (ms per reference)",
    "file (MB)",
    "queries",
    "a neighbour first, by matches",
    "by inliers",
    "inliers with it, median",
    "most inliers with another picture",
    "ms per query",
    "without verification",
)
# Queries that are timed without verification.
TIMED = 3


def main() -> None:
    """Measure and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("models", nargs="*", default=["xfeat"])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with kitti_seq1 and other pictures")
    parser.add_argument("--queries", type=int, default=100, help="at most this many")
    parser.add_argument("--max-keypoints", type=int, default=512, metavar="N", help="per image")
    arguments = parser.parse_args()
    print_head("References")
    drive = list_images(arguments.data / "kitti_seq1" / "image_l")
    others = [it for it in sorted(arguments.data.rglob("*")) if it.suffix.lower() in SUFFIXES]
    others = [it for it in others if it not in drive]
    rows = []
    for model in arguments.models:
        pipeline = MatchPipeline(model, "cpu", max_keypoints=arguments.max_keypoints)
        pipeline.warm_up()
        with TemporaryDirectory() as folder:
            stored = stored_images(Path(folder), [*drive[::2], *others])
            file = Path(folder) / "references.h5"
            with closing(KeptFeatures(file, model, pipeline)) as kept:
                rows.append(row_of(pipeline, drive, drive[1:-1:2][: arguments.queries], stored, kept, file))
    title = "Every second frame of kitti_seq1 among other pictures"
    table = Table(title, COLUMNS, rows, x="model", y="by inliers")
    print_table(table)
    keep([table], arguments)


def stored_images(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Link images into one folder, where each has a name of its own."""
    links = [folder / f"{number}{path.suffix}" for number, path in enumerate(paths)]
    for link, path in zip(links, paths, strict=True):
        link.symlink_to(path.resolve())
    return links


def row_of(
    pipeline: MatchPipeline,
    drive: Sequence[Path],
    queries: Sequence[Path],
    references: Sequence[Path],
    kept: KeptFeatures,
    file: Path,
) -> tuple[Cell, ...]:
    """Find the best reference of each query, by its matches and by its inliers."""
    begin = time.perf_counter()
    kept.complete(references, FileMatcher(pipeline, references, LeftOut()).extract)
    extraction = 1e3 * (time.perf_counter() - begin) / len(references)
    frames = (len(drive) + 1) // 2
    times, of_neighbour, of_others = [], [], []
    right = {"matches": 0, "inliers": 0}
    for query in queries:
        begin = time.perf_counter()
        found = ranked(pipeline, query, references, kept, "fundamental")
        times.append(1e3 * (time.perf_counter() - begin))
        number = drive.index(query)
        neighbours = {(number - 1) // 2, (number + 1) // 2}
        most_matches = max(found, key=lambda pair: len(pair.matches))
        right["inliers"] += found[0].second - 1 in neighbours
        right["matches"] += most_matches.second - 1 in neighbours
        of_neighbour.append(max(it.agreeing for it in found if it.second - 1 in neighbours))
        of_others.append(max(it.agreeing for it in found if it.second - 1 >= frames))
    unverified = []
    for query in queries[:TIMED]:
        begin = time.perf_counter()
        ranked(pipeline, query, references, kept, None)
        unverified.append(1e3 * (time.perf_counter() - begin))
    return (
        pipeline.info.model,
        pipeline.max_keypoints,
        len(references),
        extraction,
        file.stat().st_size / 1e6,
        len(queries),
        right["matches"],
        right["inliers"],
        float(np.median(of_neighbour)),
        max(of_others),
        float(np.median(times)),
        float(np.median(unverified)),
    )


def ranked(
    pipeline: MatchPipeline,
    query: Path,
    references: Sequence[Path],
    kept: KeptFeatures,
    geometry: str | None,
) -> list[MatchedPair]:
    """Match a query with all references, best first; the second images count from 1."""
    # A new one for each query, because a matcher holds the features that it has read.
    matcher = FileMatcher(
        pipeline, [query, *references], LeftOut(), Geometry(geometry) if geometry else None, kept=kept
    )
    matched = matcher.match([(0, number + 1) for number in range(len(references))])
    return sorted(matched, key=lambda pair: pair.agreeing, reverse=True)


if __name__ == "__main__":
    main()
