"""`lightglue_ros export`: write a model as ONNX files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lightglue_ros.cli.arguments import size

# The arguments that are options of `export_model` under the same name.
EXPORT_OPTIONS = (
    "split",
    "max_keypoints",
    "precision",
    "image_size",
    "batch",
    "pairs",
    "channels",
    "opset",
    "portable",
    "compaction",
    "adaptive",
    "depth_confidence",
    "width_confidence",
)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    command.add_argument("model", help="which model, such as xfeat")
    command.add_argument("--list", action=_ListModels, help="list the models and exit")
    command.add_argument(
        "--split",
        action="store_true",
        help="write extractor.onnx and matcher.onnx, which the node needs, instead of pipeline.onnx",
    )
    command.add_argument(
        "--max-keypoints",
        type=int,
        default=1024,
        metavar="K",
        help="keypoint slots per image; a smaller cap can be set while running (1024)",
    )
    command.add_argument(
        "--precision",
        default="fp32",
        help="fp32; fp16 for GPUs: half the bytes, positions, detector and assignment stay fp32; "
        "int8 for CPUs: the matcher's linear layers and attention, and XFeat's convolutions (fp32)",
    )
    command.add_argument(
        "--image-size",
        type=_size_or_dynamic,
        metavar="WxH",
        help="fix all shapes, which TensorRT and CUDA graphs need; dynamic leaves them free (dynamic)",
    )
    command.add_argument("--batch", type=int, metavar="N", help="images, with --image-size (2)")
    command.add_argument("--pairs", type=int, metavar="P", help="pairs, with --image-size (1)")
    command.add_argument(
        "--channels", type=int, metavar="C", help="1 for grey cameras, 3 for RGB, with --image-size"
    )
    command.add_argument(
        "--opset", type=int, help="version of the ONNX operators, 18 to 23 (the lowest that works)"
    )
    command.add_argument(
        "--portable", action="store_true", help="use only operators that other runtimes have as well"
    )
    command.add_argument(
        "--compaction",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="match with as many slots as the image with the most keypoints needs (unless shapes are fixed)",
    )
    command.add_argument(
        "--adaptive",
        action="store_true",
        help="let pairs stop early and prune points, as in the original LightGlue",
    )
    command.add_argument(
        "--depth-confidence",
        type=float,
        metavar="C",
        help="share of confident points at which a pair stops, with --adaptive; -1 is never (0.95, xfeat -1)",
    )
    command.add_argument(
        "--width-confidence",
        type=float,
        metavar="C",
        help="confidence that a point has no partner at which it is pruned, with --adaptive; -1 is never "
        "(0.99, xfeat 0.95)",
    )
    command.add_argument(
        "--weights", nargs="+", type=Path, default=[], metavar="PATH", help="weights files of your own"
    )
    command.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder to write to (the model store)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Export the model."""
    from lightglue_ros.export import export_model

    export_model(
        arguments.model,
        output=arguments.output,
        weights=arguments.weights,
        **{name: getattr(arguments, name) for name in EXPORT_OPTIONS},
    )
    return 0


def _size_or_dynamic(text: str) -> tuple[int, int] | None:
    return None if text == "dynamic" else size(text)


class _ListModels(argparse.Action):
    """Action that prints the models and exits, so that `--list` needs no model's name."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from tabulate import tabulate

        from lightglue_ros.export import MODELS
        from lightglue_ros.export.weights import PinnedFile

        rows = [
            {
                "model": spec.name,
                "extractor": spec.extractor,
                "descriptor": spec.matcher.input_dim,
                "channels": spec.channels,
                "divisor": spec.divisor,
                "matcher weights": matcher.name if isinstance(matcher, PinnedFile) else "not published",
                "licence": spec.licence,
            }
            for spec in MODELS.values()
            for matcher in spec.weights[-1:]
        ]
        print(tabulate(rows, headers="keys", tablefmt="plain", numalign="left"))
        parser.exit()
