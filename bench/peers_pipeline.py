"""Compares a ring of four cameras and four pairs: ours in one run, LightGlue-ONNX pair by pair.

    . tools/env.sh
    lightglue_ros export disk --split --max-keypoints 512
    python bench/export_peers.py ../LightGlue-ONNX disk --keypoints 512 --image-size 640 480 -o /tmp/peers
    python bench/peers_pipeline.py disk-k512 /tmp/peers/disk_pipeline_k512.onnx

The peer's files are what its command line exports: images float32 [2 P, 3, H, W] to keypoints, matches and
mscores. One with more than two images a run gets several pairs at once. Either way it extracts every image
twice, once for each of its pairs. It gets its images as it wants them, ours the cameras' (views cut out of
the motorcycle pair), whose placing on the canvas counts. The two normalise keypoints differently, so their
matches are not the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.providers import onnxruntime
from lightglue_ros.errors import LightGlueRosError, ModelError
from surround import motorcycle_views
from tables import THREADS_SPIN, Table, keep, parser_of, print_head, print_table
from timing import interleaved

RING = [(slot, (slot + 1) % 4) for slot in range(4)]
# Returns how many matches there are.
Ring = Callable[[], int]


def main() -> None:
    """Measure and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("model", help="a name in the model store, or a folder")
    parser.add_argument("peers", nargs="*", type=Path, metavar="PIPELINE.onnx")
    parser.add_argument("--image-size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--threads", type=int, default=0, help="of everybody; 0 is one per core")
    arguments = parser.parse_args()
    size = tuple(arguments.image_size)
    images = motorcycle_views(size)
    try:
        ours = our_ring(arguments.model, images, size, arguments.threads)
        peers = {path.stem: peers_ring(path, images, arguments.threads) for path in arguments.peers}
    except LightGlueRosError as error:
        sys.exit(str(error))
    rings = {f"ours: {Path(arguments.model).name}": ours} | peers
    print_head("A ring of four cameras, four pairs", THREADS_SPIN)
    matches = {name: ring() for name, ring in rings.items()}
    seconds = interleaved({name: [ring] for name, ring in rings.items()}, arguments.rounds)
    first = next(iter(seconds.values()))
    rows = [(name, 1e3 * spent, spent / first, matches[name]) for name, spent in seconds.items()]
    title = f"Four images of {size[0]}x{size[1]} to the matches of four pairs"
    table = Table(title, ("pipeline", "ms", "ratio", "matches"), rows, x="pipeline", y="ms")
    print_table(table)
    keep([table], arguments)


def our_ring(model: str, images: list[np.ndarray], size: tuple[int, int], threads: int) -> Ring:
    """Each image extracted once, all pairs matched in one run."""
    pipeline = MatchPipeline(model, "cpu", size, num_threads=threads, spin_threads=True, refine="none")
    return lambda: sum(len(pair.scores) for pair in pipeline.match(images, RING))


def peers_ring(path: Path, images: list[np.ndarray], threads: int) -> Ring:
    """Match as many pairs per run as the file has, or one if the file leaves that free.

    Raises:
        ModelError: it takes and gives something else.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only; it warns of what it cannot fold
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = {tensor.name: tensor.shape for tensor in session.get_inputs()}
    outputs = [tensor.name for tensor in session.get_outputs()]
    if set(inputs) != {"images"} or outputs != ["keypoints", "matches", "mscores"]:
        raise ModelError(
            f"{path} has inputs {sorted(inputs)} and outputs {outputs}",
            allowed="images to keypoints, matches, mscores, as a pipeline of LightGlue-ONNX has",
        )
    sides = inputs["images"][0] if isinstance(inputs["images"][0], int) else 2
    ring = np.stack([images[slot] for pair in RING for slot in pair])
    planes = (ring.transpose(0, 3, 1, 2) / 255).astype(np.float32)
    runs = [planes[start : start + sides] for start in range(0, len(planes), sides)]
    return lambda: sum(len(session.run(["mscores"], {"images": run})[0]) for run in runs)


if __name__ == "__main__":
    main()
