"""`lightglue_ros demo`: player and matcher as processes over real ROS 2, and a listener that judges."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import rclpy

from lightglue_ros.cli.geometry import epipolar_share, same_row_share
from lightglue_ros.core import ConfigError, PairMatches
from lightglue_ros.core.draw import draw_matches
from lightglue_ros.core.image_files import read_image, write_image
from lightglue_ros.msg import Matches
from lightglue_ros.nodes.conversions import message_to_matches
from lightglue_ros.nodes.listener import Listener
from lightglue_ros.nodes.processes import isolate, node_process

ROW_TOLERANCE = 3.0
# The original XFeat + LighterGlue has 98% of its matches of the motorcycle pair within 3 px of the row.
LEAST_ROW_SHARE = 0.95
# Two views of one scene; the rest may be other depths of a blurred or moving part.
LEAST_EPIPOLAR_SHARE = 0.5


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration; the exit status is 0 only if matches came and their geometry holds."""
    is_rectified = arguments.left is None
    if is_rectified:
        from lightglue_ros.export.weights import motorcycle_pair

        paths = motorcycle_pair()
    elif arguments.right is None:
        raise ConfigError("one image only", allowed="two images, or none for Middlebury's motorcycle pair")
    else:
        paths = (arguments.left, arguments.right)
    images = [read_image(path) for path in paths]
    isolate()
    rclpy.init()
    try:
        last = _play_and_listen(arguments, paths)
    finally:
        rclpy.try_shutdown()
    pair = message_to_matches(last.pairs[0])
    write_image(arguments.output, draw_matches(*images, pair))
    print(f"picture of the last matches: {arguments.output.resolve()}")
    return _judge(pair, is_rectified)


def _play_and_listen(arguments: argparse.Namespace, paths: tuple[Path, Path]) -> Matches:
    width, height = arguments.image_size
    matcher_parameters = {
        "model": arguments.model,
        "provider": arguments.provider,
        "image_width": width,
        "image_height": height,
        "max_keypoints": arguments.max_keypoints or 0,
    }
    player_parameters = {"images": [str(path.resolve()) for path in paths], "rate": arguments.rate}
    start = time.monotonic()
    with (
        node_process("matcher", matcher_parameters) as matcher,
        node_process("player", player_parameters) as player,
    ):
        listener = Listener(matcher, player)
        try:
            listener.wait_for_matches(1)
            print(f"first matches {time.monotonic() - start:.1f} s after the start of the nodes", flush=True)
            last = listener.messages[-1]
            for _ in range(max(1, round(arguments.seconds))):
                listener.clear()
                listener.listen(1.0)
                last = (listener.messages or [last])[-1]
                _print_second(last, listener.latencies)
        finally:
            listener.destroy_node()
    return last


def _print_second(last: Matches, latencies: list[float]) -> None:
    pair = message_to_matches(last.pairs[0])
    rows = same_row_share(pair.keypoints0, pair.keypoints1, ROW_TOLERANCE)
    latency = f"{1e3 * np.median(latencies):4.0f} ms" if latencies else "   -"
    print(
        f"{len(latencies):3d} Hz  {len(pair):4d} matches  latency {latency}  same row {100 * rows:5.1f}%",
        flush=True,
    )


def _judge(pair: PairMatches, is_rectified: bool) -> int:
    if is_rectified:
        share, least = same_row_share(pair.keypoints0, pair.keypoints1, ROW_TOLERANCE), LEAST_ROW_SHARE
        what = f"within {ROW_TOLERANCE:g} px of the same row"
    else:
        share, least = epipolar_share(pair.keypoints0, pair.keypoints1, ROW_TOLERANCE), LEAST_EPIPOLAR_SHARE
        what = f"within {ROW_TOLERANCE:g} px of one epipolar geometry"
    verdict = "the geometry holds" if share >= least else f"too few, at least {100 * least:.0f}% are expected"
    print(f"{100 * share:.1f}% of {len(pair)} matches {what}: {verdict}")
    return 0 if share >= least else 1
