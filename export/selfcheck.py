"""Check of every export: the files in ONNX Runtime against the graphs in PyTorch.

There are two scenes: random images of several sizes with masks, an empty slot and several pairs, and a real
stereo pair. Keypoints are compared by their coordinates, because equal scores may come in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.contract import INPUTS, NO_MASKS, OUTPUTS, GraphInfo
from lightglue_ros.core.image_files import read_image
from lightglue_ros.core.session import GraphSession
from lightglue_ros.errors import ModelError
from lightglue_ros.export.weights import motorcycle_pair

Tensors = dict[str, np.ndarray]

SCORE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Tolerance:
    """Largest difference between a file and PyTorch in float32.

    Attributes:
        least_same: smallest share of common keypoints and matches, of common matches with scores within
            SCORE_TOLERANCE, and of pairs that stop after the same layer.
        largest: largest difference of each output; keypoints in pixels, keypoint scores relative to the best
            score if it is above 1.
    """

    least_same: Mapping[str, float]
    largest: Mapping[str, float]


# Rounding errors of float32 grow in the transformer, whose attention logits reach thousands: on single
# matches the reference in float32 differs by up to 1.2e-4 from float64. On random images 97.7 to 99.0% of
# the scores were the same, depending on the number of PyTorch's threads. float16 has 11 bits,
# float32 has 24. The tolerances of fp16 and int8 catch mistakes; bench/pose.py measures their effect.
# In int8 the one real pair may stop a layer earlier or later, as that of DISK does.
_SAME = ("keypoints", "matches", "match_scores", "layers")
_LARGEST = ("keypoints", "keypoint_scores", "descriptors", "match_scores", "layers")
TOLERANCES = {
    precision: Tolerance(dict(zip(_SAME, same, strict=True)), dict(zip(_LARGEST, largest, strict=True)))
    for precision, same, largest in (
        ("fp32", (0.999, 0.995, 0.95, 0.5), (0.01, 1e-4, 1e-4, 5e-3, 1)),
        ("fp16", (0.98, 0.97, 0, 0.5), (0.1, 0.02, 0.05, 1, 1)),
        ("int8", (0.9, 0.7, 0, 0), (0.01, 0.2, 0.5, 1, 1)),
    )
}
MATCH_THRESHOLD = 0.1


@dataclass(frozen=True, eq=False)
class Scene:
    """Images (uint8 [h, w, 3] RGB, or None for an empty slot) and pairs of slots to run the graphs on.

    The canvas has image_size (width, height), multiples of 32. If it is masked, keypoints may be below the
    diagonals from its top-left corner only.
    """

    name: str
    images: Sequence[np.ndarray | None]
    pairs: Sequence[tuple[int, int]]
    image_size: tuple[int, int]
    is_masked: bool = False


@dataclass(frozen=True)
class Differences:
    """Differences between a graph's outputs in ONNX Runtime and in PyTorch.

    Attributes:
        same: share of common keypoints, matches and match scores, by output name, and of pairs that stopped
            after the same layer. Only the matches of these pairs are compared.
        largest: largest absolute difference in the common part, by output name; keypoint scores relative to
            the best score if it is above 1.
    """

    same: dict[str, float]
    largest: dict[str, float]

    def are_within(self, tolerance: Tolerance) -> bool:
        """True if every output is within the tolerance."""
        enough = all(share >= tolerance.least_same[name] for name, share in self.same.items())
        return enough and all(apart <= tolerance.largest[name] for name, apart in self.largest.items())

    def __str__(self) -> str:
        same = [f"{name} {100 * share:.2f}% the same" for name, share in self.same.items()]
        largest = [f"{name} {difference:.1e}" for name, difference in self.largest.items()]
        return f"{', '.join(same)}; largest differences: {', '.join(largest)}"


def find_scenes(report: Callable[[str], None]) -> list[Scene]:
    """Return the scenes; report and leave out the stereo pair if it cannot be downloaded."""
    try:
        paths = motorcycle_pair()
    except ModelError as error:
        report(f"checking on random images only: {error}")
        return [random_scene()]
    images = [read_image(path) for path in paths]
    return [random_scene(), Scene("the motorcycle pair", images, [(0, 1)], (640, 480))]


def check(
    files: Mapping[str, Path], modules: Mapping[str, nn.Module], scenes: Sequence[Scene]
) -> Iterator[str]:
    """Run every graph on every scene in ONNX Runtime and in PyTorch, and yield one line for each run.

    Files and modules belong to the graphs of one model, the extractor before the matcher.

    Raises:
        ModelError: a file's outputs differ by more than TOLERANCES.
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
    """Extract a scene: keypoints, mask, descriptors, image sizes, pairs and threshold for a matcher."""
    # Without a mask, because the ranges of int8 are for images without one.
    tensors = _tensors(replace(scene, is_masked=False), info)
    tensors |= _run_torch("extractor", extractor, {name: tensors[name] for name in INPUTS["extractor"]})
    return tuple(torch.from_numpy(tensors[name]) for name in INPUTS["matcher"] if name != "keypoint_scores")


def compare(
    expected: Tensors, found: Tensors, pairs: np.ndarray, tolerance: Tolerance = TOLERANCES["fp32"]
) -> Differences:
    """Compare two sets of outputs of one graph for the same inputs.

    The pairs int64 [P, 2] are those that both matched. The tolerance gives the largest distance of common
    keypoints.
    """
    same, largest = {}, {}
    counterparts = None  # a matcher's keypoints are an input: both have the same slots
    if "keypoints" in expected:
        counterparts = _counterparts(expected, found, tolerance.largest["keypoints"])
        slots = counterparts >= 0
        masks = expected["keypoint_mask"], found["keypoint_mask"]
        same["keypoints"] = _share(slots.sum(), *(mask.sum() for mask in masks))
        for name in ("keypoints", "keypoint_scores", "descriptors"):
            if name in expected:
                paired = found[name][np.nonzero(slots)[0], counterparts[slots]]
                largest[name] = _largest(expected[name][slots] - paired)
        # The rounding error of scores is relative to the highest: XFeat's are below 1, DISK's reach 150.
        largest["keypoint_scores"] /= max(1.0, _largest(expected["keypoint_scores"]))
    if "matches" in expected:
        # Rounding can move a point across the confidence threshold, and so a pair's last layer.
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
    """Find for each expected keypoint [N, K] the slot of a found keypoint within `limit` pixels, or -1."""
    counterparts = np.full(expected["keypoint_mask"].shape, -1)
    masks = zip(expected["keypoint_mask"], found["keypoint_mask"], strict=True)
    for image, (mask, found_mask) in enumerate(masks):
        if mask.any() and found_mask.any():
            offsets = expected["keypoints"][image][mask][:, None] - found["keypoints"][image][found_mask]
            distances = np.abs(offsets).max(axis=2)
            nearest = np.flatnonzero(found_mask)[distances.argmin(axis=1)]
            counterparts[image, mask] = np.where(distances.min(axis=1) <= limit, nearest, -1)
    return counterparts


def _scores_of_matches(
    outputs: Tensors, pairs: np.ndarray, counterparts: np.ndarray | None, chosen: np.ndarray
) -> dict[tuple[int, int, int], float]:
    """Return the score of each match (pair, slot, slot) of the chosen pairs (bool [P]).

    With counterparts, the slots are those of the expected outputs.
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
    """Return the contract's inputs for a scene; a static export fixes the number of images and pairs."""
    count = info.batch or len(scene.images)
    images = (*scene.images, *[None] * count)[:count]
    fitting = [pair for pair in scene.pairs if max(pair) < count] or [(0, 0)]
    pairs = [fitting[number % len(fitting)] for number in range(info.pairs or len(fitting))]
    batch = Canvas(info.image_size or scene.image_size, info.channels, info.divisor).place(images)
    masks = np.ones_like(batch.images[..., 0], np.bool_) if info.is_static else NO_MASKS
    if scene.is_masked:
        masks = np.tri(*batch.images.shape[1:3], dtype=np.bool_)[None].repeat(count, axis=0)
    return vars(batch) | {
        "masks": masks,
        "pairs": np.array(pairs, np.int64),
        "max_keypoints": np.array([info.max_keypoints], np.int64),
        "match_threshold": np.array([MATCH_THRESHOLD], np.float32),
    }


def random_scene() -> Scene:
    """Create blobs of random colours: two views shifted by 16 pixels, an empty slot, and a wide image."""
    noise = np.random.default_rng(0).normal(size=(320, 480, 3)).astype(np.float32)
    blobs = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = np.clip(128 + 60 * blobs / blobs.std(), 0, 255).astype(np.uint8)
    images = [texture[:240, :320], texture[:240, 16:336], None, texture[100:200]]
    return Scene("random images", images, [(0, 1), (1, 0), (0, 3), (0, 2)], (320, 256), is_masked=True)
