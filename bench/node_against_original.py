"""The running node against the original XFeat + LighterGlue in PyTorch: stereo pairs per second.

    . tools/env.sh
    pip install --no-deps -r requirements/originals.txt
    lightglue_ros export xfeat --split --max-keypoints 512
    python bench/node_against_original.py xfeat-k512 xfeat-k512+overlap

They take turns in one run, so that a machine whose speed drifts is the same for all. The original gets the
images on their canvases, without ROS; pruning is off, as in our graph. The nodes get them from cameras at 30
Hz in another process, which takes its share of the same cores. A node is a model in the model store, and with
+overlap extracts a frame while it matches the last.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch

from lightglue_ros.bench import camera_images, machine, running_matcher
from lightglue_ros.core.canvas import Canvas, CanvasBatch
from originals import Original, load_original


def seconds(original: Original, batch: CanvasBatch, frames: int) -> list[float]:
    """Seconds that the original takes for each of so many stereo frames."""
    spent = []
    for _ in range(frames):
        start = time.perf_counter()
        original.match(original.extract(batch), np.array([[0, 1]]))
        spent.append(time.perf_counter() - start)
    return spent


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nodes", nargs="*", metavar="MODEL[+overlap]", default=["xfeat-k512"])
    parser.add_argument("--max-keypoints", type=int, default=512)
    parser.add_argument("--image-size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=20, help="in each round, of each side")
    arguments = parser.parse_args()

    width, height = arguments.image_size
    images = camera_images((width, height))
    batch = Canvas((width, height), channels=3, divisor=32).place(images)
    original = load_original("xfeat", arguments.max_keypoints)
    seconds(original, batch, 1)
    print(f"{machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"stereo {width}x{height}, {arguments.max_keypoints} keypoints, {arguments.rounds} rounds\n")
    print("| round | | Hz | ratio | in ONNX Runtime (ms) | outside (ms) | latency (ms) | memory (MiB) |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    rows = {"original": [], **{node: [] for node in arguments.nodes}}
    for turn in range(arguments.rounds):
        spent = float(np.median(seconds(original, batch, arguments.frames)))
        rows["original"].append((1 / spent, 1.0, 0.0, 0.0, spent, 0.0))
        for node in arguments.nodes:
            model, _, overlap = node.partition("+")
            parameters = {"model": model, "overlap": bool(overlap)}
            parameters |= {"image_width": width, "image_height": height}
            with running_matcher(parameters, images) as matcher:
                found = matcher.measure(arguments.frames)
            rows[node].append(
                (found.rate, found.rate * spent, found.inference, found.outside, found.latency, found.memory)
            )
        for name, of_name in rows.items():
            print(f"| {turn + 1} | {name} | {row_text(of_name[-1])} |", flush=True)
    for name, of_name in rows.items():
        print(f"| median | {name} | {row_text(np.median(of_name, axis=0))} |")


def row_text(row: Sequence[float]) -> str:
    """The columns of a row."""
    rate, ratio, inference, outside, latency, memory = row
    times = " | ".join(f"{1e3 * value:.1f}" for value in (inference, outside, latency))
    return f"{rate:.1f} | {ratio:.2f} | {times} | {memory / 2**20:.0f}"


if __name__ == "__main__":
    main()
