"""`lightglue_ros match`: match image files."""

from __future__ import annotations

import argparse
import signal
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import numpy as np

from lightglue_ros.cli import matching
from lightglue_ros.cli.arguments import add_model_arguments
from lightglue_ros.cli.export import ensure_model
from lightglue_ros.cli.kept_features import KeptFeatures
from lightglue_ros.cli.masks import FileMasks
from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.draw import AGE, COLOURINGS, MOST_LINES, Style
from lightglue_ros.core.image_files import find_images, list_images
from lightglue_ros.core.pipeline import DEFAULT_MATCH_THRESHOLD
from lightglue_ros.core.rotation import AUTO
from lightglue_ros.core.store import SPLIT
from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.verification import GEOMETRIES, Intrinsics


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = command.add_argument
    add("images", nargs="+", metavar="IMAGE", help="image files, folders of them, or globs")
    against = "match each image with all images of a folder, and list these best first"
    add("--against", type=Path, metavar="FOLDER", help=against)
    pairs = "numbers of the images to match, from 0 (each with the next)"
    add("--pairs", metavar="I:J,...", help=pairs)
    add_model_arguments(command)
    score = "least score of a match (0.1)"
    add("--match-threshold", type=float, default=DEFAULT_MATCH_THRESHOLD, metavar="SCORE", help=score)
    refine = "auto, none or lucas_kanade: move matches to fractions of a pixel (auto)"
    add("--refine", default="auto", metavar="METHOD", help=refine)
    rotations = "auto: try the second image of each pair in four orientations, for images turned by any angle"
    add("--rotations", metavar="HOW", help=rotations)
    mask = (
        "mask that is black where no keypoint may be: a file for all images, or a folder with a file "
        "for each, such as left.png or left.jpg.png for left.jpg"
    )
    add("--mask", type=Path, metavar="PATH", help=mask)
    verify = (
        "mark the matches that agree with one fundamental, homography or essential matrix, within a "
        "pixel of the canvas"
    )
    add("--verify", metavar="GEOMETRY", help=verify)
    intrinsics = "of the camera in pixels, for --verify essential"
    add("--intrinsics", metavar="FX,FY,CX,CY", help=intrinsics)
    draw = "draw the first pair, side by side; or a folder, for all pairs"
    add("--draw", type=Path, metavar="PNG", help=draw)
    lines = "highest number of lines in a picture, spread evenly (200)"
    add("--lines", type=int, default=MOST_LINES, metavar="N", help=lines)
    colour = "of matches in pictures: score (red to green) or disparity (blue to red) (score)"
    add("--colour", default="score", metavar="BY", help=colour)
    add("--json", type=Path, metavar="FILE", help="write the matches of all pairs")
    add("--npz", type=Path, metavar="FILE", help="write them as NumPy arrays")
    h5 = (
        "write features.h5, matches.h5 and pairs.txt for hloc into a folder; with --against: keep the "
        "features of its images in this file for the next run"
    )
    add("--h5", type=Path, metavar="PATH", help=h5)


def run(arguments: argparse.Namespace) -> int:
    """Match the images, print a line for each pair and write the files; 1 if something was left out."""
    # So that a terminated run removes its unfinished files, as an interrupted run does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    paths = find_images(arguments.images)
    against = _against(arguments.against, arguments.pairs)
    pairs = _pairs(arguments.pairs, len(paths))
    if against:
        pairs = list(product(range(len(paths)), range(len(paths), len(paths) + len(against))))
        paths += against
    if not pairs:
        raise ConfigError("there is nothing to match", allowed="at least two images, or --pairs")
    geometry = _geometry(arguments.verify, arguments.intrinsics)
    style = _style(arguments.colour, arguments.lines)
    h5, features = (None, arguments.h5) if against else (arguments.h5, None)
    outputs = matching.Outputs(arguments.draw, arguments.json, arguments.npz, h5, style, features)
    outputs.check(paths)
    turns = _turns(arguments.rotations, arguments.h5)
    if arguments.mask and features is not None:
        raise ConfigError(
            "--mask and --against with --h5 do not go together, because the kept features have no masks",
            fix="leave one of the two out",
        )
    masks = FileMasks(arguments.mask, paths) if arguments.mask else None
    ensure_model(arguments.model)
    pipeline = MatchPipeline(
        arguments.model,
        arguments.provider,
        arguments.image_size,
        max_keypoints=arguments.max_keypoints,
        match_threshold=arguments.match_threshold,
        refine=arguments.refine,
        graphs=SPLIT if arguments.h5 or turns else None,  # whose features are kept
    )
    width, height = pipeline.image_size
    print(f"{pipeline.info.model} on {pipeline.provider}, images shrunk to fit {width}x{height}", flush=True)
    if pipeline.fallback_warning:
        print(pipeline.fallback_warning, flush=True)
    with ExitStack() as closing:
        kept = None
        if features is not None:
            kept = KeptFeatures(features, arguments.model, pipeline)
            closing.callback(kept.close)
        references = matching.References(against, kept) if against else None
        return matching.match_and_write(pipeline, paths, pairs, outputs, geometry, turns, references, masks)


def _against(folder: Path | None, pairs: str | None) -> list[Path]:
    if folder is None:
        return []
    if pairs is not None:
        raise ConfigError("--against and --pairs do not go together", fix="leave one of the two out")
    if not folder.expanduser().is_dir():
        raise ConfigError(f"--against is '{folder}'", allowed="a folder of images", fix="check the path")
    return list_images(folder.expanduser())


def _pairs(text: str | None, images: int) -> list[tuple[int, int]]:
    if text is None:
        return [(first, first + 1) for first in range(images - 1)]
    try:
        pairs = [(int(first), int(second)) for first, second in (pair.split(":") for pair in text.split(","))]
    except ValueError as error:
        raise ConfigError(f"--pairs is '{text}'", allowed="numbers of images such as 0:1,1:2") from error
    if not all(number in range(images) for pair in pairs for number in pair):
        raise ConfigError(f"--pairs is '{text}'", allowed=f"numbers of images, from 0 to {images - 1}")
    return pairs


def _turns(rotations: str | None, h5: Path | None) -> bool:
    if rotations not in (None, AUTO):
        raise ConfigError(f"--rotations is '{rotations}'", allowed=AUTO)
    if rotations and h5:
        raise ConfigError(
            "--rotations auto and --h5 do not go together, because hloc has one set of keypoints per image",
            fix="turn the images before, or leave one of the two out",
        )
    return rotations is not None


def _style(colouring: str, most_lines: int) -> Style:
    if colouring == AGE:
        raise ConfigError(
            "--colour is 'age', and two pictures have no tracks",
            allowed=", ".join(COLOURINGS),
            fix="lightglue_ros bag ... --video FILE -p publish_tracks:=true -p drawing_colour:=age",
        )
    if colouring not in COLOURINGS:
        raise ConfigError(f"--colour is '{colouring}'", allowed=", ".join(COLOURINGS))
    if most_lines < 0:
        raise ConfigError(f"--lines is {most_lines}", allowed="0 or more")
    return Style(colouring, most_lines)


def _geometry(name: str | None, intrinsics: str | None) -> matching.Geometry | None:
    if name is not None and name not in GEOMETRIES:
        raise ConfigError(f"--verify is '{name}'", allowed=", ".join(GEOMETRIES))
    if (name == "essential") != (intrinsics is not None):
        raise ConfigError(
            "--verify essential and --intrinsics go together, and one is missing",
            fix="lightglue_ros match ... --verify essential --intrinsics fx,fy,cx,cy",
        )
    if name is None:
        return None
    if intrinsics is None:
        return matching.Geometry(name)
    try:
        fx, fy, cx, cy = map(float, intrinsics.split(","))
    except ValueError as error:
        raise ConfigError(f"--intrinsics is '{intrinsics}'", allowed="four numbers fx,fy,cx,cy") from error
    if not (np.isfinite([fx, fy, cx, cy]).all() and fx > 0 and fy > 0):
        allowed = "finite numbers, and fx and fy greater than 0"
        raise ConfigError(f"--intrinsics is '{intrinsics}'", allowed=allowed)
    camera = Intrinsics(np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]))
    return matching.Geometry(name, (camera, camera))
