"""The extractors alone: our exports against the originals in PyTorch, on the same canvas.

    . tools/env.sh
    pip install --no-deps -r requirements/originals.txt
    for model in xfeat disk aliked; do lightglue_ros export $model --split; done
    python bench/extractors.py xfeat disk aliked

One image a run, the motorcycle pair's first, in turns. ALIKED's original takes deformable convolutions from
torchvision; a few lines of PyTorch stand in for them here (see originals.py), which are slower. So there is a
second row of it with ordinary convolutions in their place, which give something else and take less time than
torchvision can: between the two lies the original.
"""

from __future__ import annotations

import sys
from unittest.mock import patch

import torch
from torch.nn import functional as F

from exported import Exported
from lightglue_ros.cli.bench import camera_images
from lightglue_ros.core.canvas import CanvasBatch
from lightglue_ros.errors import LightGlueRosError
from originals import PACKAGES, load_original
from tables import THREADS_SPIN, Table, keep, parser_of, print_head, print_table
from timing import Work, interleaved


def main() -> None:
    """Measure and print a table for each model."""
    parser = parser_of(__doc__)
    parser.add_argument("models", nargs="+", help="names in the model store, or folders")
    parser.add_argument("--image-size", type=int, nargs=2, default=(640, 480))
    arguments = parser.parse_args()
    print_head("The extractors alone", f"PyTorch {torch.__version__}", THREADS_SPIN)
    tables = []
    for model in arguments.models:
        try:
            exported = Exported(model)
        except LightGlueRosError as error:
            sys.exit(str(error))
        tables.append(measure(exported, model, tuple(arguments.image_size), arguments.rounds))
        print_table(tables[-1])
    keep(tables, arguments)


def measure(exported: Exported, model: str, size: tuple[int, int], rounds: int) -> Table:
    """A row for ours and for each of the originals."""
    batch = exported.place(camera_images(size)[:1], size)
    works: dict[str, Work] = {f"ours: {model}": lambda: exported.extract(batch)}
    works |= originals_of(exported.info.model, batch, exported.info.max_keypoints)
    for work in works.values():
        work()
    seconds = interleaved({name: [work] for name, work in works.items()}, rounds)
    first = next(iter(seconds.values()))
    rows = [(name, 1e3 * spent, spent / first) for name, spent in seconds.items()]
    title = f"An image of {size[0]}x{size[1]}, at most {exported.info.max_keypoints} keypoints"
    return Table(title, ("extractor", "ms", "ratio"), rows, x="extractor", y="ms")


def originals_of(model: str, batch: CanvasBatch, slots: int) -> dict[str, Work]:
    """Extraction by the original of a model, and for ALIKED by the one with ordinary convolutions as well."""
    if model not in PACKAGES:
        return {}
    original = load_original(model, slots)

    def extract() -> object:
        return original.extract(batch)

    def extract_without_offsets() -> object:
        # The module's own torchvision, which stands in for the real one.
        torchvision = sys.modules[f"{PACKAGES[model]}.aliked"].torchvision
        with patch.object(torchvision.ops, "deform_conv2d", ordinary_convolution):
            return original.extract(batch)

    works: dict[str, Work] = {"original": extract}
    if model.startswith("aliked"):
        works["original, ordinary convolutions"] = extract_without_offsets
    return works


def ordinary_convolution(
    input: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    padding: tuple[int, int],
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Takes the arguments of torchvision.ops.deform_conv2d and leaves the offsets out."""
    return F.conv2d(input, weight, bias, padding=padding)


if __name__ == "__main__":
    main()
