"""Counts the right matches of pictures with themselves, turned by any of 24 angles, 15 degrees apart.

    . tools/env.sh
    python bench/rotations.py

The picture is turned as a whole, on a larger one with black around it. A match is right within 3 px of the
true rotation. `auto` tries the second picture in four orientations (`match --rotations auto`).
"""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.best_rotation import match_in_best_rotation
from lightglue_ros.core.canvas import fitted_size
from lightglue_ros.core.image_files import read_image
from lightglue_ros.core.shrinking import shrink
from lightglue_ros.export.weights import motorcycle_pair
from pose import DATA
from tables import Table, keep, parser_of, print_head, print_table

ANGLES = range(0, 360, 15)
TOLERANCE = 3.0  # pixels
PICTURE_SIZE = 640, 480
CANVAS = 800, 800  # holds a picture in every rotation
COLUMNS = ("picture", "rotations", "angle (degrees)", "matches", "right", "right (%)", "ms")


def main() -> None:
    """Measure and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("models", nargs="*", default=["xfeat"])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the folder pairs")
    arguments = parser.parse_args()
    print_head("Rotations")
    paths = [
        motorcycle_pair()[0],
        arguments.data / "pairs" / "DSC_0410.JPG",
        arguments.data / "pairs" / "sacre_coeur1.jpg",
    ]
    tables = []
    for model in arguments.models:
        pipeline = MatchPipeline(model, "cpu", image_size=CANVAS)
        rows = [row for path in paths for row in picture_rows(pipeline, path)]
        tables.append(Table(model, COLUMNS, rows, x="angle (degrees)", y="right", series="rotations"))
        print_table(tables[-1])
    keep(tables, arguments)


def picture_rows(pipeline: MatchPipeline, path: Path) -> list[list[object]]:
    """The right matches of a picture at each angle, without and with `auto`."""
    image = read_image(path)
    image = shrink(image, fitted_size(image.shape[1::-1], PICTURE_SIZE))
    rows: list[list[object]] = []
    for name in ("none", "auto"):
        for angle in ANGLES:
            turned, matrix = turned_with_room(image, angle)
            begin = time.perf_counter()
            if name == "auto":
                (found,) = match_in_best_rotation(pipeline, [image, turned], [(0, 1)])
            else:
                (found,) = pipeline.match([image, turned], [(0, 1)])
            milliseconds = 1e3 * (time.perf_counter() - begin)
            true = found.keypoints0 @ matrix[:, :2].T + matrix[:, 2]
            right = int(np.count_nonzero(np.linalg.norm(found.keypoints1 - true, axis=1) <= TOLERANCE))
            share = f"{100 * right / max(1, len(found)):.0f}"
            rows.append([path.stem, name, angle, len(found), right, share, f"{milliseconds:.0f}"])
    return rows


def turned_with_room(image: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn an image on a larger one; returns it and the matrix [2, 3] of its points."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    room = np.abs(matrix[:, :2]) @ (width, height)
    size = np.ceil(room).astype(int)
    matrix[:, 2] += (size - (width, height)) / 2
    return cv2.warpAffine(image, matrix, tuple(map(int, size)), flags=cv2.INTER_LINEAR), matrix


if __name__ == "__main__":
    main()
