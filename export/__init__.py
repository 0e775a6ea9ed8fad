"""Export of the models from PyTorch to ONNX.

PyTorch and onnx are imported only when ``export_model`` or ``MODELS`` is used, so that this package can be
imported without them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lightglue_ros.errors import ModelError

if TYPE_CHECKING:
    from lightglue_ros.export.exporter import export_model
    from lightglue_ros.export.registry import MODELS

__all__ = ["MODELS", "export_model"]

_MODULES = {"MODELS": "registry", "export_model": "exporter"}


def __getattr__(name: str) -> object:
    """Import the exporter or the registry on first use.

    Raises:
        ModelError: PyTorch, onnx, onnxscript or ONNX Runtime is not installed.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
            raise ModelError(
                f"exporting needs the Python package '{package}', which is not installed",
                fix="pip install torch onnx onnxscript onnxruntime (on any machine; then copy the files)",
            ) from error
    return getattr(importlib.import_module(f"lightglue_ros.export.{_MODULES[name]}"), name)
