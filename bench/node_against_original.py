"""The running node against the original XFeat + LighterGlue in PyTorch: stereo pairs per second.

    . tools/env.sh
    pip install --no-deps -r requirements/originals.txt
    lightglue_ros export xfeat --split --max-keypoints 512
    python bench/node_against_original.py

The two take turns in one run, so that a machine whose speed drifts is the same for both. The original
gets the images on their canvases, without ROS; pruning is off, as in our graph. The node gets them from
cameras at 30 Hz in another process, which takes its share of the same cores.
"""

import argparse
import time

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
    parser.add_argument("--model", default="xfeat-k512")
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
    parameters = {"model": arguments.model, "image_width": width, "image_height": height}
    print(f"{machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"stereo {width}x{height}, {arguments.max_keypoints} keypoints, {arguments.rounds} rounds\n")
    print("| round | original (Hz) | node (Hz) | ratio | outside ONNX Runtime (ms) |")
    print("| --- | ---: | ---: | ---: | ---: |")
    rows = []
    with running_matcher(parameters, images) as matcher:
        for turn in range(arguments.rounds):
            rate = 1.0 / float(np.median(seconds(original, batch, arguments.frames)))
            node = matcher.measure(arguments.frames)
            rows.append((rate, node.rate, node.rate / rate, 1e3 * node.outside))
            print(f"| {turn + 1} | {row_text(rows[-1])} |", flush=True)
    print(f"| median | {row_text(np.median(rows, axis=0))} |")


def row_text(row: tuple[float, ...]) -> str:
    """The columns of a row."""
    original, node, ratio, outside = row
    return f"{original:.1f} | {node:.1f} | {ratio:.2f} | {outside:.2f}"


if __name__ == "__main__":
    main()
