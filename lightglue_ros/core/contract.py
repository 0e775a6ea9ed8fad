"""The contract between the exporter and the runtime: tensor names, metadata and model names of the graphs.

N images (one per camera slot), P pairs, K keypoint slots, D descriptor width. K is fixed at export, and in a
static export N, P, H, W and C are fixed as well: the runtime fills them up with empty slots.

==================  ==================  ==========================================================
tensor              type, shape         meaning
==================  ==================  ==========================================================
images              uint8 [N, H, W, C]  C = 1 grey or 3 RGB, with every extractor; image in the
                                        top-left corner, rest zero
sizes               float32 [N, 2]      (width, height) of the image inside its canvas
scales              float32 [N, 2]      canvas pixels per original pixel (x, y)
valid               bool [N]            this slot holds an image
masks               bool [N, H, W]      a keypoint may be at this pixel of the canvas; an axis of length 1
                                        holds for its whole length, except in a static export
image_sizes         float32 [N, 2]      (width, height) of the original image (matcher)
pairs               int64 [P, 2]        which two slots to match (matcher, pipeline)
max_keypoints       int64 [1]           at most this many per image, 1 to K (extractor, pipeline)
match_threshold     float32 [1]         LightGlue's filter_threshold (matcher, pipeline)
keypoints           float32 [N, K, 2]   original pixels, centre of the first pixel at (0, 0)
keypoint_scores     float32 [N, K]      detector score, 0 in padded slots
keypoint_mask       bool [N, K]         this slot holds a keypoint; true slots come first, best first
descriptors         float32 [N, K, D]   unit length, 0 in padded slots (split export only)
matches             int32 [P, K]        partner in the second image of each keypoint of the first, or -1
match_scores        float32 [P, K]      in (0, 1], 0 where unmatched
layers              int32 [P]           transformer layers that the pair went through
==================  ==================  ==========================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from lightglue_ros.errors import ConfigError, ModelError

CONTRACT_VERSION = 5
METADATA_PREFIX = "lightglue_ros."
DYNAMIC = "dynamic"  # the metadata's word for a length that is not fixed

# Width and height of a small canvas, in divisors of the model.
_SMALL = 4

# Models that the exporter can write.
MODEL_NAMES = ("xfeat", "disk", "aliked", "aliked-n16rot", "aliked-n32", "aliked-t16", "superpoint")

EXTRACTOR = "extractor"
MATCHER = "matcher"
PIPELINE = "pipeline"

_FEATURES = ("keypoints", "keypoint_scores", "keypoint_mask", "descriptors")
INPUTS: dict[str, tuple[str, ...]] = {
    EXTRACTOR: ("images", "sizes", "scales", "valid", "masks", "max_keypoints"),
    MATCHER: (*_FEATURES, "image_sizes", "pairs", "match_threshold"),
    PIPELINE: ("images", "sizes", "scales", "valid", "masks", "pairs", "max_keypoints", "match_threshold"),
}
OUTPUTS: dict[str, tuple[str, ...]] = {
    EXTRACTOR: _FEATURES,
    MATCHER: ("matches", "match_scores", "layers"),
    PIPELINE: ("keypoints", "keypoint_scores", "keypoint_mask", "matches", "match_scores", "layers"),
}

# The input `masks` where no image has a mask.
NO_MASKS = np.ones((1, 1, 1), np.bool_)

# Zeros that an image needs right of it and below it, in pixels of the canvas, by extractor. Results depend on
# the size of the canvas: near the end of an image through convolutions, everywhere through normalisation over
# the canvas. With these margins, 640 x 193 pixels on a canvas of 640 x 480 give 0.93 to 1.1 times as many
# right matches as on the whole canvas. ALIKED needs the whole canvas: it enlarges its coarse features with
# corners at pixel centres, which shifts them more on a small canvas, and loses a third of its matches. For
# SuperPoint nothing was measured. See bench/canvas.py.
CANVAS_MARGINS = {"xfeat": 24, "disk": 128}


@dataclass(frozen=True)
class GraphInfo:
    """The metadata of an .onnx file of ours.

    Attributes:
        graph: ``extractor``, ``matcher`` or ``pipeline``.
        model: name of the model as in the registry, such as ``xfeat``.
        extractor: the detector and descriptor, such as ``xfeat``.
        max_keypoints: K, the number of keypoint slots per image.
        channels: C of ``images`` of a static export, 1 (grey) or 3 (RGB); None if both are possible.
        image_size: (width, height) of the canvas of a static export, None if it is dynamic.
        batch: N of a static export, None if it is dynamic.
        pairs: P of a static export, None if it is dynamic.
        divisor: width and height of the canvas must be multiples of this.
        precision: ``fp32``, ``fp16`` or ``int8``.
        target: ``cpu`` or ``gpu`` in ONNX Runtime, or ``portable``.
        adaptive: True if pairs may stop early and points may be pruned.
        depth_confidence: share of confident points at which a pair stops; -1 is never.
        width_confidence: confidence that a point has no partner at which it is pruned; -1 is never.
        descriptor_dim: D, the width of a descriptor.
        keypoint_reach: pixels of the canvas by which the extractor moves a keypoint between pixels, at most.
        weights_sha256: SHA-256 of each weights file, extractor first.
        tensorrt: True if TensorRT can run it: it is static, and all its operators are on TensorRT's list.
        min_onnxruntime: the lowest ONNX Runtime version that runs the file.
    """

    graph: str
    model: str
    extractor: str
    max_keypoints: int
    channels: int | None
    image_size: tuple[int, int] | None
    batch: int | None
    pairs: int | None
    divisor: int
    precision: str
    target: str
    adaptive: bool
    depth_confidence: float
    width_confidence: float
    descriptor_dim: int
    keypoint_reach: int
    weights_sha256: tuple[str, ...]
    licence: str
    tensorrt: bool
    min_onnxruntime: str
    contract_version: int = CONTRACT_VERSION

    def check(self, images: int, pairs: int, max_keypoints: int | None) -> None:
        """Raise a ConfigError if a run with these numbers does not fit; None is not checked."""
        for name, count, length, option in (
            ("images", images, self.batch, "--batch"),
            ("pairs", pairs, self.pairs, "--pairs"),
        ):
            if length is not None and count > length:
                raise ConfigError(
                    f"{count} {name} do not fit a model exported for {length}",
                    allowed=f"up to {length}",
                    fix=f"export it with {option} {count}, or without --image-size for any number",
                )
        slots = self.max_keypoints
        if max_keypoints is not None and max_keypoints not in range(1, slots + 1):
            raise ConfigError(
                f"max_keypoints is {max_keypoints}",
                allowed=f"1 to {slots}, the keypoint slots of this model",
                fix=f"lightglue_ros export {self.model} --split --max-keypoints {max(max_keypoints, 1)}",
            )

    @property
    def is_static(self) -> bool:
        """True if all shapes are fixed."""
        return self.batch is not None

    def to_metadata(self) -> dict[str, str]:
        """Encode as the metadata entries of the .onnx file."""
        return {METADATA_PREFIX + f.name: _encode(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: str) -> GraphInfo:
        """Decode the metadata of the file at ``path``.

        Raises:
            ModelError: the file is not an export of ours, its metadata is incomplete, or it follows another
                version of the contract.
        """
        again = f"export it again: {export_command(path, metadata.get(METADATA_PREFIX + 'model'))}"
        if not any(key.startswith(METADATA_PREFIX) for key in metadata):
            raise ModelError(
                f"{path} is an ONNX file without the metadata of lightglue_ros",
                allowed="files written by 'lightglue_ros export'",
                fix=again,
            )
        version = metadata.get(METADATA_PREFIX + "contract_version")
        if version != str(CONTRACT_VERSION):
            raise ModelError(
                f"{path} follows contract version {version}, this runtime follows {CONTRACT_VERSION}",
                fix=again,
            )
        try:
            texts = ((it, metadata[METADATA_PREFIX + it.name]) for it in fields(cls))
            return cls(**{it.name: _DECODERS[str(it.type)](text) for it, text in texts})
        except (KeyError, ValueError) as error:
            raise ModelError(f"{path} has incomplete or unreadable metadata ({error})", fix=again) from error


def empty_inputs(info: GraphInfo) -> dict[str, np.ndarray]:
    """Make inputs of a graph for a first run: black images, or images without keypoints.

    They have the shapes of a static export, or small ones.
    """
    images, pairs, slots = info.batch or 1, info.pairs or 1, info.max_keypoints
    width, height = info.image_size or (_SMALL * info.divisor, _SMALL * info.divisor)
    sizes = np.full((images, 2), (width, height), np.float32)
    tensors: dict[str, np.ndarray] = {
        "images": np.zeros((images, height, width, info.channels or 1), np.uint8),
        "sizes": sizes,
        "scales": np.ones((images, 2), np.float32),
        "valid": np.ones(images, np.bool_),
        "masks": np.ones((images, height, width), np.bool_) if info.is_static else NO_MASKS,
        "image_sizes": sizes,
        "pairs": np.zeros((pairs, 2), np.int64),
        "max_keypoints": np.array([slots], np.int64),
        "match_threshold": np.array([0.1], np.float32),
        "keypoints": np.zeros((images, slots, 2), np.float32),
        "keypoint_scores": np.zeros((images, slots), np.float32),
        "keypoint_mask": np.zeros((images, slots), np.bool_),
        "descriptors": np.zeros((images, slots, info.descriptor_dim), np.float32),
    }
    return {name: tensors[name] for name in INPUTS[info.graph]}


def _encode(value: object) -> str:
    if value is None:
        return DYNAMIC
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        separator = "x" if value and isinstance(value[0], int) else ","
        return separator.join(str(item) for item in value)
    return str(value)


def _optional_size(text: str) -> tuple[int, int] | None:
    if text == DYNAMIC:
        return None
    width, height = text.split("x")
    return int(width), int(height)


_DECODERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: {"yes": True, "no": False}[text],
    "int | None": lambda text: None if text == DYNAMIC else int(text),
    "tuple[int, int] | None": _optional_size,
    "tuple[str, ...]": lambda text: tuple(item for item in text.split(",") if item),
}

# Options of the export command, with what stands for each in the name of a folder such as disk-k512-int8: a
# prefix, and the pattern of its value. The order is that of the exporter's ExportOptions.stored_name.
_OPTIONS = {
    "--max-keypoints": ("-k", r"\d+"),
    "--precision": ("-", "fp16|int8"),
    "--opset": ("-opset", r"\d+"),
    "--target": ("-", "cpu|gpu|portable"),
    "--subpixel": ("-subpixel", ""),
    "--adaptive": ("-adaptive", ""),
    "--depth-confidence": ("-depth", r"-?[\d.]+"),
    "--width-confidence": ("-width", r"-?[\d.]+"),
    "--image-size": ("-", r"\d+x\d+"),
    "--batch": ("-n", r"\d+"),
    "--pairs": ("-p", r"\d+"),
    "--channels": ("-c", r"\d"),
}
# The longest models first, because aliked-n32 is a model and not aliked for 32 images.
_NAME = re.compile(
    f"({'|'.join(sorted(MODEL_NAMES, key=len, reverse=True))})"
    + "".join(f"(?:{prefix}({value}))?" for prefix, value in _OPTIONS.values())
)
# Options of an adaptive export, which is for CPUs only and has free shapes.
NOT_ADAPTIVE = dict.fromkeys(("--adaptive", "--depth-confidence", "--width-confidence"))


def export_command(model: str | os.PathLike[str], known: str | None = None) -> str:
    """Build the command that exports a model.

    Args:
        model: a name in the store, a folder with such a name, or its file.
        known: the model as the file's metadata names it, which counts more than the name of the folder.
    """
    path = Path(model)
    folder = _folder(path)
    split = {"--split": ""} if path.name != "pipeline.onnx" else {}
    named = _parse(folder.name)
    if named is None or known not in (None, named[0]):
        return _command(known or "MODEL", split, folder if known else "FOLDER")
    return _command(named[0], split | named[1], folder if str(model) != folder.name else None)


def other_export(model: str | os.PathLike[str], info: GraphInfo, changes: Mapping[str, str | None]) -> str:
    """Build the advice to export a model with other options next to the present one, and to load it.

    Args:
        model: a name in the store, a folder, or a file.
        info: the metadata of the model.
        changes: options of the command with their values; None leaves an option out.
    """
    folder = _folder(Path(model))
    named = _parse(folder.name)
    if named is not None and named[0] == info.model:
        options = _changed(named[1], changes)
        name = _name(info.model, options)
    else:
        # The name of a folder of the user's own does not tell the options.
        options = _changed(_options_of(info), changes)
        name = _name(folder.name, _changed({}, changes))
    is_stored = named is not None and str(model) == folder.name
    made = name if is_stored else folder.with_name(name)
    command = _command(info.model, {"--split": ""} | options, None if is_stored else made)
    return f"{command}, then set model to {made}"


def for_gpus(info: GraphInfo) -> dict[str, str | None]:
    """Return the changes that make an export for GPUs of another one, for `other_export`."""
    target = {"--target": "gpu"} if info.precision == "fp32" else {"--target": None, "--precision": "fp16"}
    return NOT_ADAPTIVE | target


def _folder(path: Path) -> Path:
    return path.absolute().parent if path.suffix == ".onnx" else path


def _parse(name: str) -> tuple[str, dict[str, str]] | None:
    """Return the model and the options that a folder's name stands for; None if it is not such a name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    values = zip(_OPTIONS, found.groups()[1:], strict=True)
    return found[1], {option: value for option, value in values if value is not None}


def _name(model: str, options: Mapping[str, str]) -> str:
    suffixes = (f"{prefix}{options[it]}" for it, (prefix, _) in _OPTIONS.items() if it in options)
    return model + "".join(suffixes)


def _changed(options: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    return {option: value for option, value in {**options, **changes}.items() if value is not None}


def _options_of(info: GraphInfo) -> dict[str, str]:
    """Return the options that an export was made with, as far as its metadata have them."""
    values = {
        "--max-keypoints": info.max_keypoints,
        "--precision": None if info.precision == "fp32" else info.precision,
        "--image-size": None if info.image_size is None else "{}x{}".format(*info.image_size),
        "--batch": info.batch,
        "--pairs": info.pairs,
        "--channels": info.channels,
    }
    return {option: str(value) for option, value in values.items() if value is not None}


def _command(model: str, options: Mapping[str, str], output: Path | str | None) -> str:
    words = ["lightglue_ros export", model]
    for option in ("--split", *_OPTIONS):
        if option in options:
            words += filter(None, (option, options[option]))
    return " ".join(words + ([f"-o {output}"] if output else []))
