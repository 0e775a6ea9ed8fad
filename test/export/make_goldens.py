"""Run an original on the motorcycle pair and store its results for the tests.

    . tools/env.sh
    pip install --no-deps -r requirements/originals.txt
    PYTHONPATH="bench:$PYTHONPATH" python test/export/make_goldens.py xfeat disk aliked aliked-t16

Each image is shrunk to 640 x 432 (area interpolation) into the top-left corner of a black 640 x 480 canvas.
bench/originals.py runs the originals on this canvas.
"""

import sys
from pathlib import Path

import numpy as np

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.image_files import read_image
from lightglue_ros.export import MODELS
from lightglue_ros.export.weights import motorcycle_pair

DATA = Path(__file__).parent.parent / "data"
# K of the exports that the tests make. SuperPoint's golden comes from make_goldens_superpoint.py.
MAX_KEYPOINTS = {"xfeat": 1024, "disk": 512, "aliked": 512, "aliked-t16": 512, "superpoint": 256}
DESCRIPTORS = 64  # of the best keypoints; all of them would be half a megabyte


def main():
    from originals import MATCHERS, load_original

    for model in sys.argv[1:]:
        original = load_original(model, MAX_KEYPOINTS[model])
        canvas = Canvas((640, 480), 3, MODELS[model].divisor)
        features = original.extract(canvas.place([read_image(path) for path in motorcycle_pair()]))
        matches = original.match(features, np.array([[0, 1]])) if model in MATCHERS else {}
        features["descriptors"] = features["descriptors"][:, :DESCRIPTORS]
        del features["image_sizes"]
        path = DATA / f"{model}_motorcycle.npz"
        np.savez_compressed(path, **features, **matches)
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
