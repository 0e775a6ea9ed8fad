"""The check that every export must pass: the files in ONNX Runtime against the modules in PyTorch.

Two scenes: random images of several sizes with an empty slot among them and several pairs, and a real
stereo pair. Keypoints are compared by their coordinates, because equal scores may come in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.contract import INPUTS, OUTPUTS, GraphInfo
from lightglue_ros.core.image_files import read_image
from lightglue_ros.core.session import GraphSession
from lightglue_ros.errors import ModelError
from lightglue_ros.export.weights import motorcycle_pair

Tensors = dict[str, np.ndarray]

SCORE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Tolerance:
    """How far a file may be from PyTorch in float32.

    Attributes:
        least_same: share of the keypoints and matches that both must have, and of common matches with scores
            within SCORE_TOLERANCE.
        largest: of each output; keypoints in pixels, keypoint scores as a share of the best one where that is
            above 1.
    """

    least_same: Mapping[str, float]
    largest: Mapping[str, float]


# float32 rounding grows in the transformer's layers, whose attention logits reach thousands: the reference in
# float32 is itself up to 1.2e-4 away from the reference in float64, on single matches. float16 has 11 bits
# where float32 has 24; which matches that moves is for the pose benchmark to say, this is to catch mistakes.
TOLERANCES = {
    "fp32": Tolerance(
        least_same={"keypoints": 0.999, "matches": 0.995, "match_scores": 0.98, "layers": 0.5},
        largest={
            "keypoints": 0.01,
            "keypoint_scores": SCORE_TOLERANCE,
            "descriptors": SCORE_TOLERANCE,
            "match_scores": 50 * SCORE_TOLERANCE,
            "layers": 1,
        },
    ),
    "fp16": Tolerance(
        least_same={"keypoints": 0.98, "matches": 0.97, "match_scores": 0, "layers": 0.5},
        largest={
            "keypoints": 0.1,
            "keypoint_scores": 0.02,
            "descriptors": 0.05,
            "match_scores": 1,
            "layers": 1,
        },
    ),
    "int8": Tolerance(
        least_same={"keypoints": 0.9, "matches": 0.7, "match_scores": 0, "layers": 0.5},
        largest={
            "keypoints": 0.01,
            "keypoint_scores": 0.2,
            "descriptors": 0.5,
            "match_scores": 1,
            "layers": 1,
        },
    ),
}
MATCH_THRESHOLD = 0.1


@dataclass(frozen=True)
class Scene:
    """What to run the graphs on.

    Attributes:
        name: what the report calls it.
        images: uint8 [h, w, 3] RGB, or None for an empty slot.
        pairs: which slots to match.
        image_size: (width, height) of the canvas, which divisors up to 32 leave as it is.
    """

    name: str
    images: Sequence[np.ndarray | None]
    pairs: Sequence[tuple[int, int]]
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Differences:
    """How far a graph's outputs in ONNX Runtime are from PyTorch's.

    Attributes:
        same: share of the keypoints, matches and match scores that both have, by output name, and of the
            pairs that ended after the same layer, whose matches alone are compared.
        largest: largest absolute difference of the numbers that belong to those, by output name; of keypoint
            scores as a share of the best one where that is above 1.
    """

    same: dict[str, float]
    largest: dict[str, float]

    def are_within(self, tolerance: Tolerance) -> bool:
        """Whether every output is near enough."""
        return all(share >= tolerance.least_same[name] for name, share in self.same.items()) and all(
            difference <= tolerance.largest[name] for name, difference in self.largest.items()
        )

    def __str__(self) -> str:
        same = [f"{name} {100 * share:.2f}% the same" for name, share in self.same.items()]
        largest = [f"{name} {difference:.1e}" for name, difference in self.largest.items()]
        return f"{', '.join(same)}; largest differences: {', '.join(largest)}"


def find_scenes(report: Callable[[str], None]) -> list[Scene]:
    """The scenes to check on; without the stereo pair, and saying so, where it cannot be had."""
    try:
        paths = motorcycle_pair()
    except ModelError as error:
        report(f"checking on random images only: {error}")
        return [_random_scene()]
    images = [read_image(path) for path in paths]
    return [_random_scene(), Scene("the motorcycle pair", images, [(0, 1)], (640, 480))]


def check(
    files: Mapping[str, Path], modules: Mapping[str, nn.Module], scenes: Sequence[Scene]
) -> Iterator[str]:
    """Run every graph on every scene in ONNX Runtime and in PyTorch; yields a line for each.

    Args:
        files: the .onnx file of each graph, all of one model.
        modules: the PyTorch module of each graph; an extractor before the matcher that takes its features.
        scenes: what to run on.

    Raises:
        ModelError: a file's outputs differ by more than the tolerances of this module.
    """
    sessions = {graph: GraphSession(path, graph, provider="cpu") for graph, path in files.items()}
    info = next(iter(sessions.values())).info
    tolerance = TOLERANCES[info.precision]
    for scene in scenes:
        tensors = _tensors(scene, info)
        for graph, module in modules.items():
            inputs = {name: tensors[name] for name in INPUTS[graph]}
            expected = _run_torch(graph, module, inputs)
            differences = compare(expected, sessions[graph].run(inputs), tensors["pairs"], tolerance)
            if not differences.are_within(tolerance):
                raise ModelError(
                    f"{graph}.onnx differs from PyTorch on {scene.name}: {differences}",
                    allowed=f"at least {tolerance.least_same} the same, at most {tolerance.largest} apart",
                    fix="export with other versions of torch and onnxruntime (2.13 and 1.32 agree)",
                )
            yield f"checked {graph}.onnx on {scene.name}: {differences}"
            tensors |= expected


def features(extractor: nn.Module, scene: Scene, info: GraphInfo) -> tuple[torch.Tensor, ...]:
    """What a matcher takes of a scene: keypoints, mask, descriptors, image sizes, pairs and threshold.

    Args:
        extractor: the module of the extractor's graph.
        scene: what to extract.
        info: of the export.
    """
    tensors = _tensors(scene, info)
    tensors |= _run_torch("extractor", extractor, {name: tensors[name] for name in INPUTS["extractor"]})
    names = ("keypoints", "keypoint_mask", "descriptors", "image_sizes", "pairs", "match_threshold")
    return tuple(torch.from_numpy(tensors[name]) for name in names)


def compare(
    expected: Tensors, found: Tensors, pairs: np.ndarray, tolerance: Tolerance = TOLERANCES["fp32"]
) -> Differences:
    """Differences between two sets of outputs of one graph for the same inputs.

    Args:
        expected: outputs to judge by.
        found: outputs to judge.
        pairs: int64 [P, 2], the pairs that both matched.
        tolerance: says how near keypoints are that count as the same.
    """
    same, largest = {}, {}
    counterparts = None  # a matcher alone was given its keypoints: both have the same slots
    if "keypoints" in expected:
        counterparts = _counterparts(expected, found, tolerance.largest["keypoints"])
        slots = counterparts >= 0
        masks = expected["keypoint_mask"], found["keypoint_mask"]
        same["keypoints"] = _share(slots.sum(), *(mask.sum() for mask in masks))
        for name in ("keypoints", "keypoint_scores", "descriptors"):
            if name in expected:
                paired = found[name][np.nonzero(slots)[0], counterparts[slots]]
                largest[name] = _largest(expected[name][slots] - paired)
        # A map of scores is rounded as its highest ones are: XFeat's are below 1, DISK's reach 150.
        largest["keypoint_scores"] /= max(1.0, _largest(expected["keypoint_scores"]))
    if "matches" in expected:
        # A point may be sure for one side and by rounding not for the other; a pair's end hangs on it.
        ended_alike = expected["layers"] == found["layers"]
        same["layers"] = _share(ended_alike.sum(), len(ended_alike))
        wanted = _scores_of_matches(expected, pairs, None, ended_alike)
        got = _scores_of_matches(found, pairs, counterparts, ended_alike)
        common = wanted.keys() & got.keys()
        same["matches"] = _share(len(common), len(wanted), len(got))
        differences = np.abs([wanted[match] - got[match] for match in common])
        same["match_scores"] = _share((differences <= SCORE_TOLERANCE).sum(), len(common))
        largest["match_scores"] = _largest(differences)
        largest["layers"] = _largest(expected["layers"] - found["layers"])
    return Differences(same, largest)


def _counterparts(expected: Tensors, found: Tensors, limit: float) -> np.ndarray:
    """For each expected keypoint [N, K] the slot of the found one within so many pixels, or -1."""
    counterparts = np.full(expected["keypoint_mask"].shape, -1)
    for image, (mask, found_mask) in enumerate(
        zip(expected["keypoint_mask"], found["keypoint_mask"], strict=True)
    ):
        if mask.any() and found_mask.any():
            offsets = expected["keypoints"][image][mask][:, None] - found["keypoints"][image][found_mask]
            distances = np.abs(offsets).max(axis=2)
            nearest = np.flatnonzero(found_mask)[distances.argmin(axis=1)]
            counterparts[image, mask] = np.where(distances.min(axis=1) <= limit, nearest, -1)
    return counterparts


def _scores_of_matches(
    outputs: Tensors, pairs: np.ndarray, counterparts: np.ndarray | None, chosen: np.ndarray
) -> dict[tuple[int, int, int], float]:
    """Score of each match (pair, slot, slot), in the expected outputs' slots where counterparts are given.

    Only of the chosen pairs (bool [P]).
    """
    rows, slots0 = np.nonzero((outputs["matches"] >= 0) & chosen[:, None])
    slots1 = outputs["matches"][rows, slots0]
    scores = outputs["match_scores"][rows, slots0]
    if counterparts is not None:
        expected_slots = np.full_like(counterparts, -1)
        images, slots = np.nonzero(counterparts >= 0)
        expected_slots[images, counterparts[images, slots]] = slots
        slots0 = expected_slots[pairs[rows, 0], slots0]
        slots1 = expected_slots[pairs[rows, 1], slots1]
    return dict(zip(zip(rows, slots0, slots1, strict=True), scores, strict=True))


def _share(common: int, *counts: int) -> float:
    return common / max(counts) if max(counts) else 1.0


def _largest(differences: np.ndarray) -> float:
    return float(np.abs(differences).max(initial=0))


def _run_torch(graph: str, module: nn.Module, inputs: Tensors) -> Tensors:
    with torch.inference_mode():
        outputs = module(*(torch.from_numpy(array) for array in inputs.values()))
    return {name: output.numpy() for name, output in zip(OUTPUTS[graph], outputs, strict=True)}


def _tensors(scene: Scene, info: GraphInfo) -> Tensors:
    """The contract's inputs for a scene; of a static export as many of its images and pairs as it takes."""
    count = info.batch or len(scene.images)
    images = (*scene.images, *[None] * count)[:count]
    fitting = [pair for pair in scene.pairs if max(pair) < count] or [(0, 0)]
    pairs = [fitting[number % len(fitting)] for number in range(info.pairs or len(fitting))]
    batch = Canvas(info.image_size or scene.image_size, info.channels, info.divisor).place(images)
    return vars(batch) | {
        "pairs": np.array(pairs, np.int64),
        "max_keypoints": np.array([info.max_keypoints], np.int64),
        "match_threshold": np.array([MATCH_THRESHOLD], np.float32),
    }


def _random_scene() -> Scene:
    """Blobs of random colours: two views shifted by 16 pixels, an empty slot, and a wide image."""
    noise = np.random.default_rng(0).normal(size=(320, 480, 3)).astype(np.float32)
    blobs = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = np.clip(128 + 60 * blobs / blobs.std(), 0, 255).astype(np.uint8)
    images = [texture[:240, :320], texture[:240, 16:336], None, texture[100:200]]
    return Scene("random images", images, [(0, 1), (1, 0), (0, 3), (0, 2)], (320, 256))
