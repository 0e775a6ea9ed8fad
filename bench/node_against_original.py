"""Compares the running node with the original XFeat + LighterGlue in PyTorch: stereo pairs per second.

    . tools/env.sh
    pip install --no-deps -r requirements/originals.txt
    lightglue_ros export xfeat --split --max-keypoints 512
    python bench/node_against_original.py xfeat-k512 xfeat-k512-int8 xfeat-k512-int8:overlap=true

They take turns in one run, so that a machine whose speed drifts is the same for all. The original gets the
images on their canvases, without ROS; pruning is off, as in our graph. The nodes get them from cameras at 30
Hz in another process, which takes its share of the same cores. Each node is named by its model,
and by the parameters that it has other values of: `xfeat-k512:overlap=true:num_threads=1`.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from lightglue_ros.cli.bench import camera_images, running_matcher
from lightglue_ros.core.canvas import Canvas, CanvasBatch
from originals import Original, load_original
from tables import Table, keep, parser_of, print_head, print_table

COLUMNS = (
    "",
    "Hz",
    "ratio",
    "latency (ms)",
    "in ONNX Runtime (ms)",
    "outside (ms)",
    "memory (MiB)",
    "ratio, least to most",
)


def seconds(original: Original, batch: CanvasBatch, frames: int) -> list[float]:
    """Return the seconds that the original takes for each of some stereo frames."""
    spent = []
    for _ in range(frames):
        start = time.perf_counter()
        original.match(original.extract(batch), np.array([[0, 1]]))
        spent.append(time.perf_counter() - start)
    return spent


def resident_memory(process: int) -> float:
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    """Measure and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("nodes", nargs="*", metavar="MODEL[:PARAMETER=VALUE ...]", default=["xfeat-k512"])
    parser.add_argument("--max-keypoints", type=int, default=512)
    parser.add_argument("--image-size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--frames", type=int, default=20, help="in each round, of each side")
    arguments = parser.parse_args()

    width, height = arguments.image_size
    images = camera_images((width, height))
    batch = Canvas((width, height), channels=3, divisor=32).place(images)
    original = load_original("xfeat", arguments.max_keypoints)
    seconds(original, batch, 1)
    print_head("The running node", f"PyTorch {torch.__version__}", "the nodes' threads spin for 5 µs at most")
    rounds: dict[str, list[tuple[float, ...]]] = {"original": [], **{node: [] for node in arguments.nodes}}
    for _ in range(arguments.rounds):
        spent = float(np.median(seconds(original, batch, arguments.frames)))
        rounds["original"].append((1 / spent, 1.0, 1e3 * spent, 1e3 * spent, 0.0, 0.0))
        for node in arguments.nodes:
            model, *settings = node.split(":")
            # The original does not refine.
            parameters = {"model": model, "image_width": width, "image_height": height, "refine": "none"}
            for name, _, value in (setting.partition("=") for setting in settings):
                parameters[name] = yaml.safe_load(value)
            with running_matcher(parameters, images) as matcher:
                found = matcher.measure(arguments.frames)
                memory = resident_memory(matcher.listener.processes[0].pid)
            milliseconds = (1e3 * time for time in (found.latency, found.inference, found.outside))
            row = (found.rate, found.rate * spent, *milliseconds, memory)
            rounds[node].append(row)
            print(f"{node}: {found.rate:.1f} Hz, ratio {found.rate * spent:.2f}", file=sys.stderr)
    rows = [
        (
            name,
            *np.median(found, axis=0).tolist(),
            " to ".join(
                f"{ratio:.2f}" for ratio in (min(row[1] for row in found), max(row[1] for row in found))
            ),
        )
        for name, found in rounds.items()
    ]
    title = (
        f"Stereo {width}x{height}, {arguments.max_keypoints} keypoints: medians of {arguments.rounds} rounds"
    )
    table = Table(title, COLUMNS, rows, x="", y="Hz")
    print_table(table)
    keep([table], arguments)


if __name__ == "__main__":
    main()
