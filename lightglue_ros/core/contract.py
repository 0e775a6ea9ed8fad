"""The contract between the exporter and the runtime: tensor names and metadata of the graphs.

N images (one per camera slot), P pairs, K keypoint slots, D descriptor width. K is fixed at export, and in a
static export N, P, H, W and C as well: there the runtime fills up with empty slots.

==================  ==================  ==========================================================
tensor              type, shape         meaning
==================  ==================  ==========================================================
images              uint8 [N, H, W, C]  C = 1 grey or 3 RGB, whatever the extractor looks at; image in
                                        the top-left corner, rest zero
sizes               float32 [N, 2]      (width, height) of the image inside its canvas
scales              float32 [N, 2]      canvas pixels per original pixel (x, y)
valid               bool [N]            this slot holds an image
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

from collections.abc import Mapping
from dataclasses import dataclass, fields

from lightglue_ros.errors import ModelError

CONTRACT_VERSION = 3
METADATA_PREFIX = "lightglue_ros."
DYNAMIC = "dynamic"  # what the metadata says of a length that is not fixed

EXTRACTOR = "extractor"
MATCHER = "matcher"
PIPELINE = "pipeline"

INPUTS: dict[str, tuple[str, ...]] = {
    EXTRACTOR: ("images", "sizes", "scales", "valid", "max_keypoints"),
    MATCHER: (
        "keypoints",
        "keypoint_scores",
        "keypoint_mask",
        "descriptors",
        "image_sizes",
        "pairs",
        "match_threshold",
    ),
    PIPELINE: ("images", "sizes", "scales", "valid", "pairs", "max_keypoints", "match_threshold"),
}
OUTPUTS: dict[str, tuple[str, ...]] = {
    EXTRACTOR: ("keypoints", "keypoint_scores", "keypoint_mask", "descriptors"),
    MATCHER: ("matches", "match_scores", "layers"),
    PIPELINE: ("keypoints", "keypoint_scores", "keypoint_mask", "matches", "match_scores", "layers"),
}


@dataclass(frozen=True)
class GraphInfo:
    """What an .onnx file of ours says about itself in its metadata.

    Attributes:
        graph: ``extractor``, ``matcher`` or ``pipeline``.
        model: name of the model as in the registry, such as ``xfeat``.
        extractor: the detector and descriptor, such as ``xfeat``.
        max_keypoints: K, the number of keypoint slots per image.
        channels: C of ``images`` of a static export, 1 (grey) or 3 (RGB); None where both will do.
        image_size: (width, height) of the canvas of a static export, None where it is dynamic.
        batch: N of a static export, None where it is dynamic.
        pairs: P of a static export, None where it is dynamic.
        divisor: width and height of the canvas must be multiples of this.
        precision: ``fp32``, ``fp16`` or ``int8``.
        compaction: whether it matches with as many slots as the image with the most keypoints needs.
        fused: whether it has operators of ONNX Runtime's own, which other runtimes lack.
        adaptive: whether pairs may stop early and points may be pruned.
        depth_confidence: share of points that must be sure before a pair stops; -1 is never.
        width_confidence: how sure it must be that a point has no partner before it is pruned; -1 is never.
        descriptor_dim: D, the width of a descriptor.
        weights_sha256: SHA-256 of each weights file, extractor first.
        licence: licence of the weights.
        tensorrt: whether TensorRT takes it: static, and all its operators are on TensorRT's list.
        min_onnxruntime: the least ONNX Runtime version that runs the file.
        contract_version: version of this contract.
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
    compaction: bool
    fused: bool
    adaptive: bool
    depth_confidence: float
    width_confidence: float
    descriptor_dim: int
    weights_sha256: tuple[str, ...]
    licence: str
    tensorrt: bool
    min_onnxruntime: str
    contract_version: int = CONTRACT_VERSION

    @property
    def is_static(self) -> bool:
        """Whether all shapes are fixed."""
        return self.batch is not None

    def to_metadata(self) -> dict[str, str]:
        """The metadata entries to write into the .onnx file."""
        return {METADATA_PREFIX + f.name: _encode(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: str) -> GraphInfo:
        """Read the metadata of the file at ``path``.

        Raises:
            ModelError: the file is not ours, its metadata is incomplete, or it follows another
                version of the contract.
        """
        own = {
            key.removeprefix(METADATA_PREFIX): value
            for key, value in metadata.items()
            if key.startswith(METADATA_PREFIX)
        }
        again = "export it again: lightglue_ros export xfeat --split"
        if not own:
            raise ModelError(
                f"{path} is an ONNX file without the metadata of lightglue_ros",
                allowed="files written by 'lightglue_ros export'",
                fix=again,
            )
        version = own.get("contract_version")
        if version != str(CONTRACT_VERSION):
            raise ModelError(
                f"{path} follows contract version {version}, this runtime follows {CONTRACT_VERSION}",
                fix=again,
            )
        try:
            return cls(**{f.name: _DECODERS[f.name](own[f.name]) for f in fields(cls)})
        except (KeyError, ValueError) as error:
            raise ModelError(f"{path} has incomplete or unreadable metadata ({error})", fix=again) from error


def _encode(value: object) -> str:
    if value is None:
        return DYNAMIC
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        separator = "x" if value and isinstance(value[0], int) else ","
        return separator.join(str(item) for item in value)
    return str(value)


def _decode_size(text: str) -> tuple[int, int] | None:
    if text == DYNAMIC:
        return None
    width, height = text.split("x")
    return int(width), int(height)


def _decode_count(text: str) -> int | None:
    return None if text == DYNAMIC else int(text)


def _decode_bool(text: str) -> bool:
    return {"yes": True, "no": False}[text]


def _decode_list(text: str) -> tuple[str, ...]:
    return tuple(item for item in text.split(",") if item)


_DECODERS = {
    "graph": str,
    "model": str,
    "extractor": str,
    "max_keypoints": int,
    "channels": _decode_count,
    "image_size": _decode_size,
    "batch": _decode_count,
    "pairs": _decode_count,
    "divisor": int,
    "precision": str,
    "compaction": _decode_bool,
    "fused": _decode_bool,
    "adaptive": _decode_bool,
    "depth_confidence": float,
    "width_confidence": float,
    "descriptor_dim": int,
    "weights_sha256": _decode_list,
    "licence": str,
    "tensorrt": _decode_bool,
    "min_onnxruntime": str,
    "contract_version": int,
}
