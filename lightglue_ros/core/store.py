"""The model store: where exported models and downloaded weights live.

$LIGHTGLUE_ROS_HOME (default ~/.cache/lightglue_ros)
    models/<name>/pipeline.onnx, extractor.onnx, matcher.onnx
    weights/<file>
    engines/, what TensorRT built for this machine
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lightglue_ros.core.contract import EXTRACTOR, MATCHER, PIPELINE
from lightglue_ros.errors import ModelError

# A name that export gives, with what each part says under the name of the option that is behind it.
_STORED_NAME = re.compile(
    r"(?s)(?P<model>.+?)(-k(?P<max_keypoints>\d+))?(-(?P<precision>fp16|int8))?(-opset(?P<opset>\d+))?"
    r"(?P<portable>-portable)?(?P<no_compaction>-all-slots)?(?P<adaptive>-adaptive)?"
    r"(-depth(?P<depth_confidence>-?[\d.]+))?(-width(?P<width_confidence>-?[\d.]+))?"
    r"(-(?P<image_size>\d+x\d+)(-n(?P<batch>\d+))?(-p(?P<pairs>\d+))?(-c(?P<channels>\d))?)?"
)
_SWITCHES = ("portable", "no_compaction", "adaptive")


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model: ``pipeline``, or ``extractor`` and ``matcher``, or all three."""

    extractor: Path | None
    matcher: Path | None
    pipeline: Path | None

    @property
    def is_split(self) -> bool:
        """Whether images can be extracted and features matched apart."""
        return self.extractor is not None and self.matcher is not None


def home() -> Path:
    """The folder of the store. It need not exist."""
    return Path(os.environ.get("LIGHTGLUE_ROS_HOME") or Path.home() / ".cache" / "lightglue_ros")


def models_dir() -> Path:
    """The folder with one folder for each exported model."""
    return home() / "models"


def weights_dir() -> Path:
    """The folder of downloaded weights and check images."""
    return home() / "weights"


def engines_dir() -> Path:
    """The folder of TensorRT's engines."""
    return home() / "engines"


def model_names() -> list[str]:
    """Names of the models in the store, sorted."""
    return sorted({path.parent.name for path in models_dir().glob("*/*.onnx")})


def find_model(model: str | os.PathLike[str]) -> ModelFiles:
    """Find a model by its name in the store, or by the path of its folder or of a pipeline.onnx.

    Raises:
        ModelError: there is none.
    """
    path = Path(model).expanduser()
    if path.suffix == ".onnx":
        return _from_file(path)
    named = models_dir() / str(model)
    folder = named if named.is_dir() or not path.is_dir() else path
    files = ModelFiles(*(_existing(folder / f"{graph}.onnx") for graph in (EXTRACTOR, MATCHER, PIPELINE)))
    if files.is_split or files.pipeline:
        return files
    known = ", ".join(model_names()) or "none yet"
    raise ModelError(
        f"no model '{model}': neither {named} nor a folder of that path holds extractor.onnx and "
        "matcher.onnx, or pipeline.onnx",
        allowed=f"a name in the store ({known}), a folder, or a .onnx file",
        fix=f"{_export_command(str(model))} (on any machine with PyTorch; then copy the files)",
    )


def _export_command(name: str) -> str:
    """What exports the model that is stored under a name such as xfeat-k512-int8; XFeat for a path."""
    said = _STORED_NAME.fullmatch(name if Path(name).name == name and name else "xfeat").groupdict()
    words = ["lightglue_ros export", said.pop("model"), "--split"]
    for option, value in said.items():
        if value is not None:
            words.append(f"--{option.replace('_', '-')}")
            words += [] if option in _SWITCHES else [value]
    return " ".join(words)


def _from_file(path: Path) -> ModelFiles:
    if not path.is_file():
        raise ModelError(
            f"no model file {path}",
            allowed="a path to a .onnx file that exists",
            fix="lightglue_ros export xfeat --split",
        )
    if path.stem in (EXTRACTOR, MATCHER):
        return find_model(path.parent)
    return ModelFiles(extractor=None, matcher=None, pipeline=path)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
