"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from typing import Any

LONGEST_SIDE = 8192  # pixels of a canvas, as in the node's parameters


def add_model_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments that choose the model and how it runs."""
    add = command.add_argument
    add("--model", default="xfeat", help="name in the model store, folder or .onnx file (xfeat)")
    add("--provider", default="auto", help="auto, cpu, cuda or tensorrt (auto)")
    add("--image-size", type=size, default=(640, 480), metavar="WxH", help="canvas (640x480)")
    add("--max-keypoints", type=int, metavar="N", help="at most N per image (all of the model's)")


def matcher_parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the matcher's parameters that the arguments of `add_model_arguments` stand for."""
    return {
        "model": arguments.model,
        "provider": arguments.provider,
        "image_width": arguments.image_size[0],
        "image_height": arguments.image_size[1],
        "max_keypoints": arguments.max_keypoints or 0,
    }


def size(text: str) -> tuple[int, int]:
    """Parse a (width, height) such as 640x480, for argparse."""
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdigit() and 1 <= int(side) <= LONGEST_SIDE for side in sides):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a size; allowed: WIDTHxHEIGHT such as 640x480, each at most {LONGEST_SIDE}"
        )
    return int(sides[0]), int(sides[1])


def positive(text: str) -> int:
    """Parse a whole number of at least 1, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not allowed; allowed: 1 or more")
    return int(text)
