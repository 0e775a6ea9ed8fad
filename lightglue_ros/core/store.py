"""The model store: where exported models and downloaded weights live.

$LIGHTGLUE_ROS_HOME (default ~/.cache/lightglue_ros)
    models/<name>/pipeline.onnx, extractor.onnx, matcher.onnx
    weights/<file>
    engines/, built by TensorRT for this machine
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightglue_ros.core.contract import EXTRACTOR, MATCHER, PIPELINE, GraphInfo, export_command
from lightglue_ros.errors import ModelError

SPLIT = (EXTRACTOR, MATCHER)


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model: ``pipeline``, or ``extractor`` and ``matcher``, or all three."""

    extractor: Path | None
    matcher: Path | None
    pipeline: Path | None

    @property
    def is_split(self) -> bool:
        """True if images can be extracted, and their features be matched later."""
        return self.extractor is not None and self.matcher is not None

    def paths(self, graphs: Sequence[str] | None = None) -> dict[str, Path]:
        """Return the files of graphs of a split model; by default those of a split model, or of a pipeline.

        Raises:
            ModelError: this is only a pipeline.onnx, and graphs of a split model are asked for.
        """
        if self.pipeline is not None and not self.is_split:
            if graphs is None:
                return {PIPELINE: self.pipeline}
            raise ModelError(
                f"{self.pipeline} goes from images to matches and has no features to keep or to send",
                allowed="a model with extractor.onnx and matcher.onnx",
                fix=export_command(self.pipeline.with_name(f"{EXTRACTOR}.onnx")),
            )
        return {graph: getattr(self, graph) for graph in (SPLIT if graphs is None else graphs)}

    def require_same_model(self, extractor: GraphInfo, matcher: GraphInfo) -> None:
        """Raise a ModelError if extractor and matcher do not belong together."""
        for field in ("model", "max_keypoints", "descriptor_dim", "weights_sha256", "batch", "pairs"):
            if getattr(extractor, field) != getattr(matcher, field):
                raise ModelError(
                    f"{self.extractor} and {self.matcher} do not belong together: {field} is "
                    f"{getattr(extractor, field)} in one and {getattr(matcher, field)} in the other",
                    fix=export_command(self.extractor or extractor.model, extractor.model),
                )


def home() -> Path:
    """Return the folder of the store. It need not exist."""
    return Path(os.environ.get("LIGHTGLUE_ROS_HOME") or Path.home() / ".cache" / "lightglue_ros")


def models_dir() -> Path:
    """Return the folder with one folder per exported model."""
    return home() / "models"


def weights_dir() -> Path:
    """Return the folder of downloaded weights and check images."""
    return home() / "weights"


def engines_dir() -> Path:
    """Return the folder of TensorRT's engines."""
    return home() / "engines"


def find_model(model: str | os.PathLike[str]) -> ModelFiles:
    """Find a model by its name in the store, or by the path of its folder or of a pipeline.onnx.

    Raises:
        ModelError: the model is missing.
    """
    path = Path(model).expanduser()
    if path.suffix == ".onnx":
        if not path.is_file():
            allowed = "the path of a .onnx file that exists"
            raise ModelError(f"no model file {path}", allowed=allowed, fix=export_command(path))
        if path.stem not in (EXTRACTOR, MATCHER):
            return ModelFiles(extractor=None, matcher=None, pipeline=path)
        model = path = path.parent
    named = models_dir() / str(model)
    folder = named if named.is_dir() or not path.is_dir() else path
    paths = (folder / f"{graph}.onnx" for graph in (EXTRACTOR, MATCHER, PIPELINE))
    files = ModelFiles(*(path if path.is_file() else None for path in paths))
    if files.is_split or files.pipeline:
        return files
    known = ", ".join(sorted({path.parent.name for path in models_dir().glob("*/*.onnx")})) or "none yet"
    raise ModelError(
        f"no model '{model}': neither {named} nor a folder of that path holds extractor.onnx and "
        "matcher.onnx, or pipeline.onnx",
        allowed=f"a name in the store ({known}), a folder, or a .onnx file",
        fix=f"{export_command(model)} (on any machine with PyTorch; then copy the files)",
    )
