"""`lightglue_ros demo`: run player and matcher over ROS 2, listen, and judge the matches."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from lightglue_ros.cli import require_ros
from lightglue_ros.cli.arguments import add_model_arguments, matcher_parameters
from lightglue_ros.core import PairMatches
from lightglue_ros.core.draw import draw_matches
from lightglue_ros.core.image_files import read_image, require_image_name, write_image
from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.verification import verify

TOLERANCE = 3.0  # pixels
# The original XFeat + LighterGlue has 98% of its matches of the motorcycle pair within 3 px of the row.
LEAST_ROW_SHARE = 0.95
# Two views of one scene; the rest may be other depths of a blurred or moving part.
LEAST_EPIPOLAR_SHARE = 0.5
# With fewer matches half of random ones may agree with some fundamental matrix (7 degrees of freedom).
LEAST_MATCHES = 50


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = command.add_argument
    add("left", nargs="?", type=Path, help="image file (Middlebury's motorcycle)")
    add("right", nargs="?", type=Path, help="image file")
    add_model_arguments(command)
    add("--seconds", type=float, default=10.0, help="how long to listen (10)")
    add("--rate", type=float, default=10.0, help="images per second and camera (10)")
    add("-o", "--output", type=Path, default=Path("demo.png"), metavar="PNG", help="picture (demo.png)")


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration; the exit status is 0 only if matches came and their geometry holds."""
    require_ros("demo")
    require_image_name(arguments.output)
    is_rectified = arguments.left is None
    if is_rectified:
        from lightglue_ros.export.weights import motorcycle_pair

        paths = motorcycle_pair()
    elif arguments.right is None:
        raise ConfigError("one image only", allowed="two images, or none for Middlebury's motorcycle pair")
    else:
        paths = (arguments.left, arguments.right)
    images = [read_image(path) for path in paths]
    pair = _play_and_listen(arguments, paths)
    write_image(arguments.output, draw_matches(*images, pair))
    print(f"picture of the last matches: {arguments.output.resolve()}")
    return _judge(pair, is_rectified)


def same_row_share(keypoints0: np.ndarray, keypoints1: np.ndarray, tolerance: float) -> float:
    """Return the share of matches whose rows differ by at most `tolerance` pixels; 0 without matches.

    The keypoints are float32 [M, 2], pixels of rectified images: in these all rows should be the same.
    """
    if not len(keypoints0):
        return 0.0
    return float(np.mean(np.abs(keypoints0[:, 1] - keypoints1[:, 1]) <= tolerance))


def _play_and_listen(arguments: argparse.Namespace, paths: tuple[Path, Path]) -> PairMatches:
    """Run player and matcher, print a line per second, and return the last matches."""
    from lightglue_ros.nodes.listener import running_nodes
    from lightglue_ros.rosdata.messages import message_to_matches

    player = {"images": [str(path.resolve()) for path in paths], "rate": arguments.rate}
    start = time.monotonic()
    with running_nodes(matcher=matcher_parameters(arguments), player=player) as listener:
        listener.wait_for_matches(1)
        print(f"first matches {time.monotonic() - start:.1f} s after the start of the nodes", flush=True)
        last = listener.messages[-1]
        for _ in range(max(1, round(arguments.seconds))):
            listener.clear()
            listener.listen(1.0)
            last = (listener.messages or [last])[-1]
            pair, latencies = message_to_matches(last.pairs[0]), listener.latencies
            rows = same_row_share(pair.keypoints0, pair.keypoints1, TOLERANCE)
            latency = f"{1e3 * np.median(latencies):4.0f} ms" if latencies else "   -"
            counts = f"{len(latencies):3d} Hz  {len(pair):4d} matches"
            print(f"{counts}  latency {latency}  same row {100 * rows:5.1f}%", flush=True)
    return pair


def _judge(pair: PairMatches, is_rectified: bool) -> int:
    if is_rectified:
        share, least = same_row_share(pair.keypoints0, pair.keypoints1, TOLERANCE), LEAST_ROW_SHARE
        what = f"within {TOLERANCE:g} px of the same row"
    else:
        share, least = epipolar_share(pair), LEAST_EPIPOLAR_SHARE
        what = f"within {TOLERANCE:g} px of one epipolar geometry"
    verdict = "the geometry holds" if share >= least else f"too few, at least {100 * least:.0f}% are expected"
    print(f"{100 * share:.1f}% of {len(pair)} matches {what}: {verdict}")
    return 0 if share >= least else 1


def epipolar_share(pair: PairMatches) -> float:
    """Return the share of matches that agree with one fundamental matrix; 0 with too few to tell."""
    if len(pair) < LEAST_MATCHES:
        return 0.0
    return float(np.mean(verify(pair.keypoints0, pair.keypoints1, "fundamental", TOLERANCE).inliers))
