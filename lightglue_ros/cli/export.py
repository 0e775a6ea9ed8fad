"""`lightglue_ros export`: write a model as ONNX files."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from lightglue_ros.cli.arguments import size
from lightglue_ros.core.contract import MODEL_NAMES
from lightglue_ros.core.store import find_model
from lightglue_ros.errors import ModelError


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = command.add_argument
    add("model", help="which model, such as xfeat")
    add("--list", action=_ListModels, help="list the models and exit")
    split = "write extractor.onnx and matcher.onnx, which the node needs, instead of pipeline.onnx"
    add("--split", action="store_true", help=split)
    slots = "highest number of keypoints per image; a run can use fewer, not more (1024)"
    add("--max-keypoints", type=int, default=1024, metavar="K", help=slots)
    precision = (
        "fp32; fp16, for GPUs, with half the bytes (positions, detector and assignment stay fp32); or int8, "
        "for CPUs, in the matcher's linear layers and attention and in XFeat's convolutions (fp32)"
    )
    add("--precision", default="fp32", help=precision)
    shapes = (
        "canvas of a model with fixed shapes, which TensorRT and CUDA graphs need; dynamic leaves the shapes "
        "free (dynamic)"
    )
    add("--image-size", type=_size_or_dynamic, metavar="WxH", help=shapes)
    add("--batch", type=int, metavar="N", help="number of images, with --image-size (2)")
    add("--pairs", type=int, metavar="P", help="number of pairs, with --image-size (1)")
    channels = "1 for grey cameras, 3 for RGB, with --image-size (what the model uses)"
    add("--channels", type=int, metavar="C", help=channels)
    add("--opset", type=int, help="version of the ONNX operators, 18 to 23 (the lowest that works)")
    target = (
        "what the file is for: cpu or gpu in ONNX Runtime, or portable, for other runtimes and TensorRT "
        "(cpu; gpu with fp16)"
    )
    add("--target", metavar="T", help=target)
    subpixel = (
        "move keypoints of xfeat, disk and superpoint between the pixels, to the peaks of the detector's "
        "heatmap, for matches that no image refines"
    )
    add("--subpixel", action="store_true", help=subpixel)
    adaptive = "let pairs stop early and drop keypoints without a partner, as in the original LightGlue"
    add("--adaptive", action="store_true", help=adaptive)
    depth = (
        "with --adaptive: a pair stops when this share of its keypoints is confident; -1 is never (0.95, "
        "xfeat -1)"
    )
    add("--depth-confidence", type=float, metavar="C", help=depth)
    width = (
        "with --adaptive: a keypoint is dropped when it has no partner with this confidence; -1 is never "
        "(0.99, xfeat 0.95)"
    )
    add("--width-confidence", type=float, metavar="C", help=width)
    weights = "weights files of your own, the extractor's first"
    add("--weights", nargs="+", type=Path, default=[], metavar="PATH", help=weights)
    add("-o", "--output", type=Path, metavar="DIR", help="folder to write to (the model store)")


def run(arguments: argparse.Namespace) -> int:
    """Export the model."""
    from lightglue_ros.export import export_model

    # All other arguments are options of `export_model` under the same name.
    apart = ("run", "model", "list", "output", "weights")
    options = {name: value for name, value in vars(arguments).items() if name not in apart}
    export_model(arguments.model, output=arguments.output, weights=arguments.weights, **options)
    return 0


def ensure_model(model: str) -> None:
    """Export a model that is not in the store yet, if the exporter is installed.

    Args:
        model: name in the store, folder or file.

    Raises:
        ModelError: the model is missing and cannot be exported on this machine.
    """
    try:
        find_model(model)
    except ModelError:
        if model not in MODEL_NAMES:
            raise
        try:
            from lightglue_ros.export import export_model
        except ModelError as error:
            raise ModelError(
                f"no model '{model}' in the store, and it cannot be exported here: {error.what}",
                fix=f"lightglue_ros export {model} --split (on a machine with PyTorch; then copy the files)",
            ) from error
        report = partial(print, file=sys.stderr, flush=True)
        report(f"no model '{model}' in the store yet: exporting it, once")
        export_model(model, split=True, report=report)


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

        head = ("model", "extractor", "descriptor", "channels", "divisor", "matcher weights", "licence")
        rows = []
        for spec in MODELS.values():
            matcher = spec.weights[-1]
            weights = matcher.name if isinstance(matcher, PinnedFile) else "not published"
            shape = spec.matcher.input_dim, spec.channels, spec.divisor
            rows.append((spec.name, spec.extractor, *shape, weights, spec.licence))
        print(tabulate(rows, head, tablefmt="plain", numalign="left"))
        parser.exit()
