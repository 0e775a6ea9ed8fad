"""Other people's LightGlue, called as ours is (see `exported`): LightGlue-ONNX's graphs and `transformers`.

    pip install transformers

LightGlue-ONNX (fabio-sim) exports pipelines; its matcher alone (export_peers.py) is its `LightGlue` module,
exported with the options of its command line and the names that it uses itself: `keypoints` float32 [2 P, K,
2], normalised as LightGlue does, and `descriptors` float32 [2 P, K, D], the images of a pair one after the
other, to `matches` int64 [M, 3], rows of (pair, keypoint, keypoint), and `mscores` float32 [M]. It has no
mask: every image has exactly K keypoints.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from exported import Tensors
from lightglue_ros.core.denormals import flushed_denormals, restored_floating_point
from lightglue_ros.core.pipeline import DEFAULT_MATCH_THRESHOLD
from lightglue_ros.errors import ModelError

# What LightGlue-ONNX turns off for its graphs with early stopping, whose Ifs lie in each other.
NOT_FOR_NESTED_IFS = ("MatMulAddFusion", "GatherSliceToSplitFusion")


class LightGlueOnnx:
    """A matcher of LightGlue-ONNX in ONNX Runtime, with the session options that it uses: the default ones.

    Args:
        path: of the .onnx file.
        num_threads: 0 is one per core.
        flush: treat denormal numbers as zero, as we do and it does not.

    Attributes:
        slots: K.
        pairs: P, or None where it is free.

    Raises:
        ModelError: it cannot be loaded or has other inputs and outputs.
    """

    def __init__(self, path: Path, num_threads: int = 0, *, flush: bool = False) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 3  # errors only; it warns of what it cannot fold
        if flush:
            options.add_session_config_entry("session.set_denormal_as_zero", "1")
        self._denormals = flushed_denormals if flush else nullcontext
        self._session = _opened(path, options)
        shapes = {tensor.name: tensor.shape for tensor in self._session.get_inputs()}
        outputs = [tensor.name for tensor in self._session.get_outputs()]
        if set(shapes) != {"keypoints", "descriptors"} or outputs != ["matches", "mscores"]:
            raise ModelError(
                f"{path} has inputs {sorted(shapes)} and outputs {outputs}",
                allowed="keypoints, descriptors to matches, mscores, as a matcher of LightGlue-ONNX has",
            )
        sides, self.slots, _ = shapes["keypoints"]
        self.pairs = sides // 2 if isinstance(sides, int) else None

    def bind(self, features: Tensors, pairs: np.ndarray) -> Callable[[], Tensors]:
        """A function that matches these pairs, int64 [P, 2], in as few runs as the graph can."""
        keypoints = normalised(features)[pairs].reshape(-1, self.slots, 2)
        descriptors = features["descriptors"][pairs].reshape(2 * len(pairs), self.slots, -1)
        step = 2 * (self.pairs or len(pairs))
        parts = [slice(start, start + step) for start in range(0, len(keypoints), step)]
        inputs = [{"keypoints": keypoints[part], "descriptors": descriptors[part]} for part in parts]

        def run() -> Tensors:
            matches = np.full((len(pairs), self.slots), -1, np.int32)
            scores = np.zeros((len(pairs), self.slots), np.float32)
            for number, tensors in enumerate(inputs):
                with self._denormals():
                    found, found_scores = self._session.run(None, tensors)
                pair, first, second = found.T
                matches[pair + number * step // 2, first] = second
                scores[pair + number * step // 2, first] = found_scores
            return {"matches": matches, "match_scores": scores, "layers": np.zeros(len(pairs), np.int32)}

        return run


def _opened(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """Open a graph as LightGlue-ONNX does: without some optimisers if it stops early."""
    for disabled in ((), NOT_FOR_NESTED_IFS):
        try:
            with restored_floating_point():
                return ort.InferenceSession(
                    str(path), options, ["CPUExecutionProvider"], disabled_optimizers=set(disabled)
                )
        # ONNX Runtime's exceptions have no common base below RuntimeError and Exception.
        except Exception as failed:
            reason = str(failed).strip().splitlines()[0]
    raise ModelError(f"ONNX Runtime cannot load {path} ({reason})")


class TransformersLightGlue:
    """`LightGlueForKeypointMatching` with the published weights of cvg/LightGlue, its detector left out.

    Args:
        weights: tensors named as in the reference (`transformers.0.self_attn.Wqkv.weight`, or older).
        adaptive: with early stopping and pruning, as is its default.

    Raises:
        ModuleNotFoundError: transformers is not installed.
    """

    def __init__(self, weights: dict[str, torch.Tensor], adaptive: bool) -> None:
        from transformers import LightGlueConfig, LightGlueForKeypointMatching, SuperPointConfig

        off = {} if adaptive else {"depth_confidence": -1.0, "width_confidence": -1.0}
        weights = renamed_for_transformers(weights)
        width, descriptor_dim = weights["input_projection.weight"].shape
        config = LightGlueConfig(
            keypoint_detector_config=SuperPointConfig(descriptor_decoder_dim=descriptor_dim),
            descriptor_dim=width,
            filter_threshold=DEFAULT_MATCH_THRESHOLD,
            **off,
        )
        self._network = LightGlueForKeypointMatching(config).eval()
        lacks = self._network.load_state_dict(weights, strict=False)
        wrong = [name for name in lacks.missing_keys if not name.startswith("keypoint_detector.")]
        if wrong or lacks.unexpected_keys:
            raise ModelError(f"transformers' LightGlue does not fit: {wrong + lacks.unexpected_keys}")

    def bind(self, features: Tensors, pairs: np.ndarray) -> Callable[[], Tensors]:
        """A function that matches these pairs, int64 [P, 2], in one batch; all images must have one size."""
        tensors = {name: torch.from_numpy(features[name][pairs]) for name in ("keypoints", "descriptors")}
        mask = torch.from_numpy(features["keypoint_mask"][pairs]).int()
        width, height = features["image_sizes"][pairs[0, 0]].astype(int).tolist()

        def run() -> Tensors:
            with torch.inference_mode():
                found, scores, layers, *_ = self._network._match_image_pair(
                    **tensors, height=height, width=width, mask=mask
                )
            matches = found.view(len(pairs), 2, -1)[:, 0].numpy().astype(np.int32)
            match_scores = scores.view(len(pairs), 2, -1)[:, 0].numpy()
            return {
                "matches": matches,
                "match_scores": np.where(matches >= 0, match_scores, 0),
                "layers": layers.amax(dim=(1, 2)).numpy().astype(np.int32),
            }

        return run


def has_transformers() -> bool:
    """True if transformers is installed."""
    return importlib.util.find_spec("transformers") is not None


def normalised(features: Tensors) -> np.ndarray:
    """Keypoints [N, K, 2] as LightGlue takes them: the longer side of the image from -1 to 1."""
    sizes = features["image_sizes"][:, None]
    return (features["keypoints"] - sizes / 2) / (sizes.max(axis=2, keepdims=True) / 2)


def renamed_for_transformers(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The reference's weights under the names that transformers has for them."""
    renamed = {}
    for name, tensor in weights.items():
        block, _, rest = name.partition(".")
        if block == "transformers":  # the newer of the reference's names
            layer, block, rest = rest.split(".", 2)
            rest = f"{layer}.{rest}"
        if block in ("self_attn", "cross_attn"):
            renamed |= _of_block(block.removesuffix("_attn"), rest, tensor)
        elif block == "log_assignment" and not rest.endswith(".r"):
            renamed[f"match_assignment_layers.{rest.replace('final_proj', 'final_projection')}"] = tensor
        elif block == "token_confidence":
            renamed[f"token_confidence.{rest.replace('token.0', 'token')}"] = tensor
        elif block == "posenc":
            renamed["positional_encoder.projector.weight"] = tensor
        elif block == "input_proj":
            renamed[f"input_projection.{rest}"] = tensor
    return renamed


def _of_block(kind: str, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the weights of an attention block; the reference interleaves query, key and value."""
    layer, part, rest = name.split(".", 2)
    prefix, leaf = f"transformer_layers.{layer}.{kind}_", rest.rsplit(".", 1)[-1]
    if part == "ffn":
        part = {"0": "fc1", "1": "layer_norm", "3": "fc2"}[rest.partition(".")[0]]
        return {f"{prefix}mlp.{part}.{leaf}": tensor}
    projections = {"out_proj": "o", "to_out": "o", "to_v": "v", "to_qk": "qk"}
    if part == "Wqkv":
        parts = dict(zip("qkv", tensor.unflatten(0, (-1, 3)).unbind(1), strict=True))
    else:
        parts = dict.fromkeys(projections[part], tensor)
    return {f"{prefix}attention.{letter}_proj.{leaf}": values for letter, values in parts.items()}
