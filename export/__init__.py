"""The models in PyTorch, their pinned weights, and the export to ONNX with its self-check.

Importing this package is light: PyTorch and onnx are asked for only when ``export_model`` is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lightglue_ros.core.errors import ModelError

if TYPE_CHECKING:
    from lightglue_ros.export.exporter import export_model

__all__ = ["export_model"]

_EXPORT_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def __getattr__(name: str) -> object:
    """Import the exporter when it is asked for.

    Raises:
        ModelError: PyTorch, onnx, onnxscript or ONNX Runtime is not installed.
    """
    if name != "export_model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for package in _EXPORT_PACKAGES:
        _require(package)
    return importlib.import_module("lightglue_ros.export.exporter").export_model


def _require(package: str) -> None:
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModelError(
            f"exporting needs the Python package '{package}', which is not installed",
            fix="pip install torch onnx onnxscript onnxruntime (on any machine; then copy the files)",
        ) from error
