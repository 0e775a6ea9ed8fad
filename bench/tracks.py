"""Tracks of a driving car's camera: ours and OpenCV's KLT, judged by the true poses, on KITTI.

    . tools/env.sh
    for model in xfeat aliked; do lightglue_ros export $model --split; done
    python bench/tracks.py xfeat aliked

A step is a track from one frame to the next. It is right if it ends within 1 px of the epipolar line that the
true poses give it. The front ends see every frame of kitti_seq1, every 2nd and every 5th.

The true poses are off by 0.02 to 0.03 degrees in the median, which is 0.25 to 0.35 px. With `--adjust-poses`
they are adjusted to the steps of all front ends before the steps are judged.

KLT is the front end of VINS-Fusion with 1,024 corners in place of 150: goodFeaturesToTrack where no track is
near, calcOpticalFlowPyrLK with windows of 21 px and 4 levels, and a check that the flow back ends within half
a pixel. `--corners` is their number, `--distance` their least distance.

Ours are the keypoints of `FrameProcessor` in the tracks of `Tracker`, with the pair camera@-1:camera and with
the match threshold of config/visual_inertial.yaml. Options follow the model: `essential` or `fundamental`
verifies the matches, `none` or `lucas_kanade` is the parameter refine, `checked` takes only matches that pass
the check of refinement, and `WIDTHxHEIGHT` is another canvas.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from against_originals import DATA
from lightglue_ros.core import MatchPipeline, PairMatches
from lightglue_ros.core.features import MATCH_ARRAYS
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.core.refinement import REFINEMENTS
from lightglue_ros.rig.frame import FrameSettings, RigFrame
from lightglue_ros.rig.processor import FrameProcessor
from lightglue_ros.rig.rig import Rig
from lightglue_ros.rig.tracks import FrameKeypoints, Tracker
from lightglue_ros.rig.verification import GEOMETRIES, Intrinsics
from pose_error import Camera, read_camera
from tables import Table, keep, parser_of, print_head, print_table

TOLERANCE = 1.0  # pixels
CORNERS = 1024
IMAGE_SIZE = 1060, 320
MATCH_THRESHOLD = 0.01
COLUMNS = ("every", "front end", "right steps per frame", "of KLT's", "right steps", "mean length", "ms")
# Ids and keypoints [M, 2] of a frame.
Tracked = tuple[np.ndarray, np.ndarray]
FrontEnd = Callable[[Sequence[np.ndarray]], Iterator[Tracked]]


@dataclass(frozen=True)
class Image:
    """Image in memory, in the form that a frame holds."""

    pixels: np.ndarray | None
    width: int
    height: int

    def decode(self, mono16: Mono16Range) -> np.ndarray:
        """Return the pixels."""
        return self.pixels

    def without_pixels(self) -> Image:
        """Return the same image without its pixels."""
        return Image(None, self.width, self.height)


@dataclass(frozen=True)
class Calibration:
    """Intrinsics of the camera, which verification by essential needs."""

    matrix: np.ndarray

    def intrinsics(self, camera: int, image_size: tuple[int, int]) -> Intrinsics:
        """Return the intrinsics."""
        return Intrinsics(self.matrix)


def main() -> None:
    """Track and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL[:OPTION...]", help="such as xfeat:checked")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with kitti_seq1")
    parser.add_argument("--strides", default="1,2,5", help="with commas")
    parser.add_argument("--pairs", default="camera@-1:camera", help="pairs of frames, with commas")
    threshold = f"least score of a match ({MATCH_THRESHOLD})"
    parser.add_argument("--match-threshold", type=float, default=MATCH_THRESHOLD, help=threshold)
    parser.add_argument("--adjust-poses", action="store_true", help="to the steps of all front ends")
    parser.add_argument("--corners", type=int, default=CORNERS, help="of KLT")
    parser.add_argument("--distance", type=float, default=6.0, help="least distance of KLT's corners, pixels")
    arguments = parser.parse_args()
    folder = arguments.data / "kitti_seq1"
    camera = read_camera(folder)
    files = sorted((folder / "image_l").glob("*.png"))
    images = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]
    print_head("Tracks on KITTI", f"OpenCV {cv2.__version__}")
    ends: dict[str, FrontEnd] = {"KLT": lambda seen: track_flow(seen, arguments.corners, arguments.distance)}
    for model in arguments.models:
        ends[model] = lambda seen, model=model: track_matches(
            seen, model, camera, arguments.pairs.split(","), arguments.match_threshold
        )
    rows = [
        row
        for stride in map(int, arguments.strides.split(","))
        for row in rows_of(stride, images, ends, camera, arguments.adjust_poses)
    ]
    width, height = IMAGE_SIZE
    title = (
        f"{len(images)} frames, canvas {width} x {height}, {arguments.pairs}, "
        f"match threshold {arguments.match_threshold}."
    )
    table = Table(title, COLUMNS, rows, "every", "right steps per frame", "front end")
    print_table(table)
    keep([table], arguments)


def rows_of(
    stride: int, images: Sequence[np.ndarray], ends: dict[str, FrontEnd], camera: Camera, adjusts: bool
) -> Iterator[tuple]:
    """Yield a row of the table for each front end, of which KLT is the first."""
    seen, milliseconds = {}, {}
    for name, track in ends.items():
        start = time.perf_counter()
        seen[name] = list(track(images[::stride]))
        milliseconds[name] = 1e3 * (time.perf_counter() - start) / len(seen[name])
    motions = [camera.motion(*pair) for pair in pairwise(range(0, len(images), stride))]
    if adjusts:
        of_pairs = zip(*map(steps_of, seen.values()), strict=True)
        steps = [np.concatenate(of_pair, axis=1) for of_pair in of_pairs]
        motions = [adjust(*it, camera.matrix, motion) for it, motion in zip(steps, motions, strict=True)]
    right_of_klt = None
    for name, tracked in seen.items():
        right, share, length = judge(tracked, camera.matrix, motions)
        right_of_klt = right_of_klt or right
        yield stride, name, right, right / right_of_klt, share, length, milliseconds[name]


def track_matches(
    images: Sequence[np.ndarray], model: str, camera: Camera, pairs: Sequence[str], threshold: float
) -> Iterator[Tracked]:
    """Track the keypoints of a model, with options as in the head of this module."""
    model, *options = model.split(":")
    sizes = [tuple(map(int, one.split("x"))) for one in options if one[0].isdigit()]
    pipeline = MatchPipeline(model, "cpu", *(sizes or [IMAGE_SIZE]))
    rig = Rig.parse(["camera"], pairs)
    settings = FrameSettings(
        rig,
        pipeline.image_size,
        None,
        threshold,
        Mono16Range(),
        geometry=next((one for one in options if one in GEOMETRIES), "none"),
        refine=next((one for one in options if one in REFINEMENTS), "auto"),
    )
    processor: FrameProcessor[Image] = FrameProcessor(pipeline, settings, Calibration(camera.matrix))
    tracker = Tracker()
    for image in images:
        frame = RigFrame((Image(image, *image.shape[::-1]),), (0,), epochs=(0,))
        keypoints = FrameKeypoints.of_result(frame, processor.process(frame, settings))
        if "checked" in options:
            keypoints = replace(keypoints, matches=[only_checked(one) for one in keypoints.matches])
        (tracks,) = tracker.update(keypoints)
        yield tracks.ids, tracks.keypoints


def only_checked(matches: PairMatches) -> PairMatches:
    """Leave out the matches that do not pass the check of refinement."""
    if matches.checked is None:
        return matches
    arrays = {name: getattr(matches, name)[matches.checked] for name in MATCH_ARRAYS}
    return replace(matches, **arrays, checked=None)


def track_flow(images: Sequence[np.ndarray], count: int, distance: float) -> Iterator[Tracked]:
    """Track corners by optical flow, as the front end of VINS-Fusion does."""
    window = {"winSize": (21, 21)}
    stop = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 30, 0.01)
    back_options = {"maxLevel": 1, "criteria": stop, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
    before, points = None, np.zeros((0, 2), np.float32)
    ids, ages, next_id = np.zeros(0, int), np.zeros(0, int), 0
    for image in images:
        if len(points):
            there, is_found, _ = cv2.calcOpticalFlowPyrLK(before, image, points, None, maxLevel=3, **window)
            back, is_returned, _ = cv2.calcOpticalFlowPyrLK(
                image, before, there, points.copy(), **window, **back_options
            )
            is_inside = ((there >= 1) & (there < np.array(image.shape[::-1]) - 1)).all(axis=1)
            is_back = np.linalg.norm(points - back, axis=1) <= 0.5
            kept = (is_found[:, 0] == 1) & (is_returned[:, 0] == 1) & is_back & is_inside
            points, ids, ages = there[kept], ids[kept], ages[kept] + 1
        free = np.full(image.shape, 255, np.uint8)
        chosen = []
        for row in np.argsort(-ages, kind="stable"):
            x, y = points[row].round().astype(int)
            if free[min(y, image.shape[0] - 1), min(x, image.shape[1] - 1)]:
                chosen.append(row)
                cv2.circle(free, (int(x), int(y)), int(distance), 0, -1)
        points, ids, ages = points[chosen], ids[chosen], ages[chosen]
        wanted = count - len(points)
        corners = cv2.goodFeaturesToTrack(image, wanted, 0.01, distance, mask=free) if wanted > 0 else None
        if corners is not None:
            found = len(corners)
            points = np.concatenate([points, corners.reshape(-1, 2)])
            ids = np.concatenate([ids, next_id + np.arange(found)])
            ages, next_id = np.concatenate([ages, np.ones(found, int)]), next_id + found
        before = image
        yield ids, points


def steps_of(seen: Sequence[Tracked]) -> Iterator[np.ndarray]:
    """Yield the steps [2, M, 2] from each frame to the next."""
    for (ids0, points0), (ids1, points1) in pairwise(seen):
        _, rows0, rows1 = np.intersect1d(ids0, ids1, return_indices=True)
        yield np.stack([points0[rows0], points1[rows1]])


def judge(
    seen: Sequence[Tracked], matrix: np.ndarray, motions: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, float, float]:
    """Return right steps per frame, their share of all steps, and the mean length of tracks in frames.

    Tracks that were seen in one frame only have no step, and do not count for the mean length.
    """
    distances = np.concatenate(
        [
            epipolar_distances(*steps, matrix, motion)
            for steps, motion in zip(steps_of(seen), motions, strict=True)
        ]
    )
    right = int(np.count_nonzero(distances <= TOLERANCE))
    lengths = Counter(np.concatenate([ids for ids, _ in seen]).tolist())
    longer = [length for length in lengths.values() if length > 1]
    return right / len(motions), right / max(len(distances), 1), float(np.mean(longer or [0.0]))


def adjust(
    points0: np.ndarray, points1: np.ndarray, matrix: np.ndarray, motion: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the motion near a given one with the least squared distances from the epipolar lines.

    A distance above 2 px counts as 2 px. The search goes along one of five directions at a time, three of the
    rotation and two of the translation, with steps that are halved.
    """
    rotation, translation = motion
    direction = translation / np.linalg.norm(translation)
    across = np.linalg.svd(direction[None])[2][1:]

    def moved(by: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return cv2.Rodrigues(by[:3])[0] @ rotation, direction + by[3:] @ across

    def cost(by: np.ndarray) -> float:
        distances = epipolar_distances(points0, points1, matrix, moved(by))
        return float((np.minimum(distances, 2.0) ** 2).sum())

    best, step = np.zeros(5), np.array([1e-3, 1e-3, 1e-3, 5e-3, 5e-3])
    while step[0] > 1e-5:  # radians
        tried = [best, *(best + sign * row for row in np.diag(step) for sign in (1, -1))]
        better = min(tried, key=cost)
        step = step / 2 if better is best else step
        best = better
    return moved(best)


def epipolar_distances(
    points0: np.ndarray, points1: np.ndarray, matrix: np.ndarray, motion: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return the distances [M] in pixels of points of the second image from the lines of the first one's."""
    rotation, translation = motion
    x, y, z = translation
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    inverse = np.linalg.inv(matrix)
    fundamental = inverse.T @ cross @ rotation @ inverse
    lines = np.column_stack([points0, np.ones(len(points0))]) @ fundamental.T
    ends = np.column_stack([points1, np.ones(len(points1))])
    return np.abs((lines * ends).sum(axis=1)) / np.linalg.norm(lines[:, :2], axis=1)


if __name__ == "__main__":
    main()
