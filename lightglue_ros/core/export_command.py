"""The `lightglue_ros export` command that writes a model, found from the name of its folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

# What may follow the model in the name of a folder such as disk-k512-int8, in the order of the exporter's
# ExportOptions.suffixes, and the option of the command that it stands for.
_OPTIONS = {
    r"-k(\d+)": "--max-keypoints",
    r"-(fp16|int8)": "--precision",
    r"-opset(\d+)": "--opset",
    r"-portable()": "--portable",
    r"-all-slots()": "--no-compaction",
    r"-adaptive()": "--adaptive",
    r"-depth(-?[\d.]+)": "--depth-confidence",
    r"-width(-?[\d.]+)": "--width-confidence",
    r"-(\d+x\d+)": "--image-size",
    r"(?<=\d)-n(\d+)": "--batch",  # not the end of the model aliked-n32
    r"-p(\d+)": "--pairs",
    r"-c(\d)": "--channels",
}
_NAME = re.compile(r"(.+?)" + "".join(f"(?:{suffix})?" for suffix in _OPTIONS), re.DOTALL)


def export_command(model: str | os.PathLike[str]) -> str:
    """Build the command that exports a model.

    Args:
        model: name in the store, folder, or .onnx file; a folder is taken to have a name of the store.
    """
    path = Path(model)
    folder = path.absolute().parent if path.suffix == ".onnx" else path
    name = _NAME.fullmatch(folder.name or "xfeat")
    assert name  # any text that is not empty
    words = ["lightglue_ros export", name[1]]
    words += ["--split"] if path.name != "pipeline.onnx" else []
    for option, value in zip(_OPTIONS.values(), name.groups()[1:], strict=True):
        if value is not None:
            words += [option, value] if value else [option]
    words += ["-o", str(folder)] if str(model) != folder.name else []
    return " ".join(words)
