"""Features of real images for measurements of matchers, as our extractors give them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exported import Exported, Tensors
from lightglue_ros.core.contract import EXTRACTOR, OUTPUTS
from lightglue_ros.core.image_files import read_image
from lightglue_ros.core.store import find_model, models_dir
from lightglue_ros.errors import ModelError
from lightglue_ros.export.weights import motorcycle_pair

DATA = Path(__file__).parents[2] / "shared" / "data"
KITTI_STRIDE = 6  # frames from the first of a pair to the second, as in pose.py
KITTI_PAIRS = 45
OF_KEYPOINTS = OUTPUTS[EXTRACTOR]


@dataclass(frozen=True)
class Views:
    """Images that are matched two by two: the first with the second, and so on.

    Attributes:
        name: of where they come from.
        images: uint8 [H, W, 3] RGB each, an even number.
        image_size: (width, height) of a canvas on which they are not shrunk.
    """

    name: str
    images: list[np.ndarray]
    image_size: tuple[int, int]


def find_views(data: Path, count: int) -> Views:
    """Return `count` pairs of KITTI frames i and i + 6, or the motorcycle pair, repeated.

    Args:
        data: folder with kitti_seq1.
        count: 1 to 45.
    """
    folder = data / "kitti_seq1" / "image_l"
    if folder.is_dir():
        first = np.linspace(0, KITTI_PAIRS - 1, count).astype(int)
        frames = np.stack([first, first + KITTI_STRIDE], axis=1).flatten()
        return _views("kitti_seq1", [folder / f"{frame:06}.png" for frame in frames])
    print(f"no {folder}: the motorcycle pair instead", file=sys.stderr)
    return _views("motorcycle", [*motorcycle_pair()] * count)


def _views(name: str, paths: Sequence[Path]) -> Views:
    images = {path: read_image(path) for path in paths}
    height, width = np.max([image.shape[:2] for image in images.values()], axis=0).tolist()
    return Views(name, [images[path] for path in paths], (width, height))


def extract(exported: Exported, views: Views) -> Tensors:
    """Features of all images, each extracted by itself."""
    found = [exported.extract(exported.place([image], views.image_size)) for image in views.images]
    return {name: np.concatenate([features[name] for features in found]) for name in found[0]}


def best(features: Tensors, count: int, slots: int) -> Tensors:
    """Return the best `count` keypoints of each image, in `slots` slots; an image with fewer has empty slots.

    Args:
        features: as the extractor gives them, and image_sizes.
        count: at most the slots.
        slots: K of who gets them.
    """
    return _in_slots(features, np.arange(min(count, features["keypoint_mask"].shape[1])), slots)


def filled(features: Tensors, count: int, slots: int) -> Tensors:
    """Return exactly `count` keypoints per image, in `slots` slots: an image with fewer repeats its own.

    For measurements of time, where what matches does not matter.
    """
    least = int(features["keypoint_mask"].sum(axis=1).min())
    return _in_slots(features, np.arange(count) % least, slots)


def _in_slots(features: Tensors, chosen: np.ndarray, slots: int) -> Tensors:
    """Put the chosen keypoints of each image into the first slots, and leave the other slots empty."""
    result = {name: values for name, values in features.items() if name not in OF_KEYPOINTS}
    for name in OF_KEYPOINTS:
        values = features[name]
        result[name] = np.zeros((len(values), slots, *values.shape[2:]), values.dtype)
        result[name][:, : len(chosen)] = values[:, chosen]
    return result


def export_with_slots(model: str, slots: int) -> str:
    """The name in the store of the same export with K = `slots`.

    Raises:
        ModelError: it is not there.
    """
    info = Exported(model).info
    variant = Path(model).name.removeprefix(info.model).removeprefix(f"-k{info.max_keypoints}")
    name = model if slots == info.max_keypoints else f"{info.model}-k{slots}{variant}"
    if name != model and not (models_dir() / name).is_dir():
        raise ModelError(
            f"no export like {model} with {slots} keypoint slots ({name})",
            fix=f"lightglue_ros export {info.model} --split --max-keypoints {slots}, "
            f"with the options of {model} and -o {models_dir() / name}",
        )
    find_model(name)
    return name
